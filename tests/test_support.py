"""Bootstrap support against counts by hand, and a consensus that says no more than the samples do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_concepts.concept_means import mean_space, observations, scaled_products
from captum_concepts.errors import InputError
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.miners import mine
from captum_concepts.support import ResampledDiscriminant, bootstrap_support

NAMES = ("a", "b", "c", "d")
TREES = [
    [("a", "b"), ("b", "c"), ("a", "d")],
    [("a", "b"), ("b", "c"), ("a", "d")],
    [("a", "b"), ("a", "c"), ("d", "b")],
    [("a", "c"), ("b", "d")],
]


def given(matrix: torch.Tensor, names: tuple[str, ...]) -> ConceptHierarchy:
    """A miner that looks its trees up: the first entry of the matrix is the number of the tree."""
    return ConceptHierarchy.from_edges(names, TREES[int(matrix[0, 0])])


def numbered() -> list[torch.Tensor]:
    return [torch.full((4, 4), float(i)) for i in range(len(TREES))]


def test_support_and_stability_are_counts() -> None:
    calls = []
    found = bootstrap_support(
        ConceptHierarchy.from_edges(NAMES, TREES[0]), numbered(), given, progress=lambda *c: calls.append(c)
    )
    assert {(p, c): s for p, c, _, s in found.hierarchy.edges} == {("a", "b"): 0.75, ("b", "c"): 0.5, ("a", "d"): 0.5}
    assert found.stability == {"a": 0.75 + 0.25, "b": 0.5, "c": 0.5, "d": 0.5}
    assert found.above[0].tolist() == [0, 0.75, 1.0, 0.5]  # a is above c in every tree, if not always as its parent
    assert found.above[3].tolist() == [0, 0.25, 0, 0]
    assert calls == [("bootstrap", i + 1, 4) for i in range(4)] and found.samples == 4


def test_consensus_collapses_weak_links_to_the_ancestor() -> None:
    found = bootstrap_support(ConceptHierarchy.from_edges(NAMES, TREES[0]), numbered(), given)
    assert {(p, c, s) for p, c, _, s in found.consensus(0.6).edges} == {("a", "b", 0.75), ("a", "c", 1.0)}
    assert found.consensus(0.6).roots == ["a", "d"]
    assert set(found.consensus(0.5).graph.edges) == set(found.hierarchy.graph.edges)
    assert set(found.consensus(1.0).graph.edges) == {("a", "c")}


@pytest.mark.parametrize("least", [0, 1.5, float("nan")])
def test_consensus_refuses(least: float) -> None:
    found = bootstrap_support(ConceptHierarchy.from_edges(NAMES, TREES[0]), numbered(), given)
    with pytest.raises(InputError, match="least"):
        found.consensus(least)


def test_without_samples_there_is_no_support() -> None:
    with pytest.raises(InputError, match="no samples"):
        bootstrap_support(ConceptHierarchy.from_edges(NAMES, []), [], given)
    with pytest.raises(InputError, match="samples = 0"):
        ResampledDiscriminant(torch.zeros(2, 2), torch.ones(2, 1), samples=0)


def clips(seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Two parents of two children each; two rows a group."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2, 20))
    leaves = centres.repeat(2, 0) + rng.normal(size=(4, 20))
    rows, labels = [], []
    for concept in range(6):
        for _ in range(30):
            leaf = concept if concept < 4 else 2 * (concept - 4) + rng.integers(2)
            place = leaves[leaf] + spread * rng.normal(size=20)
            rows += [place + 0.1 * rng.normal(size=20) for _ in range(2)]
            labels += [np.arange(6) == concept] * 2
    return torch.as_tensor(np.array(rows)), torch.as_tensor(np.array(labels)), np.arange(len(rows)) // 2


def test_resampled_matrices_repeat_groups_as_drawn() -> None:
    rows, labels, groups = clips(0, 1.0)
    resampled = ResampledDiscriminant(rows, labels, None, groups.astype(str), samples=3, seed=5)
    first = list(resampled)
    assert len(resampled) == len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, resampled, strict=True))
    space = mean_space(observations(rows, labels, None, groups.astype(str)))
    assert space.observed.group.unique().numel() == len(rows) // 2
    rng = np.random.default_rng(5)
    counts = np.bincount(rng.integers(180, size=180), minlength=180)
    own = space.inner_products(torch.as_tensor(counts)[space.observed.group])
    torch.testing.assert_close(first[0], scaled_products(own))


def test_clear_concepts_have_more_support_than_blurred_ones() -> None:
    names = ("a1", "a2", "b1", "b2", "a", "b")
    means = []
    for spread in (0.3, 6.0):
        rows, labels, groups = clips(1, spread)
        tree = mine(scaled_products(mean_space(observations(rows, labels, None, groups)).inner_products()), names)
        found = bootstrap_support(tree, ResampledDiscriminant(rows, labels, None, groups, samples=50))
        means.append(np.mean(list(found.stability.values())))
        assert found.hierarchy.graph.edges == tree.graph.edges
    assert means[0] > 0.95 > 0.8 > means[1]


def test_a_concept_of_one_group_may_be_missed_by_a_sample() -> None:
    rows, labels, groups = clips(2, 1.0)
    labels = labels.clone()
    labels[:60, 0] = torch.arange(60) < 2
    for matrix in ResampledDiscriminant(rows, labels, None, groups, samples=20):
        assert torch.isfinite(matrix).all()
