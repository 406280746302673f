"""Twelve synthetic instruments in four families, each family with its own synthesis.

| family | synthesis | instruments |
|---|---|---|
| plucked | noise in a damped delay line (Karplus and Strong, 1983) | guitar, banjo, harp |
| sustained | a sum of harmonics shaped by formants, with vibrato | violin, clarinet, oboe |
| mallet | frequency modulation with a decaying index (Chowning, 1973) | bell, vibraphone, electric-piano |
| percussion | filtered noise and a sine that sweeps down | snare, clap, tom |

A note depends on nothing but instrument, pitch and sample rate: the noise in it is drawn from a seed of its own, so
equal arguments give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

FloatArray = NDArray[np.float64]
Synthesis = Callable[[float, int, int, np.random.Generator], FloatArray]
NOTE_SECONDS: Final = 2.0
HIT_SECONDS: Final = 0.35
HIT_VARIANTS: Final = 4
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "plucked": ("guitar", "banjo", "harp"),
    "sustained": ("violin", "clarinet", "oboe"),
    "mallet": ("bell", "vibraphone", "electric-piano"),
    "percussion": ("snare", "clap", "tom"),
}
PARENTS: Final[dict[str, str]] = {name: family for family, names in FAMILIES.items() for name in names}
MELODIC: Final[tuple[str, ...]] = FAMILIES["plucked"] + FAMILIES["sustained"] + FAMILIES["mallet"]
PERCUSSION: Final[tuple[str, ...]] = FAMILIES["percussion"]


def frequency(pitch: float) -> float:
    """The frequency in Hz of a MIDI pitch (69 is 440 Hz)."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def _plucked(damping: float, seconds: float, position: float, hardness: float) -> Synthesis:
    """A plucked string.

    `damping` in (0, 0.5] is how fast high harmonics die, `seconds` the time the fundamental takes to fall by 60 dB,
    `position` where along the string it is plucked (a comb that removes harmonics), `hardness` in (0, 1] how bright
    the pick is.
    """

    def synthesis(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
        period = sample_rate / hertz
        burst = np.zeros(samples)
        length = round(period)
        burst[:length] = rng.uniform(-1.0, 1.0, length)
        # The loop's transfer function is sampled on a circle outside the unit circle: what wraps around in time is
        # damped by exp(-6), and a fractional delay stays exactly in tune.
        size = 2 * samples
        radius = np.exp(6.0 / size)
        growth = radius ** np.arange(samples)
        omega = 2.0 * np.pi * np.arange(size // 2 + 1) / size
        inverse_z = np.exp(-1j * omega) / radius
        gain = 10.0 ** (-3.0 * period / (seconds * sample_rate))
        delay = -1j * omega - np.log(radius)  # of one sample, as an exponent
        loop = gain * ((1.0 - damping) + damping * inverse_z) * np.exp(delay * (period - damping))
        pick = hardness / (1.0 - (1.0 - hardness) * inverse_z)
        comb = 1.0 - np.exp(delay * (position * period))
        spectrum = np.fft.rfft(burst / growth, size) * pick * comb / (1.0 - loop)
        return np.asarray(np.fft.irfft(spectrum, size)[:samples] * growth)

    return synthesis


def _sustained(
    slope: float, even: float, formants: tuple[tuple[float, float, float], ...], vibrato: float, attack: float
) -> Synthesis:
    """A bowed or blown tone.

    Harmonic k has amplitude k ** -slope (times `even` where k is even), plus the resonances `formants`, each
    (centre Hz, width Hz, gain). `vibrato` is the relative depth, `attack` in seconds.
    """

    def synthesis(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
        time = np.arange(samples) / sample_rate
        rate = rng.uniform(5.0, 6.0)
        swing = vibrato * np.clip((time - 0.15) / 0.3, 0.0, 1.0)
        phase = 2.0 * np.pi * hertz * np.cumsum(1.0 + swing * np.sin(2.0 * np.pi * rate * time)) / sample_rate
        order = np.arange(1, max(2, int(0.45 * sample_rate / hertz / (1.0 + vibrato)) + 1))
        resonance = np.ones(len(order))
        for centre, width, gain in formants:
            resonance += gain * np.exp(-0.5 * ((order * hertz - centre) / width) ** 2)
        amplitude = order**-slope * np.where(order % 2 == 0, even, 1.0) * resonance
        rotation = np.exp(1j * phase)
        total = np.zeros(samples, dtype=np.complex128)
        for value in amplitude[::-1]:  # Horner's rule: one multiplication per harmonic instead of one sine
            total = (total + value) * rotation
        envelope = 1.0 - np.exp(-time / attack)
        return np.asarray(total.imag * envelope)

    return synthesis


def _mallet(ratio: float, index: float, seconds: float, partial: float, tremolo: float) -> Synthesis:
    """A struck tone: carrier and modulator at frequencies 1 : `ratio`, modulation `index` at the stroke.

    `seconds` is the time to fall by 60 dB at 440 Hz, `partial` the level of a second carrier at the modulator's
    frequency, `tremolo` the depth of a 5.5 Hz tremolo.
    """

    def synthesis(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
        time = np.arange(samples) / sample_rate
        decay = np.exp(-6.9 * time / (seconds * (440.0 / hertz) ** 0.3))
        # A modulator above the Nyquist frequency would alias into an arbitrary pitch.
        modulator = 2.0 * np.pi * min(hertz * ratio, 0.42 * sample_rate) * time
        limit = min(index, max(0.2, (0.45 * sample_rate - hertz) / (hertz * ratio) - 1.0))
        carrier = np.sin(2.0 * np.pi * hertz * time + limit * decay**2 * np.sin(modulator))
        shimmer = partial * decay**3 * np.sin(modulator + rng.uniform(0.0, 2.0 * np.pi))
        wave = 1.0 - tremolo * (0.5 + 0.5 * np.sin(2.0 * np.pi * 5.5 * time))
        return np.asarray((carrier + shimmer) * decay * wave * (1.0 - np.exp(-time / 0.002)))

    return synthesis


def _noise(rng: np.random.Generator, samples: int, sample_rate: int, low: float, high: float) -> FloatArray:
    sections = butter(2, (low, min(high, 0.49 * sample_rate)), btype="bandpass", fs=sample_rate, output="sos")
    return np.asarray(sosfilt(sections, rng.standard_normal(samples)))


def _snare(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    time = np.arange(samples) / sample_rate
    shell = np.sin(2.0 * np.pi * (hertz * time + 3.0 * (1.0 - np.exp(-time / 0.015)))) * np.exp(-time / 0.05)
    return _noise(rng, samples, sample_rate, 1500.0, 7500.0) * np.exp(-time / 0.06) + 0.4 * shell


def _clap(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    time = np.arange(samples) / sample_rate
    envelope = np.exp(-np.clip(time - 0.03, 0.0, None) / 0.05) * (time >= 0.03)
    for start in (0.0, 0.01, 0.02):
        envelope += np.exp(-np.clip(time - start, 0.0, None) / 0.003) * (time >= start)
    return _noise(rng, samples, sample_rate, 4.0 * hertz, 16.0 * hertz) * envelope


def _tom(hertz: float, samples: int, sample_rate: int, rng: np.random.Generator) -> FloatArray:
    time = np.arange(samples) / sample_rate
    sweep = 2.0 * np.pi * hertz * (0.6 * time + 0.03 * (1.0 - np.exp(-time / 0.05)))
    body = np.sin(sweep) * np.exp(-time / 0.12)
    return body + 1.5 * _noise(rng, samples, sample_rate, 300.0, 5000.0) * np.exp(-time / 0.05)


_SYNTHESES: Final[dict[str, Synthesis]] = {
    "guitar": _plucked(damping=0.3, seconds=2.0, position=0.2, hardness=0.6),
    "banjo": _plucked(damping=0.12, seconds=0.7, position=0.08, hardness=0.95),
    "harp": _plucked(damping=0.5, seconds=4.0, position=0.48, hardness=0.15),
    "violin": _sustained(1.0, 1.0, ((500.0, 150.0, 1.0), (1100.0, 250.0, 1.5), (2900.0, 500.0, 3.0)), 0.012, 0.08),
    "clarinet": _sustained(1.2, 0.08, ((1500.0, 400.0, 1.0), (3000.0, 500.0, 0.5)), 0.0, 0.025),
    "oboe": _sustained(0.7, 1.0, ((1250.0, 250.0, 5.0), (3200.0, 400.0, 2.0)), 0.004, 0.02),
    "bell": _mallet(ratio=3.53, index=1.3, seconds=3.0, partial=0.3, tremolo=0.0),
    "vibraphone": _mallet(ratio=4.0, index=0.7, seconds=2.5, partial=0.25, tremolo=0.5),
    "electric-piano": _mallet(ratio=1.0, index=1.8, seconds=2.0, partial=0.0, tremolo=0.0),
    "snare": _snare,
    "clap": _clap,
    "tom": _tom,
}


@lru_cache(maxsize=4096)
def note(instrument: str, pitch: int, sample_rate: int = 16000) -> NDArray[np.float32]:
    """One note of a melodic instrument, or one hit of a percussion instrument.

    :param instrument: one of the twelve names.
    :param pitch: MIDI pitch, 24 to 96; for percussion the number of the hit's variant, 0 to HIT_VARIANTS - 1.
    :param sample_rate: Hz.
    :returns: float32 (samples,), NOTE_SECONDS or HIT_SECONDS long, with root mean square 1 in its first quarter of a
        second; read-only, since calls share it.
    :raises InputError: for an unknown instrument or a pitch out of range.
    """
    if instrument not in _SYNTHESES:
        raise InputError(f"instrument={short_repr(instrument)}: unknown; give one of {', '.join(_SYNTHESES)}")
    percussive = instrument in PERCUSSION
    low, high = (0, HIT_VARIANTS - 1) if percussive else (24, 96)
    if not low <= pitch <= high:
        raise InputError(f"pitch={short_repr(pitch)}: out of range for {instrument}; give {low} to {high}")
    rng = np.random.default_rng([crc32(instrument.encode()), pitch])
    hertz = 180.0 * 1.12**pitch if percussive else frequency(pitch)
    samples = round((HIT_SECONDS if percussive else NOTE_SECONDS) * sample_rate)
    sound = _SYNTHESES[instrument](hertz, samples, sample_rate, rng)
    beginning = sound[: sample_rate // 4]
    sound = (sound / np.sqrt(np.mean(beginning**2))).astype(np.float32)
    sound.setflags(write=False)
    return sound
