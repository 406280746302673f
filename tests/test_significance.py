"""The rank test, its null, corrections and bootstrap intervals, against loops and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from captum_concepts.errors import InputError
from captum_concepts.significance import (
    benjamini_hochberg,
    bootstrap_interval,
    bootstrap_weights,
    pseudo_concepts,
    rank_test,
)


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


@pytest.mark.parametrize("seed", range(4))
def test_benjamini_hochberg_equals_statsmodels_and_leaves_nan_out(seed):
    p = np.random.default_rng(seed).beta(0.3, 1, size=25)
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, multipletests(p, method="fdr_bh")[1], rtol=1e-12)
    assert (q >= p).all()
    holes = np.insert(p, [3, 20], np.nan)
    found = benjamini_hochberg(holes)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))
    np.testing.assert_array_equal(found[~np.isnan(holes)], q)
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def groups_of(n: int, folder: str = "") -> np.ndarray:
    return np.array([f"{folder}track{i % (n // 3)}" for i in range(n)], dtype=object)


def test_pseudo_concepts_are_sets_of_whole_eligible_groups():
    groups, eligible = groups_of(60), np.arange(60) % 20 != 7
    drawn = pseudo_concepts(groups, eligible, 5, 200, seed=0)
    assert drawn.shape == (60, 200)
    assert not drawn[~eligible].any()
    for column in drawn.T:
        chosen = set(groups[column])
        assert len(chosen) == 5
        assert (column == (np.isin(groups.astype(str), sorted(chosen)) & eligible)).all()
    often = np.array([drawn[np.flatnonzero(groups == f"track{i}")[0]].sum() for i in range(20) if i != 7])
    assert stats.chisquare(often).pvalue > 1e-3
    assert len({column.tobytes() for column in drawn.T}) > 190


def test_the_draw_depends_on_neither_the_order_of_rows_nor_the_place_of_the_data():
    groups, eligible = groups_of(60), np.ones(60, bool)
    drawn = pseudo_concepts(groups, eligible, 5, 50, seed=3)
    order = np.random.default_rng(0).permutation(60)
    assert (pseudo_concepts(groups[order], eligible, 5, 50, seed=3) == drawn[order]).all()
    assert (pseudo_concepts(groups_of(60, "/elsewhere/"), eligible, 5, 50, seed=3) == drawn).all()
    assert (pseudo_concepts(groups, eligible, 5, 50, seed=4) != drawn).any()
    weights = bootstrap_weights(groups, 50, seed=3)
    assert torch.equal(bootstrap_weights(groups[order], 50, seed=3), weights[:, order])
    assert torch.equal(bootstrap_weights(groups_of(60, "/elsewhere/"), 50, seed=3), weights)


def test_a_pool_that_is_too_small_is_said_with_the_number_needed():
    with pytest.raises(InputError, match=r"20 groups to draw random sets of 19 from; give at least 21 groups"):
        pseudo_concepts(groups_of(60), np.ones(60, bool), 19, 5, seed=0)


def test_bootstrap_interval_equals_a_loop_over_samples_of_groups():
    generator = torch.Generator().manual_seed(0)
    groups = groups_of(30)
    values = torch.randn(30, 2, 3, generator=generator, dtype=torch.float64)
    weights = bootstrap_weights(groups, 200, seed=1)
    assert (weights.sum(1) == 30).all()  # ten groups of three
    means = []
    for sample in weights.numpy():
        counts = {name: sample[groups == name] for name in set(groups)}
        assert all(len(set(count)) == 1 for count in counts.values())
        rows = [i for i in range(30) for _ in range(int(sample[i]))]
        means.append(values[rows].mean(0).numpy())
    low, high = bootstrap_interval(values, groups, 200, seed=1)
    wanted = np.percentile(means, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(low, wanted[0], atol=1e-6)
    np.testing.assert_allclose(high, wanted[1], atol=1e-6)


def test_many_columns_are_cut_into_blocks(monkeypatch):
    values, groups = torch.randn(12, 7, 5), groups_of(12)
    wanted = bootstrap_interval(values, groups, 100)
    monkeypatch.setattr("captum_concepts.significance.QUANTILE_VALUES", 300)
    torch.testing.assert_close(bootstrap_interval(values, groups, 100), wanted)


def test_one_group_has_no_interval():
    low, high = bootstrap_interval(torch.ones(4, 2), ["a"] * 4)
    assert torch.isnan(low).all()
    assert torch.isnan(high).all()


def test_the_interval_covers_the_truth_for_clips_that_come_in_groups():
    """Clips of a group agree entirely: an interval that took them for independent would be half as wide."""
    hits = 0
    for seed in range(150):
        tracks = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.6
        groups = np.repeat(np.arange(40), 4)
        low, high = bootstrap_interval(tracks[groups].float()[:, None], groups, 300, seed)
        hits += int(low.item() <= 0.6 <= high.item())
    assert 0.88 <= hits / 150 <= 0.99
