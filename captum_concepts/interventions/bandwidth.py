"""Bandwidth: take away what is above a frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.interventions.filtering import filter_by_gain
from captum_concepts.interventions.intervention import Intervention

ORDER = 8  # of the Butterworth response that is applied forwards and backwards: 6 dB down at the cut-off


@dataclass(frozen=True)
class Bandwidth(Intervention):
    """Low-pass at a cut-off in Hz, where the gain is -6 dB; an octave above it is -96 dB.

    The response is that of a Butterworth filter of order 8 run forwards and backwards, so that nothing is delayed. The
    level is not restored: what is below the cut-off stays as it was. The sham filters with a flat response.

    Raises:
        InputError: at `apply`, a cut-off at or above half the sample rate.

    Example:
        >>> import torch
        >>> top = torch.tensor([[1.0, -1.0]]).repeat(1, 8000)  # a tone at half the sample rate
        >>> bool(Bandwidth(2000).apply(top, 16000)[:, 2000:-2000].abs().max() < 1e-6)
        True
    """

    name: ClassVar[str] = "bandwidth"
    unit: ClassVar[str] = "Hz"
    keeps: ClassVar[str] = "everything below the cut-off, timing"
    changes: ClassVar[str] = "the band above the cut-off is gone"
    low: ClassVar[float] = 50.0
    high: ClassVar[float] = 96000.0
    usual: ClassVar[float] = 2000.0

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        if self.strength >= sample_rate / 2:
            raise InputError(
                f"strength={self.strength:g}: a sample rate of {sample_rate} Hz has nothing above this frequency; "
                f"give a cut-off below {sample_rate / 2:g} Hz"
            )

        def response(frequencies: Tensor) -> Tensor:
            if self.is_sham:
                return torch.ones_like(frequencies)
            return 1 / (1 + (frequencies / self.strength) ** (2 * ORDER))

        return filter_by_gain(waveforms, sample_rate, response)
