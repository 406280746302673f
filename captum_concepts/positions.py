"""Whether a CAV on an unpooled map encodes where in the patch its concept sounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from captum_concepts.backbones import Backbone, TorchBackbone

AXES = {"T": "time", "F": "frequency"}


def energy_profile(directions: Tensor, shape: Mapping[str, int], axis: str) -> Tensor:
    """Share of each CAV's squared length that lies at each position of an axis.

    Args:
        directions: (K, D), unit length, flattened in the order T, F, C of the axes that ``shape`` has.
        shape: letter -> size; their product is D.
        axis: "T" or "F".

    Returns:
        (K, size of the axis), rows sum to 1.
    """
    letters = [letter for letter in "TFC" if letter in shape]
    energy = directions.double().square().unflatten(1, [shape[letter] for letter in letters])
    gone = [1 + place for place, letter in enumerate(letters) if letter != axis]
    return energy.sum(gone) if gone else energy


def unevenness(profiles: Tensor, usual: Tensor) -> Tensor:
    """Total variation distance of profiles from the usual one: 0 the same, 0.5 all in one half of an even one.

    Args:
        profiles: (K, P).
        usual: (P,).

    Returns:
        (K,).
    """
    return 0.5 * (profiles - usual).abs().sum(1)


def unpooled_shapes(backbone: Backbone, layers: tuple[str, ...], pool: str) -> dict[str, dict[str, int]]:
    """Sizes of the axes of layers whose time and frequency are kept; empty for pooled ones and for black boxes.

    One patch of silence goes through the model.
    """
    if pool != "none" or not isinstance(backbone, TorchBackbone):
        return {}
    shapes = backbone.map_shapes(layers)
    return {layer: shape for layer, shape in shapes.items() if set(shape) & set(AXES)}


def position_dependence(profiles: Tensor, random: Tensor, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How unevenly CAVs lie along an axis, and how unevenly those of random sets do.

    Args:
        profiles: (K, P), see ``energy_profile``.
        random: (R, C, P), of random sets, by kind.
        kinds: int (K,), the kind of each concept.

    Returns:
        (K,) unevenness, and (K,) the value that one in 20 families of this size has a random set above. Both are
        measured from the mean profile of the random sets.
    """
    complete = random[torch.isfinite(random).flatten(1).all(1)]
    usual = complete.mean((0, 1))
    found = unevenness(profiles, usual).cpu().numpy()
    null = unevenness(complete.flatten(0, 1), usual).reshape(complete.shape[:2]).T.cpu().numpy()
    mean, spread = null.mean(axis=1), null.std(axis=1, ddof=1)
    # In units of their kind's spread, all random sets stand for one distribution, whose far end can be read.
    standard = np.sort(((null - mean[:, None]) / np.where(spread > 0, spread, 1.0)[:, None]).ravel())
    edge = standard[max(0, len(standard) - 1 - int(0.05 / max(len(found), 1) * (1 + len(standard))))]
    return found, mean[kinds] + edge * spread[kinds]
