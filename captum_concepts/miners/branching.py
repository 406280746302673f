"""The optimum branching of an asymmetric similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.arborescence import optimum_arborescence
from captum_concepts.miners.generality import estimated_generality, null_threshold
from captum_concepts.miners.matrix import as_float64, off_diagonal, per_concept

# ---------------------------------------------------------------------- optimum branching


def branching(
    similarity: Tensor,
    names: Sequence[str],
    *,
    generality: Tensor | np.ndarray | Sequence[float] | None = None,
    tilt: float = 1.0,
    min_sim: float | None = None,
) -> ConceptHierarchy:
    """The forest with the largest total weight (Edmonds' optimum branching, exact).

    The weight of p -> c is ``similarity[p, c] + tilt * spread * (rank(p) - rank(c))``, where rank is the generality's
    rank scaled to [0, 1] and spread the standard deviation of the off-diagonal similarities: a symmetric similarity
    alone cannot say which end is the parent. A root weighs ``min_sim``, and wins against a link that weighs no more.

    Args:
        similarity: (K, K); ``similarity[p, c]`` speaks for p above c.
        generality: (K,), larger is more general; None: :func:`estimated_generality`.
        tilt: how much generality counts; 0: the similarity alone.
        min_sim: weight of making a concept a root; None: :func:`null_threshold`.
    """
    k = len(names)
    values = per_concept("generality", estimated_generality(similarity) if generality is None else generality, k)
    _, tied = np.unique(values, return_inverse=True)
    rank = tied / max(tied.max(), 1)
    lean = tilt * off_diagonal(similarity).std()
    floor = null_threshold(similarity) if min_sim is None else min_sim
    weights = np.full((k + 1, k), np.nextafter(floor, np.inf))
    weights[:k] = as_float64(similarity)
    for parent in range(k):
        weights[parent] += lean * (rank[parent] - rank)
    parents = optimum_arborescence(weights)
    edges = [(names[p], names[c], float(similarity[p, c])) for c, p in enumerate(parents) if p < k]
    return ConceptHierarchy.from_edges(names, edges)
