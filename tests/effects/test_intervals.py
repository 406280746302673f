"""Errors over hosts and donors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_concepts.effects import plan_mixtures, two_way_interval
from captum_concepts.effects.intervals import two_way_variance


def slow_variance(values: np.ndarray, host: np.ndarray, donor: np.ndarray) -> float:
    def clustered(index: np.ndarray) -> float:
        names = sorted(set(index.tolist()))
        total = sum(float((values[index == name] - values.mean()).sum()) ** 2 for name in names)
        return total * len(names) / (len(names) - 1) / len(values) ** 2

    by_host, by_donor = clustered(host), clustered(donor)
    return max(by_host + by_donor - clustered(np.arange(len(values))), by_host, by_donor)


def test_variance_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    concept, host = rng.integers(3, size=60), rng.integers(7, size=60)
    donor, values = rng.integers(5, size=60) + 5 * concept, rng.normal(size=(60, 2))
    index = [torch.from_numpy(part) for part in (concept, host, donor)]
    variance, freedom = two_way_variance(torch.from_numpy(values), index[0], index[1], index[2], 3)
    for k in range(3):
        rows = concept == k
        assert int(freedom[k]) == min(len(set(host[rows])), len(set(donor[rows]))) - 1
        for c in range(2):
            expected = slow_variance(values[rows, c], host[rows], donor[rows])
            assert float(variance[k, c]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("n_hosts", "n_donors", "n_mixtures"),
    [(40, 40, 20), (12, 40, 24), (40, 12, 24), (14, 10, 40), (5, 100, 5)],
)
@pytest.mark.parametrize("spreads", [(1.0, 1.0, 0.5), (0.1, 1.0, 1.0), (1.0, 0.1, 1.0)])
def test_intervals_cover_the_mean(
    n_hosts: int, n_donors: int, n_mixtures: int, spreads: tuple[float, float, float]
) -> None:
    plan = plan_mixtures([f"h{i}" for i in range(n_hosts)], {"c": [f"d{i}" for i in range(n_donors)]}, n_mixtures)
    draw = torch.Generator().manual_seed(1)
    many = 4000  # replicates, as classes
    host = torch.randn(len(plan.hosts), many, generator=draw) * spreads[0]
    donor = torch.randn(len(plan.donors), many, generator=draw) * spreads[1]
    values = host[plan.host] + donor[plan.donor] + torch.randn(len(plan), many, generator=draw) * spreads[2]
    _, low, high = two_way_interval(values, plan.concept, plan.host, plan.donor, 1)
    covered = float(((low <= 0) & (high >= 0)).double().mean())
    assert 0.93 <= covered <= 0.97, covered


def test_a_single_donor_gives_no_interval() -> None:
    zero = torch.zeros(4, dtype=torch.long)
    effect, low, high = two_way_interval(torch.arange(4.0)[:, None], zero, torch.arange(4), zero, 1)
    assert float(effect) == 1.5 and bool(low.isnan()) and bool(high.isnan())
