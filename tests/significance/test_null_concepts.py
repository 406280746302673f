"""Random concepts are no steadier than the concepts they stand for: as many rows of a group, or fewer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.concepts.matching import matched
from captum_concepts.significance.layer_nulls import layer_nulls
from captum_concepts.significance.null_concepts import NullPlan, effects, excerpt_rows, null_sets
from captum_concepts.significance.null_draws import draw_null_concepts
from captum_concepts.significance.rank_tests import rank_test


@pytest.mark.parametrize(
    ("sizes", "pool", "most"),
    [
        ([3, 3], [3, 3, 3], None),
        ([9, 2], [3, 3, 3], None),
        ([1, 1], [8, 8], 1),
        ([2, 2], [8, 1, 8, 8], 3),  # 1/2 against (1 + 3/3) / 4
        ([5, 5], [40, 40], 4),
        ([30, 30], [40, 40], 24),
        ([1, 1], [1, 1], None),
    ],
)
def test_most_rows_are_those_that_leave_groups_as_unsteady_as_the_concepts(sizes, pool, most):
    assert excerpt_rows(np.array(sizes), np.array(pool)) == most


def world(per: int, rows: int, pool_rows: int, concepts: int, seed: int = 0):
    """Meaningless concepts: groups of few rows against a pool of groups of many, which share little."""
    rng = np.random.default_rng(seed)
    counts = np.repeat([rows, pool_rows], [concepts * per, 80])
    owner = np.repeat(np.repeat(np.arange(-1, concepts), [0, *[per] * concepts]), rows)
    owner = np.concatenate([owner, np.full(80 * pool_rows, -1)])
    group = np.repeat(np.arange(len(counts)), counts)
    x = 0.3 * rng.normal(size=(len(counts), 6))[group] + rng.normal(size=(len(group), 6))
    shows = owner[:, None] == np.arange(concepts)
    names = np.array([f"g{i}" for i in group], dtype=object)
    against = np.repeat(owner[:, None] < 0, concepts, 1)
    return LabelledRows(torch.tensor(x, dtype=torch.float32), shows, against, names)


GRADIENT = torch.tensor([[1.0, 0.5, 0, 0, 0, 0]])


def observed(data: LabelledRows) -> torch.Tensor:
    weight = torch.from_numpy(1 / np.bincount(np.unique(data.groups, return_inverse=True)[1]))
    weight = weight[np.unique(data.groups, return_inverse=True)[1]].float()
    masks = torch.from_numpy(data.positives), torch.from_numpy(data.negatives)
    directions = fit_pattern(data.activations, *masks, weight)[0]
    return effects(data.activations, directions, *masks, weight, GRADIENT)


@pytest.mark.parametrize("rows", [1, 3])
def test_concepts_of_shorter_clips_than_their_pool_are_rejected_as_often_as_promised(rows):
    """Sets of whole groups of the pool, each of eight rows, hardly vary beside them."""
    plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), 499, 0, False)
    found: dict[str, list[bool]] = {"matched": [], "whole": []}
    for seed in range(24):
        data = world(10, rows, 8, 10, seed)
        bank = fit_cavs(data.activations, data.positives, groups=data.groups, negatives=data.negatives, folds=0)
        nulls = layer_nulls(bank, data, GRADIENT, plan)
        (key,) = nulls.of_size
        assert key[:2] == (10, rows)
        whole = null_sets(data, data.negatives[:, 0], 10, GRADIENT, plan)
        for name, null in (("matched", nulls.of_size[key]), ("whole", whole)):
            found[name] += (rank_test(observed(data), null.effects)[0] <= 0.05).tolist()
    low, high = stats.binom.interval(0.99, len(found["matched"]), 0.05)
    assert low <= sum(found["matched"]) <= high < sum(found["whole"])


def test_means_of_excerpts_give_what_their_rows_give():
    def same_fit(*arguments):
        return fit_pattern(*arguments)

    data = world(10, 3, 8, 1)
    one, other = (
        null_sets(data, data.negatives[:, 0], 10, GRADIENT, NullPlan(CavMethod(fit), 60, 0, False), 3)
        for fit in (fit_pattern, same_fit)
    )
    for name in ("effects", "auc", "low"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=2e-4, atol=1e-5)


def test_pseudo_concepts_take_turns_with_excerpts_that_follow_each_other():
    """Against a loop: set r has of each drawn group the (r mod 2)-th three of its eight rows, and no other row."""
    data = world(10, 3, 8, 1)
    eligible = data.negatives[:, 0]
    found = null_sets(data, eligible, 10, GRADIENT, NullPlan(CavMethod(fit_pattern), 20, 0, False), 3).effects[:, 0]
    drawn = draw_null_concepts(data.groups, eligible, 10, 20, 0)
    x = data.activations.double().numpy()
    for r in range(20):
        chosen = dict.fromkeys(data.groups[drawn[:, r]])
        part = [x[data.groups == name][3 * (r % 2) :][:3].mean(0) for name in chosen]
        rest = x[eligible & ~np.isin(data.groups, list(chosen))].mean(0)
        direction = np.mean(part, axis=0) - rest
        want = GRADIENT[0].double().numpy() @ direction  # unit direction times the distance along it
        assert found[r] == pytest.approx(want, rel=1e-4)


def uneven(order: bool) -> tuple[LabelledRows, np.ndarray]:
    """A pool of groups of 1 to 17 rows, and the rows' places in time if asked for."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(36), np.tile([1, 2, 3, 5, 8, 17], 6))
    x = torch.tensor(rng.normal(size=(len(group), 6)) + 0.5 * rng.normal(size=(36, 6))[group], dtype=torch.float32)
    none = np.zeros((len(group), 0), dtype=bool)
    names = np.array([f"g{i}" for i in group], dtype=object)
    return LabelledRows(x, none, none, names, np.arange(len(group)) if order else None), group


