"""The branching miner: which concepts become roots, and in which direction links go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.similarities import named, random_similarity

from captum_concepts.miners.branching import branching


@pytest.mark.parametrize("matrix", [np.eye(4), np.ones((4, 4)), np.zeros((4, 4)), np.full((2, 2), 0.9)])
def test_branching_leaves_unrelated_concepts_as_roots(matrix: np.ndarray) -> None:
    assert branching(torch.as_tensor(matrix), named(len(matrix))).roots == named(len(matrix))


def test_branching_obeys_threshold_and_tilt() -> None:
    sim = random_similarity(20, 3, symmetric=True)
    assert len(branching(sim, named(20), min_sim=-100.0).roots) == 1
    assert branching(sim, named(20), min_sim=100.0).roots == named(20)
    sizes = np.arange(20)[::-1]
    strict = branching(sim, named(20), generality=sizes, tilt=1e3, min_sim=-1e6)
    assert all(int(parent[1:]) < int(child[1:]) for parent, child, _, _ in strict.edges)
