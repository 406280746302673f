"""Parts of small networks for tests."""

from __future__ import annotations

import torch
from torch import Tensor


def band_energies(waveforms: Tensor, bands: int, frames: int = 1) -> Tensor:
    """(B, samples) to (B, frames, bands): log(1 + mean magnitude) of bands of equal width.

    The samples are cut into frames without overlap; bins beyond the last whole band are left out.
    """
    spectrum = torch.fft.rfft(waveforms.unflatten(1, (frames, -1))).abs()
    width = spectrum.shape[2] // bands
    return torch.log1p(spectrum[:, :, : bands * width].unflatten(2, (bands, width)).mean(3))
