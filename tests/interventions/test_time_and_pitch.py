"""Stretching changes the tempo only, shifting the pitch only; reversal and silence act on stretches of time."""

from __future__ import annotations

import pytest
import torch
from helpers.sounds import RATE, clicks, decibels, noise, onsets, peak, tones

from captum_concepts.interventions import Reversal, Shift, Silence, Stretch, log_mel_difference
from captum_concepts.interventions.shift import resampled
from captum_concepts.interventions.stretch import repeated
from captum_concepts.interventions.wsola import time_stretch


@pytest.mark.parametrize("factor", [0.75, 0.8, 1.25, 1.33])
def test_stretch_scales_the_spacing_of_onsets(factor):
    changed = Stretch(factor).apply(clicks(0.2, 4), RATE)
    spacing = onsets(changed[:, : int(3.5 * RATE / max(factor, 1))]).diff()
    assert len(spacing) >= 5  # a frame may be moved by 15 ms either way; over many onsets this evens out
    assert spacing.mean() == pytest.approx(0.2 / factor, abs=0.005)
    assert (spacing - 0.2 / factor).abs().max() < 0.04


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_stretch_keeps_pitch_and_level(factor):
    sound = tones(440)
    changed = Stretch(factor).apply(sound, RATE)
    assert peak(changed) == pytest.approx(440, abs=1)
    assert decibels(changed) == pytest.approx(decibels(sound), abs=0.2)


def test_a_faster_sound_goes_on_from_its_start():
    sound = torch.cat([tones(440, seconds=1), tones(880, seconds=1)], 1)
    changed = Stretch(1.25).apply(sound, RATE)
    times = [(0.1, 0.7), (0.9, 1.5), (1.7, 2.0)]
    pitches = [peak(changed[:, int(start * RATE) : int(end * RATE)]) for start, end in times]
    assert pitches == pytest.approx([440, 880, 440], abs=4)


def test_repetition_is_cross_faded():
    sound = torch.ones(1, 100)
    torch.testing.assert_close(repeated(sound, 330, 20), torch.ones(1, 330))
    assert repeated(sound, 50, 20).shape == (1, 50)
    assert repeated(torch.ones(1, 1), 5, 20).tolist() == [[1.0] * 5]


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.0, 1.7])
@pytest.mark.parametrize("samples", [1, 7, 900, 8001])
def test_stretched_lengths(rate, samples):
    assert time_stretch(noise()[:, :samples], RATE, rate).shape == (1, max(round(samples / rate), 1))


def test_at_rate_one_nothing_changes():
    sound = noise(2)
    torch.testing.assert_close(time_stretch(sound, RATE, 1.0), sound, rtol=0, atol=1e-5)


@pytest.mark.parametrize("semitones", [-6, -2, 2, 6])
def test_shift_moves_the_peak_by_semitones(semitones):
    assert peak(Shift(semitones).apply(tones(440), RATE)) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.003)


@pytest.mark.parametrize("semitones", [-4, 4])
def test_shift_keeps_tempo_and_level(semitones):
    sound = clicks(0.25, 4)
    changed = Shift(semitones).apply(sound, RATE)
    before, after = onsets(sound), onsets(changed)
    assert len(after) == pytest.approx(len(before), abs=1)
    assert after.diff().mean() == pytest.approx(0.25, abs=0.005)
    steady = tones(440, 660)
    assert decibels(Shift(semitones).apply(steady, RATE)) == pytest.approx(decibels(steady), abs=0.3)


def test_what_shift_moves_above_the_band_goes():
    changed = Shift(6).apply(tones(7000), RATE)
    assert decibels(changed[:, 1000:-1000]) < decibels(tones(7000)) - 40


def test_resampling_there_and_back_keeps_a_band_limited_sound():
    sound = tones(440, 1000)
    back = resampled(resampled(sound, 40000, RATE), sound.shape[1], RATE)
    torch.testing.assert_close(back[:, 1000:-1000], sound[:, 1000:-1000], rtol=0, atol=1e-3)


@pytest.mark.parametrize("intervention", [Stretch(1.25), Stretch(0.8), Shift(2), Shift(-2)])
def test_the_sham_keeps_tempo_and_pitch(intervention):
    sham = intervention.sham()
    assert peak(sham.apply(tones(440), RATE)) == pytest.approx(440, abs=1)
    assert onsets(sham.apply(clicks(0.2, 4), RATE)).diff().mean() == pytest.approx(0.2, abs=0.005)
    sound = tones(440, 554, 659) + clicks(0.25)
    effect = log_mel_difference(sound, intervention.apply(sound, RATE), RATE)
    assert log_mel_difference(sound, sham.apply(sound, RATE), RATE) < effect / 2


def test_opposites_share_their_sham():
    sound = noise()
    for intervention in (Stretch(1.25), Shift(2)):
        opposite = intervention.opposite()
        assert torch.equal(intervention.sham().apply(sound, RATE), opposite.sham().apply(sound, RATE))


def test_silence_mutes_a_share_and_keeps_the_rest():
    sound = noise(20) + 1
    muted = Silence(0.25).apply(sound, RATE)
    assert (muted == 0).sum(1).tolist() == [sound.shape[1] // 4] * 20
    assert ((muted == sound).sum(1) >= sound.shape[1] * 3 // 4 - 2 * 80).all()
    starts = (muted == 0).int().argmax(1)
    assert starts.unique().numel() == 20
    assert Silence(1.0).apply(sound, RATE).abs().max() == 0
    assert torch.equal(Silence(0.25).sham().apply(sound, RATE), sound)


def test_reversal_of_all_keeps_the_spectrum():
    sound = noise()
    changed = Reversal(60).apply(sound, RATE)
    assert torch.equal(changed, sound.flip(1))
    assert torch.equal(Reversal(60).sham().apply(sound, RATE), sound)


def test_reversal_in_pieces_keeps_their_order():
    sound = torch.cat([tones(440, seconds=1), tones(880, seconds=1)], 1)
    changed = Reversal(1.0).apply(sound, RATE)
    assert peak(changed[:, :RATE]) == 440
    assert torch.equal(changed[0, 100:15900], sound[0, :RATE].flip(0)[100:15900])
    sham = Reversal(1.0).sham().apply(sound, RATE)
    assert sham[0, [RATE - 1, RATE]].abs().max() == 0
    assert torch.equal(sham[0, : RATE - 100], sound[0, : RATE - 100])
    assert torch.equal(sham[0, RATE + 100 :], sound[0, RATE + 100 :])
