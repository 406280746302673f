"""Copies of a model with weights drawn anew; the model that was given is left as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.inference import middle_patch
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError

MAX_HEADS = 20  # matrices tried, from the last
SAME = 1e-6  # relative difference of values that counts as none


def copy_of_model(backbone: Backbone) -> Backbone:
    """The backbone with a copy of its model.

    Raises:
        InputError: a black box, a model without weights, or one that cannot be copied.
    """
    model = getattr(backbone, "model", None)
    if not isinstance(model, nn.Module) or not any(p.is_floating_point() for p in model.parameters()):
        raise InputError("the weights of a black box cannot be drawn anew")
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"the model cannot be copied ({' '.join(str(error).split())[:120]})") from None
    other = copy.copy(backbone)
    other.model = twin  # type: ignore[attr-defined]
    return other


def randomise(backbone: Backbone, only: str | None, seed: int) -> None:
    """Draw the weights of a backbone's model anew, in place.

    Matrices and kernels are drawn from a normal distribution of mean 0 and their own root mean square, so that the
    signal keeps its size; vectors (biases, gains) are shuffled.

    Args:
        backbone: from ``copy_of_model``.
        only: name of the one parameter that is drawn; None: all.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():  # type: ignore[attr-defined]
            if only not in (None, name) or not parameter.is_floating_point() or not parameter.numel():
                continue
            values = parameter.detach().float().cpu()
            if values.dim() < 2:
                drawn = values.flatten()[torch.randperm(values.numel(), generator=generator)]
            else:
                drawn = torch.randn(values.shape, generator=generator) * values.square().mean().sqrt()
            parameter.copy_(drawn.reshape(values.shape))


def head_of(backbone: Backbone, layers: Sequence[str], clips: Sequence[Clip], pool: str) -> str:
    """The name of the last matrix that changes the logits and none of the layers, found by trying on one patch.

    Raises:
        InputError: there is none, or no patch to try it on; as in ``copy_of_model``.
    """
    twin = copy_of_model(backbone)
    patch = next((found for clip in clips if (found := middle_patch(backbone, clip)) is not None), None)
    if patch is None:
        raise InputError("no clip that is not silent")
    logits, before = _values(backbone, patch, layers, pool)
    matrices = [name for name, p in twin.model.named_parameters() if p.dim() > 1]  # type: ignore[attr-defined]
    for name in matrices[: -MAX_HEADS - 1 : -1]:
        twin = copy_of_model(backbone)
        randomise(twin, name, 1)
        other, after = _values(twin, patch, layers, pool)
        if not _same(logits, other) and _same(before, after):
            return name
    raise InputError("no weights lie between the layers and the classes")


def _values(backbone: Backbone, patch: Tensor, layers: Sequence[str], pool: str) -> tuple[Tensor, Tensor]:
    found = backbone.gradients(patch[None], layers, [], pool)
    return found.logits, torch.cat([found.activations[layer].flatten() for layer in layers])


def _same(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= SAME * one.abs().max())
