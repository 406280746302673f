"""Further parents against hand-made cases and laws that any matrix must keep."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.strength import link_strengths
from captum_concepts.miners.api import mine
from captum_concepts.miners.builtin import MINERS
from captum_concepts.miners.several_parents import add_parents

NAMES = ("rock", "jazz", "hard rock", "fusion")
TREE = ConceptHierarchy.from_edges(NAMES, [("rock", "hard rock", 0.9, 0.8), ("jazz", "fusion", 0.6)])
S = np.array([[1.0, 0.1, 0.9, 0.55], [0.1, 1, 0.2, 0.6], [0.9, 0.2, 1, 0.58], [0.55, 0.6, 0.58, 1]])


def links(hierarchy: ConceptHierarchy) -> set[tuple[str, str]]:
    return set(hierarchy.graph.edges)


def test_a_concept_between_two_gets_both():
    found = add_parents(TREE, S)
    # hard rock is nearer to fusion than rock is, but no nearer to a root than fusion itself
    assert links(found) == links(TREE) | {("rock", "fusion")}
    assert found.parents("fusion") == ["jazz", "rock"]
    assert found.graph.edges["rock", "fusion"]["weight"] == pytest.approx(0.55)
    assert math.isnan(found.graph.edges["rock", "fusion"]["support"])
    assert found.graph.edges["rock", "hard rock"] == {"weight": 0.9, "support": 0.8}
    assert add_parents(TREE, S, margin=0.04) == TREE
    assert add_parents(TREE, S, max_parents=1) == TREE


def test_no_further_parent_above_or_below_another():
    """d hangs under c under b under a; e under a: c may get e, and d then has it already."""
    names = [*"abcde"]
    chain = ConceptHierarchy.from_edges(names, [("a", "b"), ("b", "c"), ("c", "d"), ("a", "e")])
    found = add_parents(chain, np.ones((5, 5)), max_parents=5)
    assert found.parents("d") == ["c"]
    assert found.parents("c") == ["b", "e"]
    assert found.parents("b") == ["a"]
    assert links(found) == links(ConceptHierarchy(nx.transitive_reduction(found.graph), tuple(names)))


def test_strengths_are_cosines_of_inner_products_and_else_the_entries():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 3))
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in points] for b in points]
    np.testing.assert_allclose(link_strengths(points @ points.T), cosines)
    lopsided = rng.random((4, 4))
    np.testing.assert_array_equal(link_strengths(lopsided), lopsided)
    noisy = np.array([[1.0, 0.5], [0.5, -0.1]])
    np.testing.assert_array_equal(link_strengths(noisy), [[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("miner", sorted(MINERS))
@pytest.mark.parametrize("seed", range(4))
def test_laws(miner: str, seed: int):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(25, 3)) + 1
    matrix = points @ points.T
    matrix = matrix / np.abs(matrix).max()
    names = [f"c{i}" for i in range(25)]
    tree = mine(matrix, names, miner)
    found = mine(matrix, names, miner, max_parents=3, parent_margin=0.3)
    assert links(tree) <= links(found)
    assert found.roots == tree.roots
    assert nx.is_directed_acyclic_graph(found.graph)
    added = links(found) - links(tree)
    strength = link_strengths(matrix)
    index = {name: i for i, name in enumerate(names)}
    for parent, child in added:
        own = max(strength[index[p], index[child]] for p in tree.parents(child))
        assert strength[index[parent], index[child]] > own - 0.3
        assert tree.depth(parent) < tree.depth(child)
        assert len(found.parents(child)) <= 3
        others = set(found.parents(child)) - {parent}
        assert not others & (set(found.ancestors(parent)) | set(found.descendants(parent)))
    order = rng.permutation(25)
    again = add_parents(
        ConceptHierarchy(tree.graph, tuple(names[i] for i in order)),
        matrix[np.ix_(order, order)],
        max_parents=3,
        margin=0.3,
    )
    assert links(again) == links(found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_parents": 0}, "max_parents=0"),
        ({"max_parents": 2.5}, "max_parents=2.5"),
        ({"max_parents": math.inf}, "max_parents=inf"),
        ({"margin": -1}, "margin = -1"),
        ({"margin": math.nan}, "margin = nan"),
        ({"similarity": S[:2]}, r"shape"),
        ({"similarity": np.full((4, 4), np.nan)}, "NaN or infinity"),
    ],
)
def test_bad_input(options: dict, says: str):
    with pytest.raises(InputError, match=says):
        add_parents(TREE, **{"similarity": S, **options})
    with pytest.raises(InputError, match="max_parents=0"):
        mine(S, NAMES, max_parents=0)
