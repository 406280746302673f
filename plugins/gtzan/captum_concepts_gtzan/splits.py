"""Parts of a data set for training, validation and test; a track is never divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from captum_concepts.concepts import stratified_parts
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_gtzan.dataset import Track, Tracks, genre_name

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Three parts without a common track.

    Attributes:
        train, validation, test: tracks in the order of their ids.
        notes: one line for each thing to know: tracks that the lists name and the data lacks, or the reverse.
    """

    train: tuple[Track, ...]
    validation: tuple[Track, ...]
    test: tuple[Track, ...]
    notes: tuple[str, ...] = ()


def filtered_split(tracks: Tracks) -> Split:
    """GTZAN's fault-filtered, artist-separated parts (443, 197 and 290 of the 1,000 tracks).

    Repetitions, distorted and wrongly labelled tracks are left out and no artist is in two parts (C. Kereliuk,
    B. Sturm, J. Larsen, arXiv 1507.04761; faults: B. Sturm, arXiv 1306.1461). The lists are torchaudio's.

    Raises:
        InputError: a part has no track that is present, as in data sets that are not GTZAN.
    """
    from torchaudio.datasets import gtzan

    lists = {"train": gtzan.filtered_train, "valid": gtzan.filtered_valid, "test": gtzan.filtered_test}
    return _listed(tracks, lists)


def file_split(tracks: Tracks, folder: str | PathLike[str], kind: str = "filtered") -> Split:
    """Parts listed beside the audio as ``train_<kind>.txt``, ``valid_<kind>.txt`` and ``test_<kind>.txt``.

    A line is ``blues/blues.00029.wav`` (with any ending or none), or a track's id.

    Raises:
        InputError: a file is missing or names a genre that the data set lacks, a track is in two of them, or a part
            has no track that is present.
    """
    lists = {}
    for part in PARTS:
        path = Path(folder) / f"{part}_{kind}.txt"
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{short_repr(str(path), 200)}: cannot read this list of tracks ({type(error).__name__}); put "
                f"train_, valid_ and test_{kind}.txt there, or choose another split"
            ) from None
        lists[part] = [_listed_id(line.strip(), path, tracks.genres) for line in lines if line.strip()]
    return _listed(tracks, lists)


def stratified_split(tracks: Tracks, shares: Sequence[float] = (0.5, 0.25, 0.25), seed: int = 0) -> Split:
    """Three parts in which every genre is spread as the shares say; the same ids and seed give the same parts.

    Args:
        tracks: to be split.
        shares: of training, validation and test; positive, with sum 1.
        seed: of the random split.

    Raises:
        InputError: ``shares`` are not three positive numbers with sum 1, or a part would be empty.
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"shares={short_repr(shares)}: give three positive numbers with sum 1")
    part = _parts(tracks.tracks, shares, seed)
    return _checked([_chosen(tracks.tracks, part == number) for number in range(3)])


def k_fold(tracks: Tracks, k: int = 5, seed: int = 0, validation: float = 0.25) -> list[Split]:
    """``k`` splits whose test parts are disjoint and hold every track once, each genre spread evenly.

    Args:
        tracks: to be split.
        k: number of folds.
        seed: of the random split.
        validation: share of what is not tested that is set aside for validation.

    Raises:
        InputError: ``k`` is below 2 or above the number of tracks of the rarest genre, or a part would be empty.
    """
    counts = np.bincount(tracks.labels())
    if not isinstance(k, int) or not 2 <= k <= counts.min():
        rarest = tracks.genres[int(counts.argmin())]
        raise InputError(
            f"k={short_repr(k)}: give 2 or more folds, and at most the {counts.min()} tracks of {short_repr(rarest)}"
        )
    if not 0 < validation < 1:
        raise InputError(f"validation={short_repr(validation)}: give a share between 0 and 1")
    fold = _parts(tracks.tracks, [1 / k] * k, seed)
    splits = []
    for number in range(k):
        rest = _chosen(tracks.tracks, fold != number)
        held = _parts(rest, (1 - validation, validation), seed)
        test = _chosen(tracks.tracks, fold == number)
        splits.append(_checked([_chosen(rest, held == 0), _chosen(rest, held == 1), test]))
    return splits


def _parts(tracks: Sequence[Track], shares: Sequence[float], seed: int) -> np.ndarray:
    genres = sorted({track.genre for track in tracks})
    shows = np.array([[track.genre == genre for genre in genres] for track in tracks])
    return stratified_parts([track.track_id for track in tracks], shows, genres, list(shares), seed)


def _chosen(tracks: Sequence[Track], mask: np.ndarray) -> tuple[Track, ...]:
    return tuple(track for track, taken in zip(tracks, mask, strict=True) if taken)


def _listed_id(line: str, path: Path, genres: Sequence[str]) -> str:
    *folders, name = line.replace("\\", "/").split("/")
    pieces = name.split(".")
    if len(pieces) >= 2 and pieces[1].isdigit():  # GTZAN's own names, with or without a folder and an ending
        genre = genre_name(pieces[0])
        track_id = f"{genre}.{pieces[1]}"
    else:
        genre = genre_name(folders[0]) if folders else ""
        track_id = "/".join((genre, *folders[1:], name.rpartition(".")[0] or name))
    if genre not in genres:
        raise InputError(
            f"{short_repr(str(path), 200)}: {short_repr(line)}: {short_repr(genre)} is not one of the genres "
            f"{', '.join(genres)}; "
            "correct the line"
        )
    return track_id


def _listed(tracks: Tracks, lists: Mapping[str, Sequence[str]]) -> Split:
    part_of: dict[str, str] = {}
    for part, ids in lists.items():
        for track_id in ids:
            if part_of.setdefault(track_id, part) != part:
                raise InputError(
                    f"track {short_repr(track_id)} is listed for {part_of[track_id]} and for {part}; choose one"
                )
    missing = [track_id for track_id in part_of if track_id not in tracks.by_id]
    unlisted = [track.track_id for track in tracks.tracks if track.track_id not in part_of]
    notes = []
    if missing:
        notes.append(f"{len(missing)} of {len(part_of)} listed tracks are not in the data, the first {missing[0]}")
    if unlisted:
        notes.append(f"{len(unlisted)} of {len(tracks)} tracks are in no list and left out, the first {unlisted[0]}")
    chosen = [tuple(track for track in tracks.tracks if part_of.get(track.track_id) == part) for part in PARTS]
    return _checked(chosen, tuple(notes))


def _checked(parts: Sequence[tuple[Track, ...]], notes: tuple[str, ...] = ()) -> Split:
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part:
            raise InputError(f"split: no track for {name}; use another split or give more tracks")
    train, validation, test = parts
    return Split(train, validation, test, notes)
