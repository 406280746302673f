"""Brightness: tilt of the spectrum at the same level."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.interventions.filtering import filter_by_gain
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import at_level_of

PIVOT = 1000.0  # Hz; the level is restored afterwards, so that this only limits the gains
LOWEST, HIGHEST = 62.5, 16000.0  # Hz; the tilt is flat beyond


@dataclass(frozen=True)
class Brightness(Intervention):
    """Tilt the spectrum by decibels per octave between 62.5 Hz and 16 kHz: above 0 is brighter.

    A filter without delay; then the RMS of each row is restored. The sham filters with a flat response.

    Example:
        >>> import torch
        >>> sound = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
        >>> brighter = Brightness(3).apply(sound, 16000)
        >>> bool(brighter.diff().square().sum() > sound.diff().square().sum())
        True
    """

    name: ClassVar[str] = "brightness"
    unit: ClassVar[str] = "dB per octave"
    keeps: ClassVar[str] = "level (RMS), pitch, timing"
    changes: ClassVar[str] = "tilt of the spectrum"
    low: ClassVar[float] = -12.0
    high: ClassVar[float] = 12.0
    neutral: ClassVar[float | None] = 0.0
    usual: ClassVar[float] = 3.0

    def opposite(self) -> Intervention:
        return dataclasses.replace(self, strength=-self.strength)

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        slope = 0.0 if self.is_sham else self.strength

        def response(frequencies: Tensor) -> Tensor:
            octaves = (frequencies.clamp(LOWEST, HIGHEST) / PIVOT).log2()
            return torch.as_tensor(10.0) ** (slope * octaves / 20)

        return at_level_of(filter_by_gain(waveforms, sample_rate, response), waveforms)
