"""What an intervention is: one stated change of a sound, its sham and its opposite."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class Intervention(ABC):
    """One change of a sound, of a stated strength. Subclasses set the class attributes and write `_change`.

    The result depends on the waveform, the sample rate and the seed. What is random is drawn from the seed and a row's
    samples (`row_key`), never from the row's place in the batch, so that a clip gives the same result in any company.

    Args:
        strength: how much is changed, in `unit`.
        is_sham: do the same processing and change nothing; set by `sham`.

    Attributes:
        name: the name it is registered under.
        unit: unit of the strength.
        keeps: what stays as it was, in words.
        changes: what is changed, in words.
        low, high: the smallest and the largest strength, both allowed.
        neutral: a strength that would change nothing and is refused, or None.
        usual: a strength to begin with.

    Raises:
        InputError: a strength that is no finite number, out of range or neutral.

    Example:
        >>> import torch
        >>> class Halve(Intervention):
        ...     name, unit, keeps, changes = "halve", "times", "everything else", "the level"
        ...     low, high, neutral, usual = 1, 8, None, 1
        ...     def _change(self, waveforms, sample_rate, seed):
        ...         return waveforms if self.is_sham else waveforms / 2**self.strength
        >>> Halve(1).apply(torch.ones(1, 3), 16000)
        tensor([[0.5000, 0.5000, 0.5000]])
        >>> Halve(1).sham().apply(torch.ones(1, 3), 16000)
        tensor([[1., 1., 1.]])
    """

    strength: float
    is_sham: bool = field(default=False, kw_only=True)

    name: ClassVar[str]
    unit: ClassVar[str]
    keeps: ClassVar[str]
    changes: ClassVar[str]
    low: ClassVar[float]
    high: ClassVar[float]
    neutral: ClassVar[float | None] = None
    usual: ClassVar[float]

    def __post_init__(self) -> None:
        value = self.strength
        remedy = f"give {self.low:g} to {self.high:g} {self.unit}, e.g. {self.usual:g}"
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"strength={short_repr(value)}: {self.name} takes a finite number; {remedy}")
        if not self.low <= value <= self.high:
            raise InputError(f"strength={short_repr(value)}: out of the range of {self.name}; {remedy}")
        if value == self.neutral:
            raise InputError(f"strength={short_repr(value)}: {self.name} would change nothing; {remedy}")

    @property
    def label(self) -> str:
        """Name, strength and unit, e.g. ``stretch 1.25 × tempo``; a sham says so."""
        return f"{self.name} {self.strength:g} {self.unit}" + (" (sham)" if self.is_sham else "")

    def apply(self, waveforms: Tensor, sample_rate: int, seed: int = 0) -> Tensor:
        """Change a batch of waveforms.

        Args:
            waveforms: (B, samples), floating point, finite, on any device.
            sample_rate: samples per second.
            seed: of everything random.

        Returns:
            (B, samples), float32, on the same device. Values may leave [-1, 1]; nothing is clipped.

        Raises:
            InputError: waveforms of another shape or type or not finite, a sample rate that is no positive integer, or
                a strength that this sample rate does not allow.
        """
        if not isinstance(waveforms, Tensor) or waveforms.dim() != 2 or not waveforms.is_floating_point():
            shape = f"{tuple(waveforms.shape)}" if isinstance(waveforms, Tensor) else short_repr(waveforms)
            raise InputError(f"waveforms={shape}: not waveforms; give a floating-point tensor (batch, samples)")
        if isinstance(sample_rate, bool) or not isinstance(sample_rate, int) or sample_rate < 1:
            raise InputError(f"sample_rate={short_repr(sample_rate)}: not a sample rate; give a positive integer in Hz")
        if not bool(torch.isfinite(waveforms).all()):
            raise InputError("waveforms=nan or inf: samples that are not finite; leave these rows out")
        with torch.no_grad():
            sound = waveforms.detach().float()
            if sound.numel() == 0:
                return sound.clone()
            return self._change(sound, sample_rate, seed).float()

    def sham(self) -> Intervention:
        """The same processing with nothing changed: what the processing alone does to a model."""
        return dataclasses.replace(self, is_sham=True)

    def opposite(self) -> Intervention | None:
        """The same change the other way round, or None where there is none."""
        return None

    @abstractmethod
    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        """`apply` after its checks: (B, samples) float32 with at least one sample in, the same shape out."""
