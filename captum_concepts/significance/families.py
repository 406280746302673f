"""Corrections of one plain family of p-values, one function each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control


def _no_factor(family: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Correction:
    """A correction for testing several hypotheses at once.

    Attributes:
        promise: what it controls, as results and messages say it.
        adjust: p-values (m,) -> q-values (m,) of one plain family; None for a correction that needs a hierarchy.
        factor: size of the family -> how many times smaller than alpha / family a p-value must be to be rejected alone.
    """

    promise: str
    adjust: Callable[[np.ndarray], np.ndarray] | None
    factor: Callable[[int], float] = _no_factor


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Step-up q-values (Benjamini and Hochberg, JRSS-B 1995)."""
    return np.asarray(false_discovery_control(p_values, method="bh"))


def benjamini_yekutieli(p_values: np.ndarray) -> np.ndarray:
    """Step-up q-values under any dependence (Benjamini and Yekutieli, Ann. Stat. 2001)."""
    return np.asarray(false_discovery_control(p_values, method="by"))


def harmonic(family: int) -> float:
    """1 + 1/2 + ... + 1/family, the factor of Benjamini and Yekutieli."""
    return float((1 / np.arange(1, family + 1)).sum())


def holm(p_values: np.ndarray) -> np.ndarray:
    """Step-down adjusted p-values (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def bonferroni(p_values: np.ndarray) -> np.ndarray:
    """p-values times their number, at most 1."""
    return np.asarray(np.minimum(p_values * len(p_values), 1.0))
