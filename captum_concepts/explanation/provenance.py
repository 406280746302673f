"""Versions, options and hashes behind an explanation."""

from __future__ import annotations

from typing import Any

import numpy as np

from captum_concepts.activations.extraction import Extraction
from captum_concepts.concepts.concept_set import ConceptSet

TESTS = {
    "statistic": "magnitude x distance of positives from negatives along the CAV",
    "p_value": (
        "rank among random concepts of the same number of groups, each effect in units of the spread of those with the "
        "same answer at the quality gate"
    ),
    "p_unconditional": "rank of the effect among the same random concepts, whether they pass the quality gate or not",
    "family": "concepts within one layer and target, by p_unconditional; not testable concepts count as not rejected",
    "score interval": "95 %, Wilson for as many observations as vary as much as the groups of explained clips",
    "smooth, magnitude intervals": "95 %, studentised bootstrap over groups of explained clips",
    "gate": "lower end of the 95 % interval of the AUC on held-out groups above 0.5",
    "cav_p": "rank of that AUC among random concepts of the same number of groups",
}


def concept_record(concepts: ConceptSet) -> dict[str, Any]:
    """Which clips show which concepts: all that is needed to make the set again."""
    return {
        "negatives": concepts.negatives,
        "clips": [
            [clip.path, clip.start, clip.end, clip.group, np.flatnonzero(shows).tolist(), bool(in_pool)]
            for clip, shows, in_pool in zip(concepts.clips, concepts.labels, concepts.pool, strict=True)
        ],
    }


def pass_record(extracted: Extraction, explained: Extraction | None) -> dict[str, Any]:
    """How much was heard, sha256 of every file, and what was left out."""
    passes = [extracted] if explained is None else [extracted, explained]
    return {
        "patches": {
            "concepts": int(extracted.counts.sum()),
            "explained": int(explained.counts.sum()) if explained else 0,
        },
        "clips": {path: digest for part in passes for path, digest in sorted(part.digests.items())},
        "left_out": [
            {"path": problem.path, "status": problem.status, "message": problem.message}
            for part in passes
            for problem in part.problems
        ],
    }
