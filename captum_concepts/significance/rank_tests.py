"""Rank tests of concepts among null concepts.

The resampling unit is the group. A concept's R refits on the same examples are one observation, so the usual t-tests
on refits are not valid; here a concept is ranked among null concepts put through the identical procedure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError

#: Null concepts whose spread stands for that of a concept that passed the gate.
MIN_ALIKE = 39


def rank_test(observed: Tensor, null: Tensor) -> Tensor:
    """Two-sided p-values of statistics ranked among those of null concepts.

    p = (1 + #{r: |null_r - c| >= |observed - c|}) / (1 + R), c the mean of the null. Where observed and null are
    exchangeable, p <= a has probability a, but for the error of c, which falls as 1 / R.

    Args:
        observed: (..., K).
        null: (R, ...), broadcastable against ``observed`` without its last axis; the nulls are shared by the K.

    Returns:
        (..., K) float64 p-values, at least 1 / (1 + R); NaN where the statistic is NaN.

    Raises:
        InputError: no null, or a null that is not finite.

    Example:
        >>> rank_test(torch.tensor([5.0]), torch.tensor([-1.0, 0.0, 1.0])).tolist()
        [0.25]
    """
    _check_null(null)
    centre = null.double().mean(0)
    reached = (observed.double() - centre[..., None]).abs()
    return _share_reached(reached, (null.double() - centre).abs(), observed)


def gated_rank_test(observed: Tensor, null: Tensor, passed: Tensor, fewest: int = MIN_ALIKE) -> Tensor:
    """Two-sided p-values of concepts that passed a gate, ranked among all null concepts with the gate allowed for.

    A statistic that is large where the gate is passed makes the plain rank test's p-values too small for whoever sees
    only concepts that passed. Here each distance from the null's centre is divided by the 95th percentile of such
    distances among the null concepts with the same answer at the gate. Any function of a set that treats all sets
    equally is a valid statistic of a rank test, so that P(p <= a) <= a holds for random sets as before; given the gate,
    it holds at a = 0.05 by construction, and near it as far as the two distributions differ in scale only.

    Args:
        observed: (..., K), statistics of concepts that passed.
        null: (R, ...), as in ``rank_test``.
        passed: (R,) how well each null concept did at the gate, above 0 where it passed; NaN: it failed.
        fewest: the null concepts that did best stand for those that passed, if fewer did (at most a quarter of all).

    Returns:
        (..., K) float64 p-values, at least 1 / (1 + R); NaN where the statistic is NaN.

    Raises:
        InputError: as in ``rank_test``.
    """
    _check_null(null)
    margin = torch.nan_to_num(passed.double(), nan=-torch.inf)
    best = min(fewest, max(1, len(null) // 4))
    least = torch.minimum(margin.new_tensor(0.0), margin.sort(descending=True).values[best - 1])
    passing = margin > least if int((margin > least).sum()) >= best else margin >= least
    values = null.double()
    centre = values.mean(0)
    distances = (values - centre).abs()
    inside, outside = _upper(distances[passing]), _upper(distances[~passing]) if (~passing).any() else centre
    shape = (-1, *[1] * centre.dim())
    scaled = distances / torch.where(passing.reshape(shape), inside, outside).clamp_min(torch.finfo(torch.float64).tiny)
    reached = (observed.double() - centre[..., None]).abs() / inside[..., None].clamp_min(
        torch.finfo(torch.float64).tiny
    )
    return _share_reached(reached, scaled, observed)


def _upper(distances: Tensor) -> Tensor:
    """The 95th percentile along the first axis."""
    ordered = distances.sort(0).values
    return ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]


def _check_null(null: Tensor) -> None:
    if len(null) == 0:
        raise InputError("null: no null concepts; ask for at least 1")
    if not torch.isfinite(null).all():
        raise InputError("null: NaN or infinite statistics of null concepts")


def _share_reached(reached: Tensor, distances: Tensor, observed: Tensor) -> Tensor:
    """(1 + #{distances >= reached}) / (1 + R) for distances (R, ...) and reached (..., K); NaN where observed is."""
    ordered = distances.movedim(0, -1).contiguous().sort(-1).values
    below = torch.searchsorted(ordered, torch.nan_to_num(reached, nan=0.0).contiguous(), right=False)
    p = (1 + len(distances) - below).double() / (1 + len(distances))
    return torch.where(torch.isfinite(observed), p, torch.nan)
