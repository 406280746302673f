"""The paper's graphs and its yardstick, against hand-computed cases, networkx and brute force."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine as cosine_distance

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.api import mine
from captum_concepts.miners.baselines import concept_graph, embedding_hierarchy, neighbour_distance

S = np.array([[0.9, 0.7, 0.5, 0.1], [0.2, 0.9, 0.6, 0.6], [0.8, 0.3, 0.9, 0.51], [0.0, 0.1, 0.2, 0.9]])
NAMES = ("a", "b", "c", "d")


def edges(graph: nx.DiGraph) -> set[tuple[str, str]]:
    return set(graph.edges)


def test_graphs_read_from_the_similarity():
    above_half = {("a", "b"), ("b", "c"), ("b", "d"), ("c", "a"), ("c", "d")}
    assert edges(concept_graph("similarity", S, NAMES)) == above_half  # 0.5 itself is not above
    assert edges(concept_graph("matching", S, NAMES)) == {("a", "b"), ("c", "a")}
    assert edges(concept_graph("similarity", S, NAMES, threshold=0.75)) == {("c", "a")}
    top = concept_graph("top1", torch.from_numpy(S), NAMES)
    assert edges(top) == {("a", "b"), ("b", "c"), ("c", "a"), ("d", "c")}  # b: c and d tie, the first wins
    assert top.edges["a", "b"]["weight"] == 0.7
    assert list(top.nodes) == list(NAMES)


def test_random_graphs_have_the_stated_chances_and_repeat():
    names = [f"c{i}" for i in range(60)]
    blank = np.zeros((60, 60))
    top = concept_graph("random_top", blank, names, seed=3)
    assert all(degree == 1 for _, degree in top.out_degree)
    assert not any(p == c for p, c in top.edges)
    assert edges(top) == edges(concept_graph("random_top", blank, names, seed=3))
    assert edges(top) != edges(concept_graph("random_top", blank, names, seed=4))
    partners = np.zeros((60, 60))
    for seed in range(400):
        for p, c in concept_graph("random_top", blank, names, seed=seed).edges:
            partners[int(p[1:]), int(c[1:])] += 1
    expected = 400 * 60 / (60 * 59)
    off = partners[~np.eye(60, dtype=bool)]
    chi_square = ((off - expected) ** 2 / expected).sum()
    assert abs(chi_square - 60 * 58) < 5 * math.sqrt(2 * 60 * 58)  # every partner has the same chance
    count = concept_graph("random_pairs", blank, names, seed=0).number_of_edges()
    assert abs(count - 354) < 4 * math.sqrt(3540 * 0.1 * 0.9)
    assert concept_graph("random_pairs", blank, names, probability=1).number_of_edges() == 60 * 59


def test_one_concept_has_no_links():
    for kind in ("random_top", "top1", "similarity", "random_pairs"):
        assert concept_graph(kind, [[1.0]], ["only"], probability=1).number_of_edges() == 0
    assert embedding_hierarchy({"only": [1.0, 2.0]}).names == ("only",)


def test_distance_of_neighbours_by_hand():
    tree = ConceptHierarchy.from_edges("abc", [("a", "b", 1.0), ("b", "c", 1.0)])
    vectors = {"a": [0.0, 0.0], "b": [3.0, 4.0], "c": [3.0, 6.0]}
    found = neighbour_distance(tree, vectors)
    assert found["mean"] == pytest.approx(3.5)  # 5 and 2
    assert found["half"] == pytest.approx(1.96 * 1.5 / math.sqrt(2))
    assert (found["links"], found["left_out"]) == (2, 0)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=7) for name in "abc"}
    found = neighbour_distance(tree.graph, vectors, "cosine")
    by_scipy = [1 - cosine_distance(vectors[p], vectors[c]) for p, c in (("a", "b"), ("b", "c"))]
    assert found["mean"] == pytest.approx(np.mean(by_scipy))


def test_links_without_a_vector_are_counted():
    tree = ConceptHierarchy.from_edges("abc", [("a", "b", 1.0), ("b", "c", 1.0)])
    found = neighbour_distance(tree, {"a": [0.0], "b": [2.0]})
    assert (found["mean"], found["links"], found["left_out"]) == (2.0, 1, 1)
    nothing = neighbour_distance(tree, {"a": [0.0]})
    assert math.isnan(nothing["mean"])
    assert (nothing["links"], nothing["left_out"]) == (0, 2)


def test_the_interval_by_concept_equals_the_sum_over_all_pairs_of_links_that_share_an_end():
    rng = np.random.default_rng(1)
    names = [f"c{i}" for i in range(9)]
    vectors = {name: rng.normal(size=3) for name in names}
    graph = nx.DiGraph([(a, b) for a, b in itertools.permutations(names, 2) if rng.random() < 0.4])
    found = neighbour_distance(graph, vectors)
    links = list(graph.edges)
    value = np.array([np.linalg.norm(vectors[p] - vectors[c]) for p, c in links])
    centred = value - value.mean()
    total = sum(
        centred[i] * centred[j] for i, one in enumerate(links) for j, other in enumerate(links) if set(one) & set(other)
    )
    assert total > (centred**2).sum()
    assert found["half_by_concept"] == pytest.approx(1.96 * math.sqrt(total) / len(links))


def test_dense_random_graphs_are_as_unsure_as_their_concepts_are_few():
    """The paper's interval for dense graphs is 0.000; drawn again with other concepts the mean moves far more."""
    means, halves, by_concept = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        names = [f"c{i}" for i in range(40)]
        lengths = rng.exponential(size=(40, 1)) * rng.normal(size=(40, 5))
        vectors = dict(zip(names, lengths, strict=True))
        graph = concept_graph("random_pairs", np.zeros((40, 40)), names, probability=0.5, seed=seed)
        found = neighbour_distance(graph, vectors)
        means.append(found["mean"])
        halves.append(found["half"])
        by_concept.append(found["half_by_concept"])
    truth = 1.96 * np.std(means)
    assert np.mean(halves) < 0.5 * truth
    assert 0.7 * truth < np.mean(by_concept) < 1.3 * truth


