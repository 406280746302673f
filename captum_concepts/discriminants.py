"""CAVs in closed form: the difference of class means, plain or whitened, for all concepts at once."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError

Fit = tuple[Tensor, Tensor, Tensor]


def _share(mask: Tensor, weights: Tensor) -> Tensor:
    """Column weights that sum to one over each concept's rows: (N, K)."""
    weighted = mask.to(weights.dtype) * weights[:, None]
    return weighted / weighted.sum(0).clamp_min(torch.finfo(weights.dtype).tiny)


def _along(activations: Tensor, directions: Tensor, positive: Tensor, negative: Tensor) -> Fit:
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
    """How far apart the two classes' means lie along each direction.

    Args:
        activations: (N, D).
        directions: (K, D), unit length.
        positives, negatives, weights: as in ``fit_pattern``.

    Returns:
        (K,), in activation units.
    """
    projections = activations @ directions.T
    return ((_share(positives, weights) - _share(negatives, weights)) * projections).sum(0)


def fit_pattern(activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor) -> Fit:
    """Difference of class means: the pattern cov(x, y) / var(y) for binary y. One matrix product for all concepts.

    Haufe et al., NeuroImage 2014; Pahde et al., ICLR 2025 (arXiv 2202.03482); the direction of FastCAV.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,), weight of each row.

    Returns:
        directions (K, D), biases (K,), scales (K,).
    """
    positive, negative = _share(positives, weights), _share(negatives, weights)
    return _along(activations, (positive - negative).T @ activations, positive, negative)


def fit_lda(
    activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor, shrinkage: float | None = None
) -> Fit:
    """Difference of class means, whitened by the shrunk covariance of all rows.

    With all rows as positives or negatives this is Fisher's direction: whitening by the total covariance instead of the
    within-class one only changes its length (Sherman-Morrison). One factorisation serves all concepts.

    Args:
        activations, positives, negatives, weights: as in ``fit_pattern``.
        shrinkage: share of the mean variance times identity in the covariance, 0 to 1; None takes the oracle-
            approximating value (Chen et al., IEEE TSP 2010, eq. 23).

    Returns:
        directions (K, D), biases (K,), scales (K,).
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage={shrinkage} must be between 0 and 1")
    share = (weights / weights.sum()).double()
    rows = activations.double()
    rows = (rows - share @ rows) * share.sqrt()[:, None]
    n, d = activations.shape
    wide = d > n
    gram = rows @ rows.T if wide else rows.T @ rows
    if shrinkage is None:
        shrinkage = oracle_shrinkage(gram, d, float(1 / (share**2).sum()))
    # Rows of no concept are in the covariance only, and may be most of them.
    labelled = (positives | negatives).any(1)
    if not labelled.all():
        activations, positives, negatives, weights = (
            part[labelled] for part in (activations, positives, negatives, weights)
        )
    positive, negative = _share(positives, weights), _share(negatives, weights)
    # The last term lets the factorisation succeed without shrinkage; no variance at all gives no direction.
    trace = float(gram.diagonal().sum())
    ridge = (shrinkage + torch.finfo(torch.float32).eps) * trace / d
    if ridge <= 0:
        return _along(activations, activations.new_full((positive.shape[1], d), torch.nan), positive, negative)
    keep = 1 - shrinkage
    contrast = (positive - negative).T.double()
    # The inverse is linear: of few rows and many concepts it is applied to the rows.
    by_row = len(activations) < len(contrast)
    columns = activations.double() if by_row else contrast @ activations.double()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(keep * gram + ridge * identity)
    if wide:
        # Woodbury: (ridge I + keep R'R)^-1 d = (d - keep R' (ridge I + keep RR')^-1 R d) / ridge
        inner = torch.cholesky_solve(rows @ columns.T, factor)
        solved = (columns - keep * (rows.T @ inner).T) / ridge
    else:
        solved = torch.cholesky_solve(columns.T, factor).T
    solved = contrast @ solved if by_row else solved
    solved = torch.nn.functional.normalize(solved, dim=1).to(activations.dtype)
    return _along(activations, solved, positive, negative)


def oracle_shrinkage(gram: Tensor, features: int, rows: float) -> float:
    """Share of the identity in a shrunk covariance (Chen et al., IEEE TSP 2010, eq. 23).

    Args:
        gram: float64, the covariance S = R'R or, with the same traces, RR'.
        features: D.
        rows: independent observations; with unequal weights their effective number (sum w)² / sum w² (Kish).

    Returns:
        0 to 1; 1 for a covariance that is a multiple of the identity.
    """
    squared, trace = float((gram**2).sum()), float(gram.diagonal().sum())
    above = (1 - 2 / features) * squared + trace**2
    below = (rows + 1 - 2 / features) * (squared - trace**2 / features)
    return 1.0 if below <= above else max(above / below, 0.0)
