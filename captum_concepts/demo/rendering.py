"""From slot values to notes, and from notes to a waveform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, oaconvolve

from captum_concepts.demo.instruments import HIT_VARIANTS, NOTE_SECONDS, frequency, note

FloatArray = NDArray[np.float64]
TEMPO_RANGES: Final = {"slow": (60.0, 72.0), "medium": (96.0, 112.0), "fast": (150.0, 176.0)}
REGISTER_CENTRES: Final = {"low": 46, "mid": 62, "high": 78}
SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS: Final = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4), (0, 3, 1, 4), (0, 2, 3, 4))
BEATS_PER_CHORD: Final = 2
RELEASE_SECONDS: Final = 0.06
MELODY_GAIN, CHORD_GAIN, PERCUSSION_GAIN, BASS_GAIN, DRONE_GAIN = 1.0, 0.5, 0.9, 0.5, 0.35


class Note(NamedTuple):
    """A note or hit: instrument, MIDI pitch (or variant of a hit), start and length in seconds, linear gain."""

    instrument: str
    pitch: int
    start: float
    seconds: float
    gain: float


class Tone(NamedTuple):
    """An unnamed soft tone (bass, drone): MIDI pitch, start and length in seconds, linear gain."""

    pitch: int
    start: float
    seconds: float
    gain: float


@dataclass(frozen=True)
class Arrangement:
    """A score: notes of the instruments, tones of bass and drone, and whether there is reverberation."""

    duration: float
    notes: tuple[Note, ...]
    tones: tuple[Tone, ...]
    reverberant: bool

    @staticmethod
    def draw(values: Mapping[str, str], duration: float, stream: Callable[[str], np.random.Generator]) -> Arrangement:
        """A random score with `values` ({slot: value}).

        :param duration: seconds.
        :param stream: gives the random stream of a part by its name, so that parts do not disturb each other.
        """
        beat = 60.0 / stream("beat").uniform(*TEMPO_RANGES[values["tempo"]])
        beats = int(np.ceil(duration / beat))
        harmony = _Harmony.draw(stream("harmony"), beats)
        centre = REGISTER_CENTRES[values["register"]]
        instrument = values["instrument"]
        notes = [
            *_melody(stream("melody"), harmony, instrument, centre, beat, beats),
            *_chords(harmony, instrument, centre - 7, beat, beats, values["accompaniment"] == "arpeggio"),
        ]
        if values["percussion"]:
            notes += _hits(stream("hits"), values["percussion"], beat, beats)
        tones = [
            Tone(_nearest(harmony.chord(b)[0], 36), b * beat, BEATS_PER_CHORD * beat, BASS_GAIN)
            for b in range(0, beats, BEATS_PER_CHORD)
        ]
        if values["drone"]:
            tones += [Tone(_nearest(harmony.key + up, 52), 0.0, duration, DRONE_GAIN) for up in (0, 7)]
        audible = tuple(n for n in notes if n.start < duration - 0.05)
        return Arrangement(duration, audible, tuple(tones), bool(values["reverberant"]))


@dataclass(frozen=True)
class _Harmony:
    key: int
    scale: tuple[int, ...]
    degrees: tuple[int, ...]

    @staticmethod
    def draw(rng: np.random.Generator, beats: int) -> _Harmony:
        scale = SCALES[("major", "minor")[rng.integers(2)]]
        progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
        shift = int(rng.integers(len(progression)))
        count = beats // BEATS_PER_CHORD + 1
        return _Harmony(int(rng.integers(12)), scale, tuple(progression[(i + shift) % 4] for i in range(count)))

    def pitch(self, degree: int) -> int:
        """MIDI pitch of a degree of the scale; degree 0 is the key note in octave 0."""
        octave, step = divmod(degree, 7)
        return self.key + self.scale[step] + 12 * octave

    def chord(self, beat: int) -> tuple[int, int, int]:
        degree = self.degrees[beat // BEATS_PER_CHORD]
        return self.pitch(degree), self.pitch(degree + 2), self.pitch(degree + 4)


def _nearest(pitch: int, centre: int) -> int:
    """The octave of `pitch` within six semitones of `centre`."""
    return pitch + 12 * round((centre - pitch) / 12)


def _melody(
    rng: np.random.Generator, harmony: _Harmony, instrument: str, centre: int, beat: float, beats: int
) -> list[Note]:
    """A walk along the scale, on chord notes at each change of chord, a beat or two halves at a time."""
    notes: list[Note] = []
    home = round(7 * (centre - harmony.key) / 12)
    degree = home
    for b in range(beats):
        steps = 2 if rng.random() < 0.6 else 1
        for step in range(steps):
            if b % BEATS_PER_CHORD == 0 and step == 0:
                root = harmony.degrees[b // BEATS_PER_CHORD] + int(rng.choice((0, 2, 4)))
                degree = root + 7 * round((home - root) / 7)
            else:
                degree += int(rng.choice((-2, -1, 1, 2)))
            degree = int(np.clip(degree, home - 4, home + 4))
            length = beat / steps
            gain = MELODY_GAIN * rng.uniform(0.8, 1.1)
            notes.append(Note(instrument, harmony.pitch(degree), b * beat + step * length, 0.95 * length, gain))
    return notes


def _chords(harmony: _Harmony, instrument: str, centre: int, beat: float, beats: int, arpeggio: bool) -> list[Note]:
    """The three notes of each chord, struck together once per chord or one after another in half beats."""
    notes: list[Note] = []
    for b in range(0, beats, BEATS_PER_CHORD):
        triad = [_nearest(pitch, centre) for pitch in harmony.chord(b)]
        length = BEATS_PER_CHORD * beat
        if not arpeggio:
            notes += [Note(instrument, pitch, b * beat, 0.98 * length, CHORD_GAIN) for pitch in triad]
            continue
        order = (0, 1, 2, 1)
        half = 0.5 * beat
        notes += [
            Note(instrument, triad[order[i]], b * beat + i * half, half, 1.3 * CHORD_GAIN)
            for i in range(2 * BEATS_PER_CHORD)
        ]
    return notes


def _hits(rng: np.random.Generator, instrument: str, beat: float, beats: int) -> list[Note]:
    """A pattern of half beats, repeated every four beats: always on the second and fourth beat, elsewhere by chance."""
    pattern = rng.random(8) < 0.35
    pattern[[2, 6]] = True
    variant = int(rng.integers(HIT_VARIANTS))
    gains = PERCUSSION_GAIN * rng.uniform(0.8, 1.1, 8)
    return [
        Note(instrument, variant, 0.5 * i * beat, NOTE_SECONDS, float(gains[i % 8]))
        for i in range(2 * beats)
        if pattern[i % 8]
    ]


def render(arrangement: Arrangement, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Play a score as a recording of random timbre and loudness.

    :param sample_rate: Hz.
    :param rng: draws the recording's spectral tilt, noise floor, room and loudness.
    :returns: float32 (duration * sample_rate,), root mean square between -26 and -16 dB of full scale, peaks below 1.
    """
    samples = round(arrangement.duration * sample_rate)
    mix = np.zeros(samples)
    for part in arrangement.notes:
        _add(mix, note(part.instrument, part.pitch, sample_rate), part.start, part.seconds, part.gain, sample_rate)
    for tone in arrangement.tones:
        sound = _tone(tone.pitch, int(np.ceil(tone.seconds)), sample_rate)
        _add(mix, sound, tone.start, tone.seconds, tone.gain, sample_rate)
    if arrangement.reverberant:
        tail = np.arange(round(1.2 * sample_rate)) / sample_rate
        room = rng.standard_normal(len(tail)) * np.exp(-tail / 0.35)
        wet = oaconvolve(mix, room / np.sqrt(np.sum(room**2)))[:samples]
        mix = mix + 0.7 * wet
    tilt = rng.uniform(-0.25, 0.25)
    mix = lfilter((1.0, tilt), (1.0,), mix)
    mix /= np.sqrt(np.mean(mix**2))
    mix += 10.0 ** (rng.uniform(-60.0, -45.0) / 20.0) * rng.standard_normal(samples)
    # tanh keeps rare peaks below full scale; below a third of it, the change is inaudible.
    return np.tanh(10.0 ** (rng.uniform(-26.0, -16.0) / 20.0) * mix).astype(np.float32)


def _add(
    mix: FloatArray, sound: NDArray[np.floating], start: float, seconds: float, gain: float, sample_rate: int
) -> None:
    """Add `sound`, faded out after `seconds`, into `mix` in place."""
    first = round(start * sample_rate)
    release = round(RELEASE_SECONDS * sample_rate)
    length = min(len(sound), round(seconds * sample_rate) + release, len(mix) - first)
    if length <= 0:
        return
    piece = gain * sound[:length]
    fade = min(release, length)
    if round(seconds * sample_rate) < len(sound):
        piece[length - fade :] *= np.linspace(1.0, 0.0, fade)
    mix[first : first + length] += piece


@lru_cache(maxsize=256)
def _tone(pitch: int, whole_seconds: int, sample_rate: int) -> FloatArray:
    time = np.arange(round((whole_seconds + RELEASE_SECONDS) * sample_rate)) / sample_rate
    phase = 2.0 * np.pi * frequency(pitch) * time
    wave = np.sin(phase) + 0.3 * np.sin(2.0 * phase) + 0.1 * np.sin(3.0 * phase)
    return np.asarray(wave * np.clip(time / 0.02, 0.0, 1.0))
