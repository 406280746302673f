"""Clips that speak for a concept."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from captum_concepts.activations.extraction import Extraction
from captum_concepts.audio.clips import Clip
from captum_concepts.cavs.bank import ConceptBank

EXAMPLES = 3


def examples(
    bank: ConceptBank, usable: list[str], extracted: Extraction, activations: Tensor, positives: np.ndarray
) -> dict[str, list[Clip]]:
    """For each concept its own clips that lie farthest along the CAV, cut to their best patch."""
    rows = extracted.rows
    projections = (activations @ bank.directions.T).numpy()
    found: dict[str, list[Clip]] = {}
    for name in usable:
        k = bank.names.index(name)
        own = np.flatnonzero(positives[:, k])
        chosen: dict[str, Clip] = {}
        for row in own[np.argsort(-projections[own, k], kind="stable")]:
            clip = extracted.clips[rows[row]]
            start, end = extracted.spans[row]
            chosen.setdefault(clip.group, Clip(clip.path, float(start), float(end), clip.group))
            if len(chosen) == EXAMPLES:
                break
        found[name] = list(chosen.values())
    return found