@pytest.mark.parametrize("means", [True, False])
def test_excerpts_of_groups_of_unequal_sizes_equal_a_loop(means):
    """Groups of up to three rows are taken whole, those of 5, 8 and 17 have 1, 2 and 4 excerpts of three rows."""
    data, group = uneven(order=False)
    fit = fit_pattern if means else lambda *arguments: fit_pattern(*arguments)
    everyone = np.ones(len(group), dtype=bool)
    found = null_sets(data, everyone, 10, GRADIENT, NullPlan(CavMethod(fit), 24, 0, False), 3).effects[:, 0]
    drawn = draw_null_concepts(data.groups, everyone, 10, 24, 0)
    x, gradient = data.activations.double().numpy(), GRADIENT[0].double().numpy()
    excerpts = {1: 1, 2: 1, 3: 1, 5: 1, 8: 2, 17: 4}
    for r in range(24):
        part, rest = [], []
        for number in range(36):
            rows = x[group == number]
            if drawn[group == number, r].all():
                part.append(rows[3 * (r % excerpts[len(rows)]) :][:3].mean(0))
            else:
                rest.append(rows.mean(0))
        assert len(part) == 10
        assert found[r] == pytest.approx(gradient @ (np.mean(part, 0) - np.mean(rest, 0)), rel=1e-4)


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("method", ["pattern", "lda"])
def test_the_order_of_rows_changes_no_byte(method, most):
    data, group = uneven(order=True)
    mixed = np.random.default_rng(1).permutation(len(group))
    moved = LabelledRows(data.activations[mixed], *[data.positives] * 2, data.groups[mixed], data.order[mixed])
    plan = NullPlan(CavMethod(CAV_METHODS[method]), 50, 0, False)
    everyone = np.ones(len(group), dtype=bool)
    one, other = (null_sets(d, everyone, 8, GRADIENT, plan, most) for d in (data, moved))
    for name in ("effects", "auc", "low"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_parts_keep_the_places_of_their_rows():
    data, group = uneven(order=True)
    assert data.part(group % 2 == 1).order.tolist() == np.flatnonzero(group % 2 == 1).tolist()
    assert uneven(order=False)[0].part(group % 2 == 1).order is None


@pytest.mark.parametrize("sizes", [[1, 1], [2, 2], [3, 3], [1, 8], [7], [30, 30]])
@pytest.mark.parametrize("pool", [[1, 40, 40, 40], [1, 9, 9, 9], [2, 8, 8, 8], [5, 17], [3, 3, 100]])
def test_of_pools_of_unequal_sizes_the_mean_of_one_over_rows_decides(sizes, pool):
    varies = sum(1 / rows for rows in sizes) / len(sizes)

    def unsteady(most: float) -> bool:
        return sum(1 / min(most, rows) for rows in pool) / len(pool) >= varies - 1e-12

    wanted = max(n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96) if n == 1 or unsteady(n))
    found = excerpt_rows(np.array(sizes), np.array(pool))
    assert found == (None if unsteady(np.inf) else wanted)


