"""Figures worked out by hand, laws, and the published tree of the paper."""

from __future__ import annotations

import json
import math

import networkx as nx
import numpy as np
import pytest
from helpers.paths import SHARED

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.evaluation import evaluate_hierarchy

#   music
#   ├ rock: metal, punk
#   └ jazz: bebop
TRUTH = {"music": None, "rock": "music", "jazz": "music", "metal": "rock", "punk": "rock", "bebop": "jazz"}


def test_the_same_is_perfect() -> None:
    found = evaluate_hierarchy(ConceptHierarchy.from_parents(TRUTH), TRUTH)
    perfect = ("parent_accuracy", "root_precision", "root_recall", "ancestor_f1", "triplet_agreement")
    assert [found[key] for key in perfect] == [1.0] * 5
    assert found["robinson_foulds"] == 0.0
    assert (found["n_concepts"], found["n_with_parent"]) == (6, 5)


def test_one_moved_leaf_by_hand() -> None:
    found = evaluate_hierarchy(ConceptHierarchy.from_parents({**TRUTH, "punk": "jazz"}), TRUTH)
    assert found["parent_accuracy"] == 4 / 5
    # 8 pairs each; only rock-punk is lost and jazz-punk is new
    assert found["ancestor_precision"] == found["ancestor_recall"] == found["ancestor_f1"] == 7 / 8
    # branches of 2 to 5 concepts: {rock, metal, punk}, {jazz, bebop} against {rock, metal}, {jazz, bebop, punk}
    assert found["robinson_foulds"] == 1.0
    # resolved triples: two of {rock, metal, punk} with one of the 3 others, 9; {jazz, bebop} with one of 4, 4; and
    # {rock, metal, punk} ties (all pairs share rock and music). Of the 9, rock-metal stays closest with music, jazz,
    # bebop (3); the 6 with punk are lost. Of the 4, punk now ties with jazz-bebop; 3 stay.
    assert found["n_triplets"] == 13
    assert found["triplet_agreement"] == 6 / 13


def test_forests_and_missing_concepts_are_joined_to_the_nearest_shared_ancestor() -> None:
    mined = {"music": None, "metal": "music", "bebop": None, "ska": "bebop", "punk": "ska"}
    found = evaluate_hierarchy(ConceptHierarchy.from_parents(mined), TRUTH)
    assert found["unmatched_mined"] == ["ska"]
    assert found["unmatched_reference"] == ["rock", "jazz"]
    # truth among music, metal, bebop, punk: all three right under music; mined has metal right, bebop as a root,
    # punk under bebop
    assert (found["n_concepts"], found["n_with_parent"]) == (4, 3)
    assert found["parent_accuracy"] == 1 / 3
    assert (found["root_precision"], found["root_recall"]) == (1 / 2, 1.0)
    assert found["ancestor_precision"] == 1 / 2 and found["ancestor_recall"] == 1 / 3
    assert found["ancestor_f1"] == pytest.approx(2 / 5)


def test_several_parents_count_by_overlap() -> None:
    truth = nx.DiGraph([("a", "c"), ("b", "c")])
    found = evaluate_hierarchy(nx.DiGraph([("a", "c"), ("a", "b")]), truth)
    assert found["parent_accuracy"] == 1 / 2
    assert found["ancestor_precision"] == found["ancestor_recall"] == 1 / 2


def test_nothing_to_divide_by_is_nan() -> None:
    flat = ConceptHierarchy.from_edges("abc", [])
    found = evaluate_hierarchy(flat, {"a": None, "b": "a", "c": "a"})
    assert math.isnan(found["ancestor_precision"]) and found["ancestor_recall"] == 0.0 == found["ancestor_f1"]
    both_flat = evaluate_hierarchy(flat, flat, clusters={"a": 1})
    assert both_flat["ancestor_f1"] == 1.0 and both_flat["robinson_foulds"] == 0.0
    assert all(math.isnan(both_flat[key]) for key in ("parent_accuracy", "triplet_agreement", "same_cluster_edges"))


def test_clusters_by_hand() -> None:
    clusters = {"rock": 1, "metal": 1, "punk": 2, "jazz": 2, "bebop": 2}
    found = evaluate_hierarchy(ConceptHierarchy.from_parents(TRUTH), TRUTH, clusters)
    # links between labelled concepts: rock-metal, rock-punk, jazz-bebop; same: 2; five concepts in two clusters could
    # carry three same links; pairs: 2 * 1 + 3 * 2 of 5 * 4
    assert found["same_cluster_edges"] == 2 / 3
    assert found["same_cluster_ceiling"] == 1.0
    assert found["same_cluster_chance"] == 8 / 20


