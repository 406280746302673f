"""Whether concepts differ from a pool by what they are or by where they come from."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.planted import planted_shifts

from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.diagnostics.domain_shift import check_domain
from captum_concepts.results.diagnostics import is_confounded

FITTER = CavMethod(fit_pattern)


def world(domain, concepts=5, per=16, pool=60, shift=3.0, seed=0):
    return planted_shifts([shift] * concepts, per, pool, 20, domain, seed)


def test_the_common_share_is_that_of_the_squared_shifts():
    # Two concepts' displacements have domain² in common; each is shift² + domain² long.
    found = check_domain(FITTER, *world(4.0, per=200, pool=600))
    assert found.common == pytest.approx(16 / (16 + 9), abs=0.05)
    assert check_domain(FITTER, *world(0.0, per=200, pool=600)).common == pytest.approx(0.0, abs=0.05)


def test_only_another_domain_is_confounded():
    assert check_domain(FITTER, *world(9.0)).confounded
    clean = check_domain(FITTER, *world(0.0))
    assert not clean.confounded and clean.low > 0.5, "concepts that are there are told from a pool without them"
    assert not is_confounded({"low": 0.9, "random_sets": float("nan"), "common": 0.9})


def test_sets_without_a_domain_of_their_own_are_not_told_from_the_pool():
    found = check_domain(FITTER, *world(0.0, shift=0.0))
    assert found.random_sets < 0.3 and 0.3 < found.auc < 0.7


@pytest.mark.parametrize("change", ["rest", "one concept", "few groups"])
def test_nothing_to_check(change):
    x, positives, negatives, groups = world(9.0, pool=5 if change == "few groups" else 60)
    if change == "rest":
        negatives = ~positives
    if change == "one concept":
        positives, negatives = positives[:, :1], negatives[:, :1]
    assert check_domain(FITTER, x, positives, negatives, groups) is None


def test_the_order_of_rows_does_not_matter():
    data = world(3.0)
    mixed = np.random.default_rng(3).permutation(len(data[3]))
    one, other = check_domain(FITTER, *data, seed=4), check_domain(FITTER, *(part[mixed] for part in data), seed=4)
    assert vars(other) == pytest.approx(vars(one), abs=1e-5)
