"""Observational effects in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from captum_concepts.effects import observational_effects
from captum_concepts.errors import InputError


def test_effects_and_intervals_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    activations, gradients = rng.normal(size=(30, 4)) + 50, rng.normal(size=(12, 3, 4))
    positives = rng.random((30, 2)) < 0.3
    negatives = ~positives & (rng.random((30, 2)) < 0.8)
    arrays = (activations, positives, negatives, gradients)
    found = observational_effects(*(torch.from_numpy(array) for array in arrays))
    for k in range(2):
        ours, other = activations[positives[:, k]], activations[negatives[:, k]]
        difference = ours.mean(0) - other.mean(0)
        for c in range(3):
            mean = gradients[:, c].mean(0)
            parts = [(ours @ mean).var(ddof=1) / len(ours), (other @ mean).var(ddof=1) / len(other)]
            parts.append((gradients[:, c] @ difference).var(ddof=1) / 12)
            reach = student.ppf(0.975, len(ours) - 1) * np.sqrt(sum(parts))
            expected = mean @ difference
            values = [float(part[k, c]) for part in found]
            assert values == pytest.approx([expected, expected - reach, expected + reach], rel=1e-9)


@pytest.mark.parametrize("n_positives", [5, 10, 20])
def test_intervals_cover_the_effect(n_positives: int) -> None:
    draw = torch.Generator().manual_seed(n_positives)
    direction, gradient = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.4, -1.0, 0.3])
    truth, count, covered = float(direction @ gradient), 2000, 0
    positives = torch.zeros(n_positives + 200, 1, dtype=torch.bool)
    positives[:n_positives] = True
    for _ in range(count):
        activations = torch.randn(n_positives + 200, 3, generator=draw) + positives * direction
        gradients = gradient + 0.3 * torch.randn(50, 1, 3, generator=draw)
        _, low, high = observational_effects(activations, positives, ~positives, gradients)
        covered += float(low) <= truth <= float(high)
    assert 0.93 <= covered / count <= 0.97


def test_the_interval_has_width_where_gradients_do_not_differ() -> None:
    positives = torch.arange(20)[:, None] < 5
    _, low, high = observational_effects(torch.randn(20, 2), positives, ~positives, torch.ones(6, 1, 2))
    assert float(high - low) > 0


def test_a_single_group_gives_no_interval() -> None:
    positives = torch.arange(20)[:, None] < 1
    effect, low, high = observational_effects(torch.randn(20, 2), positives, ~positives, torch.ones(6, 1, 2))
    assert not effect.isnan().any() and bool(low.isnan().all() and high.isnan().all())


def test_bad_input_is_refused() -> None:
    activations, gradients = torch.randn(6, 2), torch.randn(4, 1, 2)
    positives = torch.arange(6)[:, None] < 2
    bad: list[tuple[Any, ...]] = [
        (activations, positives, ~positives, gradients[..., :1]),
        (activations, positives[:3], ~positives, gradients),
        (activations, positives, positives, gradients),
        (activations, torch.zeros_like(positives), positives, gradients),
        (activations, positives, torch.zeros_like(positives), gradients),
    ]
    for arguments in bad:
        with pytest.raises(InputError, match="="):
            observational_effects(*arguments)
