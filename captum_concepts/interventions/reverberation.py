"""Reverberation: a synthetic room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.interventions.filtering import convolve
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import at_level_of, gain
from captum_concepts.seeding import generator
from captum_concepts.text import short_repr


def impulse_response(seconds: float, ratio: float, sample_rate: int, seed: int) -> Tensor:
    """A unit impulse followed by noise that decays exponentially.

    Args:
        seconds: reverberation time: the noise falls by 60 dB in this time, and ends there.
        ratio: energy of the noise relative to the impulse, in dB.
        sample_rate: in Hz.
        seed: of the noise.

    Returns:
        (taps,).
    """
    taps = max(int(seconds * sample_rate), 1)
    times = torch.arange(1, taps + 1) / sample_rate
    tail = torch.randn(taps, generator=generator(seed, "reverberation"))
    tail = tail * torch.exp(-math.log(1000.0) * times / seconds)
    return torch.cat([torch.ones(1), tail / tail.norm() * gain(ratio)])


@dataclass(frozen=True)
class Reverberation(Intervention):
    """Put the sound into a synthetic room of a reverberation time in seconds.

    The impulse response is a direct impulse and noise that decays by 60 dB in that time; it is the same for all rows
    and follows from the seed. Before its start a sound has no tail. The RMS of each row is restored. The sham
    convolves with the impulse alone.

    Args:
        strength: reverberation time (RT60) in seconds.
        ratio: energy of the reverberation relative to the direct sound, in dB, from -60 to 40.

    Example:
        >>> import torch
        >>> click = torch.zeros(1, 16000)
        >>> click[0, 0] = 1
        >>> wet = Reverberation(0.5).apply(click, 16000)[0]
        >>> bool(wet[:100].abs().max() > wet[100:8000].abs().max() > 0)
        True
    """

    ratio: float = 0.0

    name: ClassVar[str] = "reverberation"
    unit: ClassVar[str] = "s"
    keeps: ClassVar[str] = "the direct sound's timing and pitch, level (RMS)"
    changes: ClassVar[str] = "room: decays are longer, onsets are blurred"
    low: ClassVar[float] = 0.05
    high: ClassVar[float] = 20.0
    usual: ClassVar[float] = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, (int, float)) or not -60 <= self.ratio <= 40:
            raise InputError(f"ratio={short_repr(self.ratio)}: not a level; give -60 to 40 dB, e.g. 0")

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        response = impulse_response(self.strength, self.ratio, sample_rate, seed).to(waveforms.device)
        if self.is_sham:
            response[1:] = 0
        return at_level_of(convolve(waveforms, response), waveforms)
