"""Agreement of estimated with measured effects: rank correlation, signs, and the ceiling that noise sets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.seeding import generator

MIN_CONCEPTS = 3
TAILS = (0.025, 0.975)


class Agreement(NamedTuple):
    """How well effects rank and sign as the measured ones do.

    Attributes:
        spearman, low, high: rank correlation over concepts, averaged over targets, with a 95 % bootstrap interval over
            concepts; NaN with fewer than three concepts.
        signs: share of the chosen rows whose effect has the measured effect's sign; NaN without rows.
        n_rows: how many were chosen.
    """

    spearman: float
    low: float
    high: float
    signs: float
    n_rows: int


def agreement(
    effects: Tensor, measured: Tensor, rows: Tensor | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> Agreement:
    """Compare effects with measured effects at one layer.

    Args:
        effects, measured: (K, T), concepts and targets, in logits.
        rows: bool (K, T), whose signs are compared, such as those with q < 0.05; None: all.
        n_bootstrap: samples of the interval.
        seed: of the samples.

    Raises:
        InputError: shapes that differ, or NaN.

    Example:
        >>> effects = torch.tensor([[0.1], [0.2], [-0.3], [0.4]])
        >>> found = agreement(effects, 2 * effects)
        >>> round(found.spearman, 6), found.signs
        (1.0, 1.0)
    """
    _check(effects, measured)
    x, y = effects.double().numpy(), measured.double().numpy()
    chosen = np.ones(x.shape, dtype=bool) if rows is None else rows.numpy()
    right = (np.sign(x) == np.sign(y))[chosen]
    low, high = _bootstrap(x, y, n_bootstrap, seed)
    signs = float(right.mean()) if len(right) else float("nan")
    return Agreement(mean_spearman(x, y), low, high, signs, int(chosen.sum()))


def ceiling(first: Tensor, second: Tensor) -> float:
    """Spearman that a second measurement as large as the whole one would reach, from its two halves.

    The halves' correlation r becomes 2 r / (1 + r) for the doubled size (Spearman-Brown).

    Args:
        first, second: (K, T), effects measured on disjoint hosts and donors.

    Example:
        >>> half = torch.tensor([[0.1], [0.2], [-0.3]])
        >>> round(ceiling(half, half), 6)
        1.0
    """
    _check(first, second)
    halves = mean_spearman(first.double().numpy(), second.double().numpy())
    return 2 * halves / (1 + halves) if halves > 0 else halves


def contradicted(effects: Tensor, measured_low: Tensor, measured_high: Tensor, rows: Tensor) -> float:
    """Share of rows whose measured effect has the opposite sign beyond its interval.

    Args:
        effects, measured_low, measured_high: (K, T).
        rows: bool (K, T).

    Returns:
        NaN without rows.
    """
    opposite = ((effects > 0) & (measured_high < 0)) | ((effects < 0) & (measured_low > 0))
    return float(opposite[rows].double().mean()) if bool(rows.any()) else float("nan")


def mean_spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman over the rows of (K, T), averaged over columns; columns without spread do not count."""
    if len(x) < MIN_CONCEPTS:
        return float("nan")
    a, b = (ranks - ranks.mean(0) for ranks in (rankdata(x, axis=0), rankdata(y, axis=0)))
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    usable = scale > 0
    return float(((a * b).sum(0)[usable] / scale[usable]).mean()) if usable.any() else float("nan")


def _bootstrap(x: np.ndarray, y: np.ndarray, n_bootstrap: int, seed: int) -> tuple[float, float]:
    if len(x) < MIN_CONCEPTS:
        return float("nan"), float("nan")
    rows = torch.randint(len(x), (n_bootstrap, len(x)), generator=generator(seed, "agreement")).numpy()
    found = np.array([mean_spearman(x[sample], y[sample]) for sample in rows])
    low, high = np.nanquantile(found, TAILS)
    return float(low), float(high)


def _check(first: Tensor, second: Tensor) -> None:
    if first.dim() != 2 or first.shape != second.shape:
        raise InputError(
            f"measured={tuple(second.shape)}: not as effects; give {tuple(first.shape)}, (concepts, targets)"
        )
    if not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise InputError("effects=NaN or infinite: cannot be ranked; leave such concepts out")
