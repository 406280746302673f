"""CAVs of disjoint halves: similar for a concept, unrelated for a null concept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.planted import planted_shifts

from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.diagnostics.random_sets import GroupSampler, RandomSets
from captum_concepts.diagnostics.stability import Resampler, random_cosines


def world(per=20, shift=2.0, seed=0, dimensions=40, pool=80):
    """A real concept and a null concept."""
    return planted_shifts([shift, 0.0], per, pool, dimensions, seed=seed)


def cosines(x, positives, negatives, groups, fit=fit_pattern, seed=0):
    return Resampler(CavMethod(fit), GroupSampler(groups), np.ones(len(x))).cosines(x, positives, negatives, seed)


@pytest.mark.parametrize("fit", [fit_pattern, fit_lda])
def test_a_real_concept_repeats_and_a_random_one_does_not(fit):
    found = torch.stack([cosines(*world(seed=seed), fit=fit) for seed in range(20)]).mean(0)
    assert found[0] > 0.3
    assert abs(found[1]) < 0.06


def test_it_rises_with_the_number_of_groups_as_theory_says():
    # cos = s² / (s² + d (1/n + 1/m)), s the shift, d dimensions, n and m groups in a half of either side.
    for per in (20, 80, 320):
        found = torch.stack([cosines(*world(per, pool=4 * per, seed=seed)) for seed in range(10)]).mean(0)[0]
        expected = 4 / (4 + 40 * (1 / (per / 2) + 1 / (2 * per)))
        assert found == pytest.approx(expected, abs=0.06)


def test_each_half_is_the_fit_of_its_groups_alone():
    x, positives, negatives, groups = world()
    resampler = Resampler(CavMethod(fit_pattern), GroupSampler(groups), np.ones(len(x)))
    found = resampler.halves(x, positives, negatives, 3)
    for k in range(2):
        own = (positives | negatives)[:, k] & found.first[:, k]
        bank = fit_cavs(x[own], positives[own][:, [k]], negatives=negatives[own][:, [k]], folds=0)
        torch.testing.assert_close(found.directions[0, k], bank.directions[0])


def test_random_sets_are_the_null_of_a_random_set():
    inside = 0
    for seed in range(100):
        x, positives, negatives, groups = world(seed=seed, dimensions=10)
        sets = RandomSets(positives, negatives, groups, range(2), seed)
        null = random_cosines(CavMethod(fit_pattern), x, sets, seed)
        found = cosines(x, positives, negatives, groups, seed=seed)
        inside += bool(found[1] <= np.quantile(null[:, sets.kind_of[1]], 0.95))
    assert 88 <= inside <= 100  # binomial: 95 less 3.2 standard deviations


def test_the_same_seed_gives_the_same_numbers_and_halves_without_positives_none():
    data = world()
    assert torch.equal(cosines(*data), cosines(*data))
    assert not torch.equal(cosines(*data), cosines(*data, seed=1))
    x, positives, negatives, groups = data
    positives[1:] = False
    assert torch.isnan(cosines(x, positives, negatives, groups)).all()
