"""Level: louder or quieter."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import gain


@dataclass(frozen=True)
class Level(Intervention):
    """Change the level by decibels: above 0 is louder. Nothing is clipped. The sham multiplies by 1.

    Example:
        >>> import torch
        >>> Level(-20).apply(torch.ones(1, 2), 16000)
        tensor([[0.1000, 0.1000]])
    """

    name: ClassVar[str] = "level"
    unit: ClassVar[str] = "dB"
    keeps: ClassVar[str] = "everything but the level"
    changes: ClassVar[str] = "level"
    low: ClassVar[float] = -60.0
    high: ClassVar[float] = 60.0
    neutral: ClassVar[float | None] = 0.0
    usual: ClassVar[float] = -12.0

    def opposite(self) -> Intervention:
        return dataclasses.replace(self, strength=-self.strength)

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        return waveforms * (1.0 if self.is_sham else gain(self.strength))
