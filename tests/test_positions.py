"""Where along time and frequency a CAV's energy lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import captum_concepts as cc
from captum_concepts.layers import pool_map
from captum_concepts.positions import energy_profile, position_dependence, unevenness, unpooled_shapes

SHAPE = {"T": 3, "F": 4, "C": 5}


def test_profiles_follow_the_order_of_flattening():
    values = torch.zeros(2, 5, 4, 3)  # BCFT
    values[0, :, 1, 2] = 1.0
    values[1, 2] = 1.0
    flat = nn.functional.normalize(pool_map(values, "BCFT", "none"), dim=1)
    torch.testing.assert_close(energy_profile(flat, SHAPE, "T")[0], torch.tensor([0.0, 0.0, 1.0]).double())
    torch.testing.assert_close(energy_profile(flat, SHAPE, "F")[0], torch.tensor([0.0, 1.0, 0.0, 0.0]).double())
    torch.testing.assert_close(energy_profile(flat, SHAPE, "T")[1], torch.full((3,), 1 / 3).double())
    torch.testing.assert_close(energy_profile(flat, {"T": 60}, "T")[0], flat[0].double() ** 2)


def test_unevenness_is_the_total_variation_distance():
    profiles = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    torch.testing.assert_close(unevenness(profiles, profiles[0]), torch.tensor([0.0, 0.5, 0.75]))


def profiles(rng, count, channels=6, loud=()):
    found = rng.normal(size=(count, 8, channels))
    for k in loud:
        found[k, :4] *= 4
    energy = (found**2).sum(2)
    return torch.tensor(energy / energy.sum(1, keepdims=True))


def test_only_a_cav_in_one_half_exceeds_what_random_sets_reach():
    rng = np.random.default_rng(0)
    null = profiles(rng, 2000).reshape(1000, 2, 8)
    found, chance = position_dependence(profiles(rng, 6, loud=[4]), null, np.array([0, 1, 0, 1, 0, 1]))
    assert (found > chance).tolist() == [False, False, False, False, True, False]


def test_a_family_without_such_cavs_is_silent_19_times_in_20():
    rng = np.random.default_rng(1)
    null = profiles(rng, 8000).reshape(2000, 4, 8)
    alarms = 0
    for _ in range(200):
        found, chance = position_dependence(profiles(rng, 8), null, np.arange(8) % 4)
        alarms += bool((found > chance).any())
    assert alarms <= 18  # binomial: 0.05 x 200 + 2.6 standard deviations


def test_shapes_are_those_of_unpooled_maps_of_modules_only():
    model = nn.Sequential(nn.Unflatten(1, (1, 10, 12)), nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(240, 2))
    backbone = cc.TorchBackbone(model, ["1", "3"], sample_rate=120, patch_seconds=1.0)
    assert unpooled_shapes(backbone, ("1", "3"), "none") == {"1": {"T": 10, "F": 8, "C": 3}}
    assert unpooled_shapes(backbone, ("1", "3"), "time") == {}
    assert backbone.activations(torch.zeros(1, 120), ["1"], "none")["1"].shape[1] == 240
    assert unpooled_shapes(object(), ("1",), "none") == {}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_constant_null_is_no_division_by_zero(scale):
    even = torch.full((40, 1, 4), 0.25).double()
    found, chance = position_dependence(torch.tensor([[1 - scale, scale, 0, 0]]).double(), even, np.array([0]))
    assert np.isfinite(chance).all() and (found > chance).all() == (found[0] > 0)