def test_the_hierarchy_of_an_embedding_is_the_papers_algorithm_on_its_similarity():
    rng = np.random.default_rng(5)
    names = [f"c{i}" for i in range(30)]
    points = rng.normal(size=(30, 4))
    vectors = dict(zip(names, points, strict=True))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert embedding_hierarchy(vectors, threshold=0.4) == mine(cosines, names, "heymann", threshold=0.4)
    squared = -((points[:, None] - points[None]) ** 2).sum(2)
    assert squared[~np.eye(30, dtype=bool)].mean() < -0.5
    found = embedding_hierarchy(vectors, metric="euclidean", threshold=-1.0)
    assert set(found.graph.edges) == set(mine(squared, names, "heymann", threshold=-1.0, min_sim=-3.0).graph.edges)
    above = np.quantile(cosines[~np.eye(30, dtype=bool)], 0.8)
    assert embedding_hierarchy(vectors, density=0.2) == mine(cosines, names, "heymann", threshold=float(above))


def test_order_of_concepts_does_not_matter():
    order = [2, 0, 3, 1]
    for kind in ("similarity", "matching", "top1"):
        mixed = concept_graph(kind, (S + np.arange(16).reshape(4, 4) * 1e-6)[np.ix_(order, order)], [*"cadb"])
        assert edges(mixed) == edges(concept_graph(kind, S + np.arange(16).reshape(4, 4) * 1e-6, NAMES))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: concept_graph("nearest", S, NAMES), "'nearest': unknown; use one of random_top"),
        (lambda: concept_graph("top1", S[:3], NAMES), r"shape \(3, 4\) for 4 names"),
        (lambda: concept_graph("top1", np.full((4, 4), np.nan), NAMES), "NaN or infinity"),
        (lambda: concept_graph("top1", S, ["a", "a", "b", "c"]), "'a'"),
        (lambda: concept_graph("random_pairs", S, NAMES, probability=2), "probability=2"),
        (lambda: concept_graph("top1", np.zeros((0, 0)), []), "at least one"),
        (lambda: concept_graph("random_top", S, NAMES, seed=-1), "seed=-1"),
        (lambda: concept_graph("similarity", S, NAMES, threshold=math.nan), "threshold=nan"),
        (lambda: embedding_hierarchy({"a": "x", "b": [1.0]}), "'a' has 'x'; give a vector of numbers"),
        (lambda: embedding_hierarchy({}), "none given"),
        (lambda: embedding_hierarchy({"a": [1.0], "b": [1.0, 2.0]}), "'b' has 2 numbers, 'a' 1"),
        (lambda: embedding_hierarchy({"a": [1.0, math.nan], "b": [1.0, 2.0]}), "'a' has NaN"),
        (lambda: embedding_hierarchy({"a": [0.0], "b": [1.0]}), "all zeros"),
        (lambda: embedding_hierarchy({"a": [1.0], "b": [1.0]}, metric="manhattan"), "'manhattan': unknown"),
        (lambda: embedding_hierarchy({"a": [1.0], "b": [1.0]}, density=1.5), "density=1.5"),
        (lambda: neighbour_distance(nx.DiGraph([("a", "b")]), {"a": [1.0], "b": [2.0]}, "l1"), "'l1': unknown"),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
