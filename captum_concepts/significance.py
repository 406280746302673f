"""How sure we are: the rank test against random concepts, corrections, and group bootstrap intervals.

The resampling unit is the group. A concept's R refits on the same examples are one observation, so the usual t-tests
on refits are not valid; here a concept is ranked among random pseudo-concepts put through the identical procedure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.folds import random_key, without_common_folder
from captum_concepts.quality import index_groups

QUANTILE_VALUES = 8_000_000


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
    if len(null) == 0:
        raise InputError("null: no pseudo-concepts; ask for at least 1")
    if not torch.isfinite(null).all():
        raise InputError("null: NaN or infinite statistics of pseudo-concepts")
    centre = null.double().mean(0)
    distances = (null.double() - centre).abs().movedim(0, -1).contiguous().sort(-1).values
    reached = (observed.double() - centre[..., None]).abs().contiguous()
    below = torch.searchsorted(distances, torch.nan_to_num(reached, nan=0.0), right=False)
    p = (1 + len(null) - below).double() / (1 + len(null))
    return torch.where(torch.isfinite(observed), p, torch.nan)


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """q-values of one family (Benjamini and Hochberg 1995); NaN entries are no members of it and stay NaN."""
    p_values = np.asarray(p_values, dtype=np.float64)
    q_values = np.full(p_values.shape, np.nan)
    members = ~np.isnan(p_values)
    if members.any():
        q_values[members] = false_discovery_control(p_values[members])
    return q_values


def pseudo_concepts(groups: np.ndarray, eligible: np.ndarray, size: int, count: int, seed: int) -> np.ndarray:
    """Random sets of groups, as masks over rows.

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
            f"significance: {len(names)} groups to draw random sets of {size} from; give at least {size + 2} groups of "
            "negatives"
        )
    order, generator = _random_order(names, seed, str(size))
    drawn = np.zeros((len(names), count), dtype=bool)
    for column in range(count):
        drawn[order[generator.choice(len(names), size, replace=False)], column] = True
    rows = np.zeros((len(groups), count), dtype=bool)
    rows[eligible] = drawn[index]
    return rows


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


def share_interval(
    hits: Tensor, groups: Sequence[str] | np.ndarray, count: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """95 % interval of the share of clips, resampling groups.

    Where all clips agree there is nothing to resample: the interval is then Wilson's (1927) for as many observations as
    there are groups, e.g. [n / (n + 3.84), 1] for n groups that all hit.

    Args:
        hits: bool (clips, ...).
        groups, count, seed: as in ``bootstrap_interval``.

    Returns:
        low, high, each (...) float32.
    """
    low, high = bootstrap_interval(hits.float(), groups, count, seed)
    n = len(set(map(str, groups)))
    reach = 1.959963984540054**2 / (n + 1.959963984540054**2)
    low = torch.where(hits.all(0), 1 - reach, low)
    return low, torch.where(hits.any(0), high, reach)


def bootstrap_interval(
    values: Tensor, groups: Sequence[str] | np.ndarray, count: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """95 % percentile interval of the mean over clips, resampling groups.

    Args:
        values: (clips, ...), e.g. 1.0 where the sensitivity is positive.
        groups: (clips,).
        count: bootstrap samples.
        seed: of the samples.

    Returns:
        low, high, each (...); NaN where all clips are of one group, which says nothing about spread.
    """
    shape = values.shape[1:]
    if len(set(map(str, groups))) < 2:
        return values.new_full(shape, torch.nan), values.new_full(shape, torch.nan)
    weights = bootstrap_weights(groups, count, seed).to(values)
    weights = weights / weights.sum(1, keepdim=True)
    levels = torch.tensor([0.025, 0.975], dtype=values.dtype, device=values.device)
    # torch.quantile refuses more than 16 million values at once.
    blocks = values.reshape(len(values), -1).split(max(1, QUANTILE_VALUES // count), dim=1)
    bounds = torch.cat([torch.quantile(weights @ block, levels, dim=0) for block in blocks], dim=1)
    return bounds[0].reshape(shape), bounds[1].reshape(shape)
