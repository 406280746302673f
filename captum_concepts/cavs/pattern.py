"""Pattern CAVs: the difference of class means."""

from __future__ import annotations

from torch import Tensor

from captum_concepts.cavs.directions import Fit, class_shares, gaussian_along


def fit_pattern(activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor) -> Fit:
    """Difference of class means: the pattern cov(x, y) / var(y) for binary y. One matrix product for all concepts.

    Haufe et al., NeuroImage 2014; Pahde et al., ICLR 2025 (arXiv 2202.03482); the direction of FastCAV.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,), weight of each row.

    Returns:
        directions (K, D), biases (K,), scales (K,).

    Example:
        >>> import torch
        >>> rows = torch.tensor([[3.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> positives = torch.tensor([[True], [True], [False], [False]])
        >>> directions, biases, scales = fit_pattern(rows, positives, ~positives, torch.ones(4))
        >>> bool(directions[0, 0] > 0.9)
        True
    """
    positive, negative = class_shares(positives, weights), class_shares(negatives, weights)
    return gaussian_along(activations, (positive - negative).T @ activations, positive, negative)