def test_order_of_concepts_does_not_matter() -> None:
    mined = {**TRUTH, "punk": "jazz", "metal": None}
    backwards = dict(reversed(mined.items()))
    truth = dict(reversed(TRUTH.items()))
    first = evaluate_hierarchy(ConceptHierarchy.from_parents(mined), TRUTH)
    assert first == evaluate_hierarchy(ConceptHierarchy.from_parents(backwards), truth)


def test_many_triples_are_sampled_alike_each_time() -> None:
    truth = {f"c{i}": f"c{(i - 1) // 3}" if i else None for i in range(150)}
    mined = {f"c{i}": f"c{(i - 1) // 2}" if i else None for i in range(150)}
    first = evaluate_hierarchy(ConceptHierarchy.from_parents(mined), truth)
    assert first == evaluate_hierarchy(ConceptHierarchy.from_parents(mined), truth)
    assert 0 < first["triplet_agreement"] < 1 and first["n_triplets"] <= 200_000


def test_the_order_of_many_concepts_does_not_matter_either() -> None:
    """More triples than are counted: which are drawn must not follow from the order of the names."""
    truth = {f"c{i}": f"c{(i - 1) // 3}" if i else None for i in range(150)}
    mined = {f"c{i}": f"c{(i - 1) // 2}" if i else None for i in range(150)}
    first = evaluate_hierarchy(ConceptHierarchy.from_parents(mined), truth)
    again = evaluate_hierarchy(
        ConceptHierarchy.from_parents(dict(reversed(mined.items()))), dict(reversed(truth.items()))
    )
    assert first == again


def test_the_ceiling_of_several_parents_by_hand() -> None:
    """Three concepts of one cluster can carry three links without a circle, a forest only two."""
    graph = ConceptHierarchy.from_edges("abcd", [("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")])
    found = evaluate_hierarchy(graph, graph, {"a": 1, "b": 1, "c": 1, "d": 2})
    assert found["same_cluster_edges"] == found["same_cluster_ceiling"] == 3 / 4


def test_the_published_tree_has_the_published_figures() -> None:
    path = SHARED / "models" / "deezer" / "apm_genres_published_hierarchy.json"
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    data = json.loads(path.read_text())
    tree = ConceptHierarchy.from_edges(
        [node["id"] for node in data["nodes"]], [(link["source"], link["target"]) for link in data["links"]]
    )
    assert tree.is_tree and max(tree.depths.values()) == 13 and len(tree.leaves) == 143
    found = evaluate_hierarchy(tree, tree, {node["id"]: node["color"] for node in data["nodes"]})
    shares = [round(found[f"same_cluster_{key}"], 3) for key in ("edges", "ceiling", "chance")]
    assert shares == [0.491, 0.899, 0.080]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"a": "b", "b": "c", "c": "a"}, "circle"),
        ({"x": None}, "share no concept"),
        ([("a", "b")], "give a hierarchy"),
        ({"a": "a"}, "its own parent"),
        ({"c": ["a", "b"]}, "give one name"),
    ],
)
def test_bad_reference(reference: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        evaluate_hierarchy(ConceptHierarchy.from_edges("abc", [("a", "b")]), reference)
    assert "\n" not in str(caught.value)


def test_a_cluster_that_is_no_label() -> None:
    with pytest.raises(InputError, match=r"'b' has \[2\]; give one label"):
        evaluate_hierarchy(ConceptHierarchy.from_edges("ab", []), {"a": "b"}, {"a": 1, "b": [2]})


def test_adjusted_rand_is_sklearns_at_every_cut() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    names = [f"c{i:02}" for i in range(14)]
    trees = [
        ConceptHierarchy.from_edges(names, [(names[rng.integers(i)], names[i]) for i in range(1, 14)]) for _ in range(2)
    ]
    cuts = [[tree.cut(k) for tree in trees] for k in range(2, 11)]
    expected = [metrics.adjusted_rand_score([a[n] for n in names], [b[n] for n in names]) for a, b in cuts]
    assert evaluate_hierarchy(*trees)["adjusted_rand"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert evaluate_hierarchy(trees[0], trees[0])["adjusted_rand"] == 1.0


def test_adjusted_rand_needs_a_common_number_of_branches() -> None:
    apart = ConceptHierarchy.from_edges("abc", [])
    chain = ConceptHierarchy.from_edges("abc", [("a", "b"), ("b", "c")])
    assert math.isnan(evaluate_hierarchy(apart, chain)["adjusted_rand"])
