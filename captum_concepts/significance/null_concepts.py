"""Random concepts put through the procedure of real ones: CAV, effect on the targets, quality on held-out groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.directions import separation
from captum_concepts.cavs.groups import Grouping, group_means, group_weights, index_groups
from captum_concepts.cavs.held_out import FOLD_INFLATION, held_out_logits
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.quality import auc_with_interval
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.significance.null_draws import draw_null_concepts, pool_folds

MASK_VALUES = 2**25
CACHED_VALUES = 2**20  # in a block of pattern CAVs, whose passes over the block take longer than its products
EXCERPTS = 4


@dataclass(frozen=True)
class NullPlan:
    """How the pseudo-concepts are drawn.

    Attributes:
        method: the CAV method, which null concepts go through too.
        count: pseudo-concepts for each concept size; None chooses by ``enough_nulls``.
        seed: of the draw.
        rest: whether a concept's negatives are everything else (then pseudo-concepts are drawn from all rows), or a
            fixed set of rows (then they are drawn from those).
        own: whether, with such a fixed set, the concept's own rows are drawn from too. For in-domain negatives, which
            are matched to the concept and so often fewer than its groups: labels are then permuted among both.
    """

    method: CavMethod
    count: int | None
    seed: int
    rest: bool
    own: bool = False


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
        positives, negatives, weights: as in ``cavs.fit_pattern``.
        mean_gradient: (T, D), mean over the explained clips.
    """
    distance = separation(activations, directions, positives, negatives, weights)
    return (mean_gradient.to(directions) @ directions.T) * distance


def excerpt_rows(marked: np.ndarray, pool: np.ndarray) -> int | None:
    """How many rows of each drawn group a pseudo-concept may have, so that it is not steadier than the concept.

    The mean of a group of n rows varies by what rows of a group share, and by 1 / n of what they do not. Whole groups
    of ten rows would hardly vary beside a concept's groups of one, and any such concept would come out significant.

    Args:
        shown: (groups,) rows of each of the concept's groups.
        pool: (groups,) rows of each of the groups that are drawn from.

    Returns:
        the most rows for which groups of the pool vary at least as much as the concept's, of those numbers that have
        two binary digits before their zeros, so that concepts share their nulls; None for whole groups.
    """
    varies = (1 / marked).mean() * (1 - 1e-9)
    if (1 / pool).mean() >= varies:
        return None
    steps = [number << shift for shift in range(int(pool.max()).bit_length()) for number in (2, 3)]
    return max([1, *(most for most in steps if (1 / np.minimum(pool, most)).mean() >= varies)])


