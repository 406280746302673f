"""Position dependence: whether a CAV on an unpooled map depends on the position of its concept in the patch.

The energy of a CAV at a position is the part of its squared length there. Every CAV contains noise, which is uneven by
chance, more so with fewer examples. So the unevenness is compared with that of the same CAV made even, plus noise: as
much as two halves of its groups indicate, in the directions of null concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from captum_concepts.backbones.layers import POSITION_AXES

SPLITS = 16  # ways to split the groups, from which the noise of a CAV is estimated
# Of all concepts along one axis together. How strong a signal is, is itself an estimate, which makes false alarms more
# frequent: of 600 families without fault, 30 at 0.05 and 20 at 0.04 (benchmarks/validity/concept_warnings.py).
LEVEL = 0.04


def pieces(directions: Tensor, shape: Mapping[str, int], axis: str) -> Tensor:
    """(..., D) -> float64 (..., P, D / P): the part of each direction at each position of an axis.

    Args:
        directions: flattened in the order T, F, C of the axes that ``shape`` has.
        shape: letter -> size; their product is D.
        axis: "T" or "F".
    """
    letters = [letter for letter in "TFC" if letter in shape]
    lead = directions.dim() - 1
    apart = directions.double().unflatten(lead, [shape[letter] for letter in letters])
    return apart.movedim(lead + letters.index(axis), lead).flatten(lead + 1) if len(letters) > 1 else apart[..., None]


def energy_profile(directions: Tensor, shape: Mapping[str, int], axis: str) -> Tensor:
    """Share of each unit direction's squared length at each position of an axis.

    Args:
        directions, shape, axis: as in ``pieces``.

    Returns:
        (..., size of the axis), whose last axis sums to 1.
    """
    return pieces(directions, shape, axis).square().sum(-1)


def unevenness(profiles: Tensor, usual: Tensor) -> Tensor:
    """Total variation distance of profiles from the usual one: 0 the same, 0.5 all in one half of an even one.

    Args:
        profiles: (..., P).
        usual: (P,), or as many as there are profiles.

    Returns:
        (...).
    """
    return 0.5 * (profiles - usual).abs().sum(-1)


@dataclass
class NullProfiles:
    """Energy and products of null directions along one axis; the directions themselves would fill the memory.

    Attributes:
        profiles: (r, C, P) for each batch, their energy, see ``energy_profile``.
        products: (r, K, P) for each batch, their inner products with each CAV's part at each position, that part
            brought to length 1; each CAV with the null directions of its size class.
    """

    axis: str
    shape: Mapping[str, int]
    units: Tensor
    kinds: np.ndarray
    profiles: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)

    @classmethod
    def along(cls, axis: str, shape: Mapping[str, int], directions: Tensor, kinds: np.ndarray) -> NullProfiles:
        """Of CAVs.

        Args:
            axis, shape: as in ``pieces``.
            directions: (K, D), unit CAVs.
            kinds: int (K,), the kind of each.
        """
        return cls(axis, shape, torch.nn.functional.normalize(pieces(directions, shape, axis), dim=-1), kinds)

    def add(self, random: Tensor) -> None:
        """Add null directions (r, C, D), unit length, by size class; those that are not finite are left out."""
        random = random[torch.isfinite(random).all(-1).all(-1)]
        profiles, products = [], random.new_empty(len(random), *self.units.shape[:2], dtype=torch.float64)
        for kind in range(random.shape[1]):
            apart = pieces(random[:, kind], self.shape, self.axis)
            profiles.append(apart.square().sum(-1))
            members = torch.from_numpy(np.flatnonzero(self.kinds == kind)).to(random.device)
            products[:, members] = torch.einsum("kpd,rpd->rkp", self.units[members], apart)
        self.profiles.append(torch.stack(profiles, 1))
        self.products.append(products)


def position_dependence(
    profiles: Tensor, nulls: NullProfiles, cosines: Tensor, groups: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unevenness of CAVs along an axis, and its upper limit if the position does not matter.

    A CAV of unit length is a signal with the share s of its squared length, and noise. Two halves of the groups have
    the signal in common, so that their CAVs have the cosine c = s / (2 - s). Where position does not matter, the signal
    is spread as energy usually is. So the null is the CAV with the part at each position brought to its usual length,
    times sqrt(s), plus the CAV of a null concept times sqrt(1 - s). The usual energy is the mean over null concepts; it
    is an estimate from a limited number of groups, and is varied with each null by its standard error.

    Args:
        profiles: (K, P), see ``energy_profile``.
        nulls: of null concepts, for the same CAVs.
        cosines: (S, K), between CAVs of the two halves of S cuts; each null takes the next one, as they are uncertain
            themselves. NaN counts as no signal.
        groups: number of groups from which null concepts were drawn.
        generator: random numbers.

    Returns:
        (K,) unevenness, and (K,) the value that it exceeds for some concept of a family of this size in which position
        matters to none only one time in 20.
    """
    random, products = torch.cat(nulls.profiles), torch.cat(nulls.products)
    usual = random.mean((0, 1))
    count, k = products.shape[:2]
    cosine = torch.nan_to_num(cosines.double().to(random.device)).clamp(0, 1)
    share = (2 * cosine / (1 + cosine))[torch.arange(count, device=random.device) % len(cosine)][:, :, None]
    null = torch.empty(count, k, dtype=torch.float64)
    for kind in np.unique(nulls.kinds):
        own = torch.from_numpy(np.flatnonzero(nulls.kinds == kind)).to(random.device)
        noise = random[:, int(kind)]
        known = np.atleast_2d(np.cov(noise.cpu().numpy(), rowvar=False)) / max(groups - 1, 1)
        reference = generator.multivariate_normal(usual.cpu().numpy(), known, size=count, method="eigh")
        even, s = noise[:, None], share[:, own]
        energy = s * usual + (1 - s) * even + 2 * (s * (1 - s)).sqrt() * usual.sqrt() * products[:, own]
        energy = energy / energy.sum(-1, keepdim=True)
        null[:, own.cpu()] = unevenness(energy, torch.from_numpy(reference).to(noise)[:, None]).cpu()
    found = unevenness(profiles, usual).cpu().numpy()
    values = null.numpy()
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    # In units of their concept's spread, all nulls stand for one distribution, whose far end can be read.
    standard = np.sort(((values - mean) / np.where(spread > 0, spread, 1.0)).ravel())
    edge = standard[max(0, len(standard) - 1 - int(LEVEL / max(k, 1) * (1 + len(standard))))]
    return found, mean + edge * spread


def axes_of(shape: Mapping[str, int] | None) -> Sequence[str]:
    """The axes of more than one position."""
    return [letter for letter in POSITION_AXES if shape and shape.get(letter, 1) > 1]
