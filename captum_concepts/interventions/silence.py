"""Silence: mute a stretch of the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import uniform_rows

FADE = 0.005  # seconds


@dataclass(frozen=True)
class Silence(Intervention):
    """Mute one stretch that is a share of the sound's duration, with fades of 5 ms outside it.

    Where it begins is drawn from the seed and the row's samples. The sham multiplies by 1 throughout.

    Example:
        >>> import torch
        >>> muted = Silence(0.25).apply(torch.ones(1, 16000), 16000)
        >>> int((muted == 0).sum())
        4000
    """

    name: ClassVar[str] = "silence"
    unit: ClassVar[str] = "of the duration"
    keeps: ClassVar[str] = "the rest of the sound"
    changes: ClassVar[str] = "one stretch is silent"
    low: ClassVar[float] = 0.01
    high: ClassVar[float] = 1.0
    usual: ClassVar[float] = 0.5

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        samples = waveforms.shape[1]
        length = round(self.strength * samples)
        start = (uniform_rows(waveforms, seed, "silence") * (samples - length + 1)).long()[:, None]
        places = torch.arange(samples, device=waveforms.device)
        outside = torch.maximum(start - places, places - (start + length - 1)).clamp_min(0)
        envelope = (outside / max(FADE * sample_rate, 1.0)).clamp_max(1)
        return waveforms * (torch.ones_like(envelope) if self.is_sham else envelope)
