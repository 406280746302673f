"""Generated waveforms that tests of interventions measure, as tensors (1, samples)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 16000


def tones(*hertz: float, seconds: float = 2.0, amplitude: float = 0.3) -> Tensor:
    """A sum of sines of equal amplitude."""
    times = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return (amplitude * sum(torch.sin(2 * math.pi * pitch * times) for pitch in hertz))[None].float()


def noise(rows: int = 1, seconds: float = 2.0, seed: int = 0) -> Tensor:
    """White noise of standard deviation 0.1."""
    return 0.1 * torch.randn(rows, int(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def clicks(every: float, seconds: float = 2.0) -> Tensor:
    """Bursts of noise of 10 ms."""
    times = torch.arange(int(seconds * RATE)) / RATE
    return noise(seconds=seconds) * 5 * torch.exp(-300 * (times % every))


def onsets(sound: Tensor) -> Tensor:
    """Times in seconds at which the energy (frames of 5 ms) jumps above half of its largest value."""
    energy = sound[0].unfold(0, 80, 80).square().mean(-1)
    above = energy > energy.max() / 4
    return (above[1:] & ~above[:-1]).nonzero()[:, 0] * 80 / RATE


def peak(sound: Tensor) -> float:
    """Frequency in Hz of the largest value of the spectrum."""
    spectrum = torch.fft.rfft(sound[0] * torch.hann_window(sound.shape[1])).abs()
    return float(spectrum.argmax()) * RATE / sound.shape[1]


def band(sound: Tensor, low: float, high: float) -> float:
    """Energy between two frequencies in Hz."""
    power = torch.fft.rfft(sound[0].double()).abs().square()
    frequencies = torch.fft.rfftfreq(sound.shape[1], 1 / RATE)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


def decibels(sound: Tensor) -> float:
    """Level (RMS) in dB."""
    return 10 * math.log10(float(sound.double().square().mean()))
