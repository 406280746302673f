"""Effects from shifts and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from captum_concepts.effects import (
    MixturePlan,
    by_fold,
    contrast_test,
    contrasts,
    in_context_effects,
    measured_effects,
    pair_effects,
    patterns,
    plan_mixtures,
)
from captum_concepts.errors import InputError


def plan_of(n_hosts: int = 9, n_donors: int = 6, n_mixtures: int = 14, n_concepts: int = 3) -> MixturePlan:
    donors = {f"c{k}": [f"c{k} d{i}" for i in range(n_donors + k)] for k in range(n_concepts)}
    return plan_mixtures([f"h{i}" for i in range(n_hosts)], donors, n_mixtures)


def slow_contrasts(values: np.ndarray, plan: MixturePlan) -> np.ndarray:
    concept, host = plan.concept.numpy(), plan.host.numpy()
    result = values.copy()
    for i in range(len(values)):
        others = [
            k for k in range(len(plan.concepts)) if k != concept[i] and ((concept == k) & (host == host[i])).any()
        ]
        result[i] -= np.mean([values[(concept == k) & (host == host[i])].mean(0) for k in others], axis=0)
    return result


def test_contrasts_equal_a_loop() -> None:
    plan = plan_of()
    values = np.random.default_rng(0).normal(size=(len(plan), 4))
    found = contrasts(torch.from_numpy(values), plan)
    np.testing.assert_allclose(found.numpy(), slow_contrasts(values, plan), atol=1e-12)
    np.testing.assert_allclose(contrasts(torch.from_numpy(values), plan, "nothing").numpy(), values)


def test_what_all_sounds_do_on_a_host_leaves_no_contrast() -> None:
    plan = plan_of()
    of_host = torch.randn(len(plan.hosts), 5, dtype=torch.float64)
    torch.testing.assert_close(contrasts(of_host[plan.host], plan), torch.zeros(len(plan), 5, dtype=torch.float64))


@pytest.mark.parametrize("alternative", ["another", "nothing"])
def test_effects_equal_a_loop(alternative: Any) -> None:
    plan = plan_of()
    rng = np.random.default_rng(1)
    shifts, gradients = rng.normal(size=(len(plan), 4)), rng.normal(size=(len(plan.hosts), 2, 4))
    found = in_context_effects(torch.from_numpy(shifts), torch.from_numpy(gradients), plan, alternative).effect
    values = slow_contrasts(shifts, plan) if alternative == "another" else shifts
    host_fold = plan.host_fold.numpy()
    for k in range(3):
        for c in range(2):
            numbers = [
                values[i] @ gradients[host_fold != host_fold[int(plan.host[i])], c].mean(0)
                for i in range(len(plan))
                if int(plan.concept[i]) == k
            ]
            assert float(found[k, c]) == pytest.approx(np.mean(numbers), rel=1e-9)


@pytest.mark.parametrize("alternative", ["another", "nothing"])
def test_effects_are_the_measured_ones_where_the_model_is_linear(alternative: Any) -> None:
    plan = plan_of()
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 6, generator=draw, dtype=torch.float64)
    shifts = torch.randn(len(plan), 6, generator=draw, dtype=torch.float64)
    gradients = weights.expand(len(plan.hosts), 3, 6)
    estimated = in_context_effects(shifts, gradients, plan, alternative)
    measured = measured_effects(shifts @ weights.T, plan, alternative)
    for first, second in zip(estimated, measured, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


def test_effects_are_gradient_times_pattern_where_gradients_do_not_differ() -> None:
    plan = plan_of()
    shifts, weights = torch.randn(len(plan), 6).double(), torch.randn(3, 6).double()
    found = in_context_effects(shifts, weights.expand(len(plan.hosts), 3, 6), plan).effect
    torch.testing.assert_close(found, patterns(shifts, plan) @ weights.T)


def test_gradients_come_from_the_other_fold() -> None:
    plan = plan_of()
    gradients = torch.zeros(len(plan.hosts), 1, 2)
    gradients[plan.host_fold == 0] = 1.0
    found = pair_effects(torch.ones(len(plan), 2), gradients, plan, "nothing")[:, 0]
    assert found.tolist() == [2.0 if fold == 1 else 0.0 for fold in plan.fold.tolist()]


def test_folds_are_the_means_of_their_pairs() -> None:
    plan = plan_of()
    values = torch.randn(len(plan), 2)
    for fold, found in enumerate(by_fold(values, plan)):
        for k in range(3):
            torch.testing.assert_close(found[k], values[(plan.fold == fold) & (plan.concept == k)].mean(0))


@pytest.mark.parametrize("gradient_noise", [0.0, 1.0])
def test_intervals_cover_the_effect(gradient_noise: float) -> None:
    plan = plan_of(40, 30, 20)
    draw = torch.Generator().manual_seed(5)
    mean = torch.randn(3, 4, generator=draw)
    mean_gradient = torch.randn(1, 4, generator=draw)
    truth = (mean - (mean.sum(0) - mean) / 2) @ mean_gradient.T
    covered, count = 0, 1000
    for _ in range(count):
        of_donor, of_host = (torch.randn(len(names), 4, generator=draw) for names in (plan.donors, plan.hosts))
        noise = 0.5 * torch.randn(len(plan), 4, generator=draw)
        shifts = mean[plan.concept] + of_donor[plan.donor] + of_host[plan.host] + noise
        gradients = mean_gradient + gradient_noise * torch.randn(len(plan.hosts), 1, 4, generator=draw)
        _, low, high = in_context_effects(shifts, gradients, plan)
        covered += int(((low <= truth) & (high >= truth)).sum())
    assert 0.93 <= covered / (3 * count) <= 0.97


@pytest.mark.parametrize(("n_donors", "n_mixtures"), [(24, 10), (16, 20), (40, 40)])
def test_the_contrast_test_keeps_its_level(n_donors: int, n_mixtures: int) -> None:
    plan = plan_of(12, n_donors, n_mixtures)
    draw = torch.Generator().manual_seed(2)
    count = 3000  # replicates, as classes
    of_host, of_donor = (torch.randn(len(names), count, generator=draw) for names in (plan.hosts, plan.donors))
    p_values = contrast_test(3 * of_host[plan.host] + of_donor[plan.donor], plan, n_permutations=999)
    for k in range(3):
        rejected = float((p_values[k] <= 0.05).double().mean())
        used_once = n_donors + k >= n_mixtures
        low, high = binom.ppf([0.0005, 0.9995], count, 0.05) / count if used_once else (0.03, 0.07)
        assert low <= rejected <= high, (k, rejected)


def test_the_contrast_test_finds_effects() -> None:
    plan = plan_of(12, 24, 20)
    values = torch.randn(len(plan), 200, generator=torch.Generator().manual_seed(0))
    values[plan.concept == 1] += 1.5
    p_values = contrast_test(values, plan, n_permutations=999)
    assert float((p_values[1] <= 0.05).double().mean()) > 0.9


def test_bad_input_is_refused() -> None:
    plan, alone = plan_of(), plan_of(n_concepts=1)
    shifts = torch.randn(len(plan), 4)
    for arguments in [
        (shifts[:3], plan),
        (shifts, plan, "silence"),
        (torch.randn(len(alone), 4), alone),
    ]:
        with pytest.raises(InputError, match="="):
            contrasts(*arguments)
    with pytest.raises(InputError, match="gradients="):
        pair_effects(shifts, torch.randn(len(plan.hosts), 2, 3), plan)
