"""Held-out quality: against scikit-learn, by hand, and what its interval promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from captum_concepts.cavs.groups import group_means, index_groups
from captum_concepts.cavs.quality import auc_with_interval, balanced_accuracy


def rounded_scores(seed: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n, k, generator=generator) < 0.4
    scores = (torch.randn(n, k, generator=generator) + positive).mul(2).round()  # many ties
    return scores, positive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auc_with_ties_equals_scikit_learn(dtype):
    scores, positive = rounded_scores(0, 60, 7)
    auc, low, high = auc_with_interval(scores.to(dtype), positive, ~positive)
    wanted = [roc_auc_score(positive[:, k], scores[:, k]) for k in range(7)]
    np.testing.assert_allclose(auc.numpy(), wanted, rtol=0, atol=1e-12)
    assert ((low < auc) & (auc < high)).all()


def test_rows_of_neither_kind_and_nan_are_left_out():
    scores, positive = rounded_scores(1, 80, 3)
    scores[5, 1] = torch.nan
    used = torch.arange(80)[:, None] % 3 != torch.arange(3)
    auc = auc_with_interval(scores, positive & used, ~positive & used)[0]
    accuracy = balanced_accuracy(scores - 0.25, positive & used, ~positive & used)
    for k in range(3):
        keep = (used[:, k] & torch.isfinite(scores[:, k])).numpy()
        shows, values = positive[keep, k].numpy(), scores[keep, k].numpy()
        assert auc[k].item() == pytest.approx(roc_auc_score(shows, values), abs=1e-12)
        assert accuracy[k].item() == pytest.approx(balanced_accuracy_score(shows, values > 0.25), abs=1e-6)


def test_interval_is_delongs_on_the_logit_scale():
    scores, positive = rounded_scores(2, 40, 1)
    s, p = scores[:, 0].numpy(), positive[:, 0].numpy()
    wins = (s[p][:, None] > s[~p][None]) + 0.5 * (s[p][:, None] == s[~p][None])
    auc = wins.mean()
    error = np.sqrt(wins.mean(1).var(ddof=1) / p.sum() + wins.mean(0).var(ddof=1) / (~p).sum())
    reach = 1.959963984540054 * error / (auc * (1 - auc))
    bounds = 1 / (1 + np.exp(-(np.log(auc / (1 - auc)) + np.array([-reach, reach]))))
    _, low, high = auc_with_interval(scores, positive, ~positive)
    np.testing.assert_allclose([low.item(), high.item()], bounds, rtol=1e-10)


@pytest.mark.parametrize(("n", "low_above"), [(3, 0.4), (4, 0.5), (10, 0.9), (4000, 0.9999)])
def test_a_perfect_ranking_has_a_finite_interval_at_every_size(n, low_above):
    scores = torch.arange(2 * n, dtype=torch.float32)[:, None]
    positive = scores >= n
    auc, low, high = auc_with_interval(scores, positive, ~positive)
    assert auc.item() == high.item() == 1.0
    assert low_above < low.item() < 1
    reverse = auc_with_interval(-scores, positive, ~positive)
    assert reverse[0].item() == reverse[1].item() == 0.0
    assert reverse[2].item() == pytest.approx(1 - low.item(), abs=1e-9)


def test_one_class_only_has_no_auc():
    found = auc_with_interval(
        torch.randn(5, 1), torch.ones(5, 1, dtype=torch.bool), torch.zeros(5, 1, dtype=torch.bool)
    )
    assert all(torch.isnan(value).all() for value in found)


@pytest.mark.parametrize(("n_1", "n_0", "shift"), [(10, 20, 1.0), (30, 30, 0.5), (15, 60, 0.0)])
def test_the_interval_covers_the_truth_nineteen_times_of_twenty(n_1, n_0, shift):
    repetitions = 2000
    generator = torch.Generator().manual_seed(3)
    positive = (torch.arange(n_1 + n_0) < n_1)[:, None].expand(-1, repetitions)
    scores = torch.randn(n_1 + n_0, repetitions, generator=generator) + shift * positive
    truth = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(shift / 2**0.5)).item()
    _, low, high = auc_with_interval(scores, positive, ~positive)
    covered = ((low <= truth) & (truth <= high)).double().mean().item()
    assert 0.925 <= covered <= 0.98
    if shift == 0:
        assert (low > 0.5).double().mean().item() <= 0.04  # "testable" by accident


def test_group_means_take_member_rows_only():
    values = torch.tensor([[1.0, 10.0], [3.0, 20.0], [5.0, torch.inf], [7.0, 40.0]])
    members = torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    means = group_means(values, members, torch.tensor([0, 0, 1, 2]), 3)
    assert means.tolist()[0] == [2.0, 10.0]
    assert torch.isnan(means[1]).all()
    assert means.tolist()[2] == [7.0, 40.0]


def test_groups_are_told_apart_by_their_whole_name():
    names, index = index_groups(["b", "a\0", "a", "b", "\ud800"])
    assert names == ["a", "a\0", "b", "\ud800"]
    assert index.tolist() == [2, 1, 0, 2, 3]
