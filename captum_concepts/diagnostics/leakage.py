"""Leakage: clips and groups that are both examples of a concept and explained."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.concept_set import ConceptSet

SHARED = 0.5


def shared_with_explained(
    concepts: ConceptSet, clips: Sequence[Clip], extracted: dict[str, str], explained: dict[str, str]
) -> pd.DataFrame:
    """Explained clips whose group or file also has concept clips, so that their scores are not on unseen audio.

    Args:
        concepts: the concepts.
        clips: the explained clips.
        extracted, explained: absolute path -> sha256 of the concepts' files and of the explained ones.

    Returns:
        one row per group of explained clips: group, explained_clips, concept_clips, and the concepts of these, most
        frequent first, as one text (the random pool is "random pool").
    """
    by_group: dict[str, list[int]] = {}
    by_digest: dict[str, list[int]] = {}
    for number, clip in enumerate(concepts.clips):
        by_group.setdefault(clip.group, []).append(number)
        digest = extracted.get(os.path.abspath(clip.path))
        if digest is not None:
            by_digest.setdefault(digest, []).append(number)
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        found.setdefault(clip.group, []).append(clip)
    rows = []
    for group, members in found.items():
        own = set(by_group.get(group, ()))
        for clip in members:
            own.update(by_digest.get(explained.get(clip.path, ""), ()))
        if own:
            numbers = np.array(sorted(own))
            shows = concepts.labels[numbers].sum(axis=0)
            named = [concepts.names[k] for k in np.argsort(-shows, kind="stable") if shows[k]]
            named += ["random pool"] * bool(concepts.pool[numbers].any())
            rows.append((group, len(members), len(numbers), ", ".join(named)))
    return pd.DataFrame(rows, columns=["group", "explained_clips", "concept_clips", "concepts"])
