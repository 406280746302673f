"""Intervals against formulas and loops written out, and how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from captum_concepts.significance.intervals import mean_interval, share_interval
from captum_concepts.significance.null_draws import bootstrap_weights

GROUPS = np.array(["a", "b", "b", "c", "c", "c", "d", "e", "f", "f"], dtype=object)


def by_group(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = sorted(set(GROUPS))
    return np.array([values[names[g] == GROUPS].mean() for g in range(6)]), np.array([1, 2, 3, 1, 1, 2])


def error_of_mean(means: np.ndarray, counts: np.ndarray) -> float:
    """Standard error of a mean over clips, where the means of groups vary alike whatever their size."""
    return np.std(means, ddof=1) * np.sqrt(sum((n / sum(counts)) ** 2 for n in counts))


def test_share_is_wilsons_with_the_groups_variance():
    hits = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 0, 0]).bool()
    means, counts = by_group(hits.double().numpy())
    share = 0.6
    variance = error_of_mean(means, counts) ** 2
    n, z = share * (1 - share) / variance, stats.norm.ppf(0.975)
    # The roots of |share - x| = z sqrt(x (1 - x) / n).
    wanted = np.sort(np.roots([1 + z**2 / n, -(2 * share + z**2 / n), share**2]))
    found = share_interval(hits[:, None], GROUPS)
    np.testing.assert_allclose([found[0].item(), found[1].item()], wanted, rtol=1e-9)


@pytest.mark.parametrize("all_hit", [True, False])
def test_where_all_clips_agree_there_are_as_many_observations_as_groups_of_equal_size(all_hit):
    low, high = share_interval(torch.full((10, 1), all_hit), GROUPS)
    reach = stats.norm.ppf(0.975) ** 2
    alike = 10**2 / (1 + 4 + 9 + 1 + 1 + 4)
    wanted = (alike / (alike + reach), 1) if all_hit else (0, reach / (alike + reach))
    assert (low.item(), high.item()) == pytest.approx(wanted)


def test_clips_of_a_group_that_agree_count_once():
    hits = torch.rand(12, generator=torch.Generator().manual_seed(0)) < 0.5
    once = share_interval(hits[:, None], np.arange(12).astype(str))
    twice = share_interval(hits.repeat_interleave(5)[:, None], np.repeat(np.arange(12), 5).astype(str))
    torch.testing.assert_close(twice, once)


def test_mean_is_the_studentised_bootstrap_written_out():
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()
    count, seed = 300, 5
    weights = bootstrap_weights(GROUPS, count, seed).double().numpy()
    first = [0, 1, 3, 6, 7, 8]
    low, high = mean_interval(values, GROUPS, count, seed)
    for column in range(3):
        means, counts = by_group(values[:, column].numpy())
        ratios = []
        for sample in weights[:, first]:
            chosen = means[np.repeat(np.arange(6), sample.astype(int))]
            shift, its_error = chosen.mean() - means.mean(), np.std(chosen, ddof=1) / np.sqrt(6)
            ratios.append(shift / its_error if its_error > 1e-12 else np.sign(shift) * np.inf)
        ratios = np.sort(ratios)
        mean, error = (means @ counts) / 10, error_of_mean(means, counts)
        wanted = mean - ratios[round(0.975 * 299)] * error, mean - ratios[round(0.025 * 299)] * error
        np.testing.assert_allclose([low[column].item(), high[column].item()], wanted, rtol=1e-8)


def test_blocks_order_of_clips_and_constant_values_change_nothing(monkeypatch):
    values = torch.randn(10, 7, 5, generator=torch.Generator().manual_seed(0))
    wanted = mean_interval(values, GROUPS, 100)
    order = np.random.default_rng(0).permutation(10)
    torch.testing.assert_close(mean_interval(values[order], GROUPS[order], 100), wanted)
    monkeypatch.setattr("captum_concepts.significance.intervals.VALUES", 300)
    torch.testing.assert_close(mean_interval(values, GROUPS, 100), wanted)
    low, high = mean_interval(torch.full((10, 1), 0.3, dtype=torch.float64), GROUPS, 100)
    assert (low.item(), high.item()) == pytest.approx((0.3, 0.3))


def test_two_groups_have_students_interval():
    low, high = mean_interval(torch.tensor([[1.0], [2.0]], dtype=torch.float64), ["a", "b"], 100)
    reach = stats.t.ppf(0.975, 1) * 0.5
    assert (low.item(), high.item()) == pytest.approx((1.5 - reach, 1.5 + reach))


@pytest.mark.parametrize("interval", [share_interval, mean_interval])
def test_one_group_has_no_interval(interval):
    low, high = interval(torch.ones(4, 2).bool(), ["a"] * 4)
    assert torch.isnan(low).all()
    assert torch.isnan(high).all()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_share_is_covered_nineteen_times_of_twenty(share):
    """Clips of a group agree entirely: an interval that took them for independent would be half as wide.

    For single shares coverage oscillates around what is promised, as shares of few groups come in steps.
    """
    generator = torch.Generator().manual_seed(3)
    tracks = torch.rand(25, 4000, generator=generator) < share
    low, high = share_interval(tracks.repeat_interleave(4, 0), np.repeat(np.arange(25), 4).astype(str))
    covered = ((low <= share) & (share <= high)).double().mean().item()
    assert 0.93 <= covered <= 0.98


def test_the_mean_of_few_skewed_groups_is_covered():
    generator = torch.Generator().manual_seed(4)
    tracks = torch.randn(12, 1500, generator=generator).exp()
    truth = np.exp(0.5)
    low, high = mean_interval(tracks, np.arange(12).astype(str), 1000)
    percentile = torch.quantile(
        bootstrap_weights(np.arange(12).astype(str), 500, 0) @ tracks / 12, torch.tensor([0.025, 0.975]), dim=0
    )
    covered = ((low <= truth) & (truth <= high)).double().mean().item()
    plain = ((percentile[0] <= truth) & (truth <= percentile[1])).double().mean().item()
    assert plain + 0.04 < covered <= 0.97


@pytest.mark.parametrize("shared", [0.5, 0.9])
@pytest.mark.parametrize("sizes", [[1, 1, 1, 20], [1, 1, 10, 10], [1] * 5 + [20], [2] * 6 + [20, 20], [2] * 9 + [18]])
def test_groups_with_most_of_the_clips_are_not_taken_for_all_of_them(sizes, shared):
    """One or two of fewer than eleven groups: jackknife errors and resampled sizes covered 0.75 to 0.93 here."""
    owner, rng = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(0)
    of_group, of_clip = (rng.normal(size=(many, 1500)) for many in (len(sizes), len(owner)))
    values = torch.from_numpy(0.5 + shared * of_group[owner] + (1 - shared**2) ** 0.5 * of_clip)
    for least, truth, (low, high) in (
        (0.925, stats.norm.cdf(0.5), share_interval(values > 0, owner.astype(str))),
        (0.93, 0.5, mean_interval(values, owner.astype(str), 500)),
    ):
        assert ((low <= truth) & (truth <= high)).double().mean() > least
