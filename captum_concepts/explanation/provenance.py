"""Versions, options and hashes behind an explanation."""

from __future__ import annotations

from typing import Any

import numpy as np

from captum_concepts.activations.extraction import Extraction
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.explanation.options import ExplainOptions
from captum_concepts.results.plain import plain_value, versions
from captum_concepts.significance.corrections import CORRECTIONS

TESTS = {
    "statistic": "magnitude x distance of positives from negatives along the CAV",
    "p_value": (
        "rank among null concepts of the same number of groups, each effect in units of the spread of those with the "
        "same answer at the quality gate"
    ),
    "p_unconditional": "rank of the effect among the same null concepts, whether they pass the quality gate or not",
    "family": "concepts within one layer and target, by p_unconditional; not testable concepts count as not rejected",
    "score interval": "95 %, Wilson for as many observations as vary as much as the groups of explained clips",
    "smooth, magnitude intervals": "95 %, studentised bootstrap over groups of explained clips",
    "gate": "lower end of the 95 % interval of the AUC on held-out groups above 0.5",
    "cav_p": "rank of that AUC among null concepts of the same number of groups",
}


def provenance(
    backbone: Backbone,
    layers: tuple[str, ...],
    options: ExplainOptions,
    run: dict[str, Any],
    concepts: ConceptSet,
    extracted: Extraction,
    explained: Extraction | None,
    n_nulls: dict[str, int],
) -> dict[str, Any]:
    """All that is needed to run an explanation again, as JSON can hold it.

    Args:
        backbone, layers, options, concepts: of the explanation.
        run: seed, on_error and batch_size.
        extracted, explained: the two passes over audio.
        n_nulls: layer -> null concepts of each size.
    """
    smallest = {layer: 1 / (1 + count) for layer, count in n_nulls.items()}
    given = {**options.as_dict(), **run, "layers": layers, "negatives": concepts.negatives}
    seed = given.pop("seed")
    return {
        "versions": versions(),
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint(),
            "device": str(backbone.device),
        },
        "seed": seed,
        "options": {name: plain_value(value) for name, value in given.items()},
        "tests": {**TESTS, "correction": CORRECTIONS[options.tests.correction], "smallest p_value": smallest},
        **pass_record(extracted, explained),
        "concepts": concept_record(concepts),
        "reference": concepts.parents,
    }


def concept_record(concepts: ConceptSet) -> dict[str, Any]:
    """Which clips are examples of which concepts: all that is needed to make the set again."""
    return {
        "negatives": concepts.negatives,
        "clips": [
            [clip.path, clip.start, clip.end, clip.group, np.flatnonzero(shows).tolist(), bool(in_pool)]
            for clip, shows, in_pool in zip(concepts.clips, concepts.labels, concepts.pool, strict=True)
        ],
    }


def pass_record(extracted: Extraction, explained: Extraction | None) -> dict[str, Any]:
    """How many patches were passed over, sha256 of every file, and what was left out."""
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
