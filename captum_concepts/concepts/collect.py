"""Clips and labels collected from a folder, a table or playlists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.names import Skipped
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class LabelledClips:
    """What a reader of concepts returns: the first fields of a :class:`ConceptSet`, under the same names."""

    names: tuple[str, ...]
    clips: tuple[Clip, ...]
    labels: np.ndarray
    pool: np.ndarray
    skipped: list[Skipped]


@dataclass
class Collected:
    """Clips so far, each once, and which of them have which concept."""

    clips: dict[tuple[str, float, float | None], Clip] = field(default_factory=dict)
    place: dict[tuple[str, float, float | None], int] = field(default_factory=dict)
    members: dict[Any, set[int]] = field(default_factory=lambda: defaultdict(set))
    pool: set[int] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, clip: Clip) -> int:
        key = (clip.path, clip.start, clip.end)
        known = self.clips.setdefault(key, clip)
        if known.group != clip.group:
            raise InputError(
                f"{short_repr(clip.path, 200)}: in group {short_repr(known.group)} and in group "
                f"{short_repr(clip.group)}; "
                "a clip has one group"
            )
        return self.place.setdefault(key, len(self.place))

    def labelled(self, names: Mapping[Any, str], source: str) -> LabelledClips:
        """The clips with a column of labels for each name.

        Args:
            names: key of ``members`` -> concept.
            source: what the messages call the place that the clips come from.

        Raises:
            InputError: no clip has any of the concepts.
        """
        if not any(self.members[key] for key in names):
            reason = f" ({short_repr(self.skipped[0][0], 200)}: {self.skipped[0][2]})" if self.skipped else ""
            raise InputError(
                f"{short_repr(source, 200)}: no clip has a concept; {len(self.skipped)} rows or files skipped{reason}"
            )
        columns = {name: column for column, name in enumerate(dict.fromkeys(names.values()))}
        labels = np.zeros((len(self.clips), len(columns)), dtype=bool)
        for key, name in names.items():
            labels[np.fromiter(self.members[key], dtype=np.int64), columns[name]] = True
        pool = np.zeros(len(self.clips), dtype=bool)
        pool[np.fromiter(self.pool, dtype=np.int64)] = True
        clips = tuple(self.clips.values())
        return LabelledClips(tuple(columns), clips, labels, pool, self.skipped)
