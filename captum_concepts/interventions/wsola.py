"""Time stretching by overlap-add of aligned frames (WSOLA, Verhelst and Roelands 1993), in batches on the device.

Chosen by measurement (``benchmarks/validity/interventions.py``): the middle patches (3 s at 16 kHz) of ten GTZAN
tracks, stretched by 0.8 and then by 1.25. Change of the log-mel spectrogram, and of the logits of MSD-VGG (root mean
square over 50 tags of the mean over tracks):

    phase vocoder (torchaudio, 2048)  7.2 dB  0.40      Rubber Band (pedalboard)  2.4 dB  0.23
    phase vocoder (torchaudio, 1024)  7.4 dB  0.43      Signalsmith Stretch       1.8 dB  0.16
                                                        this                      1.9 dB  0.10

On ten other tracks frames of 40 to 120 ms gave 0.10 to 0.12 logits.

Limits: of clicks of 10 ms, alone and under a chord, 4 % are lost or doubled at a rate of 0.8, 15 % at 0.67, 23 % at
1.25 and 39 % at 1.5. Longer attacks fare better.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

WINDOW = 0.06  # seconds of a frame
TOLERANCE = 0.015  # seconds that a frame may be moved either way to fit what comes before


def time_stretch(
    waveforms: Tensor, sample_rate: int, rate: float, window: float = WINDOW, tolerance: float = TOLERANCE
) -> Tensor:
    """Play waveforms ``rate`` times as fast at the same pitch.

    Each frame of the result is copied from the place in the source that the rate asks for, moved within the tolerance
    to where it correlates best with the continuation of the frame before. Correlations are in double precision, so
    that a row's result does not depend on the other rows.

    Args:
        waveforms: (B, samples).
        sample_rate: in Hz.
        rate: above 1 is faster.
        window: seconds of a frame.
        tolerance: seconds that a frame may be moved either way.

    Returns:
        (B, samples / rate, rounded).
    """
    rows, samples = waveforms.shape
    length = max(round(samples / rate), 1)
    hop = max(int(window * sample_rate / 2), 4)
    size, reach = 2 * hop, max(int(tolerance * sample_rate), 1)
    taper = torch.hann_window(size, device=waveforms.device)
    frames = length // hop + 2
    front = hop + reach
    source = pad(waveforms, (front, round(frames * hop * rate) + 2 * size + 2 * reach - samples + hop))
    result = waveforms.new_zeros(rows, (frames + 1) * hop)
    steps = torch.arange(size, device=waveforms.device)
    # Frame m is centred on m * hop of the result and m * hop * rate of the sound; its first sample is a hop earlier.
    start = torch.full((rows, 1), front - hop, device=waveforms.device)
    for frame in range(frames):
        if frame:
            ideal = front - hop + round(frame * hop * rate)
            offset = _best_offset(
                source[:, ideal - reach : ideal + reach + size], source.gather(1, start + hop + steps)
            )
            start = ideal - reach + offset
        result[:, frame * hop : frame * hop + size] += source.gather(1, start + steps) * taper
    return result[:, hop : hop + length]


def _best_offset(region: Tensor, template: Tensor) -> Tensor:
    """Where in the region (B, size + 2 reach) the template (B, size) correlates best, (B, 1); ties: the middle."""
    size = template.shape[1]
    region, template = region.double(), template.double()
    length = region.shape[1]
    products = torch.fft.irfft(torch.fft.rfft(region) * torch.fft.rfft(template, length).conj(), length)
    energy = pad(region.square().cumsum(1), (1, 0))
    places = length - size + 1
    norm = (energy[:, size:] - energy[:, :places]).clamp_min(0).sqrt()
    score = products[:, :places] / (norm + 1e-9 * norm.amax(1, keepdim=True) + 1e-30)
    middle = places // 2
    silent = norm.amax(1, keepdim=True) * template.norm(dim=1, keepdim=True) < 1e-12
    return torch.where(silent, torch.full_like(silent, middle, dtype=torch.long), score.argmax(1, keepdim=True))
