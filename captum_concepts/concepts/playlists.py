"""Read concepts from playlists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.collect import Collected, LabelledClips
from captum_concepts.concepts.names import concept_name
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def read_playlists(
    playlists: Mapping[str, Iterable[str | Path | Clip]],
    *,
    pool: Iterable[str | Path | Clip],
) -> LabelledClips:
    """See :meth:`captum_concepts.ConceptSet.from_playlists`."""
    collected = Collected()
    names: dict[str, str] = {}

    def rows_of(tracks: Iterable[str | Path | Clip]) -> set[int]:
        if isinstance(tracks, (str, Path, Clip)):
            raise InputError(f"playlists: {short_repr(tracks)} is one track; give a list of tracks")
        rows = set()
        for track in tracks:
            if isinstance(track, Clip) or os.path.isfile(track):
                rows.add(collected.add(track if isinstance(track, Clip) else Clip(str(track))))
            else:
                collected.skipped.append((str(track), "missing", "no such file"))
        return rows

    for given, tracks in playlists.items():
        name = concept_name(given)
        rows = rows_of(tracks)
        if not rows:
            collected.skipped.append((str(given), "empty", "no track of this playlist can be used"))
            continue
        names[name] = name
        collected.members[name] |= rows
    collected.pool |= rows_of(pool)
    return collected.labelled(names, "playlists")
