"""Bootstrap support against counts by hand, and a consensus that says no more than the samples do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.methods import CavMethod, resolve_method
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.miners.api import mine
from captum_concepts.miners.bootstrap import ResampledDiscriminant, ResampledSimilarity, bootstrap_support
from captum_concepts.similarities.api import similarity
from captum_concepts.similarities.discriminant.means import observations, scaled_products
from captum_concepts.similarities.discriminant.neighbours import discriminant_space

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


def test_a_link_that_collapses_does_not_lead_around_another_parent() -> None:
    mined = ConceptHierarchy.from_edges("gabc", [("g", "a"), ("g", "b"), ("a", "c"), ("b", "c")])
    above = np.array([[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0.2], [0, 0, 0, 0.0]])
    # c is hardly under b, and what is above b is above a, under which it stays
    assert set(Support(mined, above, {}, 10).consensus().graph.edges) == {("g", "a"), ("g", "b"), ("a", "c")}
    above[0, 1] = 0.1  # now a is a root of its own, and g no longer above it
    found = Support(mined, above, {}, 10).consensus()
    assert set(found.graph.edges) == {("g", "b"), ("a", "c"), ("g", "c")}


@pytest.mark.parametrize("least", [0, 1.5, float("nan")])
def test_consensus_refuses(least: float) -> None:
    found = bootstrap_support(ConceptHierarchy.from_edges(NAMES, TREES[0]), numbered(), given)
    with pytest.raises(InputError, match="least"):
        found.consensus(least)


def test_without_samples_there_is_no_support() -> None:
    with pytest.raises(InputError, match="no samples"):
        bootstrap_support(ConceptHierarchy.from_edges(NAMES, []), [], given)
    with pytest.raises(InputError, match="samples=0"):
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
    space = discriminant_space(observations(rows, labels, None, groups.astype(str)))
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
        tree = mine(
            scaled_products(discriminant_space(observations(rows, labels, None, groups)).inner_products()), names
        )
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


def small_set() -> dict[str, object]:
    """Four concepts of three groups each, two rows a group, in six dimensions; b and c are alike."""
    rng = np.random.default_rng(7)
    means = rng.normal(size=(4, 6)) * 3
    means[2] = means[1] + 0.1
    groups = np.array([f"{k}-{g}" for k in range(4) for g in range(3) for _ in range(2)])
    shows = np.array([int(name[0]) for name in groups])
    positives = shows[:, None] == np.arange(4)
    return {
        "activations": torch.from_numpy(means[shows] + rng.normal(size=(24, 6))),
        "positives": positives,
        "negatives": ~positives,
        "weights": np.full(24, 0.5),
        "groups": groups,
    }


def test_any_similarity_is_resampled_by_fitting_repeated_rows() -> None:
    """A group drawn twice must count as if its rows stood there twice."""
    data = small_set()
    fit = resolve_method("pattern")
    found = list(ResampledSimilarity("cosine", CavMethod(fit), **data, samples=5, seed=3))
    number = np.unique(data["groups"], return_inverse=True)[1]
    rng = np.random.default_rng(3)
    for matrix in found:
        times = np.bincount(rng.integers(12, size=12), minlength=12)
        rows = np.repeat(np.arange(24), times[number])
        there = data["positives"][rows].any(0)
        names = [str(k) for k in np.flatnonzero(there)]
        # every copy of a group is a group of its own
        copies = np.concatenate([np.arange(times[number[row]]) for row in range(24)])
        bank = fit_cavs(
            data["activations"][rows],
            data["positives"][rows][:, there],
            "pattern",
            [f"{data['groups'][row]} {copy}" for row, copy in zip(rows, copies, strict=True)],
            names=names,
            folds=0,
            min_groups=1,
        )
        expected = np.zeros((4, 4))
        expected[np.ix_(there, there)] = similarity(bank, "cosine").numpy()
        np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-6)
    again = list(ResampledSimilarity("cosine", CavMethod(fit), **data, samples=5, seed=3))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    other = next(iter(ResampledSimilarity("cosine", CavMethod(fit), **data, samples=1, seed=4)))
    assert not torch.equal(found[0], other)


@pytest.mark.parametrize("measure", ["activation", "correlation", "discriminant", "sensitivity", "overlap"])
def test_support_of_any_measure(measure: str) -> None:
    data = small_set()
    gradients = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2, 6)))
    resampled = ResampledSimilarity(
        measure, CavMethod(resolve_method("lda"), {"shrinkage": 0.5}), **data, gradients=gradients, samples=20
    )
    found = bootstrap_support(ConceptHierarchy.from_edges(NAMES, [("b", "c")]), resampled, "branching", min_sim=-9.0)
    assert found.samples == 20
    assert all(0 <= share <= 1 for share in found.stability.values())


def test_a_concept_that_a_sample_misses_is_like_no_other() -> None:
    data = small_set()
    found = torch.stack(list(ResampledSimilarity("cosine", CavMethod(resolve_method("pattern")), **data, samples=300)))
    missed = (found.diagonal(dim1=1, dim2=2) == 0).double().mean()
    assert abs(float(missed) - (3 / 4) ** 12) < 0.02  # all three groups of four concepts' twelve not drawn
    with pytest.raises(InputError, match="samples=0"):
        ResampledSimilarity("cosine", CavMethod(resolve_method("pattern")), **data, samples=0)
