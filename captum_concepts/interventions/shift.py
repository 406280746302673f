"""Register: pitch without tempo.

Chosen by measurement, as in :mod:`captum_concepts.interventions.wsola`. Two semitones down and up again change the
log-mel spectrogram and the logits of MSD-VGG by 2.3 dB and 0.11 here, by 6.0 dB and 0.25 with Rubber Band (pedalboard),
by 8.4 dB and 0.41 with the phase vocoder (torchaudio).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.wsola import time_stretch

PADDING = 0.1  # seconds of silence around a sound while it is resampled


def resampled(waveforms: Tensor, samples: int, sample_rate: int) -> Tensor:
    """The same sound (B, any) on ``samples`` samples, by its spectrum; what is too high for the new rate goes."""
    before = waveforms.shape[1]
    # Padded by whole multiples of a common step, so that the ratio of the lengths stays exact.
    margin = max(1, round(PADDING * sample_rate / before * 64)) / 64
    front, kept = round(margin * before), round(margin * samples)
    padded = pad(waveforms, (front, front))
    length = samples + 2 * kept
    spectrum = torch.fft.rfft(padded)[:, : length // 2 + 1]
    result = torch.fft.irfft(spectrum, length) * (length / padded.shape[1])
    return result[:, kept : kept + samples]


def pitch_shift(waveforms: Tensor, sample_rate: int, semitones: float) -> Tensor:
    """Waveforms (B, samples) higher by ``semitones``: stretched in time, then resampled to their length."""
    samples = waveforms.shape[1]
    stretched = time_stretch(waveforms, sample_rate, 2 ** (-semitones / 12))
    return resampled(stretched, samples, sample_rate)


@dataclass(frozen=True)
class Shift(Intervention):
    """Transpose by semitones: above 0 is higher. Resonances move with the pitch, as on a tape.

    Higher, what would lie above half the sample rate goes; lower, the band at the top is left empty. The sham shifts
    down and then up again by as much, which loses no band.

    Example:
        >>> import torch
        >>> Shift(2).apply(torch.zeros(1, 16000), 16000).shape
        torch.Size([1, 16000])
        >>> Shift(2).opposite().strength
        -2
    """

    name: ClassVar[str] = "shift"
    unit: ClassVar[str] = "semitones"
    keeps: ClassVar[str] = "tempo, rhythm, intervals, level"
    changes: ClassVar[str] = "pitch and, with it, the place of resonances (timbre)"
    low: ClassVar[float] = -6.0
    high: ClassVar[float] = 6.0
    neutral: ClassVar[float | None] = 0.0
    usual: ClassVar[float] = 2.0

    def opposite(self) -> Intervention:
        return dataclasses.replace(self, strength=-self.strength)

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        if self.is_sham:
            lower = pitch_shift(waveforms, sample_rate, -abs(self.strength))
            return pitch_shift(lower, sample_rate, abs(self.strength))
        return pitch_shift(waveforms, sample_rate, self.strength)
