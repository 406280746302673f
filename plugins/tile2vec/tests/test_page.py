from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from captum_concepts_tile2vec.data import Recording
from captum_concepts_tile2vec.embedding_analysis import centroid_distances, cluster
from captum_concepts_tile2vec.page import render_page
from captum_concepts_tile2vec.tiles import find_tiles

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def called(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(tmp_path):
    def render(labels: list[str], sound: bool = True, name: str = HOSTILE) -> str:
        samples = 0.1 * np.random.default_rng(0).standard_normal(32_000)
        recordings = []
        for index, label in enumerate(labels):
            path = tmp_path / f"{index}.wav"
            soundfile.write(path, samples, 16_000)
            recordings.append(Recording(str(path), f"{name} {index}", label, str(index)))
        tiles = find_tiles(recordings, 1.0)
        rows = np.random.default_rng(1).standard_normal((len(tiles), 2))
        return render_page(
            tiles,
            rows,
            np.arange(len(tiles)),
            cluster(rows, tiles.labels, 2),
            [(0, np.array([2, 4])), (1, np.array([5]))],
            centroid_distances(rows, tiles.labels),
            [("purity", "0.5"), (HOSTILE, HOSTILE)],
            method="pca",
            title=HOSTILE,
            sound=sound,
        )

    return render


def test_hostile_names_are_text(page):
    elements = Elements(page([HOSTILE, "b", ""]))
    assert not elements.called("script") and not elements.called("img")
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "<script>alert(1)</script>" in elements.text
    assert "{{ 7 * 7 }}" in elements.text and "49" not in elements.text
    assert elements.called("meta")[1]["content"].startswith("default-src 'none'")


def test_what_is_on_it(page):
    elements = Elements(page(["x", "y", ""], name="r"))
    assert len(elements.called("circle")) == 2 * 6  # by label and by cluster
    assert len(elements.called("audio")) == 5
    assert all(audio["src"].startswith("data:audio/mpeg;base64,") for audio in elements.called("audio"))
    for circle in elements.called("circle"):
        assert 0 <= float(circle["cx"]) <= 600 and 0 <= float(circle["cy"]) <= 450
    assert "r 2 1 s · no label" in elements.text
    assert "Distances between the centroids" in elements.text
    # As the targets of explanations are called.
    assert "r 0 0 s · cluster 1" in elements.text and "cluster 0" not in elements.text
    assert "not shown" not in elements.text


def test_without_labels_or_sound(page):
    elements = Elements(page(["", "", ""], sound=False))
    assert len(elements.called("circle")) == 6
    assert not elements.called("audio")
    assert "centroids" not in elements.text


def test_a_map_of_some_tiles_says_so(tiles_of):
    tiles = tiles_of([300, 200])
    rows = np.random.default_rng(0).standard_normal((500, 2))
    drawn = np.arange(0, 500, 5)
    page = render_page(
        tiles,
        rows[drawn],
        drawn,
        cluster(rows, tiles.labels, 3),
        [(0, np.array([400]))],
        centroid_distances(rows, tiles.labels),
        [],
        method="pca",
        title="",
        sound=False,
    )
    elements = Elements(page)
    assert len(elements.called("circle")) == 100
    assert "400 of the tiles" in elements.text
    assert "2 smaller clusters are not shown" in elements.text
    assert "r0 295 s" in elements.text and "r0 296 s" not in elements.text
