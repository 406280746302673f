"""Neighbours of held-out clips, against loops over clips and against densities that are known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers.planted import NAMES, PARENTS, planted_family

from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.api import mine
from captum_concepts.similarities.builtin import SIMILARITIES
from captum_concepts.similarities.discriminant import neighbours as concept_neighbours
from captum_concepts.similarities.discriminant.means import (
    SHRINKAGE,
    mean_space,
    observations,
    principal,
    scaled_products,
)
from captum_concepts.similarities.discriminant.neighbours import (
    FOLDS,
    NEIGHBOURS,
    Neighbours,
    discriminant_space,
    neighbours,
)

planted = partial(planted_family, n=20, dimensions=12)


def slow_nearest(found: Neighbours) -> list[list[int]]:
    """The neighbours by one search for each observation, in a space made with scipy from the other folds alone."""
    observed = found.observed
    w, shows = observed.weights.numpy(), observed.shows.numpy()
    centred = observed.values - observed.weights @ observed.values / observed.weights.sum()
    x, fold = principal(centred, observed.weights).numpy(), found.fold.numpy()
    result = []
    for one in range(len(x)):
        train = np.flatnonzero(fold != fold[one])
        centre = np.average(x[train], axis=0, weights=w[train])
        means, within, total = [], np.zeros((x.shape[1], x.shape[1])), 0.0
        for concept in shows.T:
            rows = train[concept[train] > 0]
            means.append(np.average(x[rows], axis=0, weights=w[rows]))
            within = within + ((x[rows] - means[-1]).T * w[rows]) @ (x[rows] - means[-1])
            total += w[rows].sum()
        within = within / total
        shrunk = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
        whitening = np.real(scipy.linalg.fractional_matrix_power(shrunk, -0.5))
        basis = scipy.linalg.orth(((np.array(means) - centre) @ whitening).T, rcond=1e-6)
        inside = (x - centre) @ whitening @ basis
        inside /= np.linalg.norm(inside, axis=1, keepdims=True)
        order = np.argsort(-(inside[train] @ inside[one]), kind="stable")
        result.append(train[order[: 2 * NEIGHBOURS]].tolist())
    return result


def slow_products(found: Neighbours, counts: np.ndarray) -> np.ndarray:
    """The definition, clip by clip."""
    observed = found.observed
    w, shows, fold = observed.weights.numpy() * counts, observed.shows.numpy() > 0, found.fold.numpy()
    k = shows.shape[1]
    ratio = np.ones((k, k))
    for i in range(k):
        values, weights = [], []
        for one in np.flatnonzero(shows[:, i] & (w > 0)):
            drawn = [near for near in found.nearest[one].tolist() if near >= 0 for _ in range(int(counts[near]))]
            drawn = drawn[:NEIGHBOURS]
            if not drawn:
                continue
            vote = observed.weights.numpy()[drawn]
            others = (fold != fold[one]) & found.candidate.numpy()
            by_chance = [w[others & shows[:, j]].sum() / w[others].sum() for j in range(k)]
            seen = [vote[shows[drawn, j]].sum() / vote.sum() for j in range(k)]
            values.append([s / c if c > 0 else 1.0 for s, c in zip(seen, by_chance, strict=True)])
            weights.append(w[one])
        if values:
            ratio[i] = np.average(values, axis=0, weights=weights)
    return (ratio + ratio.T) / 2 - 1


def test_neighbours_are_those_of_a_search_in_a_space_that_never_saw_the_clip() -> None:
    rows, labels = planted(0, n=8)
    weights = 0.5 + torch.rand(len(rows), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = np.array([f"g{i // 2:02}" for i in range(len(rows))])
    labels[:20:3, 3] = True  # some clips show two concepts
    found = neighbours(observations(rows, labels, weights, groups))
    assert found.nearest.tolist() == slow_nearest(found)
    own, near = found.observed.group[:, None], found.observed.group[found.nearest]
    assert not bool((own == near).any())


@pytest.mark.parametrize("drawn", [False, True])
def test_products_are_those_of_a_loop(drawn: bool) -> None:
    rows, labels = planted(1, n=6, dimensions=5)
    labels[:10, 3] = True
    weights = 0.5 + torch.rand(len(rows), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = neighbours(observations(rows, labels, weights))
    counts = np.ones(len(rows))
    if drawn:
        counts = np.random.default_rng(0).integers(0, 4, len(rows)).astype(float)
        counts[found.observed.shows[:, 6].numpy() > 0] = 0  # a concept that the sample misses
    products = found.inner_products(torch.as_tensor(counts)).numpy()
    np.testing.assert_allclose(products, slow_products(found, counts), rtol=1e-9, atol=1e-9)
    if drawn:
        assert products[6, 6] == 0  # exactly: the least above 0 would make it the nearest to the origin
        np.testing.assert_allclose(products[6], 0, atol=1e-12)
    else:
        assert torch.equal(found.inner_products(), torch.as_tensor(products))


def test_a_concept_of_scattered_clouds_is_seen_by_its_neighbours_only() -> None:
    """The clouds of *all* lie around the origin, as its mean does, so its mean cannot say that it holds them."""
    rng = np.random.default_rng(0)
    centres = 4 * np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    leaf = np.tile(np.arange(4), 60)
    rows = torch.as_tensor(np.pad(centres[leaf], ((0, 0), (0, 4))) + rng.normal(size=(len(leaf), 6)))
    marked = np.where(np.arange(len(leaf)) < 120, leaf, np.where(leaf < 2, 4, 5))
    observed = observations(rows, torch.as_tensor(marked[:, None] == np.arange(6)))
    near = neighbours(observed).inner_products()
    means = scaled_products(mean_space(observed).inner_products())
    assert float(means.diagonal()[4:].abs().max()) < 0.05
    # p(all left and right) is the mean of its clouds': a quarter of the clips lie in each cloud, so twice chance
    torch.testing.assert_close(near[4, :2], torch.ones(2).double(), rtol=0, atol=0.25)
    torch.testing.assert_close(near[4, 2:4], -torch.ones(2).double(), rtol=0, atol=0.25)
    assert float(near[4, 4]) == pytest.approx(1, abs=0.25)
    assert float(near[0, 0]) == pytest.approx(3, abs=0.5)


def test_concepts_of_random_clips_are_neighbours_by_chance() -> None:
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = torch.as_tensor(rng.normal(size=(300, 40)))
        labels = torch.as_tensor(np.arange(300)[:, None] % 10 == np.arange(10))
        found.append(float(neighbours(observations(rows, labels)).inner_products().diagonal().mean()))
    assert abs(np.mean(found)) < 0.1


def test_permuting_concepts_or_rows_changes_nothing_else() -> None:
    rows, labels = planted(2)
    groups = np.array([f"g{i // 2}" for i in range(len(rows))])
    expected = discriminant_space(observations(rows, labels, None, groups)).inner_products()
    columns = torch.randperm(len(NAMES), generator=torch.Generator().manual_seed(0))
    permuted = discriminant_space(observations(rows, labels[:, columns], None, groups)).inner_products()
    torch.testing.assert_close(permuted, expected[columns][:, columns])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    moved = discriminant_space(observations(rows[order], labels[order], None, groups[order.numpy()]))
    torch.testing.assert_close(moved.inner_products(), expected, rtol=1e-6, atol=1e-6)


def test_a_clip_that_is_given_twice_is_not_its_own_neighbour() -> None:
    """As where a clip of two concepts comes as two rows; nor does it matter which of them comes first."""
    rows, labels = planted(6)
    rows[1::2] = rows[::2]
    found = neighbours(observations(rows, labels))
    apart = found.observed.values[:, None] != found.observed.values[found.nearest]
    assert bool(apart.any(2).all())
    expected = discriminant_space(observations(rows, labels)).inner_products()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    moved = discriminant_space(observations(rows[order], labels[order])).inner_products()
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-6)


def test_scale_and_offset_do_not_matter_and_the_same_input_gives_the_same_bytes() -> None:
    rows, labels = planted(3)
    expected = discriminant_space(observations(rows, labels)).inner_products()
    assert torch.equal(expected, discriminant_space(observations(rows, labels)).inner_products())
    moved = discriminant_space(observations(1000 * rows - 7, labels)).inner_products()
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-6)


def test_more_candidates_than_allowed_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = planted(4)
    monkeypatch.setattr(concept_neighbours, "CANDIDATES", 40)
    found = neighbours(observations(rows, labels))
    assert int(found.candidate.sum()) == 40
    assert bool(found.candidate[found.nearest].all())
    counts = np.ones(len(rows))
    np.testing.assert_allclose(found.inner_products().numpy(), slow_products(found, counts), rtol=1e-9, atol=1e-9)


def test_a_planted_tree_is_recovered_by_the_default() -> None:
    right = 0
    for seed in range(10):
        rows, labels = planted(seed, n=40, dimensions=100)
        matrix = SIMILARITIES["discriminant"](_bank(rows), rows, labels)
        assert float(matrix.diagonal().mean()) == pytest.approx(1)
        right += set(mine(matrix, NAMES).graph.edges) == set(ConceptHierarchy.from_parents(PARENTS).graph.edges)
    assert right >= 9


def _bank(rows: torch.Tensor) -> ConceptBank:
    return fit_cavs(rows, np.eye(len(NAMES), dtype=bool)[np.arange(len(rows)) % len(NAMES)], names=NAMES, folds=0)


@pytest.mark.parametrize(
    ("rows", "labels", "groups"),
    [
        (torch.zeros(6, 4), torch.eye(6, dtype=torch.bool)[:, :2], None),  # nothing differs
        (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.eye(6, dtype=torch.bool), None),
        (torch.randn(1, 4, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, dtype=torch.bool), None),
        (torch.randn(9, 300, generator=torch.Generator().manual_seed(0)), torch.ones(9, 2, dtype=torch.bool), None),
        (torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.ones(9, 2, dtype=torch.bool), ["g"] * 9),
    ],
)
def test_poor_data_give_finite_numbers(rows: torch.Tensor, labels: torch.Tensor, groups: list[str] | None) -> None:
    space = discriminant_space(observations(rows, labels, None, groups))
    assert torch.isfinite(space.inner_products()).all()
    counts = torch.zeros(len(space.observed.weights), dtype=torch.float64)
    counts[0] = 3  # a sample of a single group
    assert torch.isfinite(space.inner_products(counts)).all()
    if groups:  # no other group to find a neighbour in
        assert not space.neighbours[0].inner_products().any()


def test_activations_that_are_all_the_same_have_no_neighbours() -> None:
    labels = torch.as_tensor(np.random.default_rng(0).random((60, 12)) < 0.3)
    found = neighbours(observations(torch.full((60, 10), 0.1), labels))
    assert bool((found.nearest == -1).all())
    assert not found.inner_products().any()


def test_folds_are_of_groups() -> None:
    rows, labels = planted(5)
    found = neighbours(observations(rows, labels, None, np.arange(len(rows)) // 4))
    for group in found.observed.group.unique():
        assert len(found.fold[found.observed.group == group].unique()) == 1
    assert sorted(found.fold.unique().tolist()) == list(range(FOLDS))
