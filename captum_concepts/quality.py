"""How well a CAV separates groups it was not fitted on."""

from __future__ import annotations

import torch
from torch import Tensor


def group_means(values: Tensor, index: Tensor, n_groups: int) -> Tensor:
    """Mean of the rows of each group: (N, K), index (N,) -> (n_groups, K); NaN for a group without rows."""
    sums = values.new_zeros(n_groups, values.shape[1]).index_add_(0, index, values)
    counts = values.new_zeros(n_groups).index_add_(0, index, values.new_ones(len(index)))
    return sums / counts[:, None]


def auc_with_interval(scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Area under the ROC curve of each column, with a 95 % interval.

    Args:
        scores: (G, K); NaN rows are left out.
        positive, negative: bool (G, K).

    Returns:
        auc, low, high, each (K,). Ties count half. The interval is DeLong's (Biometrics 1988) on the logit scale, with
        the variance never below that of one misranked half pair.
    """
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
    reach = 1.959963984540054 * variance.sqrt() / (inside * (1 - inside))
    centre = torch.logit(inside)
    return auc, torch.sigmoid(centre - reach), torch.sigmoid(centre + reach)


def _placements(scores: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """(G, K): for each of our rows, how many of their rows it exceeds (ties half)."""
    columns = torch.where(theirs, scores, torch.inf).T.contiguous().sort(1).values
    points = torch.where(ours, scores, 0).T.contiguous()
    below = torch.searchsorted(columns, points, right=False)
    not_above = torch.searchsorted(columns, points, right=True)
    return ((below + not_above).to(scores.dtype) / 2).T


def balanced_accuracy(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(G, K) logits -> (K,): mean of the two classes' share on the right side of 0; NaN rows are left out."""
    finite = torch.isfinite(logits)
    positive, negative = positive & finite, negative & finite
    hit_1 = ((logits > 0) & positive).sum(0) / positive.sum(0)
    hit_0 = ((logits < 0) & negative).sum(0) / negative.sum(0)
    return (hit_1 + hit_0) / 2
