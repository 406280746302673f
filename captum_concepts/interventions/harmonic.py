"""Harmonic part: take it out of the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from captum_concepts.interventions.hpss import harmonic_percussive
from captum_concepts.interventions.intervention import Intervention


@dataclass(frozen=True)
class Harmonic(Intervention):
    """Remove a share of the harmonic part; 1 removes all of it and leaves the percussive part.

    The parts are separated by median filters of the spectrogram. The level is not restored: what stays is as loud as
    it was. The sham separates the parts and adds them up again.

    Example:
        >>> import torch
        >>> Harmonic(1.0).apply(torch.zeros(1, 16000), 16000).abs().max()
        tensor(0.)
    """

    name: ClassVar[str] = "harmonic"
    unit: ClassVar[str] = "of the harmonic part removed"
    keeps: ClassVar[str] = "the percussive part"
    changes: ClassVar[str] = "the harmonic part is weaker or gone"
    low: ClassVar[float] = 0.01
    high: ClassVar[float] = 1.0
    usual: ClassVar[float] = 1.0

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        harmonic, percussive = harmonic_percussive(waveforms, sample_rate)
        share = 0.0 if self.is_sham else self.strength
        return percussive + (1 - share) * harmonic
