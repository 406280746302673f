"""Whether the CAVs of one concept at two layers represent the same thing in the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.layers import (
    REDUCED,
    LayerTap,
    find_layer,
    frozen,
    output_index,
    replace_tensor,
    tensors_of,
)
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

COLUMNS = ("layer", "next_layer", "concept", "cosine", "chance")
RANDOM_DIRECTIONS = 19
STEP = 0.02
MAX_PATCHES = 64


def push_forward(
    backbone: TorchBackbone,
    banks: Mapping[str, ConceptBank],
    inputs: Tensor | Sequence[Clip],
    *,
    pool: str = "time",
    step: float = STEP,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Move a layer's activations along each of its CAVs and see whether the next layer moves along its own.

    CAVs are fitted layer by layer and need not agree (Nicolson et al., arXiv 2404.03713). This needs passes over
    the given patches only: patches x (concepts + 20) forward passes for each layer but the last.

    Args:
        backbone: the model that the banks were fitted on.
        banks: layer -> CAVs of the same concepts, at least two layers, in any order, e.g. ``Explanation.banks``.
        inputs: patches as the backbone's ``read`` gives them (B, samples), or clips, the first patch of each; at most
            64. A few are enough.
        pool: the pooling that the banks were fitted with.
        step: how far to move, as a share of the mean length of the pooled activations.
        batch_size: patches per pass.
        seed: of the random directions.

    Returns:
        a row for each layer but the last and each concept with a CAV at it and at the next, in the model's order of
        layers: layer, next_layer, concept, ``cosine`` between the mean change of the next layer's pooled activation and
        the concept's CAV there (1: consistent; about 0: unrelated), and ``chance``, the largest such cosine (absolute)
        when the layer moves in 19 random directions: only one time in 20 would another random one be larger.

    Raises:
        InputError: no model to move, fewer than two layers, different concepts, or no patch or too many.
    """
    if not isinstance(backbone, TorchBackbone):
        raise InputError(f"backbone={short_repr(backbone)}: push_forward moves layers of a TorchBackbone only")
    if len(banks) < 2:
        raise InputError(f"banks={len(banks)} layers: too few; give the banks of at least two layers")
    patches = _patches(backbone, inputs)
    layers = _running_order(backbone, patches[:2], list(banks))
    names = banks[layers[0]].names
    if any(banks[layer].names != names for layer in layers):
        raise InputError("banks=...: layers with different concepts; give banks of the same concepts")
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[object, ...]] = []
    for layer, following in pairwise(layers):
        own, later = banks[layer].directions, banks[following].directions
        both = (torch.isfinite(own).all(1) & torch.isfinite(later).all(1)).nonzero()[:, 0].tolist()
        random = torch.randn(RANDOM_DIRECTIONS, own.shape[1], generator=generator).to(own)
        moves = torch.cat([own[both], torch.nn.functional.normalize(random, dim=1)])
        before = backbone.activations(patches, [layer, following], pool)
        length = step * float(before[layer].norm(dim=1).mean())
        changes = []
        for change in moves:
            parts = [
                _moved(backbone, part, layer, following, change * length, pool) for part in patches.split(batch_size)
            ]
            changes.append((torch.cat(parts) - before[following]).double().mean(0))
        targets = torch.nn.functional.normalize(later[both].to(changes[0]), dim=1)
        unit = torch.nn.functional.normalize(torch.stack(changes), dim=1)
        cosines = (unit @ targets.T).cpu().numpy()
        chance = np.abs(cosines[len(both) :]).max(axis=0)
        rows += [(layer, following, names[k], cosines[i, i], chance[i]) for i, k in enumerate(both)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _patches(backbone: TorchBackbone, inputs: Tensor | Sequence[Clip]) -> Tensor:
    if not isinstance(inputs, Tensor):
        inputs = torch.cat([next(iter(backbone.read(clip))).inputs[:1] for clip in inputs] or [torch.zeros(0)])
    if not 0 < len(inputs) <= MAX_PATCHES:
        raise InputError(f"inputs={len(inputs)} patches: out of range; give 1 to {MAX_PATCHES}")
    return inputs


def _running_order(backbone: TorchBackbone, patches: Tensor, layers: list[str]) -> list[str]:
    with torch.no_grad(), frozen(backbone.model), LayerTap(backbone.model, layers, differentiable=False) as tap:
        backbone.model(backbone.model_input(patches))
    return list(tap.tensors)


def _moved(backbone: TorchBackbone, patches: Tensor, layer: str, following: str, change: Tensor, pool: str) -> Tensor:
    """(B, D): pooled activations of ``following`` when those of ``layer`` move by ``change``."""
    index = output_index(layer)

    def move(_module: torch.nn.Module, _inputs: object, output: object) -> object:
        tensor = tensors_of(output)[index]
        axes = backbone.axes_of(layer, tensor, len(patches))
        return replace_tensor(output, index, tensor + spread(change.to(tensor), tensor.shape, axes, pool))

    handle = find_layer(backbone.model, layer).register_forward_hook(move)
    try:
        return backbone.activations(patches, [following], pool)[following]
    finally:
        handle.remove()


def spread(change: Tensor, shape: Sequence[int], axes: str, pool: str) -> Tensor:
    """A change of a layer's map that moves its pooled activation by ``change``, equal at all averaged positions.

    Args:
        change: (D,), flattened as ``layers.pool_map`` does.
        shape: of the map, its axes named by ``axes``.
        axes: letters, see ``layers``.
        pool: how the map is pooled.

    Returns:
        A tensor that broadcasts against the map.
    """
    sizes = {letter: 1 if letter in "B" + REDUCED[pool] else size for letter, size in zip(axes, shape, strict=True)}
    letters = [letter for letter in "BTFC" if letter in axes]
    return change.reshape([sizes[letter] for letter in letters]).permute([letters.index(letter) for letter in axes])
