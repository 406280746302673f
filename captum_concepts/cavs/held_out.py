"""Logits of groups by CAVs that were fitted without them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.groups import Grouping, group_means
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.quality import gaussian_log_odds

# Held-out logits of different folds share most of what they were fitted on. The variance of the AUC of meaningless
# concepts was 1.5 to 1.8 times DeLong's in simulations (30 to 200 groups, 12 to 300 features).
FOLD_INFLATION = 1.6


def held_out_logits(
    x: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    grouping: Grouping,
    fold: np.ndarray,
    method: CavMethod,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits of groups by CAVs that were fitted without them, and which groups are positive and negative.

    A group counts by the mean over its rows that are positives or, in a group without any, negatives. The logits of a
    fold are those of two Gaussians of equal variance over the groups fitted on, whatever the method's own scale is, so
    that folds can be compared. NaN where the other folds lack positives or negatives.

    Args:
        x: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,).
        grouping: of the rows into G groups.
        fold: (G,) int, the fold of each group.
        method: CAV method with its options.

    Returns:
        logits (G, K), (bool (G, K), bool (G, K)).
    """
    of_group = grouping.any(positives), grouping.any(negatives) & ~grouping.any(positives)
    members = torch.where(of_group[0][grouping.index], positives, negatives)
    logits = x.new_full(of_group[0].shape, torch.nan)
    used = members.any(1)
    rows, index = (x, grouping.index) if used.all() else (x[used], grouping.index[used])
    members = members[used]
    for number in np.unique(fold):
        held = torch.as_tensor(fold == number, device=x.device)
        out = held[grouping.index]
        complete = positives[~out].any(0) & negatives[~out].any(0)
        if not complete.any():
            continue
        shows, against = positives[~out][:, complete], negatives[~out][:, complete]
        direction = method(x[~out], shows, against, weights[~out])[0]
        values = group_means(rows @ direction.T, members[:, complete], index, len(grouping.names))
        fitted = [part[:, complete] & ~held[:, None] for part in of_group]
        logits[held.nonzero(), complete.nonzero().T] = gaussian_log_odds(values, *fitted)[held]
    return logits, of_group
