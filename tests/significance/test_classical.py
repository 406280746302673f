"""The classical tests against scipy and Captum's recipe, and that they reject what is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.errors import InputError
from captum_concepts.significance.classical import refit_scores, tutorial_test, welch


def test_equal_to_scipy_row_by_row():
    rng = np.random.default_rng(0)
    one, other = rng.random((3, 10)), rng.random((3, 8))
    for row in range(3):
        wanted = stats.ttest_ind(one[row], other[row], equal_var=False).pvalue
        assert welch(one, other)[row] == pytest.approx(wanted)
        assert tutorial_test(one, other)[row] == pytest.approx(stats.ttest_ind(one[row], other[row]).pvalue)


def test_scores_that_do_not_vary_are_never_significant():
    ones = np.ones((1, 10))
    for test in (welch, tutorial_test):
        assert np.isnan(test(ones, ones)).all()
        assert not (test(ones, ones) <= 0.05).any()


@pytest.mark.parametrize("test", [welch, tutorial_test])
def test_one_refit_is_not_enough(test):
    with pytest.raises(InputError, match="1 refits; a t-test needs at least 2"):
        test(np.ones((2, 1)), np.ones((2, 10)))


def test_random_sets_come_out_significant():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 24, generator=generator)
    gradients = torch.randn(40, 2, 24, generator=generator) + 2 * torch.randn(1, 2, 24, generator=generator)
    groups = np.array([f"g{i}" for i in range(600)], dtype=object)
    rng = np.random.default_rng(0)
    positives = np.zeros((600, 60), dtype=bool)
    for column in positives.T:
        column[rng.choice(300, 20, replace=False)] = True
    pool = np.arange(600) >= 300
    concept, random = refit_scores(x, positives, pool, groups, gradients, CAV_METHODS["pattern"], runs=10)
    assert concept.shape == (60, 2, 10)
    assert random.shape == (2, 10)
    beyond = stats.binom.ppf(0.9999, 120, 0.05)
    assert (welch(concept, random) <= 0.05).sum() > beyond
    assert (tutorial_test(concept, 1 - concept) <= 0.05).sum() > beyond
