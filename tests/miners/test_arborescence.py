"""The optimum arborescence compared with networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from captum_concepts.miners.arborescence import optimum_arborescence


@pytest.mark.parametrize("k", [1, 2, 3, 8, 30, 60])
@pytest.mark.parametrize("seed", range(5))
def test_arborescence_equals_networkx(k: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(k + 1, k))
    weights[k] -= 50 * (seed % 2)  # every other time a single root
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((p, c, weights[p, c] + 1e3) for p in range(k + 1) for c in range(k) if p != c)
    best = nx.maximum_spanning_arborescence(graph)
    expected = np.empty(k, dtype=int)
    for parent, child in best.edges:
        expected[child] = parent
    assert optimum_arborescence(weights).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_arborescence_with_ties_and_symmetry_is_as_heavy(seed: int) -> None:
    k = 25
    weights = np.random.default_rng(seed).integers(0, 4, (k + 1, k)).astype(float)
    weights[:k] = np.maximum(weights[:k], weights[:k].T)
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((p, c, weights[p, c] + 1e3) for p in range(k + 1) for c in range(k) if p != c)
    parents = optimum_arborescence(weights)
    best = nx.maximum_spanning_arborescence(graph).size(weight="weight") - 1e3 * k
    assert weights[parents, np.arange(k)].sum() == pytest.approx(best)
    found = nx.DiGraph(zip(parents.tolist(), range(k), strict=True))
    assert nx.is_arborescence(found)
