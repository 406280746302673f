"""How sure we are: the rank test against random concepts, and how groups are drawn at random.

The resampling unit is the group. A concept's R refits on the same examples are one observation, so the usual t-tests
on refits are not valid; here a concept is ranked among random pseudo-concepts put through the identical procedure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.folds import random_key, without_common_folder
from captum_concepts.quality import index_groups
from captum_concepts.wording import counted

#: Pseudo-concepts are spread evenly over this many parts of the pool, as concepts are over the folds of their quality.
POOL_FOLDS = 5
#: Pseudo-concepts whose spread stands for that of a concept that passed the gate.
FEWEST_ALIKE = 39


def rank_test(observed: Tensor, null: Tensor) -> Tensor:
    """Two-sided p-values of statistics ranked among those of pseudo-concepts.

    p = (1 + #{r: |null_r - c| >= |observed - c|}) / (1 + R), c the mean of the null. Where observed and null are
    exchangeable, p <= a has probability a, but for the error of c, which falls as 1 / R.

    Args:
        observed: (..., K).
        null: (R, ...), broadcastable against ``observed`` without its last axis; the nulls are shared by the K.

    Returns:
        (..., K) float64 p-values, at least 1 / (1 + R); NaN where the statistic is NaN.

    Raises:
        InputError: no null, or a null that is not finite.
    """
    _check_null(null)
    centre = null.double().mean(0)
    reached = (observed.double() - centre[..., None]).abs()
    return _share_reached(reached, (null.double() - centre).abs(), observed)


def gated_rank_test(observed: Tensor, null: Tensor, passed: Tensor, fewest: int = FEWEST_ALIKE) -> Tensor:
    """Two-sided p-values of concepts that passed a gate, ranked among all pseudo-concepts with the gate allowed for.

    A statistic that is large where the gate is passed makes the plain rank test's p-values too small for whoever sees
    only concepts that passed. Here each distance from the null's centre is divided by the 95th percentile of such
    distances among the pseudo-concepts with the same answer at the gate. Any function of a set that treats all sets
    alike is a valid statistic of a rank test, so that P(p <= a) <= a holds for random sets as before; given the gate,
    it holds at a = 0.05 by construction, and near it as far as the two distributions are alike but for their scale.

    Args:
        observed: (..., K), statistics of concepts that passed.
        null: (R, ...), as in ``rank_test``.
        passed: (R,) how well each pseudo-concept did at the gate, above 0 where it passed; NaN: it failed.
        fewest: the pseudo-concepts that did best stand for those that passed, if fewer did (at most a quarter of all).

    Returns:
        (..., K) float64 p-values, at least 1 / (1 + R); NaN where the statistic is NaN.

    Raises:
        InputError: as in ``rank_test``.
    """
    _check_null(null)
    margin = torch.nan_to_num(passed.double(), nan=-torch.inf)
    best = min(fewest, max(1, len(null) // 4))
    least = torch.minimum(margin.new_tensor(0.0), margin.sort(descending=True).values[best - 1])
    alike = margin > least if int((margin > least).sum()) >= best else margin >= least
    values = null.double()
    centre = values.mean(0)
    distances = (values - centre).abs()
    inside, outside = _upper(distances[alike]), _upper(distances[~alike]) if (~alike).any() else centre
    shape = (-1, *[1] * centre.dim())
    scaled = distances / torch.where(alike.reshape(shape), inside, outside).clamp_min(torch.finfo(torch.float64).tiny)
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
        raise InputError("null: no pseudo-concepts; ask for at least 1")
    if not torch.isfinite(null).all():
        raise InputError("null: NaN or infinite statistics of pseudo-concepts")


def _share_reached(reached: Tensor, distances: Tensor, observed: Tensor) -> Tensor:
    """(1 + #{distances >= reached}) / (1 + R) for distances (R, ...) and reached (..., K); NaN where observed is."""
    ordered = distances.movedim(0, -1).contiguous().sort(-1).values
    below = torch.searchsorted(ordered, torch.nan_to_num(reached, nan=0.0).contiguous(), right=False)
    p = (1 + len(distances) - below).double() / (1 + len(distances))
    return torch.where(torch.isfinite(observed), p, torch.nan)


def pseudo_concepts(groups: np.ndarray, eligible: np.ndarray, size: int, count: int, seed: int) -> np.ndarray:
    """Random sets of groups, as masks over rows.

    Every set is spread evenly over the parts of ``pool_folds``, as a concept is over the folds in which its quality is
    measured. The parts are random, and every group is as likely as any other.

    Args:
        groups: (N,) group of each row.
        eligible: bool (N,), rows that may be drawn.
        size: groups in each set.
        count: number of sets.
        seed: the draw depends on it, ``size`` and the set of eligible group names, not on the order of rows.

    Returns:
        bool (N, count).

    Raises:
        InputError: fewer than size + 2 eligible groups, so that nothing is left to compare a set with.
    """
    names, index = index_groups(np.asarray(groups, dtype=object)[eligible])
    if len(names) < size + 2:
        raise InputError(
            f"random sets of {counted(size, 'group')} cannot be drawn from {counted(len(names), 'group')} of "
            f"negatives; give at least {size + 2} groups"
        )
    fold = pool_folds(names, seed)
    order, generator = _random_order(names, seed, str(size))
    parts = [order[fold[order] == number] for number in np.unique(fold)]
    drawn = np.zeros((len(names), count), dtype=bool)
    edges = np.cumsum([0, *(len(part) for part in parts)]) * size / len(names)
    edges[-1] = size
    for column in range(count):
        # Systematic sampling: every part gets its share rounded up or down, every group the same chance.
        shares = np.diff(np.floor(edges + generator.random())).astype(np.int64)
        for part, share in zip(parts, shares, strict=True):
            drawn[part[generator.choice(len(part), share, replace=False)], column] = True
    rows = np.zeros((len(groups), count), dtype=bool)
    rows[eligible] = drawn[index]
    return rows


def pool_folds(names: list[str], seed: int) -> np.ndarray:
    """int64 (G,): the part, of ``POOL_FOLDS`` equally large ones, that each of G distinct groups is in."""
    order, _ = _random_order(names, seed, "folds")
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % POOL_FOLDS
    return fold


def _random_order(names: list[str], seed: int, purpose: str) -> tuple[np.ndarray, np.random.Generator]:
    """The groups in an order, and a generator, that depend on seed, purpose and the set of names only."""
    keys = [random_key(seed, name) for name in without_common_folder(names)]
    # Not as fixed-width bytes: those lose NULs at the end.
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    state = hashlib.sha256(f"{seed} {purpose} ".encode() + b"".join(sorted(keys))).digest()
    return order, np.random.Generator(np.random.PCG64(int.from_bytes(state[:16], "big")))


def bootstrap_weights(groups: Sequence[str] | np.ndarray, count: int, seed: int) -> Tensor:
    """How often each clip counts in each bootstrap sample of groups.

    Args:
        groups: (clips,) group of each clip.
        count: number of samples.
        seed: with the set of group names it decides the draw.

    Returns:
        (count, clips) float32; all clips of a group have the same weight.
    """
    names, index = index_groups(groups)
    order, generator = _random_order(names, seed, "bootstrap")
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    weights = np.empty((count, len(names)), dtype=np.float32)
    weights[:, order] = draws
    return torch.from_numpy(weights[:, index])
