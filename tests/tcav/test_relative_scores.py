"""Sets of concepts against each other: all at once, one by one, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from captum_concepts import InputError
from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.tcav.relative_scores import relative_directions, relative_scores

SETS = [[7, 3], [3, 7, 5], [5, 7], [7, 5]]


def rows() -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        identity: torch.randn(size, 20, generator=generator) + torch.randn(20, generator=generator)
        for identity, size in ((7, 14), (3, 9), (5, 11))
    }


@pytest.mark.parametrize("fit", [fit_pattern, fit_logistic, fit_lda])
def test_all_at_once_is_one_by_one(fit):
    def same_but_unknown(*arguments, **options):
        return fit(*arguments, **options)

    together = relative_directions(rows(), SETS, CavMethod(fit))
    single = relative_directions(rows(), SETS, CavMethod(same_but_unknown))
    for one, other in zip(together, single, strict=True):
        torch.testing.assert_close(one.norm(dim=1), torch.ones(len(one)))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_directions_by_other_code():
    data = rows()
    patterns = relative_directions(data, SETS, CavMethod(fit_pattern))
    logistic = relative_directions(data, SETS, CavMethod(fit_logistic, {"C": 0.3}))
    for number, members in enumerate(SETS):
        x = torch.cat([data[identity] for identity in members]).double().numpy()
        owner = np.repeat(members, [len(data[identity]) for identity in members])
        for column, identity in enumerate(members):
            mean = x[owner == identity].mean(0) - x[owner != identity].mean(0)
            np.testing.assert_allclose(patterns[number][column], mean / np.linalg.norm(mean), atol=1e-5)
            reference = LogisticRegression(C=0.3, tol=1e-10, max_iter=100_000).fit(x, owner == identity).coef_[0]
            assert logistic[number][column].double().numpy() @ reference / np.linalg.norm(reference) > 0.9999


@pytest.mark.parametrize("chunk_bytes", [1, 2**28])
def test_scores_by_hand(chunk_bytes):
    directions = relative_directions(rows(), SETS, CavMethod(fit_pattern))
    gradients = torch.randn(13, 20, generator=torch.Generator().manual_seed(1))
    found = relative_scores(directions, SETS, gradients, chunk_bytes)
    for one, scores in zip(directions, found, strict=True):
        along = gradients.double().numpy() @ one.double().numpy().T
        np.testing.assert_allclose(scores["magnitude"], along.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(scores["sign_count"], (along > 0).mean(0), rtol=1e-6)


def test_rows_that_are_no_numbers_and_unknown_options():
    spoiled = rows()
    spoiled[3][2, 2] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        relative_directions(spoiled, SETS, CavMethod(fit_pattern))
    with pytest.raises(InputError, match="cav_options"):
        relative_directions(rows(), SETS, CavMethod(fit_pattern, {"C": 1.0}))
