"""Single forward passes of a backbone: a clip's middle patch, its predicted class, the shapes of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.layers import POSITION_AXES
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.errors import InputError, NotWaveformsError
from captum_concepts.text import short_repr


def middle_patch(backbone: Backbone, clip: Clip) -> Tensor | None:
    """The middle patch of the first block of a clip's patches.

    Args:
        backbone: one that takes waveforms.
        clip: what to read.

    Returns:
        (samples,), or None where there is no patch or it is silent.

    Raises:
        NotWaveformsError: the backbone's patches are no waveforms.
        AudioError: the clip cannot be read.
    """
    for block in backbone.read(clip):
        inputs = block.inputs
        if inputs.dim() != 2 or not inputs.is_floating_point():
            raise NotWaveformsError(
                f"backbone={short_repr(backbone.name)}: takes no waveforms, so no sound can be added; give one of audio"
            )
        if len(inputs):
            patch = inputs[len(inputs) // 2]
            return patch if float(patch.square().mean()) > 1e-12 else None
    return None


def predicted_class(backbone: Backbone, clip: Clip, layers: Sequence[str], batch_size: int = 32) -> str:
    """The class with the largest mean logit over the patches of a clip.

    Args:
        backbone: with classes.
        clip: what to classify.
        layers: any layer of the backbone; its activations are not used.
        batch_size: patches per forward pass.

    Returns:
        the class's name.

    Raises:
        InputError: the clip cannot be read, or the backbone has no classes.
    """
    if not backbone.classes:
        raise InputError(f"backbone={short_repr(backbone.name)}: has no classes; give one with a head")
    logits = [
        backbone.gradients(batch, layers, [], "time").logits.double().cpu()
        for block in backbone.read(clip)
        for batch in block.inputs.split(batch_size)
    ]
    return backbone.classes[int(torch.cat(logits).mean(0).argmax())]


def unpooled_shapes(backbone: Backbone, layers: tuple[str, ...], pool: str) -> dict[str, dict[str, int]]:
    """Sizes of the axes of layers whose time and frequency are kept; empty for pooled ones and for black boxes.

    One patch of silence goes through the model.

    Args:
        backbone: any.
        layers: names.
        pool: as in `Backbone.activations`.

    Returns:
        layer -> {"T": frames, "F": bands, "C": channels}, those that the layer has.
    """
    if pool != "none" or not isinstance(backbone, TorchBackbone):
        return {}
    shapes = backbone.map_shapes(layers)
    return {layer: shape for layer, shape in shapes.items() if set(shape) & set(POSITION_AXES)}
