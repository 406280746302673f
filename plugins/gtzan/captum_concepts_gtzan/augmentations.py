"""Augmentations of audio that keep its genre.

Every change is a function of a waveform and explicit numbers, in torch operations that run where the waveform is;
`Augmentation` draws the numbers. All draws come from the generator it is given, so that an example is changed in the
same way in whatever company, order or thread it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from scipy.signal import butter
from torch import Tensor

from captum_concepts.audio import load_torchaudio
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

_STRETCH_FFT, _STRETCH_HOP = 2048, 512
_FILTER_ORDER = 4
Band = Literal["highpass", "lowpass"]
Range = tuple[float, float]


def add_noise(wave: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """``wave`` plus ``noise``, scaled so that the mean power of the wave is ``snr_db`` above that of the noise."""
    power = wave.square().mean() / noise.square().mean()
    return wave + noise * (power * 10 ** (-snr_db / 10)).sqrt()


def gain(wave: Tensor, decibels: float) -> Tensor:
    """``wave``, louder by ``decibels``."""
    return wave * 10 ** (decibels / 20)


def butterworth(wave: Tensor, sample_rate: int, cutoff: float, band: Band) -> Tensor:
    """Butterworth filter of order 4, causal, as `scipy.signal.sosfilt`.

    Two sections of order two in double precision: one of order four is unstable in single precision at 50 Hz.
    """
    sections = torch.from_numpy(butter(_FILTER_ORDER, cutoff, band, fs=sample_rate, output="sos"))
    filtered = wave.double()
    for section in sections.to(wave.device):
        filtered = load_torchaudio()[0].lfilter(filtered, section[3:], section[:3], clamp=False)
    return filtered.to(wave.dtype)


def delay(wave: Tensor, sample_rate: int, seconds: float, feedback: float, mix: float) -> Tensor:
    """Echoes: ``(1 - mix) x[n] + mix y[n]`` with ``y[n] = x[n - d] + feedback y[n - d]``, d samples of delay.

    Every d-th sample makes a signal of its own on which the recursion goes back one step only.
    """
    d = max(1, round(seconds * sample_rate))
    n = wave.shape[-1]
    rows = torch.nn.functional.pad(wave, (0, -n % d)).view(-1, d).T
    direct = torch.tensor([0.0, 1.0], dtype=wave.dtype, device=wave.device)
    back = torch.tensor([1.0, -feedback], dtype=wave.dtype, device=wave.device)
    echoes = load_torchaudio()[0].lfilter(rows.contiguous(), back, direct, clamp=False)
    return (1 - mix) * wave + mix * echoes.T.reshape(-1)[:n]


def stretch(wave: Tensor, rate: float) -> Tensor:
    """``wave`` played ``rate`` times as fast at its own pitch: ``round(n / rate)`` samples, by a phase vocoder."""
    window = torch.hann_window(_STRETCH_FFT, device=wave.device, dtype=wave.dtype)
    spectrum = torch.stft(wave, _STRETCH_FFT, _STRETCH_HOP, window=window, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, torch.pi * _STRETCH_HOP, spectrum.shape[-2], device=wave.device, dtype=wave.dtype)
    stretched = load_torchaudio()[0].phase_vocoder(spectrum, rate, advance[:, None])
    length = round(wave.shape[-1] / rate)
    return torch.istft(stretched, _STRETCH_FFT, _STRETCH_HOP, window=window, length=length)


def crop(wave: Tensor, samples: int, start: int) -> Tensor:
    """``samples`` samples from ``start`` on; of a shorter wave, the wave repeated."""
    if wave.shape[-1] < samples:
        wave = wave.repeat(-(-samples // wave.shape[-1]))
        start = 0
    return wave[start : start + samples]


def mask(log_mel: Tensor, boxes: Tensor) -> Tensor:
    """Hide a stretch of time and a range of bands of every example behind its own mean (SpecAugment, arXiv 1904.08779).

    Args:
        log_mel: (B, 1, bands, frames).
        boxes: (B, 4), shares of the whole: from and to in time, from and to in frequency.
    """
    bands, frames = log_mel.shape[-2:]
    time = (torch.arange(frames, device=log_mel.device) + 0.5) / frames
    band = (torch.arange(bands, device=log_mel.device) + 0.5) / bands
    begin, end, low, high = boxes.T[..., None]
    in_time = (begin <= time) & (time < end)
    in_band = (low <= band) & (band < high)
    hidden = in_time[:, None, None, :] | in_band[:, None, :, None]
    return torch.where(hidden, log_mel.mean((1, 2, 3), keepdim=True), log_mel)


@dataclass(frozen=True)
class Augmentation:
    """How often and how much recordings are changed. A probability of 0, or a share of 0, leaves a change out.

    Attributes:
        polarity, noise, gain, filter, delay, stretch: probability of each change.
        snr_db: of white noise, decibels.
        gain_db: decibels.
        high_pass, low_pass: Hz, the cut-offs of either Butterworth filter of order 4; each is as likely.
        delay_seconds, feedback, mix: of the echoes.
        rate: of the time stretch.
        hiss: standard deviation of the white noise that every example gets.
        time_mask, frequency_mask: largest share of the frames and of the bands that is hidden.

    Raises:
        InputError: a probability or a share is not between 0 and 1.
    """

    polarity: float = 0.5
    noise: float = 0.6
    gain: float = 0.4
    filter: float = 0.5
    delay: float = 0.3
    stretch: float = 0.2
    snr_db: Range = (15.0, 35.0)
    gain_db: Range = (-4.0, 4.0)
    high_pass: Range = (50.0, 1000.0)
    low_pass: Range = (2000.0, 8000.0)
    delay_seconds: Range = (0.05, 0.2)
    feedback: Range = (0.1, 0.4)
    mix: Range = (0.2, 0.5)
    rate: Range = (0.9, 1.1)
    hiss: float = 0.002
    time_mask: float = 0.1
    frequency_mask: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not 0 <= value <= 1:
                raise InputError(f"{field.name}={short_repr(value)}: give a number between 0 and 1")

    @classmethod
    def none(cls, hiss: float = 0.0) -> Augmentation:
        """Nothing but the random crop and, perhaps, hiss."""
        return cls(0, 0, 0, 0, 0, 0, hiss=hiss, time_mask=0, frequency_mask=0)

    def example(self, wave: Tensor, samples: int, sample_rate: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random crop, changed, and what of its log-mel to hide.

        The stretch comes first, of as much of the recording as it needs: padding would tell the model which example
        was stretched.

        Args:
            wave: (n,), any length.
            samples: length of the example.
            sample_rate: Hz.
            draws: on the CPU; nothing else decides what is drawn.

        Returns:
            (samples,) where ``wave`` is, and the (4,) box for `mask`.
        """
        rate = _between(draws, self.rate) if _chance(draws, self.stretch) else 1.0
        needed = round(samples * rate)
        start = int(torch.randint(max(1, wave.shape[-1] - needed + 1), (), generator=draws))
        changed = crop(wave, needed, start)
        if rate != 1.0:
            changed = crop(stretch(changed, rate), samples, 0)
        if _chance(draws, self.polarity):
            changed = -changed
        if _chance(draws, self.noise):
            changed = add_noise(changed, _white(changed, draws), _between(draws, self.snr_db))
        if _chance(draws, self.gain):
            changed = gain(changed, _between(draws, self.gain_db))
        if _chance(draws, self.filter):
            high = _chance(draws, 0.5)
            cutoff = _between(draws, self.high_pass if high else self.low_pass)
            changed = butterworth(changed, sample_rate, cutoff, "highpass" if high else "lowpass")
        if _chance(draws, self.delay):
            numbers = [_between(draws, span) for span in (self.delay_seconds, self.feedback, self.mix)]
            changed = delay(changed, sample_rate, *numbers)
        if self.hiss:
            changed = changed + self.hiss * _white(changed, draws)
        return changed, self._box(draws)

    def _box(self, draws: torch.Generator) -> Tensor:
        box = []
        for most in (self.time_mask, self.frequency_mask):
            width = _between(draws, (0.0, most))
            start = _between(draws, (0.0, 1 - width))
            box += [start, start + width]
        return torch.tensor(box)


def _chance(draws: torch.Generator, probability: float) -> bool:
    return float(torch.rand((), generator=draws, dtype=torch.float64)) < probability


def _between(draws: torch.Generator, span: Range) -> float:
    return span[0] + (span[1] - span[0]) * float(torch.rand((), generator=draws, dtype=torch.float64))


def _white(wave: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(wave.shape, generator=draws, dtype=wave.dtype).to(wave.device)