def in_domain(seed: int, concepts: int = 8, size: int = 8) -> LabelledRows:
    """Meaningless concepts among the groups of one domain, held against others that are as loud, of one to three rows.

    Features differ in how much they vary, so that what whitening does depends on how well a covariance is known.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, 110)
    group = np.repeat(np.arange(110), counts)
    loudness = rng.normal(-20, 3, 110)[group]
    owner = np.full(110, -1)
    owner[rng.permutation(110)[: concepts * size]] = np.repeat(np.arange(concepts), size)
    x = 0.7 * rng.normal(size=(110, 12))[group] + 0.5 * rng.normal(size=(len(group), 12))
    x[:, 1] += (loudness + 20) / 3
    shows = owner[group][:, None] == np.arange(concepts)
    properties = np.stack([np.ones(len(group)), loudness], 1)
    others = ~shows & (owner[group] >= 0)[:, None]
    against = matched(shows, others, properties, [f"row {i}" for i in range(len(group))])
    names = np.array([f"g{i}" for i in group], dtype=object)
    x *= np.linspace(1, 4, 12)
    return LabelledRows(torch.tensor(x, dtype=torch.float32), shows, against, names, np.arange(len(group)))


@pytest.mark.parametrize("method", ["pattern", "lda"])
def test_in_domain_concepts_that_mean_nothing_are_rejected_as_often_as_promised(method):
    """Labels are permuted among a concept and its negatives, and each permutation goes through the concept's own fit.

    That covers ``lda``, which whitens by all rows: fitted to the drawn rows alone, random sets gave four times
    as many rejections as promised here. Along loudness, in which negatives are matched, there are fewer than promised.
    """
    gradient = torch.zeros(2, 12)
    gradient[0, 0] = gradient[1, 1] = 1.0
    found = []
    for seed in range(26):
        data = in_domain(seed)
        bank = fit_cavs(data.activations, data.positives, method, data.groups, negatives=data.negatives, folds=0)
        nulls = layer_nulls(bank, data, gradient, NullPlan(CavMethod(CAV_METHODS[method]), 159, seed, False, own=True))
        observed = effects(
            data.activations, bank.directions, torch.from_numpy(data.positives), torch.from_numpy(data.negatives),
            torch.from_numpy(group_weights(data.groups)).float(), gradient,
        )  # fmt: skip
        for key, columns in nulls.members.items():
            found.append(rank_test(observed[:, columns], nulls.of_size[key].effects).numpy())
    p_values = np.concatenate(found, axis=1)
    low, high = stats.binom.interval(0.99, p_values.shape[1], 0.05)
    assert p_values.shape[1] == 208
    assert low <= (p_values[0] <= 0.05).sum() <= high
    assert (p_values[1] <= 0.05).sum() <= high
    assert stats.kstest(p_values[0], "uniform").pvalue > 0.005


def test_rows_that_are_not_drawn_from_are_in_the_fit_of_random_sets_as_in_that_of_concepts():
    """Against a loop of fits to all rows, with the drawn groups against the other eligible ones."""
    data = in_domain(0)
    eligible = data.positives[:, 0] | data.negatives[:, 0]
    plan = NullPlan(CavMethod(CAV_METHODS["lda"], {"shrinkage": 0.2}), 12, 0, False, own=True)
    found = null_sets(data, eligible, 8, torch.eye(12)[:1], plan).effects[:, 0]
    drawn = draw_null_concepts(data.groups, eligible, 8, 12, 0)
    weights = torch.from_numpy(group_weights(data.groups)).float()
    for r in range(12):
        shows, against = (torch.from_numpy(m[:, None]) for m in (drawn[:, r], eligible & ~drawn[:, r]))
        direction = CAV_METHODS["lda"](data.activations, shows, against, weights, shrinkage=0.2)[0]
        want = effects(data.activations, direction, shows, against, weights, torch.eye(12)[:1])
        assert found[r] == pytest.approx(want.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", ["lda", "logistic"])
def test_the_order_of_rows_changes_no_random_set_where_some_rows_are_not_drawn_from(method):
    data = in_domain(0)
    mixed = np.random.default_rng(1).permutation(len(data.groups))
    moved = LabelledRows(
        data.activations[mixed], data.positives[mixed], data.negatives[mixed], data.groups[mixed], data.order[mixed]
    )
    plan = NullPlan(CavMethod(CAV_METHODS[method]), 30, 0, False, own=True)
    one, other = (
        null_sets(d, d.positives[:, 0] | d.negatives[:, 0], 8, torch.eye(12)[:1], plan, 1) for d in (data, moved)
    )
    for name in ("effects", "auc", "low"):
        assert torch.equal(getattr(one, name), getattr(other, name))
