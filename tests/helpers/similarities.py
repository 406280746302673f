"""Random similarity matrices, and the links of a hierarchy as a set."""

from __future__ import annotations

import numpy as np
import torch

from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy


def named(k: int) -> list[str]:
    return [f"c{i}" for i in range(k)]


def random_similarity(k: int, seed: int, decimals: int | None = None, symmetric: bool = False) -> torch.Tensor:
    sim = np.random.default_rng(seed).random((k, k))
    sim = (sim + sim.T) / 2 if symmetric else sim
    return torch.as_tensor(sim if decimals is None else sim.round(decimals))


def links(hierarchy: ConceptHierarchy) -> set[tuple[str, str, float]]:
    return {(parent, child, weight) for parent, child, weight, _ in hierarchy.edges}
