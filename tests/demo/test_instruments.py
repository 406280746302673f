"""The instruments sound as their families promise: in tune, in time, and unlike the other families."""

from __future__ import annotations

import numpy as np
import pytest

from captum_concepts.demo.instruments import (
    FAMILIES,
    HIT_SECONDS,
    HIT_VARIANTS,
    MELODIC,
    NOTE_SECONDS,
    PARENTS,
    PERCUSSION,
    note,
)
from captum_concepts.errors import InputError

RATE = 16000


def level(instrument: str, pitch: int, start: float, end: float) -> float:
    """Root mean square between two times in seconds."""
    return float(np.sqrt(np.mean(note(instrument, pitch)[round(start * RATE) : round(end * RATE)] ** 2)))


def flatness(sound: np.ndarray) -> float:
    """Geometric over arithmetic mean of the power spectrum: near 0 for tones, larger for noise."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2 + 1e-12
    return float(np.exp(np.mean(np.log(power))) / np.mean(power))


def test_there_are_four_families_of_three_and_every_instrument_has_one_parent():
    assert len(FAMILIES) == 4
    assert [len(members) for members in FAMILIES.values()] == [3, 3, 3, 3]
    assert set(PARENTS) == set(MELODIC) | set(PERCUSSION)
    assert not set(FAMILIES) & set(PARENTS)


@pytest.mark.parametrize("instrument", MELODIC)
@pytest.mark.parametrize("pitch", [41, 60, 77, 89])
def test_a_note_is_in_tune(instrument: str, pitch: int):
    """The strongest lag of the autocorrelation is a whole number of periods, to a tenth of a semitone."""
    sound = note(instrument, pitch)[: RATE // 2].astype(float)
    period = RATE / (440.0 * 2.0 ** ((pitch - 69) / 12))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(sound, 2 * len(sound))) ** 2)
    lags = np.arange(round(8 * period * 0.97), round(8 * period * 1.03) + 1)
    # bell has no harmonics: its carrier alone must be in tune
    if instrument == "bell":
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16 * len(sound)))
        found = np.argmax(spectrum[: int(1.5 * RATE / period * 16 * len(sound) / RATE)]) * RATE / (16 * len(sound))
    else:
        best = lags[np.argmax(correlation[lags])]
        left, centre, right = correlation[best - 1 : best + 2]
        found = 8 * RATE / (best + 0.5 * (left - right) / (left - 2 * centre + right))
    assert abs(12 * np.log2(found * period / RATE)) < 0.1


@pytest.mark.parametrize("instrument", MELODIC)
def test_struck_and_plucked_notes_die_away_and_sustained_ones_do_not(instrument: str):
    ratio = level(instrument, 60, 1.5, 2.0) / level(instrument, 60, 0.2, 0.4)
    if instrument in FAMILIES["sustained"]:
        assert 0.8 < ratio < 1.25
    else:
        assert ratio < 0.5


def test_percussion_is_noise_and_the_other_families_are_tones():
    hits = [flatness(note(name, variant)[: RATE // 8]) for name in PERCUSSION for variant in range(HIT_VARIANTS)]
    tones = [flatness(note(name, pitch)[RATE // 8 : RATE // 4]) for name in MELODIC for pitch in (48, 60, 72, 84)]
    assert min(hits) > max(tones)


@pytest.mark.parametrize("instrument", MELODIC + PERCUSSION)
def test_equal_arguments_give_equal_bytes_of_finite_unit_level(instrument: str):
    first = note(instrument, 2 if instrument in PERCUSSION else 55)
    again = note.__wrapped__(instrument, 2 if instrument in PERCUSSION else 55)
    assert first.tobytes() == again.tobytes()
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert len(first) == round((HIT_SECONDS if instrument in PERCUSSION else NOTE_SECONDS) * RATE)
    assert np.sqrt(np.mean(first[: RATE // 4] ** 2)) == pytest.approx(1.0, rel=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0.0


def test_the_sample_rate_changes_the_sampling_and_not_the_sound():
    slow, fast = note("electric-piano", 60, 16000), note("electric-piano", 60, 32000)
    assert len(fast) == 2 * len(slow)
    assert np.corrcoef(slow, fast[::2])[0, 1] > 0.999


@pytest.mark.parametrize(
    ("instrument", "pitch", "message"),
    [("kazoo", 60, "instrument='kazoo'"), ("violin", 97, "pitch=97"), ("snare", HIT_VARIANTS, "pitch=4")],
)
def test_bad_input_is_named_in_one_line(instrument: str, pitch: int, message: str):
    with pytest.raises(InputError) as caught:
        note(instrument, pitch)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
