"""The batched logistic regression against scikit-learn's, one concept at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.errors import InputError


def problem(n: int, d: int, k: int, seed: int = 0, shift: float = 1.0, share: float = 0.4):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n, k, generator=generator) < share
    positive[0], positive[1] = True, False
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(0.3, 2, d) + 3
    x[:, :k] += shift * positive
    return x, positive


def reference(x, positive, used, weights, C):
    found = []
    for k in range(positive.shape[1]):
        rows = used[:, k].numpy()
        w = weights.numpy()[rows]
        model = LogisticRegression(C=C, tol=1e-9, max_iter=5000, solver="newton-cholesky")
        model.fit(x.numpy()[rows], positive.numpy()[rows, k], sample_weight=w / w.mean())
        found.append(np.append(model.coef_[0], model.intercept_[0]))
    return torch.tensor(np.array(found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "shift", "share", "C"),
    [(80, 12, 1.0, 0.4, 1.0), (40, 60, 1.0, 0.4, 1.0), (60, 10, 20.0, 0.4, 1.0), (300, 20, 1.5, 0.03, 10.0)],
    ids=["overlapping", "wide", "separable", "imbalanced"],
)
def test_equals_scikit_learn(dtype, weighted, n, d, shift, share, C):
    x, positive = problem(n, d, 5, shift=shift, share=share)
    weights = torch.linspace(0.2, 3, n, dtype=torch.float64) if weighted else torch.ones(n, dtype=torch.float64)
    used = torch.arange(n)[:, None] % 7 != torch.arange(2, 7)  # some rows are neither
    directions, biases, scales = fit_logistic(x.to(dtype), positive & used, ~positive & used, weights.to(dtype), C=C)
    wanted = reference(x, positive, used, weights, C)
    norm = wanted[:, :-1].norm(dim=1)
    cosine = (directions.double() * wanted[:, :-1]).sum(1) / norm
    assert (cosine > 0.99999).all()
    torch.testing.assert_close(scales.double(), norm, rtol=1e-3, atol=0)
    logits = scales.double() * (x @ directions.double().T + biases.double())
    torch.testing.assert_close(logits, x @ wanted[:, :-1].T + wanted[:, -1], rtol=1e-3, atol=3e-3)


def test_constant_columns_get_no_weight_and_constant_rows_no_direction():
    x, positive = problem(50, 8, 2)
    x[:, 5] = 7.0
    directions, _, _ = fit_logistic(x, positive, ~positive, torch.ones(50, dtype=torch.float64))
    assert directions[:, 5].abs().max() < 1e-12
    flat = fit_logistic(torch.full((50, 8), 3.0), positive, ~positive, torch.ones(50))
    assert torch.isnan(flat[0]).all()


def test_without_the_basis_of_principal_axes_the_optimum_is_the_same(monkeypatch):
    x, positive = problem(60, 90, 4)
    ones = torch.ones(60, dtype=torch.float64)
    wanted = fit_logistic(x, positive, ~positive, ones)
    monkeypatch.setattr("captum_concepts.cavs.logistic.MAX_BASIS", 0)
    found = fit_logistic(x, positive, ~positive, ones)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_concepts_are_fitted_as_if_alone_and_roles_flip_the_sign():
    x, positive = problem(70, 9, 6)
    ones = torch.ones(70, dtype=torch.float64)
    together = fit_logistic(x, positive, ~positive, ones)
    alone = fit_logistic(x, positive[:, 3:4], ~positive[:, 3:4], ones)
    torch.testing.assert_close(alone[0], together[0][3:4], rtol=0, atol=1e-10)
    swapped = fit_logistic(x, ~positive, positive, ones)
    torch.testing.assert_close(swapped[0], -together[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(swapped[1], -together[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_penalty_is_refused(C):
    x, positive = problem(20, 3, 1)
    with pytest.raises(InputError, match=r"^C="):
        fit_logistic(x, positive, ~positive, torch.ones(20), C=C)
