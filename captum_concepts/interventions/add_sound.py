"""Added sound: mix a concept's own sound into a clip at a stated level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from captum_concepts.audio._torchaudio import load
from captum_concepts.errors import InputError
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.levels import at_level_of, gain, row_key
from captum_concepts.seeding import draw_seed
from captum_concepts.text import short_repr

PLACEMENTS = ("loop", "once")


def add_at_level(hosts: Tensor, donors: Tensor, level: float) -> Tensor:
    """Add one donor to each host at a level relative to the host.

    Args:
        hosts: (B, samples).
        donors: (B, samples).
        level: RMS of the donor relative to the RMS of its host, in dB.

    Returns:
        (B, samples); a host without sound or with a donor without sound comes back as it was.

    Example:
        >>> import torch
        >>> add_at_level(torch.ones(1, 3), torch.full((1, 3), 0.5), -20.0)
        tensor([[1.1000, 1.1000, 1.1000]])
    """
    return hosts + at_level_of(donors, hosts) * gain(level)


@dataclass(frozen=True, eq=False)
class AddSound(Intervention):
    """Add donors: sounds of a concept, each brought to a level in dB relative to the RMS of the host.

    Which donors a host gets follows from the seed and the samples of both, not from any order. The sum is not scaled
    and not clipped, so that the host in it is as it was; a silent host stays silent. The sham adds at zero gain.

    Args:
        strength: level of the added sound relative to the host, in dB. Several donors together have this level.
        donors: waveforms (samples,), at least one, none of them silent.
        donor_rate: their sample rate in Hz; None: that of the hosts. They are resampled where it differs.
        donors_per_host: how many different donors are added to each host.
        placement: "loop" repeats a donor from the start to the end of the host. "once" puts it in at a place that is
            drawn, at the level that it has while it sounds. A longer donor is cut to a section in both.

    Raises:
        InputError: no donors, a donor that is no waveform or is silent, or an option out of range.

    Example:
        >>> import torch
        >>> bell = torch.sin(torch.arange(4000) * 0.3)
        >>> host = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
        >>> added = AddSound(-6, [bell]).apply(host, 16000) - host
        >>> (20 * (added.square().mean().sqrt() / host.square().mean().sqrt()).log10()).round(decimals=2)
        tensor(-6.)
    """

    donors: Sequence[Tensor] = field(default=(), repr=False)
    donor_rate: int | None = None
    donors_per_host: int = 1
    placement: str = "loop"

    name: ClassVar[str] = "add_sound"
    unit: ClassVar[str] = "dB"
    keeps: ClassVar[str] = "the host itself, under the added sound"
    changes: ClassVar[str] = "the concept's sound is present; level"
    low: ClassVar[float] = -60.0
    high: ClassVar[float] = 40.0
    usual: ClassVar[float] = -5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.donors, (Sequence, Tensor)) or len(self.donors) == 0:
            raise InputError("donors=(): no sound to add; give at least one waveform of the concept")
        for number, donor in enumerate(self.donors):
            if not isinstance(donor, Tensor) or donor.dim() != 1 or not donor.is_floating_point():
                raise InputError(f"donors[{number}]: not a waveform; give a floating-point tensor (samples,)")
            if not bool(torch.isfinite(donor).all()) or not bool(donor.any()):
                raise InputError(f"donors[{number}]: silent, empty or not finite; leave it out")
        rate = self.donor_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int) or rate < 1):
            raise InputError(f"donor_rate={short_repr(rate)}: not a sample rate; give a positive integer in Hz")
        count = self.donors_per_host
        available = len(self.donors)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= available:
            raise InputError(
                f"donors_per_host={short_repr(count)}: not a number of the {available} donors; give 1 to {available}"
            )
        if self.placement not in PLACEMENTS:
            raise InputError(
                f"placement={short_repr(self.placement)}: unknown; give {' or '.join(map(repr, PLACEMENTS))}"
            )

    def chosen(self, row: Tensor, seed: int = 0) -> list[int]:
        """Numbers of the donors that are added to a host (samples,), for a resampling of pairs."""
        return self._chosen(row_key(row), [row_key(donor) for donor in self.donors], seed)

    def _chosen(self, host: str, donors: list[str], seed: int) -> list[int]:
        ranks = sorted((draw_seed(seed, "donor", host, donor), i) for i, donor in enumerate(donors))
        return [i for _, i in ranks[: self.donors_per_host]]

    def _change(self, waveforms: Tensor, sample_rate: int, seed: int) -> Tensor:
        if self.is_sham:
            return waveforms.clone()
        keys = [row_key(donor) for donor in self.donors]
        sounds = [self._resampled(donor, sample_rate) for donor in self.donors]
        rows = []
        for row in waveforms.cpu():
            key = row_key(row)
            added = torch.zeros_like(row)
            for i in self._chosen(key, keys, seed):
                added += self._placed(sounds[i], row, draw_seed(seed, "place", key, keys[i]))
            if self.donors_per_host > 1:
                added = at_level_of(added[None], row[None])[0]
            rows.append(added)
        return waveforms + torch.stack(rows).to(waveforms.device) * gain(self.strength)

    def _resampled(self, donor: Tensor, sample_rate: int) -> Tensor:
        sound = donor.detach().float().cpu()
        if self.donor_rate in (None, sample_rate):
            return sound
        functional, _ = load()
        resampled: Tensor = functional.resample(sound, self.donor_rate, sample_rate)
        return resampled

    def _placed(self, donor: Tensor, row: Tensor, place: int) -> Tensor:
        """The donor on the samples of a host, its level that of the host: over all of it, or while it sounds."""
        samples, length = len(row), len(donor)
        if length >= samples:
            start = place % (length - samples + 1)
            return at_level_of(donor[None, start : start + samples], row[None])[0]
        if self.placement == "loop":
            repeats = donor.repeat(-(-samples // length))[:samples]
            return at_level_of(repeats[None], row[None])[0]
        result = torch.zeros_like(row)
        start = place % (samples - length + 1)
        result[start : start + length] = at_level_of(donor[None], row[None])[0]
        return result
