"""Parts are disjoint, stratified, the same for the same ids, and torchaudio's where they are published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from captum_concepts_gtzan.dataset import GENRES, Track, Tracks
from captum_concepts_gtzan.splits import Split, file_split, filtered_split, k_fold, stratified_split

from captum_concepts.errors import InputError


def made_up(genres: tuple[str, ...] = GENRES, count: int = 100) -> Tracks:
    ids = [f"{genre}.{number:05d}" for genre in genres for number in range(count)]
    return Tracks(tuple(Track(f"{i}.wav", i.partition(".")[0], i, 30.0) for i in ids), tuple(genres))


def ids(part: tuple[Track, ...]) -> set[str]:
    return {track.track_id for track in part}


def parts(split: Split) -> list[set[str]]:
    return [ids(split.train), ids(split.validation), ids(split.test)]


def test_the_filtered_split_is_that_of_torchaudio() -> None:
    from torchaudio.datasets import gtzan

    split = filtered_split(made_up())
    published = [set(gtzan.filtered_train), set(gtzan.filtered_valid), set(gtzan.filtered_test)]
    assert parts(split) == published
    assert [len(part) for part in parts(split)] == [443, 197, 290]
    assert split.notes == ("70 of 1000 tracks are in no list and left out, the first classical.00042",)


def test_the_filtered_split_of_other_data_is_refused() -> None:
    with pytest.raises(InputError, match="no track for training"):
        filtered_split(made_up(("polka", "waltz")))


def test_tracks_that_are_listed_but_absent_are_told() -> None:
    everything = made_up()
    some = Tracks(tuple(t for t in everything.tracks if int(t.track_id[-2:]) % 2), everything.genres)
    split = filtered_split(some)
    assert sum(map(len, parts(split))) < 500
    assert "listed tracks are not in the data" in split.notes[0]


def write_lists(folder: Path, **lists: list[str]) -> None:
    for part, lines in lists.items():
        (folder / f"{part}_filtered.txt").write_text("\n".join([*lines, ""]))


def test_lists_beside_the_audio_are_read(tmp_path: Path) -> None:
    write_lists(
        tmp_path,
        train=["blues/blues.00000.wav", "jazz/jazz.00001.au"],
        valid=["blues.00001"],
        test=["jazz\\jazz.00002.flac"],
    )
    split = file_split(made_up(("blues", "jazz"), 3), tmp_path)
    assert parts(split) == [{"blues.00000", "jazz.00001"}, {"blues.00001"}, {"jazz.00002"}]
    assert split.notes == ("2 of 6 tracks are in no list and left out, the first blues.00002",)


def test_lists_of_other_data_sets_are_read(tmp_path: Path) -> None:
    names = ["world/artist/one.mp3", "world/artist/two.mp3", "rock/three.mp3"]
    tracks = tuple(Track(name, name.split("/")[0], name.removesuffix(".mp3"), 3.0) for name in names)
    write_lists(tmp_path, train=names[:1], valid=names[1:2], test=names[2:])
    assert [len(part) for part in parts(file_split(Tracks(tracks, ("rock", "world")), tmp_path))] == [1, 1, 1]


def test_wrong_lists_are_refused_in_one_line(tmp_path: Path) -> None:
    tracks = made_up(("blues", "jazz"), 3)
    with pytest.raises(InputError, match=r"train_filtered.txt.*cannot read this list"):
        file_split(tracks, tmp_path)
    write_lists(tmp_path, train=["blues.00000"], valid=["blues.00000"], test=["jazz.00000"])
    with pytest.raises(InputError, match=r"'blues\.00000' is listed for train and for valid"):
        file_split(tracks, tmp_path)
    write_lists(tmp_path, valid=["polka/polka.00001.wav"])
    with pytest.raises(InputError, match="'polka' is not one of the genres blues, jazz"):
        file_split(tracks, tmp_path)
    write_lists(tmp_path, valid=[])
    with pytest.raises(InputError, match="no track for validation"):
        file_split(tracks, tmp_path)
    (tmp_path / "valid_filtered.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read this list"):
        file_split(tracks, tmp_path)


def test_a_stratified_split_spreads_each_genre() -> None:
    split = stratified_split(made_up(), seed=3)
    for part, count in ((split.train, 50), (split.validation, 25), (split.test, 25)):
        assert Counter(track.genre for track in part) == dict.fromkeys(GENRES, count)
    assert len(set.union(*parts(split))) == 1000


def test_folds_hold_each_track_once() -> None:
    splits = k_fold(made_up(count=10), 5)
    assert Counter(t.track_id for split in splits for t in split.test) == dict.fromkeys(
        ids(made_up(count=10).tracks), 1
    )
    for split in splits:
        train, validation, test = parts(split)
        assert (len(train), len(validation), len(test)) == (60, 20, 20)
        assert not train & validation and not train & test and not validation & test
        assert set(Counter(track.genre for track in split.test).values()) == {2}


def test_parts_depend_on_ids_and_seed_only() -> None:
    tracks = made_up(("blues", "jazz"), 9)
    turned = Tracks(tracks.tracks[::-1], tracks.genres)
    assert [parts(a) for a in k_fold(tracks, 3, 7)] == [parts(b) for b in k_fold(turned, 3, 7)]
    assert [parts(a) for a in k_fold(tracks, 3, 7)] != [parts(b) for b in k_fold(tracks, 3, 8)]
    assert parts(stratified_split(tracks, seed=1)) == parts(stratified_split(turned, seed=1))
    assert parts(stratified_split(tracks, seed=1)) != parts(stratified_split(tracks, seed=2))


@pytest.mark.parametrize("k", [0, 1, 4, 2.5])
def test_folds_that_cannot_be_are_refused(k: int) -> None:
    with pytest.raises(InputError, match=r"k=.*at most the 3 tracks of 'blues'"):
        k_fold(made_up(("blues", "jazz"), 3), k)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.25, 0.2)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="three positive numbers"):
        stratified_split(made_up(), shares)
    with pytest.raises(InputError, match=r"validation=1\.5"):
        k_fold(made_up(), validation=1.5)
