"""L2-regularised logistic regression for many concepts at once: batched truncated Newton."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

MAX_BASIS = 2048


def fit_logistic(
    activations: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    C: float = 1.0,
    tolerance: float = 1e-5,
    max_iterations: int = 100,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise ½‖w‖² + C Σ_i s_i log(1 + exp(-y_i (w·x_i + b))) for all concepts at once.

    The same problem as scikit-learn's ``LogisticRegression(C=C)`` with sample weights; weights are scaled to mean one
    over each concept's rows. Newton steps are solved by conjugate gradients (Lin, Weng and Keerthi, JMLR 2008) on the
    principal axes of the rows, with a diagonal preconditioner; products with the activations serve all concepts.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K); rows in neither are left out of that concept.
        weights: (N,), weight of each row.
        C: inverse penalty.
        tolerance: stop a concept when its gradient has fallen to this share of the gradient at zero.
        max_iterations: of Newton.

    Returns:
        directions (K, D) unit, biases (K,), scales (K,) = ‖w‖.
    """
    if not 0 < C < math.inf:
        raise InputError(f"C={short_repr(C)} must be positive and finite")
    used = positives | negatives
    kept = used.any(1)
    if not kept.all():
        activations, positives, negatives, used = (part[kept] for part in (activations, positives, negatives, used))
        weights = weights[kept]
    share = used.to(activations.dtype) * weights[:, None]
    share = C * share * (used.sum(0) / share.sum(0))
    sign = positives.to(activations.dtype) - negatives.to(activations.dtype)
    # The intercept is free, so centring changes nothing but the conditioning.
    centre = activations.mean(0)
    x, basis = _principal(activations - centre)
    state = _minimise(x, sign, share, tolerance, max_iterations)
    w, b = state[:-1] if basis is None else basis @ state[:-1], state[-1]
    scales = w.norm(dim=0)
    return torch.nn.functional.normalize(w.T, dim=1, eps=0.0), (b - centre @ w) / scales, scales


def _principal(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows in the basis of their principal axes, (N, r) and (D, r); as they are where finding it would not pay.

    The penalty does not see the rotation. There are at most N axes however wide the rows are, and in this basis a
    diagonal preconditioner knows the spread of the data along every axis.
    """
    n, d = x.shape
    if min(n, d) > MAX_BASIS:
        return x, None
    rows = x.double()
    spread, axes = torch.linalg.eigh(rows @ rows.T if d > n else rows.T @ rows)
    kept = spread > spread[-1:].clamp_min(0) * 1e-12
    spread, axes = spread[kept], axes[:, kept]
    basis = rows.T @ axes / spread.sqrt() if d > n else axes
    return (rows @ basis).to(x.dtype), basis.to(x.dtype)


def _minimise(x: Tensor, sign: Tensor, share: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    """Weights and intercepts (D + 1, K) by truncated Newton steps, each concept until it has converged."""
    state = torch.zeros(x.shape[1] + 1, sign.shape[1], dtype=x.dtype, device=x.device)
    margins = torch.zeros_like(sign)
    active = torch.arange(sign.shape[1], device=x.device)
    squares = x**2
    first = _gradient(x, state, margins, sign, share)[0].norm(dim=0)
    for _ in range(max_iterations):
        y, s, w, z = sign[:, active], share[:, active], state[:, active], margins[:, active]
        gradient, curvature = _gradient(x, w, z, y, s)
        left = gradient.norm(dim=0) / first[active]
        running = left > tolerance
        if not running.any():
            break
        active, left, gradient = active[running], left[running], gradient[:, running]
        y, s, w, z = y[:, running], s[:, running], w[:, running], z[:, running]
        # Superlinear convergence needs exact steps only near the end (Eisenstat and Walker 1996).
        precision = left.sqrt().clamp(1e-2, 0.3)
        step = _conjugate_gradients(x, squares, curvature[:, running], gradient, precision)
        moved = x @ step[:-1] + step[-1]
        length = _step_length(w, step, z, moved, y, s, gradient)
        state[:, active] = w + length * step
        margins[:, active] = z + length * moved
    return state


def _gradient(x: Tensor, state: Tensor, margins: Tensor, sign: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (D + 1, K) and curvature of the loss at each margin (N, K)."""
    wrong = torch.sigmoid(-sign * margins)
    slope = -share * sign * wrong
    gradient = torch.cat([x.T @ slope + state[:-1], slope.sum(0, keepdim=True)])
    return gradient, share * wrong * (1 - wrong)


def _conjugate_gradients(x: Tensor, squares: Tensor, curvature: Tensor, gradient: Tensor, precision: Tensor) -> Tensor:
    """Approximate Newton step (D + 1, K): until the residual is ``precision`` (K,) of the first, at most 200 products.

    Concepts that are done leave the products.
    """
    diagonal = torch.cat([squares.T @ curvature + 1, curvature.sum(0, keepdim=True).clamp_min(1e-6)])
    result = torch.zeros_like(gradient)
    place = torch.arange(gradient.shape[1], device=x.device)
    step, residual = torch.zeros_like(gradient), -gradient
    direction = residual / diagonal
    energy = (residual * direction).sum(0)
    limit = precision * residual.norm(dim=0)
    for _ in range(200):
        inner = torch.addmm(direction[-1], x, direction[:-1]).mul_(curvature)
        applied = torch.cat([torch.addmm(direction[:-1], x.T, inner), inner.sum(0, keepdim=True)])
        along = (direction * applied).sum(0)
        length = torch.where(along > 0, energy / along, 0)
        step += length * direction
        residual -= length * applied
        scaled = residual / diagonal
        following = (residual * scaled).sum(0)
        direction = scaled + following / energy * direction
        energy = following
        running = (residual.norm(dim=0) > limit) & (along > 0) & (energy > 0)
        done = int(running.numel() - running.sum())
        # Taking columns out costs a copy, so wait until it is worth one.
        if done == running.numel() or done > running.numel() / 8:
            result[:, place] = step
            place, limit, energy = place[running], limit[running], energy[running]
            step, residual, direction = step[:, running], residual[:, running], direction[:, running]
            curvature, diagonal = curvature[:, running], diagonal[:, running]
        if not len(place):
            break
    result[:, place] = step
    return result


def _step_length(
    state: Tensor, step: Tensor, margins: Tensor, moved: Tensor, sign: Tensor, share: Tensor, gradient: Tensor
) -> Tensor:
    """Backtracking (Armijo, halving) for each concept: (K,)."""

    def objective(length: Tensor) -> Tensor:
        w = state[:-1] + length * step[:-1]
        losses = torch.nn.functional.softplus(-sign * (margins + length * moved))
        return (w.double() ** 2).sum(0) / 2 + (share * losses).double().sum(0)

    length = torch.ones_like(gradient[0])
    start = objective(torch.zeros_like(length))
    slope = (gradient * step).double().sum(0)
    for _ in range(30):
        # Near the optimum the objective differs by less than it can be computed to.
        enough = objective(length) <= start + 1e-4 * length * slope + 1e-6 * start.abs()
        if enough.all():
            break
        length = torch.where(enough, length, length / 2)
    return length
