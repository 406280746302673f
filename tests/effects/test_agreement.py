"""Agreement of effects with measured effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from captum_concepts.effects import agreement, ceiling, contradicted
from captum_concepts.errors import InputError


def test_spearman_is_the_mean_over_targets() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)).round(1), rng.normal(size=(12, 4)).round(1)
    expected = np.mean([spearmanr(x[:, c], y[:, c]).statistic for c in range(4)])
    found = agreement(torch.from_numpy(x), torch.from_numpy(y), n_bootstrap=50)
    assert found.spearman == pytest.approx(expected, abs=1e-12)
    assert found.signs == pytest.approx((np.sign(x) == np.sign(y)).mean())
    assert found.low <= found.spearman <= found.high


def test_signs_are_those_of_chosen_rows() -> None:
    effects, measured = torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([[1.0], [1.0], [-2.0]])
    rows = torch.tensor([[True], [True], [False]])
    found = agreement(effects, measured, rows, n_bootstrap=10)
    assert (found.signs, found.n_rows) == (0.5, 2)
    assert np.isnan(agreement(effects, measured, rows & False, n_bootstrap=10).signs)


def test_the_interval_covers_the_correlation() -> None:
    """Of many concepts, whose Spearman is (6 / pi) asin(r / 2) for normal values of correlation r."""
    draw = torch.Generator().manual_seed(0)
    truth, covered, count = 6 / np.pi * np.arcsin(0.6 / 2), 0, 150
    for seed in range(count):
        x = torch.randn(60, 1, generator=draw)
        y = 0.6 * x + 0.8 * torch.randn(60, 1, generator=draw)
        found = agreement(x, y, n_bootstrap=100, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / count <= 0.985


def test_the_ceiling_is_what_a_second_measurement_reaches() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 1, generator=draw)
    halves = [truth + torch.randn(4000, 1, generator=draw) for _ in range(4)]
    again = agreement(halves[0] + halves[1], halves[2] + halves[3], n_bootstrap=2).spearman
    assert ceiling(halves[0], halves[1]) == pytest.approx(again, abs=0.02)


def test_contradicted_counts_opposite_signs_beyond_the_interval() -> None:
    effects = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    low, high = torch.tensor([[-3.0, -3.0, 1.0, -1.0]]), torch.tensor([[-1.0, 1.0, 2.0, 2.0]])
    assert contradicted(effects, low, high, torch.ones(1, 4, dtype=torch.bool)) == 0.5
    assert np.isnan(contradicted(effects, low, high, torch.zeros(1, 4, dtype=torch.bool)))


def test_two_concepts_have_no_rank_correlation() -> None:
    found = agreement(torch.randn(2, 3), torch.randn(2, 3))
    assert np.isnan([found.spearman, found.low, found.high]).all()


def test_a_target_without_spread_does_not_count() -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert agreement(x, x, n_bootstrap=10).spearman == pytest.approx(1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="measured="):
        agreement(torch.randn(4, 2), torch.randn(4, 3))
    with pytest.raises(InputError, match="effects="):
        agreement(torch.randn(4, 2), torch.randn(4, 2) * torch.nan)
