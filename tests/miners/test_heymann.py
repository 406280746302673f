"""The Heymann miner compared with a slow, independent version of the same rules."""

from __future__ import annotations

import itertools
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from helpers.similarities import links, named, random_similarity

from captum_concepts.errors import InputError
from captum_concepts.miners.api import mine
from captum_concepts.miners.heymann import _levels, heymann


def slow_heymann(
    sim: list[list[float]],
    centrality: list[float],
    min_sim: float = 0.2,
    parents_per_node: int = 1,
    additional_threshold: float = 0.2,
    max_children: int = 20,
) -> set[tuple[str, str, float]]:
    """The paper's steps, one concept and one candidate at a time, with plain lists."""
    n = len(sim)
    smallest = min(min(row) for row in sim)
    sim = [[smallest - 0.1 if i == j else sim[i][j] for j in range(n)] for i in range(n)]
    ascending = sorted(range(n), key=lambda i: centrality[i])
    placed: list[int] = []
    children = dict.fromkeys(range(n), 0)
    result = set()
    for child in reversed(ascending):
        ranking = sorted((-sim[p][child], p) for p in placed if children[p] < max_children)[:parents_per_node]
        for negative, parent in ranking:
            if -negative > min_sim and -negative > -ranking[0][0] - additional_threshold:
                result.add((f"c{parent}", f"c{child}", -negative))
                children[parent] += 1
        placed.append(child)
    return result


def paper_centrality(sim: np.ndarray, threshold: float = 0.5) -> list[float]:
    graph = nx.empty_graph(len(sim))
    graph.add_edges_from((i, j) for i, j in np.argwhere(sim > threshold).tolist() if i != j)
    found = nx.betweenness_centrality(graph)
    return [found[i] for i in range(len(sim))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parents_per_node": 2},
        {"parents_per_node": 3, "additional_threshold": 0.05, "min_sim": 0.8},
        {"max_children_per_node": 2, "threshold": 0.85},
        {"max_children_per_node": 1, "min_sim": 0.95},
    ],
    ids=str,
)
@pytest.mark.parametrize("decimals", [None, 1])
def test_heymann_equals_the_slow_version(seed: int, options: dict, decimals: int | None) -> None:
    # rounded to one decimal nearly every similarity is tied; few distinct centralities tie the order as well
    sim = random_similarity(45, seed, decimals)
    rules = {k.replace("_per_node", "") if k.startswith("max") else k: v for k, v in options.items()}
    threshold = rules.pop("threshold", 0.5)
    array = sim.numpy()
    found = mine(sim, named(45), "heymann", **options)
    if decimals is None:
        assert links(found) == slow_heymann(array.tolist(), paper_centrality(array, threshold), **rules)
    tied = [float(i % 4) for i in range(45)]
    found = heymann(sim, named(45), centrality=np.array(tied), **options)
    assert links(found) == slow_heymann(array.tolist(), tied, **rules)


def exact_betweenness(linked: np.ndarray) -> list[Fraction]:
    """Every shortest path counted, in fractions: what is equal is equal."""
    graph = nx.from_numpy_array(linked)
    total = [Fraction(0)] * len(linked)
    for start, end in itertools.permutations(graph, 2):
        if nx.has_path(graph, start, end):
            paths = list(nx.all_shortest_paths(graph, start, end))
            for path in paths:
                for inner in path[1:-1]:
                    total[inner] += Fraction(1, len(paths))
    return total


@pytest.mark.parametrize("seed", range(30))
def test_rounding_does_not_break_ties_of_centrality(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    k = int(rng.integers(6, 15))
    sim = rng.random((k, k)).round(1)
    threshold = float(rng.choice([0.3, 0.5, 0.66]))
    linked = (sim > threshold) | (sim > threshold).T
    np.fill_diagonal(linked, False)
    exact = exact_betweenness(linked)
    found = heymann(torch.from_numpy(sim), named(k), threshold=threshold, max_children_per_node=3)
    assert links(found) == slow_heymann(sim.tolist(), exact, max_children=3)


def test_centralities_that_differ_by_rounding_are_one_level() -> None:
    values = np.array([0.3, 0.1 + 0.2, 0.0, 0.3 + 1e-9, 1e-300])
    assert values[0] != values[1]
    assert _levels(values).tolist() == [2, 2, 0, 3, 1]


def test_heymann_takes_float32_at_its_exact_value() -> None:
    # float32(0.2) is above 0.2; compared in float32 it would not be
    sim = torch.full((2, 2), 0.2, dtype=torch.float32)
    assert heymann(sim, named(2), centrality=[1, 0], min_sim=0.2).roots == ["c0"]


def test_heymann_ties_and_roots_by_hand() -> None:
    # all centralities are 0: the last concept first; then equal similarity: under the earlier of the placed ones
    sim = torch.full((3, 3), 0.75)
    assert links(heymann(sim, named(3))) == {("c2", "c1", 0.75), ("c1", "c0", 0.75)}
    assert heymann(sim, named(3), min_sim=0.8).roots == named(3)


def test_heymann_refuses_bad_options() -> None:
    sim = random_similarity(4, 0)
    for options in ({"parents_per_node": 0}, {"max_children_per_node": 0}, {"parents_per_node": 1.5}):
        with pytest.raises(InputError, match="at least 1"):
            heymann(sim, named(4), **options)
    with pytest.raises(InputError, match="no 'degree'"):
        heymann(sim, named(4), centrality="degree")
    with pytest.raises(InputError, match="one finite number for each"):
        heymann(sim, named(4), centrality=[1.0, 2.0])
