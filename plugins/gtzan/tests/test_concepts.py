"""Genres and tempo classes as concepts; no annotation and no track is lost without a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from captum_concepts_gtzan.concepts import genre_concepts, tempo_concepts

from captum_concepts.errors import InputError
from captum_concepts.plugins import lookup


def with_tempos(root: Path, **tempos: str) -> Path:
    (root / "tempo").mkdir(exist_ok=True)
    for name, text in tempos.items():
        (root / "tempo" / f"gtzan_{name}.bpm").write_text(text)
    return root


def test_each_genre_is_a_concept_and_each_track_a_group(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, genres=("jazz", "hip-hop"))
    (root / "genres/jazz/jazz.00054.wav").write_bytes(b"broken")
    found = lookup("concept_sources", "gtzan-genres").factory(str(root))
    assert found.names == ("hiphop", "jazz")
    assert found.n_groups().tolist() == [3, 3] and found.labels.sum(1).tolist() == [1] * 6
    assert found.negatives == "rest"
    assert len(found.skipped) == 1 and "jazz.00054" in found.skipped[0][2]


def test_tempos_become_classes(tmp_path: Path, gtzan_like: Callable) -> None:
    root = with_tempos(
        gtzan_like(tmp_path, genres=("jazz", "hip-hop")),
        jazz_00000="8.999e+01\n",
        jazz_00001="90",
        jazz_00002="119.9 ",
        hiphop_00000="120",
        hiphop_00001="240.5",
        hiphop_00002="30",
    )
    found = lookup("concept_sources", "gtzan-tempo").factory(str(root))
    assert found.names == ("below 90 bpm", "90 to 120 bpm", "120 bpm and above")
    marked = {
        Path(clip.path).name: found.names[row.argmax()] for clip, row in zip(found.clips, found.labels, strict=True)
    }
    assert marked == {
        "jazz.00000.wav": "below 90 bpm",
        "hip-hop.00002.wav": "below 90 bpm",
        "jazz.00001.wav": "90 to 120 bpm",
        "jazz.00002.wav": "90 to 120 bpm",
        "hip-hop.00000.wav": "120 bpm and above",
        "hip-hop.00001.wav": "120 bpm and above",
    }
    assert found.skipped == []


def test_edges_and_folder_of_labels_can_be_given(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path / "data")
    labels = tmp_path / "labels"
    labels.mkdir()
    for place, genre in enumerate(("blues", "jazz")):
        for number in range(3):
            (labels / f"{genre}.{number:05d}.bpm").write_text(str(60 + 30 * number + place))
    found = tempo_concepts(root, edges=(75, 105.5), labels=labels)
    assert found.names == ("below 75 bpm", "75 to 105.5 bpm", "105.5 bpm and above")
    assert found.n_groups().tolist() == [2, 2, 2]


def test_what_has_no_tempo_or_no_track_is_told(tmp_path: Path, gtzan_like: Callable) -> None:
    root = with_tempos(
        gtzan_like(tmp_path), blues_00000="80", blues_00001="nan", jazz_00000="130", jazz_00009="99", jazz_00001="-3"
    )
    (root / "tempo" / "notes.bpm").write_text("80")
    (root / "tempo" / "gtzan_jazz_00002.bpm").write_bytes(b"\xff" * 1000)
    found = tempo_concepts(root)
    assert found.names == ("below 90 bpm", "120 bpm and above")
    assert sorted((Path(where).name, status) for where, status, _ in found.skipped) == [
        ("blues.00001.wav", "no concept"),
        ("blues.00002.wav", "no concept"),
        ("gtzan_blues_00001.bpm", "unreadable"),
        ("gtzan_jazz_00001.bpm", "unreadable"),
        ("gtzan_jazz_00002.bpm", "unreadable"),
        ("jazz.00001.wav", "no concept"),
        ("jazz.00002.wav", "no concept"),
        ("jazz.00009", "missing"),
        ("notes.bpm", "mislabelled"),
    ]


@pytest.mark.parametrize("edges", [(), (120, 90), (90, 90), (0, 90), (90, float("nan")), (90, float("inf"))])
def test_edges_that_are_none_are_refused(tmp_path: Path, edges: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="ascending positive"):
        tempo_concepts(tmp_path, edges=edges)


def test_data_without_tempos_is_refused_in_one_line(tmp_path: Path, gtzan_like: Callable) -> None:
    with pytest.raises(InputError, match=r"no \.bpm file"):
        tempo_concepts(gtzan_like(tmp_path))
    with pytest.raises(InputError, match="none of 1 tempos is of one of 6 tracks"):
        tempo_concepts(with_tempos(tmp_path, polka_00001="100"))
    with pytest.raises(InputError, match="no such folder"):
        genre_concepts(tmp_path / "nowhere")


def test_the_real_tempos(shared: Callable[[str], Path]) -> None:
    found = tempo_concepts(shared("gtzan_mini"))
    assert found.n_groups().tolist() == [27, 33, 40] and found.skipped == []
