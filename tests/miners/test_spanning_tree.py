"""The spanning tree miner compared with scipy's minimum spanning tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.similarities import named, random_similarity

from captum_concepts.errors import InputError
from captum_concepts.miners.api import mine


def euclidean_forest(points: np.ndarray, factor: float) -> set[tuple[int, int]]:
    """scipy's minimum spanning tree over the points and the origin, as undirected links; the origin is -1."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    places = np.vstack([points, np.zeros(points.shape[1])])
    distance = ((places[:, None] - places[None]) ** 2).sum(2)
    distance[-1] *= factor
    distance[:, -1] *= factor
    found = np.argwhere(minimum_spanning_tree(distance).toarray() > 0)
    return {(min(a, b), max(a, b)) for a, b in found.tolist()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("factor", [1.0, 1.3, 3.0])
def test_spanning_tree_equals_that_of_scipy(seed: int, factor: float) -> None:
    points = np.random.default_rng(seed).normal(size=(15, 6))
    mined = mine(torch.as_tensor(points @ points.T), named(15), "spanning_tree", root_factor=factor)
    index = {name: i for i, name in enumerate(mined.names)}
    links_found = {(min(index[p], index[c]), max(index[p], index[c])) for p, c in mined.graph.edges}
    links_found |= {(index[root], 15) for root in mined.roots}
    assert links_found == euclidean_forest(points, factor)
    for parent, child, weight, _ in mined.edges:
        a, b = points[index[parent]], points[index[child]]
        assert weight == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)


def test_spanning_tree_puts_the_mean_above_what_it_is_the_mean_of() -> None:
    leaves = np.eye(6)
    points = np.vstack([leaves, leaves[:3].mean(0), leaves[3:].mean(0)])
    points -= leaves.mean(0)
    mined = mine(torch.as_tensor(points @ points.T), [*"abcdef", "abc", "def"], "spanning_tree")
    assert {root: mined.children(root) for root in mined.roots} == {"abc": ["a", "b", "c"], "def": ["d", "e", "f"]}


def test_spanning_tree_of_identical_concepts_and_of_noise() -> None:
    same = mine(torch.ones(4, 4), named(4), "spanning_tree")
    assert same.roots == ["c0"] and same.children("c0") == ["c1", "c2", "c3"]
    nothing = mine(torch.zeros(4, 4), named(4), "spanning_tree")
    assert nothing.roots == named(4)
    below = mine(-torch.eye(3), named(3), "spanning_tree")  # less far from the origin than noise
    assert below.roots == named(3)


def test_spanning_tree_refuses_bad_input() -> None:
    with pytest.raises(InputError, match="root_factor=0"):
        mine(torch.eye(3), named(3), "spanning_tree", root_factor=0)
    with pytest.raises(InputError, match="symmetric"):
        mine(random_similarity(4, 0), named(4), "spanning_tree")
