"""Attachment by generality, and the estimates that it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.similarities import named, random_similarity

from captum_concepts.miners.generality import attach_by_generality, estimated_generality, null_threshold


def test_generality_attaches_to_the_most_similar_more_general() -> None:
    sim = random_similarity(30, 1)
    sizes = np.random.default_rng(2).permutation(30)
    found = attach_by_generality(sim, named(30), generality=sizes, min_sim=0.7)
    for child in range(30):
        larger = [p for p in range(30) if sizes[p] > sizes[child]]
        best = max(larger, key=lambda p: float(sim[p, child]), default=None)
        right = [] if best is None or sim[best, child] <= 0.7 else [f"c{best}"]
        assert found.parents(f"c{child}") == right


def test_generality_and_threshold_by_hand() -> None:
    sim = torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0], [5.0, 6.0, 9.0]])
    assert estimated_generality(sim).tolist() == [4.0, 3.5, 3.0]
    # off the diagonal 1..6: median 3.5, absolute deviations .5 .5 1.5 1.5 2.5 2.5
    assert null_threshold(sim) == pytest.approx(3.5 + 1.4826 * 1.5)
