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


def rank_test(observed: Tensor, null: Tensor) -> Tensor:
    """Two-sided p-values of statistics ranked among those of pseudo-concepts.

    p = (1 + #{r: |null_r - c| >= |observed - c|}) / (1 + R), c the mean of the null: valid at every size where
    observed and null are exchangeable.

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
    names, index = np.unique(np.asarray(groups)[eligible], return_inverse=True)
    if len(names) < size + 2:
        raise InputError(
            f"significance: {len(names)} groups to draw random sets of {size} from; give at least {size + 2} groups of "
            "negatives"
        )
    keys = [random_key(seed, name) for name in without_common_folder(list(names))]
    order = np.argsort(np.array(keys, dtype="S32"), kind="stable")
    state = hashlib.sha256(f"{seed} {size} ".encode() + b"".join(sorted(keys))).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(state[:16], "big")))
    drawn = np.zeros((len(names), count), dtype=bool)
    for column in range(count):
        drawn[order[generator.choice(len(names), size, replace=False)], column] = True
    rows = np.zeros((len(groups), count), dtype=bool)
    rows[eligible] = drawn[index]
    return rows


def bootstrap_weights(groups: Sequence[str] | np.ndarray, count: int, seed: int) -> Tensor:
    """How often each clip counts in each bootstrap sample of groups.

    Args:
        groups: (clips,) group of each clip.
        count: number of samples.
        seed: with the set of group names it decides the draw.

    Returns:
        (count, clips) float32; all clips of a group have the same weight.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    keys = [random_key(seed, name) for name in without_common_folder(list(names))]
    order = np.argsort(np.array(keys, dtype="S32"), kind="stable")
    state = hashlib.sha256(f"{seed} bootstrap ".encode() + b"".join(sorted(keys))).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(state[:16], "big")))
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    weights = np.empty((count, len(names)), dtype=np.float32)
    weights[:, order] = draws
    return torch.from_numpy(weights[:, index])


def bootstrap_interval(values: Tensor, groups: Sequence[str] | np.ndarray, count: int = 1000, seed: int = 0):
    """95 % percentile interval of the mean over clips, resampling groups.

    Args:
        values: (clips, ...), e.g. 1.0 where the sensitivity is positive.
        groups: (clips,).
        count: bootstrap samples.
        seed: of the samples.

    Returns:
        low, high, each (...).
    """
    weights = bootstrap_weights(groups, count, seed).to(values)
    flat = values.reshape(len(values), -1)
    means = (weights @ flat) / weights.sum(1, keepdim=True)
    bounds = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype, device=means.device), dim=0)
    return bounds[0].reshape(values.shape[1:]), bounds[1].reshape(values.shape[1:])
