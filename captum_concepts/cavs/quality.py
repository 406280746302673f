"""Quality of a CAV on groups that it was not fitted on."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_log_odds(values: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Log odds at equal priors of two Gaussians of equal variance, fitted to each column's positives and negatives.

    Args:
        values: (G, K).
        positive, negative: bool (G, K), the rows to fit to.

    Returns:
        (G, K): ``(m1 - m0) / s² * (value - (m1 + m0) / 2)``, s² the mean of the two variances.
    """
    shares = [mask.to(values.dtype) / mask.sum(0) for mask in (positive, negative)]
    # What is NaN is of neither kind, and 0 x NaN is NaN.
    known = torch.where(positive | negative, values, 0)
    mean_1, mean_0 = ((share * known).sum(0) for share in shares)
    squares = [(share * (known - mean) ** 2).sum(0) for share, mean in zip(shares, (mean_1, mean_0), strict=True)]
    limits = torch.finfo(values.dtype)
    floor = limits.eps * (known**2).mean(0) + limits.tiny
    return (mean_1 - mean_0) / ((squares[0] + squares[1]) / 2).clamp_min(floor) * (values - (mean_1 + mean_0) / 2)


def auc_with_interval(
    scores: Tensor, positive: Tensor, negative: Tensor, inflation: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Area under the ROC curve of each column, with a 95 % interval.

    Args:
        scores: (G, K); NaN rows are left out.
        positive, negative: bool (G, K).
        inflation: factor on the variance, for scores that are not independent of each other.

    Returns:
        auc, low, high, each (K,) float64; NaN without rows of both kinds. Ties count half. The interval is DeLong's
        (Biometrics 1988) on the logit scale, with the variance never below that of one misranked half pair.

    Example:
        >>> scores = torch.tensor([[3.0], [1.0], [2.0], [0.0]])
        >>> positive = torch.tensor([[True], [True], [False], [False]])
        >>> auc, low, high = auc_with_interval(scores, positive, ~positive)
        >>> auc.tolist(), bool(low < auc), bool(auc < high)
        ([0.75], True, True)
    """
    scores = scores.double()
    finite = torch.isfinite(scores)
    positive, negative = positive & finite, negative & finite
    n_1, n_0 = positive.sum(0).to(scores.dtype), negative.sum(0).to(scores.dtype)
    wins_1 = _placements(scores, positive, negative) / n_0
    wins_0 = 1 - _placements(scores, negative, positive) / n_1
    auc = torch.where(positive, wins_1, 0).sum(0) / n_1
    spread_1 = torch.where(positive, (wins_1 - auc) ** 2, 0).sum(0) / (n_1 - 1).clamp_min(1)
    spread_0 = torch.where(negative, (wins_0 - auc) ** 2, 0).sum(0) / (n_0 - 1).clamp_min(1)
    # A perfect ranking has no spread to estimate an error from: half a misranked pair stands for what was not seen.
    half_pair = 0.5 / (n_1 * n_0)
    inside = torch.minimum(torch.maximum(auc, half_pair), 1 - half_pair)
    variance = torch.maximum(spread_1 / n_1 + spread_0 / n_0, inside * (1 - inside) / (n_1 * n_0))
    reach = 1.959963984540054 * (inflation * variance).sqrt() / (inside * (1 - inside))
    centre = torch.logit(inside)
    low, high = torch.sigmoid(centre - reach), torch.sigmoid(centre + reach)
    return auc, torch.minimum(low, auc), torch.maximum(high, auc)


def _placements(scores: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """(G, K): for each of the rows, how many of the others it exceeds (ties half)."""
    columns = torch.where(others, scores, torch.inf).T.contiguous().sort(1).values
    points = torch.where(rows, scores, 0).T.contiguous()
    below = torch.searchsorted(columns, points, right=False)
    not_above = torch.searchsorted(columns, points, right=True)
    return ((below + not_above).to(scores.dtype) / 2).T


def balanced_accuracy(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of the shares of positives above 0 and of negatives below 0.

    Args:
        logits: (G, K); NaN rows are left out.
        positive, negative: bool (G, K).

    Returns:
        (K,).

    Example:
        >>> logits, positive = torch.tensor([[2.0], [-1.0], [-2.0]]), torch.tensor([[True], [True], [False]])
        >>> balanced_accuracy(logits, positive, ~positive)
        tensor([0.7500])
    """
    finite = torch.isfinite(logits)
    positive, negative = positive & finite, negative & finite
    hit_1 = ((logits > 0) & positive).sum(0) / positive.sum(0)
    hit_0 = ((logits < 0) & negative).sum(0) / negative.sum(0)
    return (hit_1 + hit_0) / 2
