"""What all CAV methods share: class means, and the logit along a direction."""

from __future__ import annotations

import torch
from torch import Tensor

Fit = tuple[Tensor, Tensor, Tensor]


def class_shares(mask: Tensor, weights: Tensor) -> Tensor:
    """Column weights that sum to one over each concept's rows: (N, K)."""
    weighted = mask.to(weights.dtype) * weights[:, None]
    return weighted / weighted.sum(0).clamp_min(torch.finfo(weights.dtype).tiny)


def gaussian_along(activations: Tensor, directions: Tensor, positive: Tensor, negative: Tensor) -> Fit:
    """Unit directions with the bias and scale of equal-variance Gaussians along them.

    With class means m1, m0 and pooled variance s² of the projections, the log odds at equal priors are
    (m1 - m0) / s² · (z - (m1 + m0) / 2).
    """
    directions = torch.nn.functional.normalize(directions, dim=1, eps=0.0)
    projections = activations @ directions.T
    mean_1, mean_0 = (positive * projections).sum(0), (negative * projections).sum(0)
    spread = (positive * (projections - mean_1) ** 2).sum(0) + (negative * (projections - mean_0) ** 2).sum(0)
    floor = torch.finfo(projections.dtype).eps * (projections**2).mean(0) + torch.finfo(projections.dtype).tiny
    scales = (mean_1 - mean_0) / (spread / 2).clamp_min(floor)
    return directions, -(mean_1 + mean_0) / 2, scales


def separation(
    activations: Tensor, directions: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor
) -> Tensor:
    """Distance of the two classes' means along each direction.

    Args:
        activations: (N, D).
        directions: (K, D), unit length.
        positives, negatives, weights: as in ``fit_pattern``.

    Returns:
        (K,), in activation units.

    Example:
        >>> rows, positives = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[True], [False]])
        >>> separation(rows, torch.tensor([[1.0, 0.0]]), positives, ~positives, torch.ones(2))
        tensor([2.])
    """
    projections = activations @ directions.T
    return ((class_shares(positives, weights) - class_shares(negatives, weights)) * projections).sum(0)
