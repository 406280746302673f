"""Every layout gives the same tracks, and nothing is lost without a line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from captum_concepts_gtzan.dataset import find_tracks, genre_name

from captum_concepts.errors import InputError

LAYOUTS = [
    ("genres", ".au"),
    ("genres", ".wav"),
    ("genres_original", ".wav"),
    ("Data/genres_original", ".wav"),
    ("genres", ".flac"),
    (".", ".wav"),
]


@pytest.mark.parametrize(("below", "ending"), LAYOUTS)
def test_every_layout_gives_the_same_tracks(tmp_path: Path, gtzan_like: Callable, below: str, ending: str) -> None:
    found = find_tracks(gtzan_like(tmp_path, below, ending))
    assert [track.track_id for track in found.tracks] == [f"{g}.{n:05d}" for g in ("blues", "jazz") for n in range(3)]
    assert found.genres == ("blues", "jazz")
    assert found.skipped == ()
    assert found.labels().tolist() == [0, 0, 0, 1, 1, 1]
    assert all(Path(track.path).suffix == ending for track in found.tracks)


def test_the_folder_of_genres_itself_can_be_given(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path)
    assert find_tracks(root / "genres") == find_tracks(root)


def test_lengths_vary_and_are_told(tmp_path: Path, gtzan_like: Callable) -> None:
    tracks = find_tracks(gtzan_like(tmp_path)).tracks
    assert [track.seconds for track in tracks[:3]] == pytest.approx([0.3, 0.31, 0.32], abs=1e-4)


@pytest.mark.parametrize("folder", ["hiphop", "hip-hop", "Hip Hop", "hip_hop"])
def test_hiphop_has_one_spelling(tmp_path: Path, gtzan_like: Callable, folder: str) -> None:
    found = find_tracks(gtzan_like(tmp_path, genres=(folder,)))
    assert found.genres == ("hiphop",)
    assert [track.track_id for track in found.tracks] == [f"hiphop.{n:05d}" for n in range(3)]
    assert genre_name(folder) == "hiphop"


def test_the_broken_track_of_kaggle_is_reported_and_skipped(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, "genres_original")
    broken = root / "genres_original" / "jazz" / "jazz.00054.wav"
    broken.write_bytes(bytes(range(256)) * 40)
    found = find_tracks(root)
    assert len(found) == 6
    assert len(found.skipped) == 1 and "jazz.00054.wav" in found.skipped[0] and "unreadable" in found.skipped[0]


def test_a_truncated_track_is_reported_and_skipped(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path)
    path = root / "genres" / "blues" / "blues.00001.wav"
    path.write_bytes(path.read_bytes()[:5000])
    found = find_tracks(root)
    assert len(found) == 5 and "truncated" in found.skipped[0]


def test_a_plain_data_set_may_nest_folders_and_mix_formats(tmp_path: Path) -> None:
    sound = np.sin(np.arange(8000) * 0.05)
    paths = ["rock_pop/artist/album/one.wav", "rock_pop/artist/album/two.flac", "world/a.ogg", "world/b/a.ogg"]
    for name in paths:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, sound, 16000)
    found = find_tracks(tmp_path)
    assert found.genres == ("rock_pop", "world")
    ids = ["rock_pop/artist/album/one", "rock_pop/artist/album/two", "world/a", "world/b/a"]
    assert [track.track_id for track in found.tracks] == ids


def test_a_track_in_two_formats_is_taken_once(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path)
    shutil.copy(root / "genres/blues/blues.00000.wav", root / "genres/blues/blues.00000.wave.wav")
    soundfile.write(root / "genres/blues/blues.00000.flac", np.sin(np.arange(9000) * 0.1), 22050)
    found = find_tracks(root)
    assert [track.track_id for track in found.tracks].count("blues.00000") == 1
    assert any("blues.00000" in line and "is there already" in line for line in found.skipped)


def test_loose_files_and_empty_folders_are_told(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, ".")
    shutil.copy(root / "blues/blues.00000.wav", root / "loose.wav")
    (root / "classical").mkdir()
    found = find_tracks(root)
    assert len(found) == 6 and found.genres == ("blues", "jazz")
    assert sorted(line.split(": ")[1] for line in found.skipped) == [
        "no audio in this folder",
        "not in a genre's folder",
    ]


def test_a_genre_that_a_model_does_not_know_is_an_error(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, genres=("blues", "polka"))
    with pytest.raises(InputError, match=r"'polka' is not one of the genres blues, jazz"):
        find_tracks(root, genres=("jazz", "blues"))
    assert len(find_tracks(root, genres=("Blues", "polka"))) == 6


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_tracks(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no track found"):
        find_tracks(tmp_path)
    (tmp_path / "jazz").mkdir()
    (tmp_path / "jazz" / "jazz.00001.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"no track found.*jazz\.00001") as caught:
        find_tracks(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_real_mini_data_set(shared: Callable[[str], Path]) -> None:
    found = find_tracks(shared("gtzan_mini"))
    assert len(found) == 100 and len(found.genres) == 10 and found.skipped == ()
    assert "jazz.00003" not in found.by_id
    assert {29.9 < track.seconds < 30.5 for track in found.tracks} == {True}
