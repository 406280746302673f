"""Genres and tempo classes of a data set as concepts."""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from captum_concepts.audio import Clip
from captum_concepts.concepts import ConceptSet, Skipped
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_gtzan.dataset import Track, find_tracks, genre_name

#: Beats per minute that part the tempo classes.
TEMPO_EDGES = (90.0, 120.0)

_TEMPO_FILE = re.compile(r"(?:gtzan[_.])?(?P<genre>.+)[_.](?P<number>\d+)", re.IGNORECASE)
_MAX_BYTES = 64  # of one number

logger = logging.getLogger(__name__)


def genre_concepts(folder: str | PathLike[str], *, negatives: Any = None) -> ConceptSet:
    """The concept source ``gtzan-genres:FOLDER``: each genre of the data set is a concept, each track a group.

    Args:
        folder: see `find_tracks`; what it skips is in the set's ``skipped``.
        negatives: as in `ConceptSet`; by default the tracks of all other genres.

    Raises:
        InputError: see `find_tracks`.
    """
    tracks = find_tracks(folder)
    chosen: dict[str, list[Track]] = {genre: [] for genre in tracks.genres}
    for track in tracks.tracks:
        chosen[track.genre].append(track)
    return _concept_set(chosen, [("", "unreadable", line) for line in tracks.skipped], negatives)


def tempo_concepts(
    folder: str | PathLike[str],
    *,
    edges: Sequence[float] = TEMPO_EDGES,
    labels: str | PathLike[str] | None = None,
    negatives: Any = None,
) -> ConceptSet:
    """The concept source ``gtzan-tempo:FOLDER``: classes of annotated tempo are concepts, each track a group.

    The annotations are those of https://github.com/TempoBeatDownbeat/gtzan_tempo_beat, one number per file, called
    ``gtzan_<genre>_<number>.bpm`` or ``<genre>.<number>.bpm``. People disagree on a tempo by factors of 2 and 3, so
    neighbouring classes are cleaner than the classes a factor of 2 apart.

    Args:
        folder: the data set, see `find_tracks`.
        edges: beats per minute that part the classes, ascending; by default below 90, 90 to 120, 120 and above.
        labels: folder of the ``.bpm`` files; by default ``tempo`` in ``folder``.
        negatives: as in `ConceptSet`; by default the tracks of all other classes.

    Returns:
        Classes without a track are left out. Tracks without a tempo, tempos without a track and unreadable tempos are
        in ``skipped``.

    Raises:
        InputError: no data set, no ``.bpm`` file, edges that do not ascend, or no track with a tempo.
    """
    bounds = [float(edge) for edge in edges]
    if not bounds or min(bounds) <= 0 or not all(math.isfinite(edge) for edge in bounds) or bounds != sorted({*bounds}):
        raise InputError(f"edges={short_repr(tuple(edges))}: give ascending positive beats per minute")
    tracks = find_tracks(folder)
    skipped: list[Skipped] = [("", "unreadable", line) for line in tracks.skipped]
    tempos = read_tempos(Path(labels) if labels is not None else Path(folder) / "tempo", skipped)
    names = [f"below {bounds[0]:g} bpm"]
    names += [f"{low:g} to {high:g} bpm" for low, high in pairwise(bounds)]
    names += [f"{bounds[-1]:g} bpm and above"]
    chosen: dict[str, list[Track]] = defaultdict(list)
    for track in tracks.tracks:
        if track.track_id in tempos:
            chosen[names[sum(tempos[track.track_id] >= edge for edge in bounds)]].append(track)
        else:
            skipped.append((track.path, "no concept", "no tempo is given for this track"))
    skipped += [(track_id, "missing", "a tempo, but no track") for track_id in tempos if track_id not in tracks.by_id]
    if not chosen:
        raise InputError(f"gtzan-tempo:{folder}: none of {len(tempos)} tempos is of one of {len(tracks)} tracks")
    if skipped:
        logger.warning("gtzan-tempo:%s: %d tracks or tempos skipped, the first: %s", folder, len(skipped), skipped[0])
    return _concept_set({name: chosen[name] for name in names if name in chosen}, skipped, negatives)


def read_tempos(folder: Path, skipped: list[Skipped]) -> dict[str, float]:
    """Track id -> beats per minute of the ``.bpm`` files in a folder; those that hold no tempo are told in ``skipped``.

    Raises:
        InputError: no such file there.
    """
    paths = sorted(folder.glob("*.bpm"))
    if not paths:
        raise InputError(
            f"{short_repr(str(folder), 200)}: no .bpm file; give the folder of the tempo annotations as labels"
        )
    tempos: dict[str, float] = {}
    for path in paths:
        named = _TEMPO_FILE.fullmatch(path.stem)
        if named is None:
            skipped.append((str(path), "mislabelled", "not called gtzan_<genre>_<number>.bpm"))
            continue
        try:
            with open(path, "rb") as file:
                tempo = float(file.read(_MAX_BYTES).decode("ascii"))
        except (OSError, ValueError):
            tempo = math.nan
        if 0 < tempo < math.inf:
            tempos[f"{genre_name(named['genre'])}.{named['number']}"] = tempo
        else:
            skipped.append((str(path), "unreadable", "holds no positive number"))
    return tempos


def _concept_set(chosen: Mapping[str, Sequence[Track]], skipped: list[Skipped], negatives: Any) -> ConceptSet:
    playlists = {name: [Clip(track.path) for track in tracks] for name, tracks in chosen.items()}
    concepts = ConceptSet.from_playlists(playlists, negatives=negatives)
    concepts.skipped.extend(skipped)
    return concepts
