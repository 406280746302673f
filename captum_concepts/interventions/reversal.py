"""Reversal: play the sound backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.interventions.intervention import Intervention

FADE = 0.005  # seconds on either side of a join


@dataclass(frozen=True)
class Reversal(Intervention):
    """Play pieces of a length in seconds backwards, each in its place; a sound that is shorter is one piece.

    Between pieces the sound fades out and in within 5 ms each, so that no join clicks. The sham has the fades only.

    Example:
        >>> import torch
        >>> Reversal(60).apply(torch.tensor([[1.0, 2.0, 3.0]]), 16000)
        tensor([[3., 2., 1.]])
    """

    name: ClassVar[str] = "reversal"
    unit: ClassVar[str] = "s per piece"
    keeps: ClassVar[str] = "long-term spectrum, level, order of the pieces"
    changes: ClassVar[str] = "direction of time: attacks become swells, decays are cut off"
    low: ClassVar[float] = 0.05
    high: ClassVar[float] = 3600.0
    usual: ClassVar[float] = 60.0

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        samples = waveforms.shape[1]
        piece = min(max(round(self.strength * sample_rate), 1), samples)
        changed = waveforms if self.is_sham else torch.cat([part.flip(1) for part in waveforms.split(piece, 1)], 1)
        places = torch.arange(samples, device=waveforms.device)
        joins = torch.arange(piece, samples, piece, device=waveforms.device)
        if not len(joins):
            return changed.clone()
        after = torch.bucketize(places, joins, right=True)
        nearest = torch.minimum(
            (places - joins[(after - 1).clamp_min(0)]).abs(),
            (joins[after.clamp_max(len(joins) - 1)] - 1 - places).abs(),
        )
        return changed * (nearest / max(FADE * sample_rate, 1.0)).clamp_max(1)
