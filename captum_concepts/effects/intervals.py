"""Errors of mean effects over hosts and donors, and 95 % intervals from them.

A pair's value shares its host with pairs of other donors and its donor with pairs of other hosts. The variance of the
mean over pairs is estimated in closed form: that over hosts, plus that over donors, minus that over pairs, which both
contain (Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 2011), and never less than either of the two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """Effects and the ends of their 95 % intervals.

    Attributes:
        effect, low, high: (K, C) float64, in logits; low and high are NaN where a single group says nothing of errors.
    """

    effect: Tensor
    low: Tensor
    high: Tensor


def concept_means(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Means of rows of the same index, (P, C) -> (count, C); NaN where there is none."""
    sums = values.new_zeros(count, values.shape[1]).index_add_(0, index, values)
    return sums / torch.bincount(index, minlength=count)[:, None].to(values)


def with_error(effect: Tensor, variance: Tensor, freedom: Tensor) -> Estimate:
    """Student's 95 % interval.

    Args:
        effect, variance: (K, C), the variance of the effect.
        freedom: (K,) degrees of freedom; 0 or less gives NaN.
    """
    quantile = torch.from_numpy(student.ppf((1 + CONFIDENCE) / 2, freedom.double().numpy()))[:, None]
    reach = torch.where(freedom[:, None] > 0, quantile * variance.sqrt(), torch.nan)
    return Estimate(effect, effect - reach, effect + reach)


def student_p_values(effect: Tensor, variance: Tensor, freedom: Tensor) -> Tensor:
    """Two-sided p-values of "no effect", arguments as in `with_error`; NaN without degrees of freedom.

    An effect of zero without any variance is no evidence: p = 1.
    """
    ratio = torch.where(effect == 0, 0, effect.abs() / variance.sqrt()).numpy()
    p_values = torch.from_numpy(2 * student.sf(ratio, freedom.double().numpy()[:, None]))
    return torch.where(freedom[:, None] > 0, p_values, torch.nan)


def two_way_variance(
    values: Tensor, concept: Tensor, host: Tensor, donor: Tensor, n_concepts: int
) -> tuple[Tensor, Tensor]:
    """Variance of each concept's mean over pairs that share hosts and donors.

    Args:
        values: (P, C).
        concept, host, donor: int (P,).
        n_concepts: K.

    Returns:
        variances (K, C) float64, and degrees of freedom (K,): fewer of hosts and donors, minus one.
    """
    values = values.double()
    deviations = values - concept_means(values, concept, n_concepts)[concept]
    pairs, _ = _clustered(deviations, concept, torch.arange(len(values)), n_concepts)
    by_host, n_hosts = _clustered(deviations, concept, host, n_concepts)
    by_donor, n_donors = _clustered(deviations, concept, donor, n_concepts)
    least = torch.maximum(by_host, by_donor)
    return torch.maximum(by_host + by_donor - pairs, least), torch.minimum(n_hosts, n_donors) - 1


def two_way_interval(values: Tensor, concept: Tensor, host: Tensor, donor: Tensor, n_concepts: int) -> Estimate:
    """Means over pairs with intervals over hosts and donors; arguments as in `two_way_variance`.

    Example:
        >>> values, one = torch.tensor([[1.0], [2.0], [3.0]]), torch.arange(3)
        >>> interval = two_way_interval(values, torch.zeros(3, dtype=torch.long), one, one, 1)
        >>> [round(float(end), 2) for end in interval]
        [2.0, -0.48, 4.48]
    """
    variance, freedom = two_way_variance(values, concept, host, donor, n_concepts)
    return with_error(concept_means(values.double(), concept, n_concepts), variance, freedom)


def _clustered(deviations: Tensor, concept: Tensor, cluster: Tensor, n_concepts: int) -> tuple[Tensor, Tensor]:
    """Variance of each concept's mean if clusters were independent, (K, C), and how many clusters each has (K,)."""
    cells, cell = torch.unique(concept * (int(cluster.max()) + 1) + cluster, return_inverse=True)
    sums = deviations.new_zeros(len(cells), deviations.shape[1]).index_add_(0, cell, deviations)
    of_cell = torch.empty(len(cells), dtype=torch.long).scatter_(0, cell, concept)
    squares = deviations.new_zeros(n_concepts, deviations.shape[1]).index_add_(0, of_cell, sums**2)
    clusters = torch.bincount(of_cell, minlength=n_concepts)
    pairs = torch.bincount(concept, minlength=n_concepts)
    factor = clusters.double() / (clusters - 1).clamp_min(1) / pairs.clamp_min(1) ** 2
    return squares * factor[:, None], clusters
