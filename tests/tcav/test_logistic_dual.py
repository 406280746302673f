"""Batched logistic regression in the dual against scikit-learn, one problem at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from captum_concepts.tcav.logistic_dual import solve_dual


def problems(count: int = 6, n: int = 30, features: int = 80, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = spread * torch.randn(count, n, features, generator=generator, dtype=torch.float64)
    sign = torch.where(torch.arange(n) < n // 3, 1.0, -1.0).double().expand(count, n).clone()
    return x + 0.5 * spread * sign[:, :, None] * torch.randn(count, 1, features, generator=generator).double(), sign


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_the_minimum_is_scikit_learns(C, spread):
    x, sign = problems(spread=spread)
    a, b, _ = solve_dual(x @ x.transpose(1, 2), sign, C)
    weights = (a[:, None] @ x)[:, 0]
    for k in range(len(x)):
        reference = LogisticRegression(C=C, tol=1e-12, max_iter=100_000).fit(x[k], sign[k])
        np.testing.assert_allclose(weights[k], reference.coef_[0], rtol=1e-4, atol=1e-5 * np.abs(reference.coef_).max())
        assert b[k].item() == pytest.approx(reference.intercept_[0], rel=1e-3, abs=1e-4)


def test_the_conditions_of_the_minimum_hold():
    x, sign = problems()
    gram = x @ x.transpose(1, 2)
    a, b, _ = solve_dual(gram, sign, 2.0)
    margins = (gram @ a[:, :, None])[:, :, 0] + b[:, None]
    torch.testing.assert_close(a, 2.0 * sign * torch.sigmoid(-sign * margins), rtol=0, atol=1e-7)
    torch.testing.assert_close(a.sum(1), torch.zeros(len(a)).double(), rtol=0, atol=1e-10)


def test_float32_has_the_same_direction():
    x, sign = problems(features=1000)
    exact = solve_dual(x @ x.transpose(1, 2), sign, 1.0)[0]
    x32 = x.float()
    rounded = solve_dual(x32 @ x32.transpose(1, 2), sign.float(), 1.0)[0]
    assert rounded.dtype == torch.float32
    cosines = torch.cosine_similarity((exact[:, None] @ x)[:, 0], (rounded.double()[:, None] @ x)[:, 0])
    assert cosines.min() > 1 - 1e-6


def test_padding_changes_nothing():
    x, sign = problems(n=20)
    gram = x @ x.transpose(1, 2)
    alone = solve_dual(gram, sign, 1.0)
    wide = torch.full((len(x), 25, 25), 3.0, dtype=torch.float64)  # what is padded may hold anything
    wide[:, :20, :20] = gram
    padded = solve_dual(wide, torch.nn.functional.pad(sign, (0, 5)), 1.0)
    torch.testing.assert_close(padded[0][:, :20], alone[0], rtol=1e-6, atol=1e-9)
    assert (padded[0][:, 20:] == 0).all()


def test_problems_do_not_depend_on_their_company():
    x, sign = problems()
    gram = x @ x.transpose(1, 2)
    together = solve_dual(gram, sign, 1.0)[0]
    for k in range(len(x)):
        torch.testing.assert_close(
            solve_dual(gram[k : k + 1], sign[k : k + 1], 1.0)[0][0], together[k], rtol=1e-6, atol=1e-9
        )


def reference(x, sign, C):
    fit = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(x, sign)
    return fit.coef_[0]


@pytest.mark.parametrize("features", [30, 200])
@pytest.mark.parametrize("length", [5.0, 10.0, 30.0, 100.0])
def test_rows_of_any_length(features, length):
    """Conjugate gradients alone stop far from the minimum here, in both precisions."""
    generator = torch.Generator().manual_seed(1)
    own = torch.arange(142) % 5
    x = torch.randn(142, features, generator=generator) + 0.6 * torch.randn(5, features, generator=generator)[own]
    x = length * (x - x.mean(0)).double()
    sign = torch.where(own == 0, 1.0, -1.0).double()
    wanted = reference(x, sign, 1.0)
    a, _, near = solve_dual((x @ x.T)[None], sign[None], 1.0)
    assert near.all()
    np.testing.assert_allclose(a[0] @ x, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    single = x.float()
    a, _, near = solve_dual((single @ single.T)[None], sign[None].float(), 1.0)
    found = (a[0].double() @ x).numpy()
    cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert cosine > 1 - 1e-6 or not near.any()
