"""Filters without delay, as gains over frequency."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PADDING = 0.1  # seconds of silence behind the sound, so that its end does not run into its beginning


def filter_by_gain(waveforms: Tensor, sample_rate: int, response: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the spectrum by a real gain, so that no frequency is delayed.

    Args:
        waveforms: (B, samples).
        sample_rate: in Hz.
        response: frequencies in Hz (F,) -> gains (F,).

    Returns:
        (B, samples).
    """
    samples = waveforms.shape[1]
    length = samples + max(int(PADDING * sample_rate), 1)
    frequencies = torch.fft.rfftfreq(length, 1 / sample_rate, device=waveforms.device)
    return torch.fft.irfft(torch.fft.rfft(waveforms, length) * response(frequencies), length)[:, :samples]


def convolve(waveforms: Tensor, impulse_response: Tensor) -> Tensor:
    """Waveforms (B, samples) through an impulse response (taps,), cut to the length of the waveforms."""
    samples = waveforms.shape[1]
    length = samples + len(impulse_response) - 1
    spectrum = torch.fft.rfft(waveforms, length) * torch.fft.rfft(impulse_response, length)
    return torch.fft.irfft(spectrum, length)[:, :samples]
