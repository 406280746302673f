"""Position dependence of CAVs along time and frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import captum_concepts as cc
from captum_concepts.backbones.inference import unpooled_shapes
from captum_concepts.backbones.layers import pool_map
from captum_concepts.diagnostics.position import LEVEL, NullProfiles, energy_profile, position_dependence, unevenness

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


def noise(rng, *lead, times=8, channels=6):
    """Unit directions (..., times x channels) without any signal."""
    return nn.functional.normalize(torch.tensor(rng.normal(size=(*lead, times * channels))), dim=-1)


def family(rng, count, share, early=(), times=8, channels=6):
    """CAVs with an even signal, but for those in ``early``, and noise; and cosines of halves of them."""
    signal = noise(rng, count, 1, times=1, channels=channels).expand(count, times, channels).clone() / times**0.5
    signal[list(early), times // 2 :] = 0
    signal = nn.functional.normalize(signal.flatten(1), dim=1)
    found = nn.functional.normalize(share**0.5 * signal + (1 - share) ** 0.5 * noise(rng, count), dim=1)
    return found, torch.full((4, count), share / (2 - share))


def dependence(directions, cosines, random, kinds, shape=None, seed=0, groups=60):
    shape = shape or {"T": 8, "C": 6}
    nulls = NullProfiles.along("T", shape, directions, kinds)
    for batch in random.split(250):
        nulls.add(batch)
    profiles = energy_profile(directions, shape, "T")
    return position_dependence(profiles, nulls, cosines, groups, np.random.default_rng(seed))


KINDS = np.array([0, 1, 0, 1, 0, 1])


def test_only_a_cav_in_one_half_exceeds_what_even_ones_reach():
    rng = np.random.default_rng(0)
    found, chance = dependence(*family(rng, 6, 0.7, early=[4]), noise(rng, 600, 2), KINDS)
    assert (found > chance).tolist() == [False, False, False, False, True, False]


def test_a_clear_concept_in_one_half_is_found_where_random_sets_alone_reach_further():
    """Null concepts, all noise, are more uneven by chance than this concept by its signal."""
    rng = np.random.default_rng(0)
    random = noise(rng, 600, 2)
    own = energy_profile(random, {"T": 8, "C": 6}, "T").flatten(0, 1)
    beyond = np.quantile(unevenness(own, own.mean(0)).numpy(), 1 - 0.05 / 6)
    caught = 0
    for _ in range(8):
        directions, cosines = family(rng, 6, 0.7, early=[4])
        found, chance = dependence(directions, cosines, random, KINDS)
        caught += found[4] > chance[4]
        assert chance[4] < beyond
    assert caught >= 7


def test_a_family_without_such_cavs_is_silent_19_times_in_20():
    rng = np.random.default_rng(1)
    random = noise(rng, 400, 2)
    alarms = 0
    for seed in range(100):
        found, chance = dependence(*family(rng, 6, 0.7), random, KINDS, seed=seed)
        alarms += bool((found > chance).any())
    assert alarms <= 10  # binomial: 0.05 x 100 + 2.6 standard deviations


def test_without_a_signal_the_band_is_that_of_random_sets():
    """Cosines of halves that are not known (NaN) or not above 0 leave nothing but noise."""
    rng = np.random.default_rng(2)
    directions, random = noise(rng, 6), noise(rng, 800, 2)
    own = energy_profile(random, {"T": 8, "C": 6}, "T")
    null = unevenness(own, own.mean((0, 1))).numpy()[:, KINDS]
    for cosines in (torch.full((4, 6), torch.nan), torch.full((4, 6), -0.5)):
        found, chance = dependence(directions, cosines, random, KINDS, groups=10**6)
        np.testing.assert_allclose(
            found, unevenness(energy_profile(directions, {"T": 8, "C": 6}, "T"), own.mean((0, 1)))
        )
        assert (np.abs((null > chance).mean(0) - LEVEL / 6) < 0.004).all()


def test_the_products_are_those_of_the_pieces_and_come_by_kind():
    rng = np.random.default_rng(3)
    shape = {"T": 2, "F": 4, "C": 6}
    directions, random = noise(rng, 3), noise(rng, 5, 2)
    random[2, 1, 0] = torch.nan
    kinds = np.array([1, 0, 1])
    nulls = NullProfiles.along("F", shape, directions, kinds)
    nulls.add(random)
    kept = [0, 1, 3, 4]
    for k in range(3):
        own = directions[k].reshape(2, 4, 6).numpy()
        for r, row in enumerate(kept):
            other = random[row, kinds[k]].reshape(2, 4, 6).numpy()
            wanted = [(own[:, f] * other[:, f]).sum() / np.sqrt((own[:, f] ** 2).sum()) for f in range(4)]
            np.testing.assert_allclose(nulls.products[0][r, k], wanted, rtol=1e-12)
    np.testing.assert_allclose(nulls.profiles[0], energy_profile(random[kept], shape, "F"))


def test_shapes_are_those_of_unpooled_maps_of_modules_only():
    model = nn.Sequential(nn.Unflatten(1, (1, 10, 12)), nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(240, 2))
    backbone = cc.TorchBackbone(model, ["1", "3"], sample_rate=120, patch_seconds=1.0)
    assert unpooled_shapes(backbone, ("1", "3"), "none") == {"1": {"T": 10, "F": 8, "C": 3}}
    assert unpooled_shapes(backbone, ("1", "3"), "time") == {}
    assert backbone.activations(torch.zeros(1, 120), ["1"], "none")["1"].shape[1] == 240
    assert unpooled_shapes(object(), ("1",), "none") == {}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_constant_null_is_no_division_by_zero(scale):
    even = torch.full((40, 1, 4), 0.5).double()
    directions = torch.tensor([[1 - scale, scale, 0, 0]]).double().sqrt()
    found, chance = dependence(directions, torch.zeros(4, 1), even, np.array([0]), {"T": 4})
    assert np.isfinite(chance).all() and (found > chance).all() == (found[0] > 0)
