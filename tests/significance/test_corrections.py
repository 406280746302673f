"""Corrections against statsmodels and scipy, and the walk along a tree against one written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.significance.corrections import CORRECTIONS, TREE_FACTOR, adjust, check_correction, hierarchical

STATSMODELS = {"bh": "fdr_bh", "by": "fdr_by", "holm": "holm", "bonferroni": "bonferroni"}


@pytest.mark.parametrize("method", STATSMODELS)
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_statsmodels_and_nan_left_out(method, seed):
    p = np.random.default_rng(seed).beta(0.3, 1, size=25)
    p[[2, 7]] = p[3]  # ties
    q = adjust(p, method)
    np.testing.assert_allclose(q, multipletests(p, method=STATSMODELS[method])[1], rtol=1e-12)
    if method in ("bh", "by"):
        np.testing.assert_array_equal(q, false_discovery_control(p, method=method))
    assert (q >= p).all()
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= 0).all()
    holes = np.insert(p, [3, 20], np.nan)
    found = adjust(holes, method)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))
    np.testing.assert_array_equal(found[~np.isnan(holes)], q)
    assert np.isnan(adjust(np.full(3, np.nan), method)).all()
    assert adjust(np.array([]), method).shape == (0,)


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"correction='fdr': unknown; choose one of bh, by, holm, bonferroni"):
        check_correction("fdr")
    with pytest.raises(InputError, match=r"method='hierarchical': not a correction of a plain family"):
        adjust(np.array([0.1]), "hierarchical")
    with pytest.raises(InputError, match=r"p_values=1\.5: outside"):
        adjust(np.array([0.1, 1.5]))
    assert all(check_correction(name) == name for name in CORRECTIONS)


def random_tree(rng, size: int) -> ConceptHierarchy:
    names = [f"c{i}" for i in range(size)]
    edges = [(names[rng.integers(0, i)], names[i]) for i in range(2, size) if rng.random() < 0.8]
    return ConceptHierarchy.from_edges(names, edges)


def walk(p_values: dict[str, float], tree: ConceptHierarchy, alpha: float) -> set[str]:
    """Top-down at a fixed level, by statsmodels."""
    rejected, families = set(), [tree.roots]
    while families:
        family = families.pop()
        if not family:
            continue
        level = alpha / TREE_FACTOR
        hit = multipletests([p_values[name] for name in family], alpha=level, method="fdr_bh")[0]
        for name in np.array(family, dtype=object)[hit]:
            rejected.add(name)
            families.append(tree.children(name))
    return rejected


@pytest.mark.parametrize("seed", range(6))
def test_q_values_are_the_levels_at_which_the_walk_rejects(seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, 30)
    p_values = {name: float(p) for name, p in zip(tree.names, rng.beta(0.15, 1, 30), strict=True)}
    q_values = hierarchical(p_values, tree)
    assert list(q_values) == list(p_values)
    for alpha in (0.01, 0.05, 0.2):
        assert {name for name, q in q_values.items() if q <= alpha} == walk(p_values, tree, alpha)
    for parent, child, _, _ in tree.edges:
        assert q_values[child] >= q_values[parent]
    assert all(q_values[name] >= p_values[name] for name in p_values)


def test_a_child_is_reached_through_its_parent_only():
    tree = ConceptHierarchy.from_edges(["a", "b", "c"], [("a", "b"), ("b", "c")])
    assert hierarchical({"a": 1e-6, "b": 0.5, "c": 1e-9}, tree)["c"] == 1.0
    assert hierarchical({"a": 1e-6, "b": float("nan"), "c": 1e-9}, tree)["c"] == 1.0
    # What has no p-value at all is passed over, and what the tree lacks is a root.
    found = hierarchical({"a": 1e-6, "c": 1e-6, "new": 1e-6}, tree)
    assert found == pytest.approx(dict.fromkeys(found, TREE_FACTOR * 1e-6))


def test_the_strongest_parent_counts():
    graph = ConceptHierarchy.from_edges(["weak", "strong", "c"], [("weak", "c", 0.1), ("strong", "c", 0.9)])
    assert hierarchical({"weak": 1.0, "strong": 1e-6, "c": 1e-6}, graph)["c"] < 1e-4
    assert hierarchical({"weak": 1e-6, "strong": 1.0, "c": 1e-6}, graph)["c"] == 1.0


def test_without_effects_hardly_any_tree_has_a_rejection():
    rng = np.random.default_rng(0)
    tree = random_tree(rng, 40)
    wrong = [
        min(hierarchical(dict(zip(tree.names, rng.random(40), strict=True)), tree).values()) <= 0.2 for _ in range(200)
    ]
    assert np.mean(wrong) <= 0.2
