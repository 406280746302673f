from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from captum_concepts_deezer.playlists import Playlist, concept_names, deezer_concepts, read_playlists

from captum_concepts.errors import InputError


def entry(title, tracks):
    return {"tracks_array": tracks, "formatted_title": title}


@pytest.fixture
def dataset(tmp_path, proto):
    """A folder in the paper's layout with tracks 0 to 11 in two subfolders, track 11 without a file."""

    def write(playlists, tracks=range(11)):
        np.save(tmp_path / "deezer_playlists.npy", playlists, allow_pickle=True)
        for track in tracks:
            folder = tmp_path / "deezer_anonymised_tracks" / f"part{track % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{track}.tensor").write_bytes(proto(np.full((29, 128), track, np.float32)))
        return tmp_path

    return write


PLAYLISTS = {
    10: entry("Rock", [0, 1, 2]),
    11: entry("Jazz", np.array([3, 4, 5, 3])),
    12: entry("Rock", [6, 7, 11]),
    13: entry("Tiny", [8]),
    14: entry("Long", [0, 1, 2, 3, 4]),
}


def test_playlists_become_concepts(dataset, caplog):
    folder = dataset(PLAYLISTS)
    with caplog.at_level(logging.WARNING):
        concepts = deezer_concepts(folder, min_tracks=3, max_tracks=5)
    assert concepts.names == ("Rock (10)", "Jazz", "Rock (12)")
    stems = [os.path.splitext(os.path.basename(clip.path))[0] for clip in concepts.clips]
    marked = {
        name: [stems[row] for row in np.flatnonzero(concepts.labels[:, k])] for k, name in enumerate(concepts.names)
    }
    assert marked == {"Rock (10)": ["0", "1", "2"], "Jazz": ["3", "4", "5"], "Rock (12)": ["6", "7"]}
    assert len(concepts.group_names) == 8
    assert concepts.negatives == "rest"
    assert [(os.path.basename(path), status) for path, status, _ in concepts.skipped] == [("11.tensor", "missing")]
    assert "1 of 9 tracks have no .tensor file" in caplog.text


def test_the_papers_limits_are_the_default(dataset):
    playlists = {n: entry(f"of {n}", list(range(n))) for n in (38, 39, 250, 251)}
    assert deezer_concepts(dataset(playlists)).names == ("of 39", "of 250")


def test_titles_that_repeat_or_are_missing():
    titles = [("1", "Rock"), ("2", "Rock"), ("3", "Rock (1)"), ("4", ""), ("5", ""), ("6", "Jazz")]
    names = concept_names([Playlist(id, title, ()) for id, title in titles])
    assert names == ["Rock (1) (1)", "Rock (2)", "Rock (1)", "playlist (4)", "playlist (5)", "Jazz"]


def test_titles_are_compared_as_concepts_are_named(dataset):
    folder = dataset({1: entry(" Cafe\u0301", [0, 1]), 2: entry("Caf\u00e9", [2, 3]), 3: entry(None, [4, 5])})
    assert deezer_concepts(folder, min_tracks=1).names == ("Café (1)", "Café (2)", "playlist (3)")


def test_order_of_files_does_not_matter_for_a_track_given_twice(dataset, proto):
    folder = dataset(PLAYLISTS)
    (folder / "a").mkdir()
    (folder / "a" / "0.tensor").write_bytes(proto(np.zeros((29, 128))))
    paths = [clip.path for clip in deezer_concepts(folder, min_tracks=3, max_tracks=4).clips]
    assert paths[0] == str(folder / "a" / "0.tensor")


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    ("playlists", "word"),
    [
        ({1: entry("a", [Evil()])}, "system"),
        (Evil(), "system"),
        ({}, "not a file of playlists"),
        ([None, 2], "not a file of playlists"),
        ({1: [1, 2]}, "tracks_array"),
        ({1: {"formatted_title": "a"}}, "tracks_array"),
        ({1: entry("a", "abc")}, "not a list"),
        ({1: entry("a", np.zeros((2, 2), int))}, "not a list"),
        ({1: entry("a", ["../../etc/passwd"])}, "not an id"),
        ({1: entry("a", ["/etc/passwd"])}, "not an id"),
        ({1: entry("a", [1.5])}, "not an id"),
        ({1: entry("a", [True])}, "not an id"),
        ({1: entry("a", [[1]])}, "not an id"),
        ({"\n": entry("a", [1])}, "not an id"),
    ],
)
def test_bad_playlist_files(dataset, tmp_path, monkeypatch, playlists, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        deezer_concepts(dataset(playlists), min_tracks=1)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_ids_may_be_text(dataset):
    found = read_playlists(dataset({"a_1": entry("x", ["t-1", "t-2"])}) / "deezer_playlists.npy")
    assert found == [Playlist("a_1", "x", ("t-1", "t-2"))]


def test_bad_arguments(dataset, tmp_path):
    with pytest.raises(InputError, match=r"deezer_playlists\.npy"):
        deezer_concepts(tmp_path / "none")
    folder = dataset(PLAYLISTS)
    with pytest.raises(InputError, match="none of 5 playlists has 39 to 250 tracks"):
        deezer_concepts(folder)
    with pytest.raises(InputError, match="min_tracks"):
        deezer_concepts(folder, min_tracks=5, max_tracks=5)


def test_no_tensor_files_at_all(dataset):
    with pytest.raises(InputError, match="for any of 9 tracks"):
        deezer_concepts(dataset(PLAYLISTS, tracks=()), min_tracks=3, max_tracks=5)


def test_playlists_become_a_hierarchy(dataset, proto):
    from captum_concepts_deezer.backbones import deezer_embeddings

    import captum_concepts as cc
    from captum_concepts.activations import extract

    random = np.random.default_rng(0)
    parts = {1: range(0, 12), 2: range(12, 24), 3: range(24, 36)}
    folder = dataset({key: entry(f"part {key}", list(tracks)) for key, tracks in parts.items()}, tracks=range(36))
    for key, tracks in parts.items():
        for track in tracks:
            values = random.normal(size=(29, 128)) + 2 * (np.arange(128) % 3 == key - 1)
            path = folder / "deezer_anonymised_tracks" / f"part{track % 2}" / f"{track}.tensor"
            path.write_bytes(proto(values))
    concepts = deezer_concepts(folder, min_tracks=5)
    extracted = extract(deezer_embeddings(device="cpu"), concepts.clips, ["embedding"])
    tracks = extracted.kept[extracted.rows]
    rows, labels, groups = extracted.activations["embedding"], concepts.labels[tracks], concepts.groups[tracks]
    bank = cc.fit_cavs(rows, labels, groups=groups, names=concepts.names)
    similarity = cc.similarity(bank, measure="activation", activations=rows, labels=labels)
    assert (similarity.argmax(dim=1).numpy() == np.arange(3)).all(), "a playlist's tracks sound most like the playlist"
    hierarchy = cc.mine(similarity, bank.names, miner="heymann")
    assert set(hierarchy.graph) == {"part 1", "part 2", "part 3"}
