"""Copies of a model with new random weights; the given model is left as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.base import model_of, with_model
from captum_concepts.backbones.inference import middle_patch
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError
from captum_concepts.seeding import generator
from captum_concepts.text import short_repr

MAX_HEADS = 20  # matrices that are examined, from the last
SAME = 1e-6  # relative difference of values that counts as none


def copy_of_model(backbone: Backbone) -> Backbone:
    """The backbone with a copy of its model.

    Args:
        backbone: one with a model.

    Returns:
        a backbone whose weights can be changed without changing those of the given one.

    Raises:
        InputError: a black box, a model without weights, or one that cannot be copied.
    """
    model = model_of(backbone)
    if model is None or not any(p.is_floating_point() for p in model.parameters()):
        raise InputError("the weights of a black box cannot be drawn anew")
    try:
        copied = copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"the model cannot be copied ({' '.join(str(error).split())[:120]})") from None
    return with_model(backbone, copied)


def _model(backbone: Backbone) -> nn.Module:
    model = model_of(backbone)
    if model is None:
        raise InputError(f"backbone={short_repr(backbone.name)}: is a black box without a model; give a TorchBackbone")
    return model


def randomise(backbone: Backbone, only: str | None, seed: int) -> None:
    """Replace the weights of a backbone's model by random ones, in place.

    Matrices and kernels are drawn from a normal distribution of mean 0 and their own root mean square, so that the
    signal keeps its size; vectors (biases, gains) are permuted.

    Args:
        backbone: from ``copy_of_model``.
        only: name of the one parameter that is replaced; None: all.
        seed: of the random numbers.

    Raises:
        InputError: a black box.
    """
    random = generator(seed)
    with torch.no_grad():
        for name, parameter in _model(backbone).named_parameters():
            if only not in (None, name) or not parameter.is_floating_point() or not parameter.numel():
                continue
            values = parameter.detach().float().cpu()
            if values.dim() < 2:
                drawn = values.flatten()[torch.randperm(values.numel(), generator=random)]
            else:
                drawn = torch.randn(values.shape, generator=random) * values.square().mean().sqrt()
            parameter.copy_(drawn.reshape(values.shape))


def head_of(backbone: Backbone, layers: Sequence[str], clips: Sequence[Clip], pool: str) -> str:
    """The name of the last matrix that changes the logits and none of the layers, found by changing it for one patch.

    Args:
        backbone: one with a model and classes.
        layers: what must not change.
        clips: the first that is not silent gives the patch.
        pool: as in `Backbone.activations`.

    Returns:
        the parameter's name in the model.

    Raises:
        InputError: there is none, or every clip is silent; as in ``copy_of_model``.
    """
    copied = copy_of_model(backbone)
    patch = next((found for clip in clips if (found := middle_patch(backbone, clip)) is not None), None)
    if patch is None:
        raise InputError("no clip that is not silent")
    logits, before = _values(backbone, patch, layers, pool)
    matrices = [name for name, p in _model(copied).named_parameters() if p.dim() > 1]
    for name in matrices[: -MAX_HEADS - 1 : -1]:
        copied = copy_of_model(backbone)
        randomise(copied, name, 1)
        other, after = _values(copied, patch, layers, pool)
        if not _same(logits, other) and _same(before, after):
            return name
    raise InputError("no weights are between the layers and the classes")


def _values(backbone: Backbone, patch: Tensor, layers: Sequence[str], pool: str) -> tuple[Tensor, Tensor]:
    found = backbone.gradients(patch[None], layers, [], pool)
    return found.logits, torch.cat([found.activations[layer].flatten() for layer in layers])


def _same(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= SAME * one.abs().max())
