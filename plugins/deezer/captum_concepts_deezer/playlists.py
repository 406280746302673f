"""The paper's data: playlists as concepts over anonymised tracks (zenodo.org/records/7382664).

The layout is ``deezer_playlists.npy``, a pickled dict ``playlist id -> {"tracks_array": [track ids],
"formatted_title": title}``, beside folders with one ``<track id>.tensor`` per track.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from captum_concepts.concepts import ConceptSet, concept_name
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_deezer.pickles import read_object_npy

PLAYLISTS_FILE = "deezer_playlists.npy"
DATA_ORIGIN = "https://zenodo.org/records/7382664"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Playlist:
    """One playlist: its ``id``, its ``title`` (may be empty), and the ids of its different ``tracks`` in order."""

    id: str
    title: str
    tracks: tuple[str, ...]


def read_playlists(path: str | PathLike[str]) -> list[Playlist]:
    """The playlists in a ``deezer_playlists.npy``, in the file's order; runs no code from the file.

    Raises:
        InputError: not such a file, or one that asks for code to be run.
    """
    where = short_repr(str(path), 200)
    parts = read_object_npy(path)
    mapping = parts.item() if parts.shape == () else None
    if not isinstance(mapping, dict) or not mapping:
        raise InputError(
            f"{where}: not a file of playlists; expected a pickled dict of playlist id -> tracks and title"
        )
    playlists = []
    for key, entry in mapping.items():
        if not isinstance(entry, dict) or "tracks_array" not in entry:
            raise InputError(f"{where}: playlist {short_repr(key)} has no 'tracks_array'")
        tracks = entry["tracks_array"]
        if not isinstance(tracks, (list, tuple)) and not (isinstance(tracks, np.ndarray) and tracks.ndim == 1):
            raise InputError(f"{where}: the tracks of playlist {short_repr(key)} are not a list")
        ids = tuple(dict.fromkeys(_id(track, where) for track in tracks))
        playlists.append(Playlist(_id(key, where), concept_name(entry.get("formatted_title") or ""), ids))
    return playlists


def _id(value: Any, where: str) -> str:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    # A track's id is part of a file name, so it must not be able to leave the folder.
    if isinstance(value, str) and value and value.isascii() and value.replace("_", "").replace("-", "").isalnum():
        return str(value)
    raise InputError(f"{where}: {short_repr(value)} is not an id; expected a whole number or letters and digits")


def deezer_concepts(
    folder: str | PathLike[str], *, min_tracks: int = 39, max_tracks: int = 251, negatives: Any = None
) -> ConceptSet:
    """The concept source ``deezer:FOLDER``: every playlist of a suitable length is a concept.

    Args:
        folder: has ``deezer_playlists.npy`` and, at any depth, ``<track id>.tensor`` files.
        min_tracks, max_tracks: playlists with ``min_tracks <= tracks < max_tracks`` different tracks are taken; the
            defaults are the paper's.
        negatives: as in `ConceptSet`; by default all other tracks, as in the paper.

    Returns:
        The concepts, named by title; playlists with the same title get their id behind it. Each track is a clip and a
        group of its own. Tracks without a file are in ``skipped``, and their number is logged.

    Raises:
        InputError: no such folder or files, no playlist in that range, or an option out of range.
    """
    root = Path(folder)
    if not (root / PLAYLISTS_FILE).is_file():
        raise InputError(f"deezer:{folder}: no {PLAYLISTS_FILE} in that folder; the data are at {DATA_ORIGIN}")
    if not 0 < min_tracks < max_tracks:
        raise InputError(
            f"min_tracks={short_repr(min_tracks)}, max_tracks={short_repr(max_tracks)}: give 0 < min_tracks < "
            "max_tracks"
        )
    playlists = read_playlists(root / PLAYLISTS_FILE)
    chosen = [playlist for playlist in playlists if min_tracks <= len(playlist.tracks) < max_tracks]
    if not chosen:
        raise InputError(
            f"deezer:{folder}: none of {len(playlists)} playlists has {min_tracks} to {max_tracks - 1} tracks; "
            "change min_tracks or max_tracks"
        )
    files = _tensor_files(root)
    wanted = dict.fromkeys(track for playlist in chosen for track in playlist.tracks)
    missing = [track for track in wanted if track not in files]
    if len(missing) == len(wanted):
        raise InputError(f"deezer:{folder}: no <track id>.tensor for any of {len(wanted)} tracks; unpack them there")
    if missing:
        logger.warning("deezer:%s: %d of %d tracks have no .tensor file", folder, len(missing), len(wanted))
    # A path that is not there is how ConceptSet comes to know of a missing track.
    paths = {track: files.get(track, str(root / f"{track}.tensor")) for track in wanted}
    names = concept_names(chosen)
    rows = {name: [paths[track] for track in playlist.tracks] for name, playlist in zip(names, chosen, strict=True)}
    return ConceptSet.from_playlists(rows, negatives=negatives)


def concept_names(playlists: list[Playlist]) -> list[str]:
    """A different name for each playlist: its title, with the id behind it where titles repeat or are missing."""
    often = Counter(playlist.title for playlist in playlists)
    names: list[str] = []
    taken = {title for title, count in often.items() if count == 1}
    for playlist in playlists:
        name = playlist.title
        if not name or often[name] > 1:
            name = f"{name or 'playlist'} ({playlist.id})"
            while name in taken:
                name = f"{name} ({playlist.id})"
            taken.add(name)
        names.append(name)
    return names


def _tensor_files(root: Path) -> dict[str, str]:
    """Track id -> file; of several with the same id the first by path."""
    found: dict[str, str] = {}
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix == ".tensor":
                found.setdefault(stem, os.path.join(folder, file))
    return found
