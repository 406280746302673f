"""Random concepts put through the procedure of real ones: CAV, effect on the targets, quality on held-out groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs import FOLD_INFLATION, FitFunction, Grouping, group_weights, held_out_logits, run_fit
from captum_concepts.discriminants import fit_pattern, separation
from captum_concepts.quality import auc_with_interval, group_means, index_groups
from captum_concepts.significance import pool_folds, pseudo_concepts

MASK_VALUES = 2**25


@dataclass(frozen=True)
class LayerData:
    """The concept rows of one layer, as they go into the fit.

    Attributes:
        activations: (N, D).
        positives, negatives: bool (N, K).
        groups: (N,) str.
    """

    activations: Tensor
    positives: np.ndarray
    negatives: np.ndarray
    groups: np.ndarray

    def part(self, rows: np.ndarray) -> LayerData:
        """Some of the rows, bool (N,)."""
        chosen = torch.from_numpy(np.flatnonzero(rows)).to(self.activations.device)
        return LayerData(self.activations[chosen], self.positives[rows], self.negatives[rows], self.groups[rows])


@dataclass(frozen=True)
class NullPlan:
    """How the pseudo-concepts are drawn.

    Attributes:
        fit: the CAV method's function; pseudo-concepts go through the very same.
        options: of the method.
        count: pseudo-concepts for each concept size; None chooses by ``enough_nulls``.
        seed: of the draw.
        rest: whether a concept's negatives are everything else (then pseudo-concepts are drawn from all rows), or a
            fixed set of rows (then they are drawn from those).
    """

    fit: FitFunction
    options: dict[str, Any]
    count: int | None
    seed: int
    rest: bool


@dataclass(frozen=True)
class NullSets:
    """R pseudo-concepts of one size.

    Attributes:
        effects: (R, T) on each target.
        auc, low: (R,) AUC on held-out groups and the lower end of its 95 % interval; a pseudo-concept passes the gate
            where it is above one half.
    """

    effects: Tensor
    auc: Tensor
    low: Tensor


def effects(
    activations: Tensor,
    directions: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    mean_gradient: Tensor,
) -> Tensor:
    """(T, K): the first-order change of each target's logit from an average negative to an average positive.

    The mean derivative along the unit CAV times the distance between the means of positives and negatives along it. The
    derivative alone would not do: the direction of a random set, brought to unit length, is as long as a concept's.

    Args:
        activations: (N, D).
        directions: (K, D), unit length.
        positives, negatives, weights: as in ``discriminants.fit_pattern``.
        mean_gradient: (T, D), mean over the explained clips.
    """
    distance = separation(activations, directions, positives, negatives, weights)
    return (mean_gradient.to(directions) @ directions.T) * distance


def null_sets(data: LayerData, eligible: np.ndarray, size: int, mean_gradient: Tensor, plan: NullPlan) -> NullSets:
    """Draw pseudo-concepts and put them through the procedure.

    Args:
        data: the layer's rows.
        eligible: bool (N,), rows whose groups are drawn from.
        size: groups in each set.
        mean_gradient: (T, D); T may be 0 where only the quality is wanted.
        plan: with ``count`` given.

    Returns:
        NullSets, on the CPU.

    Raises:
        InputError: too few groups to draw from.
    """
    count = plan.count if plan.count is not None else 0
    drawn = pseudo_concepts(data.groups, eligible, size, count, plan.seed)[eligible]
    names, numbers = index_groups(data.groups[eligible])
    device = data.activations.device
    index = torch.as_tensor(numbers, device=device)
    rows = data.activations[torch.from_numpy(np.flatnonzero(eligible)).to(device)]
    weights = torch.from_numpy(group_weights(data.groups)[eligible]).to(rows)
    if plan.fit is fit_pattern:
        # Differences of means over whole groups are those of the groups' means: the same numbers from fewer rows.
        everyone = torch.ones(len(rows), 1, dtype=torch.bool, device=device).expand_as(rows)
        weights = rows.new_zeros(len(names)).index_add_(0, index, weights)
        rows = group_means(rows, everyone, index, len(names))
        first = np.unique(numbers, return_index=True)[1]
        drawn, index = drawn[first], torch.arange(len(names), device=device)
    grouping, fold = Grouping(names, index), pool_folds(names, plan.seed)
    parts = []
    for block in torch.from_numpy(drawn).split(max(1, MASK_VALUES // len(rows)), dim=1):
        positives = block.to(device)
        directions = run_fit(plan.fit, rows, positives, ~positives, weights, plan.options)[0]
        found = effects(rows, directions, positives, ~positives, weights, mean_gradient)
        logits, of_group = held_out_logits(rows, positives, ~positives, weights, grouping, fold, plan.fit, plan.options)
        parts.append(
            (found.T.cpu(), *(part.cpu() for part in auc_with_interval(logits, *of_group, FOLD_INFLATION)[:2]))
        )
    return NullSets(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
