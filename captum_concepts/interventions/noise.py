"""Noise: add white or pink noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.interventions.filtering import filter_by_gain
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import at_level_of, gain, normal_rows
from captum_concepts.text import short_repr

COLOURS = ("white", "pink")
LOWEST = 20.0  # Hz; pink noise is flat below


@dataclass(frozen=True)
class Noise(Intervention):
    """Add noise at a level in dB relative to the RMS of each row; a silent row stays silent.

    The sham adds it at zero gain.

    Args:
        strength: level of the noise in dB relative to the sound.
        colour: "white" or "pink" (3 dB less per octave).

    Example:
        >>> import torch
        >>> sound = torch.ones(1, 16000)
        >>> (Noise(-20).apply(sound, 16000) - sound).square().mean().sqrt().round(decimals=3)
        tensor(0.1000)
    """

    colour: str = "white"

    name: ClassVar[str] = "noise"
    unit: ClassVar[str] = "dB"
    keeps: ClassVar[str] = "the sound itself, under the noise"
    changes: ClassVar[str] = "noise floor, level"
    low: ClassVar[float] = -80.0
    high: ClassVar[float] = 40.0
    usual: ClassVar[float] = -10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colour not in COLOURS:
            raise InputError(f"colour={short_repr(self.colour)}: unknown; give {' or '.join(map(repr, COLOURS))}")

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        noise = normal_rows(waveforms, seed, "noise")
        if self.colour == "pink":
            noise = filter_by_gain(noise, sample_rate, lambda frequencies: frequencies.clamp_min(LOWEST) ** -0.5)
        return waveforms + at_level_of(noise, waveforms) * (0.0 if self.is_sham else gain(self.strength))
