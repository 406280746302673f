"""L2-regularised logistic regression in the dual: many small problems at once, whose rows share one Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_dual(
    gram: Tensor, sign: Tensor, C: float, *, tolerance: float = 1e-6, max_iterations: int = 50
) -> tuple[Tensor, Tensor]:
    """Minimise ½‖w‖² + C Σ_i log(1 + exp(-y_i (w·x_i + b))) for P problems of at most n rows each.

    The minimum is w = Σ_i a_i x_i with Σ_i a_i = 0, so that only inner products of rows are needed. Newton steps with
    the curvatures split evenly to both sides (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
    eq. 3.26 and 3.27), with a free intercept and halving of steps that would not descend.

    Args:
        gram: (P, n, n) float64 inner products of each problem's rows.
        sign: (P, n) float64, 1 for positives, -1 for negatives, 0 where a problem has fewer rows.
        C: inverse penalty.
        tolerance: stop a problem when no a_i is further than this share of C from where its loss wants it.
        max_iterations: of Newton.

    Returns:
        a (P, n) and b (P,), float64.
    """
    coefficients = torch.zeros_like(sign)
    intercepts = sign.new_zeros(len(sign))
    margins = torch.zeros_like(sign)
    active = torch.arange(len(sign), device=sign.device)
    used = sign != 0
    for _ in range(max_iterations):
        y, a, f = sign[active], coefficients[active], margins[active]
        wanted = C * y * torch.sigmoid(-y * f)
        running = ((wanted - a).abs() > tolerance * C).any(1)
        if not running.any():
            break
        if not running.all():
            active = active[running]
            y, a, f, wanted, gram = y[running], a[running], f[running], wanted[running], gram[running]
        b = intercepts[active]
        new_a, new_b = _newton(gram, y, f, wanted, used[active], C)
        moved = (gram @ new_a[:, :, None])[:, :, 0] + new_b[:, None] - f
        length = _step_length(gram, y, a, new_a - a, f, moved, C)
        coefficients[active] = a + length[:, None] * (new_a - a)
        intercepts[active] = b + length * (new_b - b)
        margins[active] = f + length[:, None] * moved
    return coefficients, intercepts


def _newton(
    gram: Tensor, sign: Tensor, margins: Tensor, wanted: Tensor, used: Tensor, C: float
) -> tuple[Tensor, Tensor]:
    """The minimum of the quadratic that touches each objective at its margins: (P, n), (P,)."""
    curvature = C * used * (torch.sigmoid(margins) * torch.sigmoid(-margins)).clamp_min(1e-12)
    root = curvature.sqrt()
    matrix = gram * root[:, :, None] * root[:, None, :]
    matrix.diagonal(dim1=1, dim2=2).add_(1)
    factor = torch.linalg.cholesky(matrix)
    # (I + W G)^-1 r = r - S (I + S G S)^-1 S G r needs no division by vanishing curvatures.
    right = torch.stack([curvature * margins + wanted, curvature], 2)
    inner = torch.cholesky_solve(root[:, :, None] * (gram @ right), factor)
    solved = right - root[:, :, None] * inner
    intercept = solved[:, :, 0].sum(1) / solved[:, :, 1].sum(1)
    return solved[:, :, 0] - intercept[:, None] * solved[:, :, 1], intercept


def _step_length(
    gram: Tensor, sign: Tensor, start: Tensor, step: Tensor, margins: Tensor, moved: Tensor, C: float
) -> Tensor:
    """(P,): 1, or the largest halving of it with which the objective does not rise."""
    used = (sign != 0).to(margins.dtype)
    products = [(gram @ part[:, :, None])[:, :, 0] for part in (start, step)]
    squares = ((start * products[0]).sum(1), 2 * (start * products[1]).sum(1), (step * products[1]).sum(1))

    def objective(length: Tensor) -> Tensor:
        losses = used * torch.nn.functional.softplus(-sign * (margins + length[:, None] * moved))
        return (squares[0] + length * squares[1] + length**2 * squares[2]) / 2 + C * losses.sum(1)

    length = torch.ones_like(margins[:, 0])
    before = objective(torch.zeros_like(length))
    for _ in range(20):
        worse = objective(length) > before + 1e-10 * before.abs()
        if not worse.any():
            break
        length = torch.where(worse, length / 2, length)
    return length
