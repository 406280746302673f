"""How much two sounds differ: the size of what an intervention, or its sham, does to a sound."""

from __future__ import annotations

import torch
from torch import Tensor

BANDS = 64
FLOOR = 80.0  # dB below the loudest band of the first sound, under which nothing is compared


def log_mel(waveforms: Tensor, sample_rate: int) -> Tensor:
    """Mel spectrograms (B, bands, frames) in dB: 64 bands up to half the sample rate, frames of 46 ms every 23 ms."""
    size = max(2 ** round(torch.tensor(0.046 * sample_rate).log2().item()), 16)
    window = torch.hann_window(size, device=waveforms.device)
    spectrum = torch.stft(waveforms, size, size // 2, window=window, return_complex=True, pad_mode="constant")
    power = spectrum.abs().square()
    frequencies = torch.fft.rfftfreq(size, 1 / sample_rate, device=waveforms.device)
    mel = 2595 * (1 + frequencies / 700).log10()
    edges = torch.linspace(0, float(mel[-1]), BANDS + 2, device=waveforms.device)
    width = edges[1]
    weights = (1 - (mel[None] - edges[1:-1, None]).abs() / width).clamp_min(0)
    # Bands narrower than a bin take the nearest bin.
    nearest = torch.nn.functional.one_hot((mel[None] - edges[1:-1, None]).abs().argmin(1), len(mel)).to(weights)
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, nearest)
    return 10 * (weights @ power).clamp_min(1e-20).log10()


def log_mel_difference(first: Tensor, second: Tensor, sample_rate: int) -> Tensor:
    """Root mean square difference of two sounds' mel spectrograms in dB, for each row.

    Args:
        first, second: (B, samples).
        sample_rate: in Hz.

    Returns:
        (B,), in dB; levels more than 80 dB below the loudest of the first sound count as that.

    Example:
        >>> import torch
        >>> sound = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
        >>> log_mel_difference(sound, sound / 2, 16000).round(decimals=1)
        tensor([6.])
    """
    one, other = log_mel(first, sample_rate), log_mel(second, sample_rate)
    floor = one.amax((1, 2), keepdim=True) - FLOOR
    return (one.maximum(floor) - other.maximum(floor)).square().mean((1, 2)).sqrt()