def null_sets(
    data: LabelledRows,
    eligible: np.ndarray,
    size: int,
    mean_gradient: Tensor,
    plan: NullPlan,
    most_rows: int | None = None,
) -> NullSets:
    """Draw pseudo-concepts and put them through the procedure.

    Args:
        data: the layer's rows.
        eligible: bool (N,), rows whose groups are drawn from.
        size: groups in each set.
        mean_gradient: (T, D); T may be 0 where only the quality is wanted.
        plan: with ``count`` given.
        most_rows: of each drawn group, see ``excerpt_rows``: consecutive ones, others from set to set; None for all.

    Returns:
        NullSets, on the CPU.

    Raises:
        InputError: too few groups to draw from.
    """
    count = plan.count if plan.count is not None else 0
    drawn = draw_null_concepts(data.groups, eligible, size, count, plan.seed)
    chosen, names, numbers = _sorted_rows(data, eligible)
    drawn = drawn[chosen[np.unique(numbers, return_index=True)[1]]]
    device = data.activations.device
    rows = data.activations[torch.from_numpy(chosen).to(device)]
    pool = _Units(rows, torch.from_numpy(group_weights(data.groups)[chosen]).to(rows), numbers)
    is_pattern = plan.method.fit is fit_pattern
    whole = pool.means() if is_pattern else pool
    if most_rows is None:
        units, positives, negatives = whole, drawn[whole.index], ~drawn[whole.index]
    else:
        units, positives, negatives = _with_excerpts(whole, pool, drawn, most_rows, is_pattern)
    fold, held = pool_folds(names, plan.seed), len(units.rows)
    if not is_pattern and not eligible.all():
        units, positives, negatives, names, fold = _with_others(data, eligible, plan.seed, units, positives, negatives)
    rows, weights = units.rows, units.weights
    grouping = Grouping(names, torch.as_tensor(units.index, device=device))
    parts = []
    # Methods that factorise the rows do so for every block, so theirs are as large as memory allows.
    step = max(1, (min(MASK_VALUES, CACHED_VALUES) if is_pattern else MASK_VALUES) // len(rows))
    for start in range(0, count, step):
        shows, against = (torch.from_numpy(m[:, start : start + step]).to(device) for m in (positives, negatives))
        directions = plan.method(rows, shows, against, weights)[0]
        found = effects(rows[:held], directions, shows[:held], against[:held], weights[:held], mean_gradient)
        logits, of_group = held_out_logits(rows, shows, against, weights, grouping, fold, plan.method)
        parts.append(
            (found.T.cpu(), *(part.cpu() for part in auc_with_interval(logits, *of_group, FOLD_INFLATION)[:2]))
        )
    return NullSets(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _sorted_rows(data: LabelledRows, eligible: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The eligible rows by group and order, the names of the groups, and the group of each row."""
    rows = np.flatnonzero(eligible)
    names, numbers = index_groups(data.groups[rows])
    sorted_rows = np.lexsort((rows if data.order is None else data.order[rows], numbers))
    return rows[sorted_rows], names, numbers[sorted_rows]


def _with_others(
    data: LabelledRows, eligible: np.ndarray, seed: int, units: _Units, positives: np.ndarray, negatives: np.ndarray
) -> tuple[_Units, np.ndarray, np.ndarray, list[str], np.ndarray]:
    """The rows that are not drawn from as neither positives nor negatives, and the names and folds of all groups.

    They are in the fit of a concept, which whitens by the covariance of all rows if it is ``lda``: with a covariance of
    few rows random sets would go through another procedure than the concept.
    """
    rows = np.flatnonzero(~eligible)
    rows = rows[np.lexsort((rows if data.order is None else data.order[rows], data.groups[rows].astype(str)))]
    drawn_from, others = (index_groups(data.groups[mask])[0] for mask in (eligible, ~eligible))
    apart = sorted(set(others) - set(drawn_from))
    names = [*drawn_from, *apart]
    place = {name: number for number, name in enumerate(names)}
    left = torch.from_numpy(rows).to(units.rows.device)
    weights = torch.from_numpy(group_weights(data.groups)[rows]).to(units.weights)
    more = _Units(
        torch.cat([units.rows, data.activations[left]]),
        torch.cat([units.weights, weights]),
        np.concatenate([units.index, [place[name] for name in data.groups[rows]]]).astype(np.int64),
    )
    none = np.zeros((len(rows), positives.shape[1]), dtype=bool)
    fold = np.concatenate([pool_folds(drawn_from, seed), pool_folds(apart, seed)])
    return more, np.concatenate([positives, none]), np.concatenate([negatives, none]), names, fold


@dataclass(frozen=True)
class _Units:
    """What goes into the fit: rows (U, D), or means of rows, with their weights (U,) and the group of each (U,)."""

    rows: Tensor
    weights: Tensor
    index: np.ndarray

    def means(self) -> _Units:
        """Differences of means over whole groups are those of the groups' means: the same numbers from fewer rows."""
        units, of = np.unique(self.index, return_inverse=True)
        index = torch.as_tensor(of, device=self.rows.device)
        everyone = torch.ones(len(of), 1, dtype=torch.bool, device=index.device).expand_as(self.rows)
        weights = self.rows.new_zeros(len(units)).index_add_(0, index, self.weights)
        return _Units(group_means(self.rows, everyone, index, len(units)), weights, units)


def _with_excerpts(
    whole: _Units, pool: _Units, drawn: np.ndarray, most: int, means: bool
) -> tuple[_Units, np.ndarray, np.ndarray]:
    """Whole groups as negatives, and apart from them excerpts of groups as positives, with the masks of both.

    Excerpts follow each other in the group without overlap, so that on average they are the group. Pseudo-concepts take
    turns with them. The rows of ``pool`` lie group by group.
    """
    size = np.bincount(pool.index)
    rank = np.arange(len(pool.index)) - np.repeat(np.cumsum(size) - size, size)
    excerpts = np.clip(size // most, 1, EXCERPTS)
    chosen = np.flatnonzero(rank // most < excerpts[pool.index])
    group, number = pool.index[chosen], rank[chosen] // most
    kept = torch.from_numpy(chosen).to(pool.rows.device)
    weight_of_row = torch.from_numpy(1 / np.minimum(size, most)[group]).to(pool.weights)
    part = _Units(pool.rows[kept], weight_of_row, group * EXCERPTS + number)
    if means:
        part = part.means()
    group, number = np.divmod(part.index, EXCERPTS)
    turn = np.arange(drawn.shape[1])
    shows = drawn[group] & (number[:, None] == turn % excerpts[group][:, None])
    against = ~drawn[whole.index]
    both = _Units(
        torch.cat([whole.rows, part.rows]),
        torch.cat([whole.weights, part.weights]),
        np.concatenate([whole.index, group]),
    )
    positives = np.concatenate([np.zeros_like(against), shows])
    return both, positives, np.concatenate([against, np.zeros_like(shows)])
