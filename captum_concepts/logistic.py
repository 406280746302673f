"""L2-regularised logistic regression for many concepts at once: batched truncated Newton."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError


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
    over each concept's rows. Newton steps are solved by conjugate gradients with a diagonal preconditioner; the
    products with the activations are shared by all concepts (Lin, Weng and Keerthi, JMLR 2008).

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
    if C <= 0:
        raise InputError(f"C={C} must be positive")
    used = positives | negatives
    share = used.to(activations.dtype) * weights[:, None]
    share = C * share * (used.sum(0) / share.sum(0))
    sign = positives.to(activations.dtype) - negatives.to(activations.dtype)
    # The intercept is free, so centring changes nothing but the conditioning.
    centre = activations.mean(0)
    x = activations - centre
    state = torch.zeros(x.shape[1] + 1, sign.shape[1], dtype=x.dtype, device=x.device)
    active = torch.arange(sign.shape[1], device=x.device)
    margins = torch.zeros_like(sign)
    first = _gradient(x, state, margins, sign, share)[0].norm(dim=0)
    for _ in range(max_iterations):
        y, s, w, z = sign[:, active], share[:, active], state[:, active], margins[:, active]
        gradient, curvature = _gradient(x, w, z, y, s)
        running = gradient.norm(dim=0) > tolerance * first[active]
        if not running.any():
            break
        active = active[running]
        y, s, w, z = y[:, running], s[:, running], w[:, running], z[:, running]
        step = _conjugate_gradients(x, curvature[:, running], gradient[:, running])
        moved = x @ step[:-1] + step[-1]
        length = _step_length(w, step, z, moved, y, s, gradient[:, running])
        state[:, active] = w + length * step
        margins[:, active] = z + length * moved
    w, b = state[:-1], state[-1]
    scales = w.norm(dim=0)
    directions = torch.nn.functional.normalize(w.T, dim=1, eps=0.0)
    return directions, (b - centre @ w) / scales, scales


def _gradient(x: Tensor, state: Tensor, margins: Tensor, sign: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (D + 1, K) and curvature of the loss at each margin (N, K)."""
    wrong = torch.sigmoid(-sign * margins)
    slope = -share * sign * wrong
    gradient = torch.cat([x.T @ slope + state[:-1], slope.sum(0, keepdim=True)])
    return gradient, share * wrong * (1 - wrong)


def _conjugate_gradients(x: Tensor, curvature: Tensor, gradient: Tensor) -> Tensor:
    """Approximate Newton step (D + 1, K): until the residual is a hundredth of the first, at most 200 products."""

    def product(v: Tensor) -> Tensor:
        inner = curvature * (x @ v[:-1] + v[-1])
        return torch.cat([x.T @ inner + v[:-1], inner.sum(0, keepdim=True)])

    diagonal = torch.cat([(x**2).T @ curvature + 1, curvature.sum(0, keepdim=True).clamp_min(1e-6)])
    step = torch.zeros_like(gradient)
    residual = -gradient
    scaled = residual / diagonal
    direction = scaled
    energy = (residual * scaled).sum(0)
    limit = 1e-2 * residual.norm(dim=0)
    for _ in range(200):
        applied = product(direction)
        curvature_along = (direction * applied).sum(0)
        running = (residual.norm(dim=0) > limit) & (curvature_along > 0)
        if not running.any():
            break
        length = torch.where(running, energy / curvature_along, 0)
        step = step + length * direction
        residual = residual - length * applied
        scaled = residual / diagonal
        following = (residual * scaled).sum(0)
        direction = scaled + torch.where(running, following / energy, 0) * direction
        energy = following
    return step


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
