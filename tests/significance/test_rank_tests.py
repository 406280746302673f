"""The rank test with and without a gate, and what is drawn for it, against loops and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from captum_concepts.errors import InputError
from captum_concepts.significance.null_draws import bootstrap_weights, draw_null_concepts, pool_folds
from captum_concepts.significance.rank_tests import gated_rank_test, rank_test


def test_rank_test_by_hand():
    null = torch.tensor([-2.0, -1.0, 1.0, 2.0])  # centre 0
    observed = torch.tensor([3.0, 2.0, -2.0, 1.5, 0.0, torch.nan])
    p = rank_test(observed, null)
    assert p[:5].tolist() == [1 / 5, 3 / 5, 3 / 5, 3 / 5, 1.0]
    assert torch.isnan(p[5])
    assert p.dtype == torch.float64


def test_rank_test_equals_counting():
    generator = torch.Generator().manual_seed(0)
    null = torch.randn(39, 3, generator=generator).round(decimals=1)
    observed = torch.randn(3, 11, generator=generator).round(decimals=1)
    p = rank_test(observed, null)
    for t in range(3):
        centre = null[:, t].double().mean()
        for k in range(11):
            reached = (null[:, t].double() - centre).abs() >= (observed[t, k].double() - centre).abs()
            assert p[t, k].item() == (1 + int(reached.sum())) / 40
    order = torch.randperm(11, generator=generator)
    assert torch.equal(rank_test(observed[:, order], null.flip(0)), p[:, order])


def test_all_alike_is_not_significant():
    assert rank_test(torch.ones(2), torch.ones(19)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("null", [torch.zeros(0), torch.tensor([1.0, torch.nan])])
def test_a_null_that_is_none_is_refused(null):
    with pytest.raises(InputError, match=r"^null"):
        rank_test(torch.zeros(1), null)


def toy_trial(seed: int, shift: float, nulls: int = 39, runs: int = 10) -> tuple[float, float]:
    """p of the rank test and of the t-test on refits, for one concept of 30 clips in a Gaussian world."""
    generator = torch.Generator().manual_seed(seed)
    d, size = 32, 30
    gradient = torch.randn(d, generator=generator)
    inputs = gradient + 3 * torch.randn(60, d, generator=generator)
    concept = torch.randn(size, d, generator=generator) + shift * torch.nn.functional.normalize(gradient, dim=0)
    pool = torch.randn(nulls + 2 * runs, size, d, generator=generator)
    against, other = pool[nulls : nulls + runs].mean(1), pool[nulls + runs :].mean(1)

    def scores(positives: torch.Tensor) -> torch.Tensor:
        """Share of positive sensitivities of each refit: (..., runs)."""
        return ((positives[..., None, :] - against) @ inputs.T > 0).double().mean(-1)

    p_rank = rank_test(scores(concept.mean(0)).mean(-1)[None], scores(pool[:nulls].mean(1)).mean(-1)).item()
    random = ((other - against) @ inputs.T > 0).double().mean(-1)
    p_welch = stats.ttest_ind(scores(concept.mean(0)).numpy(), random.numpy(), equal_var=False).pvalue
    return p_rank, float(p_welch)


def test_random_sets_as_concepts_are_rejected_as_often_as_promised_and_by_welch_more_often():
    p = np.array([toy_trial(seed, shift=0.0) for seed in range(300)])
    most = stats.binom.ppf(0.999, 300, 0.05)
    assert (p[:, 0] <= 0.05).sum() <= most
    assert (p[:, 0] <= 0.5).sum() <= stats.binom.ppf(0.999, 300, 0.5)
    assert (p[:, 1] <= 0.05).sum() > most  # the classical test fails the very same bound


def test_a_planted_concept_is_found():
    p = np.array([toy_trial(seed, shift=1.5)[0] for seed in range(60)])
    assert (p <= 0.05).mean() > 0.8


def gated_loop(observed: float, null: np.ndarray, passed: np.ndarray, fewest: int) -> float:
    """One statistic, written out."""
    order = np.argsort(-passed, kind="stable")
    alike = set(np.flatnonzero(passed > 0)) | set(order[: min(fewest, len(null) // 4)])
    inside = np.isin(np.arange(len(null)), list(alike))
    distance = np.abs(null - null.mean())

    def unit(values):
        return np.sort(values)[min(len(values) - 1, round(0.95 * len(values)))]

    scaled = np.where(inside, distance / unit(distance[inside]), distance / unit(distance[~inside]))
    reached = abs(observed - null.mean()) / unit(distance[inside])
    return (1 + (scaled >= reached).sum()) / (1 + len(null))


@pytest.mark.parametrize("fewest", [1, 40])
def test_the_gated_test_equals_a_loop(fewest):
    generator = torch.Generator().manual_seed(0)
    null = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    passed = torch.randn(200, generator=generator, dtype=torch.float64) - 1.5
    observed = 2 * torch.randn(2, 5, generator=generator, dtype=torch.float64)
    found = gated_rank_test(observed, null, passed, fewest)
    for t in range(2):
        for k in range(5):
            wanted = gated_loop(observed[t, k].item(), null[:, t].numpy(), passed.numpy(), fewest)
            assert found[t, k].item() == pytest.approx(wanted)
    assert torch.isnan(gated_rank_test(torch.full((2, 1), torch.nan), null, passed)).all()
    failed = torch.where(passed < -1, torch.nan, passed)  # NaN: failed
    assert torch.isfinite(gated_rank_test(observed, null, failed)).all()


def test_given_the_gate_the_plain_test_rejects_too_often_and_the_gated_one_as_promised():
    """The gate is passed by one set in twenty, mostly by those with large statistics."""
    rng = np.random.default_rng(0)
    plain, gated = [], []
    for _ in range(60):
        strength = rng.exponential(size=(2, 2000))
        sets, gate = strength * rng.normal(size=(2, 2000)), strength - np.log(20)
        null, passed = torch.from_numpy(sets[0])[:, None], torch.from_numpy(gate[0])
        marked = torch.from_numpy(sets[1][gate[1] > 0])[None]
        plain.append((rank_test(marked, null) <= 0.05).double().mean().item())
        gated.append((gated_rank_test(marked, null, passed) <= 0.05).double().mean().item())
    assert np.mean(plain) > 0.2
    assert 0.03 < np.mean(gated) < 0.07


def test_the_gated_test_is_a_rank_test_of_all_sets():
    """Whatever the gate says, a random set that passes is rejected with at most the chance promised."""
    rng = np.random.default_rng(1)
    rejected = []
    for _ in range(400):
        strength = rng.exponential(size=301)
        sets, gate = strength * rng.normal(size=301), strength - 1
        if gate[0] > 0:
            p = gated_rank_test(
                torch.tensor([[sets[0]]]), torch.from_numpy(sets[1:])[:, None], torch.from_numpy(gate[1:])
            )
            rejected.append(p.item() <= 0.05)
        else:
            rejected.append(False)
    assert sum(rejected) <= stats.binom.ppf(0.999, 400, 0.05)


def groups_of(n: int, folder: str = "") -> np.ndarray:
    return np.array([f"{folder}track{i % (n // 3)}" for i in range(n)], dtype=object)


def test_pseudo_concepts_are_sets_of_whole_eligible_groups():
    groups, eligible = groups_of(60), np.arange(60) % 20 != 7
    drawn = draw_null_concepts(groups, eligible, 5, 200, seed=0)
    assert drawn.shape == (60, 200)
    assert not drawn[~eligible].any()
    for column in drawn.T:
        chosen = set(groups[column])
        assert len(chosen) == 5
        assert (column == (np.isin(groups.astype(str), sorted(chosen)) & eligible)).all()
    often = np.array([drawn[np.flatnonzero(groups == f"track{i}")[0]].sum() for i in range(20) if i != 7])
    assert stats.chisquare(often).pvalue > 1e-3
    assert len({column.tobytes() for column in drawn.T}) > 170  # of about 1,000 that are spread evenly


def test_sets_are_spread_over_the_parts_of_the_pool():
    groups, eligible = groups_of(69), np.ones(69, bool)
    names = sorted(set(groups))
    fold = pool_folds(names, seed=4)
    assert np.bincount(fold).tolist() == [5, 5, 5, 4, 4]
    for size in (3, 12, 21):
        drawn = draw_null_concepts(groups, eligible, size, 50, seed=4)
        taken = np.array([drawn[np.flatnonzero(groups == name)[0]] for name in names])
        shares = np.array([taken[fold == number].sum(0) for number in range(5)])
        assert (shares.sum(0) == size).all()
        assert (np.abs(shares - size * np.bincount(fold)[:, None] / 23) < 1).all()


def test_the_draw_depends_on_neither_the_order_of_rows_nor_the_place_of_the_data():
    groups, eligible = groups_of(60), np.ones(60, bool)
    drawn = draw_null_concepts(groups, eligible, 5, 50, seed=3)
    order = np.random.default_rng(0).permutation(60)
    assert (draw_null_concepts(groups[order], eligible, 5, 50, seed=3) == drawn[order]).all()
    assert (draw_null_concepts(groups_of(60, "/elsewhere/"), eligible, 5, 50, seed=3) == drawn).all()
    assert (draw_null_concepts(groups, eligible, 5, 50, seed=4) != drawn).any()
    weights = bootstrap_weights(groups, 50, seed=3)
    assert torch.equal(bootstrap_weights(groups[order], 50, seed=3), weights[:, order])
    assert torch.equal(bootstrap_weights(groups_of(60, "/elsewhere/"), 50, seed=3), weights)


def test_a_pool_that_is_too_small_is_said_with_the_number_needed():
    with pytest.raises(
        InputError, match=r"random sets of 19 groups cannot be drawn from 20 groups of negatives; give at least 21"
    ):
        draw_null_concepts(groups_of(60), np.ones(60, bool), 19, 5, seed=0)
