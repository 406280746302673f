"""Filters, level, noise, reverberation and the separation of parts do what they say and keep what they claim."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.sounds import RATE, band, clicks, decibels, noise, onsets, tones

from captum_concepts.interventions import (
    Bandwidth,
    Brightness,
    Harmonic,
    Level,
    Noise,
    Percussion,
    Reverberation,
    log_mel_difference,
)
from captum_concepts.interventions.hpss import _median, harmonic_percussive
from captum_concepts.interventions.reverberation import impulse_response


def test_bandwidth_removes_what_is_above_and_keeps_what_is_below():
    sound = noise()
    changed = Bandwidth(2000).apply(sound, RATE)
    assert band(changed, 3000, 8000) < 1e-4 * band(sound, 3000, 8000)
    assert band(changed, 0, 1500) == pytest.approx(band(sound, 0, 1500), rel=0.01)
    at = tones(2000)
    assert decibels(Bandwidth(2000).apply(at, RATE)) == pytest.approx(decibels(at) - 6.02, abs=0.05)


def test_bandwidth_delays_nothing():
    sound = torch.zeros(1, RATE)
    sound[0, 8000] = 1
    assert int(Bandwidth(1000).apply(sound, RATE).argmax()) == 8000


@pytest.mark.parametrize("slope", [-6, 3])
def test_brightness_tilts_the_spectrum_at_the_same_level(slope):
    sound = noise()
    changed = Brightness(slope).apply(sound, RATE)
    assert decibels(changed) == pytest.approx(decibels(sound), abs=0.01)

    def gain(low: float) -> float:
        return 10 * math.log10(band(changed, low, 1.1 * low) / band(sound, low, 1.1 * low))

    assert gain(2000) - gain(1000) == pytest.approx(slope, abs=0.2)
    assert gain(1000) - gain(250) == pytest.approx(2 * slope, abs=0.4)


@pytest.mark.parametrize("decibel", [-12.0, 6.0])
def test_level_changes_the_level_and_nothing_else(decibel):
    sound = noise()
    changed = Level(decibel).apply(sound, RATE)
    assert decibels(changed) - decibels(sound) == pytest.approx(decibel, abs=1e-4)
    torch.testing.assert_close(changed / changed.norm(), sound / sound.norm())
    assert torch.equal(Level(decibel).sham().apply(sound, RATE), sound)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_is_added_at_its_level(colour):
    sound = tones(440)
    added = Noise(-10, colour=colour).apply(sound, RATE) - sound
    assert decibels(added) == pytest.approx(decibels(sound) - 10, abs=0.01)
    slope = 10 * math.log10(band(added, 2000, 2200) / band(added, 250, 275) / 8)  # of the density, over three octaves
    assert slope == pytest.approx(0 if colour == "white" else -9, abs=2)


def test_rows_get_noise_of_their_own():
    sounds = torch.cat([tones(440), tones(550)])
    first, second = Noise(0).apply(sounds, RATE) - sounds
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05


def test_impulse_response_falls_by_60_db_in_its_time():
    response = impulse_response(0.5, 0.0, RATE, 0)
    assert len(response) == RATE // 2 + 1
    tail = response[1:]
    assert response[0] == 1
    assert float(tail.square().sum()) == pytest.approx(1, rel=1e-4)
    parts = tail.square().reshape(10, -1).mean(1).log10() * 10
    assert parts[0] - parts[5] == pytest.approx(30, abs=1)
    assert torch.equal(response, impulse_response(0.5, 0.0, RATE, 0))


def test_reverberation_fills_the_gaps_at_the_same_level():
    sound = clicks(0.5)
    changed = Reverberation(1.5).apply(sound, RATE)
    assert decibels(changed) == pytest.approx(decibels(sound), abs=0.01)
    gap = slice(int(0.3 * RATE), int(0.45 * RATE))
    assert decibels(changed[:, gap]) > decibels(sound[:, gap]) + 20
    torch.testing.assert_close(Reverberation(1.5).sham().apply(sound, RATE), sound, rtol=0, atol=1e-5)
    assert log_mel_difference(sound, Reverberation(1.5).sham().apply(sound, RATE), RATE) < 0.1


def test_percussion_takes_the_clicks_and_leaves_the_tone():
    tone, click = tones(440, 554, amplitude=0.1), clicks(0.25)
    changed = Percussion(1.0).apply(tone + click, RATE)
    assert decibels(changed - tone) < decibels(click) - 6
    assert decibels(Percussion(1.0).apply(tone, RATE)[:, 2000:-2000] - tone[:, 2000:-2000]) < decibels(tone) - 15
    assert decibels(Percussion(1.0).apply(click, RATE)) < decibels(click) - 10


def test_harmonic_takes_the_tone_and_leaves_the_clicks():
    tone, click = tones(440, 554, amplitude=0.1), clicks(0.25)
    changed = Harmonic(1.0).apply(tone + click, RATE)
    assert band(changed, 430, 450) < 0.05 * band(tone, 430, 450)
    assert onsets(changed).diff().mean() == pytest.approx(0.25, abs=0.005)
    assert decibels(Harmonic(1.0).apply(click, RATE)) == pytest.approx(decibels(click), abs=1.5)


@pytest.mark.parametrize("kind", [Percussion, Harmonic])
def test_parts_add_up(kind):
    sound = tones(440) + clicks(0.25)
    torch.testing.assert_close(kind(1.0).sham().apply(sound, RATE), sound, rtol=0, atol=1e-6)
    half = kind(0.5).apply(sound, RATE)
    torch.testing.assert_close(half, (sound + kind(1.0).apply(sound, RATE)) / 2, rtol=0, atol=1e-6)


def test_parts_of_any_sample_rate():
    for rate in (8000, 16000, 22050, 44100):
        harmonic, percussive = harmonic_percussive(noise(seconds=0.5), rate)
        torch.testing.assert_close(harmonic + percussive, noise(seconds=0.5))


def test_the_median_is_that_of_its_window():
    values = torch.rand(2, 5, 40, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(values, (3, 3), mode="replicate")
    assert torch.equal(_median(values, 7), padded.unfold(-1, 7, 1).median(-1).values)


def test_log_mel_difference_of_a_gain_is_the_gain():
    sound = noise(2)
    assert log_mel_difference(sound, sound, RATE).tolist() == [0, 0]
    torch.testing.assert_close(log_mel_difference(sound, sound / 10, RATE), torch.full((2,), 20.0), rtol=1e-4, atol=0)
