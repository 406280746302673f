"""Donors are added at the stated level, chosen by the sounds and the seed only."""

from __future__ import annotations

import pytest
import torch
from helpers.sounds import RATE, band, decibels, noise, tones

from captum_concepts.errors import InputError
from captum_concepts.interventions import AddSound, add_at_level

DONORS = [tones(300.0 * i, seconds=0.5, amplitude=0.01 * i)[0] for i in range(1, 6)]


@pytest.mark.parametrize("level", [-20.0, -5.0, 0.0])
@pytest.mark.parametrize("count", [1, 3])
def test_the_added_sound_has_its_level(level, count):
    hosts = noise(4)
    added = AddSound(level, DONORS, donors_per_host=count).apply(hosts, RATE) - hosts
    for host, sound in zip(hosts, added, strict=True):
        assert decibels(sound) == pytest.approx(decibels(host) + level, abs=0.01)


def test_a_loop_goes_through_and_one_placement_does_not():
    hosts = noise(8, seconds=2)
    loop = AddSound(-5, DONORS).apply(hosts, RATE) - hosts
    once = AddSound(-5, DONORS, placement="once").apply(hosts, RATE) - hosts
    frames = loop.unfold(1, 400, 400).square().mean(-1)
    assert (frames > frames.amax(1, keepdim=True) / 4).all()
    sounding = once.abs() > 1e-7
    first, last = sounding.int().argmax(1), sounding.shape[1] - 1 - sounding.flip(1).int().argmax(1)
    assert (last - first).tolist() == pytest.approx([RATE // 2] * 8, abs=30)
    assert first.unique().numel() == 8
    for host, sound, a, b in zip(hosts, once, first, last, strict=True):
        assert decibels(sound[a : b + 1]) == pytest.approx(decibels(host) - 5, abs=0.1)


def test_a_long_donor_is_cut_to_a_section():
    hosts = noise(4, seconds=1)
    added = AddSound(-5, [noise(seconds=3, seed=9)[0]]).apply(hosts, RATE) - hosts
    assert [decibels(sound) for sound in added] == pytest.approx([decibels(host) - 5 for host in hosts], abs=0.01)
    assert not torch.allclose(added[0] / added[0].norm(), added[1] / added[1].norm(), atol=1e-3)


def test_donors_are_chosen_by_sounds_and_seed_only():
    hosts = noise(12)
    one = AddSound(-5, DONORS)
    chosen = [one.chosen(host)[0] for host in hosts]
    assert len(set(chosen)) > 2
    backwards = AddSound(-5, DONORS[::-1])
    assert [4 - backwards.chosen(host)[0] for host in hosts] == chosen
    torch.testing.assert_close(one.apply(hosts, RATE), backwards.apply(hosts, RATE))
    assert [one.chosen(host, seed=1)[0] for host in hosts] != chosen
    for host, donor in zip(hosts, chosen, strict=True):
        pitch = 300.0 * (donor + 1)
        added = one.apply(host[None], RATE) - host
        assert band(added, pitch - 20, pitch + 20) > 0.9 * band(added, 0, RATE / 2)
    several = AddSound(-5, DONORS, donors_per_host=3).chosen(hosts[0])
    assert len(set(several)) == 3


def test_donors_of_another_sample_rate_are_resampled():
    host = noise()
    donor = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)  # one second at 8 kHz
    added = AddSound(-5, [donor], donor_rate=8000).apply(host, RATE) - host
    assert band(added, 430, 450) > 0.9 * band(added, 0, RATE / 2)


def test_the_host_stays_and_the_sham_adds_nothing():
    hosts = noise(2)
    assert torch.equal(AddSound(-5, DONORS).sham().apply(hosts, RATE), hosts)
    silent = torch.zeros(1, RATE)
    assert torch.equal(AddSound(-5, DONORS).apply(silent, RATE), silent)


def test_pairs_can_be_given():
    hosts, donors = noise(2), noise(2, seed=1) * 7
    added = add_at_level(hosts, donors, -5) - hosts
    assert [decibels(sound) for sound in added] == pytest.approx([decibels(host) - 5 for host in hosts], abs=0.01)
    assert torch.equal(add_at_level(hosts, torch.zeros_like(donors), -5), hosts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^donors=\(\): no sound to add; give at least one waveform of the concept$"),
        ({"donors": [torch.zeros(5)]}, r"^donors\[0\]: silent, empty or not finite; leave it out$"),
        ({"donors": [torch.ones(5), torch.ones(0)]}, r"^donors\[1\]: silent, empty or not finite"),
        ({"donors": [torch.ones(1, 5)]}, r"^donors\[0\]: not a waveform; give a floating-point tensor \(samples,\)$"),
        ({"donors": DONORS, "donors_per_host": 6}, "^donors_per_host=6: not a number of the 5 donors; give 1 to 5$"),
        ({"donors": DONORS, "donor_rate": 0}, "^donor_rate=0: not a sample rate; give a positive integer in Hz$"),
        ({"donors": DONORS, "placement": "end"}, "^placement='end': unknown; give 'loop' or 'once'$"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        AddSound(-5, **options)
