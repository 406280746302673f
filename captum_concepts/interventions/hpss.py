"""Harmonic-percussive separation by median filters (Fitzgerald 2010), on the device of the sound."""

from __future__ import annotations

import torch
from scipy.ndimage import median_filter
from torch import Tensor
from torch.nn.functional import pad

WINDOW = 0.093  # seconds: 2048 samples at 22,050 Hz
KERNEL_SECONDS = 0.7  # of the median over time: 31 frames at that rate
KERNEL_HERTZ = 330.0  # of the median over frequency: 31 bins


def _median(values: Tensor, size: int) -> Tensor:
    """Running median of an odd size along the last axis of (B, R, L), edges repeated.

    On the CPU all rows are one line for scipy's filter, which is ten times as fast as `torch.median` there. On other
    devices one sound is done at a time, as each value is copied ``size`` times.
    """
    padded = pad(values, (size // 2, size // 2), mode="replicate")
    if values.device.type == "cpu":
        line = median_filter(padded.numpy().ravel(), size=size)
        return torch.from_numpy(line).reshape(padded.shape)[..., size // 2 : size // 2 + values.shape[-1]]
    return torch.stack([row.unfold(-1, size, 1).median(-1).values for row in padded])


def harmonic_percussive(waveforms: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """The harmonic and the percussive part of each row; their sum is the sound.

    A partial is a ridge along time, an onset one along frequency: the squares of the two medians of the magnitudes
    share out each bin.

    Args:
        waveforms: (B, samples).
        sample_rate: in Hz.

    Returns:
        Two tensors (B, samples).
    """
    size = max(2 ** round(torch.tensor(WINDOW * sample_rate).log2().item()), 16)
    hop = size // 4
    window = torch.hann_window(size, device=waveforms.device)
    spectrum = torch.stft(waveforms, size, hop, window=window, return_complex=True, pad_mode="constant")
    magnitude = spectrum.abs()
    along_time = int(KERNEL_SECONDS * sample_rate / hop) // 2 * 2 + 1
    along_frequency = int(KERNEL_HERTZ * size / sample_rate) // 2 * 2 + 1
    harmonic = _median(magnitude, along_time).square()
    percussive = _median(magnitude.transpose(1, 2), along_frequency).transpose(1, 2).square()
    total = harmonic + percussive
    share = torch.where(total > 0, harmonic / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)
    part = torch.istft(spectrum * share, size, hop, window=window, length=waveforms.shape[1])
    return part, waveforms - part
