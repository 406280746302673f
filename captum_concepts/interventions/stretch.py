"""Tempo without pitch: play a sound faster or slower."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.wsola import time_stretch

JOIN = 0.05  # seconds over which the end of a sound and its repetition are cross-faded


def repeated(waveforms: Tensor, length: int, fade: int) -> Tensor:
    """Waveforms (B, samples) played again from their start until they are long enough; joins are cross-faded."""
    samples = waveforms.shape[1]
    fade = min(fade, samples // 4)
    period = samples - fade
    count = -(-max(length - samples, 0) // period) + 1
    ramp = torch.linspace(0, 1, fade + 2, device=waveforms.device)[1:-1]
    result = waveforms.new_zeros(waveforms.shape[0], period * count + fade)
    for i in range(count):
        copy = waveforms.clone()
        if i > 0:
            copy[:, :fade] *= ramp
        if i < count - 1:
            copy[:, period:] *= 1 - ramp
        result[:, i * period : i * period + samples] += copy
    return result[:, :length]


@dataclass(frozen=True)
class Stretch(Intervention):
    """Change the tempo by a factor: above 1 is faster.

    The result is as long as the sound. Slower, its end is cut off; faster, the sound goes on from its start, joined by
    a cross-fade of 50 ms. The sham plays it slower and then faster again, by as much. The stretching is that of
    :mod:`captum_concepts.interventions.wsola`, which weakens some very short attacks; the range ends where it
    spoils too many.

    Example:
        >>> import torch
        >>> Stretch(1.25).apply(torch.zeros(1, 16000), 16000).shape
        torch.Size([1, 16000])
        >>> Stretch(1.25).opposite().label
        'stretch 0.8 × tempo'
    """

    name: ClassVar[str] = "stretch"
    unit: ClassVar[str] = "× tempo"
    keeps: ClassVar[str] = "pitch, timbre, level"
    changes: ClassVar[str] = "tempo, durations, the part of the sound that is in the patch"
    low: ClassVar[float] = 0.7
    high: ClassVar[float] = 1.43
    neutral: ClassVar[float | None] = 1.0
    usual: ClassVar[float] = 1.25

    def opposite(self) -> Intervention:
        return dataclasses.replace(self, strength=1 / self.strength)

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        samples = waveforms.shape[1]
        if self.is_sham:
            slower = min(self.strength, 1 / self.strength)
            longer = time_stretch(waveforms, sample_rate, slower)
            back = time_stretch(longer, sample_rate, longer.shape[1] / samples)
            return back[:, :samples]
        needed = int(samples * self.strength) + 2
        source = repeated(waveforms, needed, int(JOIN * sample_rate)) if needed > samples else waveforms
        return time_stretch(source, sample_rate, self.strength)[:, :samples]
