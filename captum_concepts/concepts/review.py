"""Checks of a concept set's arguments, and what its users should know about its examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.names import Skipped, concept_name
from captum_concepts.concepts.overlap import Overlap
from captum_concepts.errors import InputError
from captum_concepts.text import pluralize, short_repr, suggest

Negatives: TypeAlias = "Literal['random', 'rest', 'in-domain'] | dict[str, list[str]]"
NEGATIVES = ("random", "rest", "in-domain")
_NEGATIVES_REMEDY = "use 'random', 'rest', 'in-domain' or {concept: [concepts]}"


def check_arguments(names: Sequence[str], clips: Sequence[Clip], labels: np.ndarray, pool: np.ndarray) -> None:
    """Raise InputError unless names, clips, labels and pool of a concept set fit together."""
    if not names:
        raise InputError("names=(): no concepts; give at least one name")
    seen = set()
    for name in names:
        if not name:
            raise InputError("names: a concept has an empty name; give it one")
        if name in seen:
            raise InputError(f"names: {short_repr(name)} is given twice; join the two columns of labels")
        seen.add(name)
    if not clips:
        raise InputError("clips=(): no clips; give at least one")
    if len({(clip.path, clip.start, clip.end) for clip in clips}) < len(clips):
        raise InputError("clips: the same clip is given twice; give it one row of labels that has all its concepts")
    if labels.shape != (len(clips), len(names)):
        raise InputError(
            f"labels: shape {labels.shape}, but {len(clips)} clips x {len(names)} concepts are given; give one row for "
            "each clip and one column for each concept"
        )
    if pool.shape != (len(clips),):
        raise InputError(f"pool: shape {pool.shape}, but there are {len(clips)} clips; give one value for each")


def columns_of(names: Iterable[str], column_of: Mapping[str, int], argument: str) -> list[int]:
    """The columns of concepts by name; InputError with near names for an unknown one. ``argument`` named them."""
    columns = []
    for name in names:
        column = column_of.get(concept_name(name))
        if column is None:
            raise InputError(f"{argument}: no concept {short_repr(name)}; {suggest(name, column_of, 'concepts')}")
        columns.append(column)
    return columns


def known_negatives(negatives: Any, default: str, has_pool: bool, column_of: Mapping[str, int]) -> Negatives:
    """The negatives of a concept set in their normal form; InputError where they are not known or not there."""
    if negatives is None:
        negatives = default
    if isinstance(negatives, str):
        if negatives not in NEGATIVES:
            raise InputError(f"negatives={short_repr(negatives)}: is not known; {_NEGATIVES_REMEDY}")
        if negatives == "random" and not has_pool:
            raise InputError("negatives='random': there is no random pool; add clips that have none of the concepts")
        return negatives  # type: ignore[return-value]
    if not isinstance(negatives, Mapping):
        raise InputError(f"negatives={short_repr(negatives)}: is not known; {_NEGATIVES_REMEDY}")
    known: dict[str, list[str]] = {}
    for concept, others in negatives.items():
        known[concept_name(concept)] = [
            concept_name(name) for name in ([others] if isinstance(others, str) else others)
        ]
    columns_of([*known, *(name for others in known.values() for name in others)], column_of, "negatives")
    return known


def too_few_groups(
    names: Sequence[str], positives: np.ndarray, negatives: np.ndarray, min_groups: int
) -> dict[str, str]:
    """Concepts with fewer than ``min_groups`` groups of positives or of negatives: {name: reason}."""
    problems = {}
    for name, of_it, opposite in zip(names, positives, negatives, strict=True):
        if of_it < min_groups:
            problems[name] = f"positives in {pluralize(int(of_it), 'group')}, {min_groups} needed"
        elif opposite < min_groups:
            problems[name] = f"negatives in {pluralize(int(opposite), 'group')}, {min_groups} needed"
    return problems


def skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    """One line about rows or files that could not be used, if there are any."""
    if not skipped:
        return []
    path, status, message = skipped[0]
    return [f"{len(skipped)} rows or files skipped, the first {short_repr(path)}: {status} ({message})"]


def dropped_lines(names: Sequence[str], dropped: np.ndarray) -> list[str]:
    """One line for each concept that lost negatives to its own groups."""
    return [
        f"{short_repr(names[column])}: {dropped[column]} negative clips left out, "
        "because another clip of their group has the concept"
        for column in np.flatnonzero(dropped).tolist()
    ]


def overlap_lines(overlap: Overlap, share: float) -> list[str]:
    """One line for each pair of concepts whose groups have a Jaccard index of at least ``share``, largest first."""
    jaccard = np.triu(overlap.group_jaccard, 1)
    firsts, seconds = np.nonzero(jaccard >= share)
    lines = []
    for pair in np.argsort(-jaccard[firsts, seconds], kind="stable"):
        i, j = firsts[pair], seconds[pair]
        lines.append(
            f"{short_repr(overlap.names[i])} and {short_repr(overlap.names[j])} share "
            f"{pluralize(int(overlap.groups[i, j]), 'group')}, {jaccard[i, j]:.0%} of those that have either"
        )
    return lines
