"""Linear discriminant CAVs: the difference of class means, whitened."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.cavs.directions import Fit, class_shares, gaussian_along
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


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

    Raises:
        InputError: ``shrinkage`` is outside [0, 1].

    Example:
        >>> import torch
        >>> rows = torch.tensor([[3.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> positives = torch.tensor([[True], [True], [False], [False]])
        >>> directions, biases, scales = fit_lda(rows, positives, ~positives, torch.ones(4), shrinkage=0.5)
        >>> bool(directions[0, 0] > 0.9)
        True
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage={short_repr(shrinkage)}: must be between 0 and 1; give such a number, or None")
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
    positive, negative = class_shares(positives, weights), class_shares(negatives, weights)
    # The last term lets the factorisation succeed without shrinkage; no variance at all gives no direction.
    trace = float(gram.diagonal().sum())
    ridge = (shrinkage + torch.finfo(torch.float32).eps) * trace / d
    if ridge <= 0:
        return gaussian_along(activations, activations.new_full((positive.shape[1], d), torch.nan), positive, negative)
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
    return gaussian_along(activations, solved, positive, negative)


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
