"""Tracks by genre: GTZAN in all its layouts, and any other folder with one subfolder per genre."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from captum_concepts.audio import AudioError, duration, find_audio
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
#: Where the genre folders are below the folder a user has: the original and torchaudio's, Kaggle's, Kaggle's archive.
_BELOW = ("genres", "genres_original", "Data/genres_original")


@dataclass(frozen=True)
class Track:
    """One readable file.

    Attributes:
        path: the file.
        genre: as `genre_name` spells it.
        track_id: ``jazz.00054`` in GTZAN, else the path below the data set's folder without its ending: the same
            track has the same id in every layout and format.
        seconds: how long it is.
    """

    path: str
    genre: str
    track_id: str
    seconds: float


@dataclass(frozen=True)
class Tracks:
    """The tracks of a data set.

    Attributes:
        tracks: in the order of their ids.
        genres: the genres that have a track, sorted; a track's class is its genre's place here.
        skipped: one line for every file or folder that could not be used: which, and why.
    """

    tracks: tuple[Track, ...]
    genres: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tracks)

    @cached_property
    def by_id(self) -> dict[str, Track]:
        """Track id -> track."""
        return {track.track_id: track for track in self.tracks}

    def labels(self, tracks: Iterable[Track] | None = None) -> np.ndarray:
        """int64 (N,), the place in ``genres`` of each track's genre; by default of all."""
        place = {genre: index for index, genre in enumerate(self.genres)}
        return np.array([place[track.genre] for track in (self.tracks if tracks is None else tracks)], dtype=np.int64)


def genre_name(text: str) -> str:
    """A genre's one spelling: lower case, no white space at its ends; ``hip-hop`` and ``Hip Hop`` are ``hiphop``."""
    name = text.strip().lower()
    return "hiphop" if name.replace("-", "").replace(" ", "").replace("_", "") == "hiphop" else name


def find_tracks(folder: str | PathLike[str], genres: Sequence[str] | None = None) -> Tracks:
    """All tracks of a data set that can be read, with their genre.

    Known layouts: ``genres/<genre>/*.au`` (original), ``genres/<genre>/*.wav`` (mirdata, torchaudio),
    ``[Data/]genres_original/<genre>/*.wav`` (Kaggle), FLAC copies of these, and any folder whose subfolders are genres,
    searched through all folders below them (as ISMIR2004 has artists and albums).

    Only headers are read; damage further on in a file is found when it is decoded. GTZAN's ``jazz.00054`` has a broken
    header in Kaggle's copy and is reported in ``skipped``.

    Args:
        folder: the data set, or its folder of genres.
        genres: the classes of a model; a folder of another genre is then an error.

    Raises:
        InputError: no such folder, no genre folder with audio in it, or a genre that is not one of ``genres``.
    """
    root = _genre_root(Path(folder))
    wanted = None if genres is None else {genre_name(genre) for genre in genres}
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    skipped = [
        f"{short_repr(path, 200)}: not in a genre's folder" for path in find_audio(root) if Path(path).parent == root
    ]
    found: dict[str, Track] = {}
    for place in folders:
        genre = genre_name(place.name)
        paths = find_audio(place)
        if not paths:
            skipped.append(f"{short_repr(str(place), 200)}: no audio in this folder")
        elif wanted is not None and genre not in wanted:
            raise InputError(
                f"{short_repr(str(place), 200)}: {short_repr(genre)} is not one of the genres "
                f"{', '.join(sorted(wanted))}; "
                "rename or remove this folder"
            )
        for path in paths:
            track_id = _track_id(path, root, genre)
            if track_id in found:
                skipped.append(
                    f"{short_repr(path, 200)}: {short_repr(track_id)} is there already as {found[track_id].path}"
                )
                continue
            try:
                found[track_id] = Track(path, genre, track_id, duration(path))
            except AudioError as error:
                skipped.append(str(error))
    if not found:
        first = f"; the first of {len(skipped)} reasons: {skipped[0]}" if skipped else ""
        raise InputError(
            f"{short_repr(str(folder), 200)}: no track found; give a folder with one subfolder of audio per "
            f"genre{first}"
        )
    tracks = tuple(found[track_id] for track_id in sorted(found))
    return Tracks(tracks, tuple(sorted({track.genre for track in tracks})), tuple(skipped))


def _genre_root(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{short_repr(str(folder), 200)}: no such folder; give the folder of the data set")
    return next((folder / below for below in _BELOW if (folder / below).is_dir()), folder)


def _track_id(path: str, root: Path, genre: str) -> str:
    relative = Path(path).relative_to(root).with_suffix("")
    parts = relative.name.split(".")
    if len(relative.parts) == 2 and len(parts) == 2 and genre_name(parts[0]) == genre and parts[1].isdigit():
        return f"{genre}.{parts[1]}"
    return "/".join((genre, *relative.parts[1:]))
