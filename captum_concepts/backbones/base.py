"""Defaults for members of the Backbone protocol, and access to them in backbones that lack some."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

from torch import nn

from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

_B = TypeVar("_B")
_REQUIRED = ("read", "activations", "gradients", "check_layers", "fingerprint")


class BackboneBase:
    """Defaults for the members of `Backbone` that are the same for most backbones.

    A subclass that sets ``sample_rate``, ``patch_seconds`` and ``hop_samples``, and reads with them, can change its
    hop; one that sets ``model`` can change its model. One that sets none of them is a black box without audio.

    Attributes:
        name: short name for results.
        model: the network; None for a black box.
        sample_rate: Hz; None if the backbone takes no audio.
        patch_seconds: length of a patch; None if the backbone does not cut audio into patches.
        hop_samples: distance between the beginnings of patches at ``sample_rate``; None as above.

    Example:
        >>> class Constant(BackboneBase):
        ...     name = "constant"
        >>> Constant().model is None
        True
        >>> Constant().with_hop(0.5)
        Traceback (most recent call last):
        captum_concepts.errors.InputError: hop=0.5: constant does not cut audio into patches; leave hop out
    """

    name: str = "backbone"
    model: nn.Module | None = None
    sample_rate: int | None = None
    patch_seconds: float | None = None
    hop_samples: int | None = None

    def with_hop(self: _B, seconds: float) -> _B:
        """The backbone with another distance between patches; the model and all else are shared with this one.

        Args:
            seconds: rounded to whole samples.

        Returns:
            a copy; this backbone is left as it is.

        Raises:
            InputError: not between one sample and one patch, or the backbone does not cut audio into patches.
        """
        return _changed_hop(self, seconds)

    def with_model(self: _B, model: nn.Module) -> _B:
        """The backbone with another network of the same architecture, such as a copy with other weights.

        Args:
            model: takes the place of ``model``.

        Returns:
            a copy; this backbone is left as it is.

        Raises:
            InputError: this backbone is a black box, or ``model`` is no ``nn.Module``.
        """
        return _changed_model(self, model)


def check_backbone(backbone: object) -> None:
    """Check that an object has the members that every backbone needs.

    No attribute is computed: the number of classes can cost a forward pass, so this is not ``isinstance``.

    Args:
        backbone: what was given as a backbone.

    Raises:
        InputError: a method is missing; the message names it.

    Example:
        >>> check_backbone("musicnn")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: backbone='musicnn': has no read(); wrap a model in TorchBackbone or \
EmbeddingBackbone
    """
    for name in _REQUIRED:
        if not callable(_member(backbone, name)):
            raise InputError(
                f"backbone={short_repr(backbone)}: has no {name}(); wrap a model in TorchBackbone or EmbeddingBackbone"
            )


def model_of(backbone: Backbone) -> nn.Module | None:
    """The network of a backbone; None for a black box and for a backbone without the member ``model``.

    Args:
        backbone: any.

    Returns:
        the network itself, not a copy.
    """
    model = _member(backbone, "model")
    return model if isinstance(model, nn.Module) else None


def patch_length(backbone: Backbone) -> float | None:
    """Seconds of a patch; None for a backbone that does not cut audio into patches or does not say.

    Args:
        backbone: any.

    Returns:
        ``backbone.patch_seconds``.
    """
    seconds = _member(backbone, "patch_seconds")
    return float(seconds) if seconds else None


def with_hop(backbone: Backbone, seconds: float) -> Backbone:
    """`Backbone.with_hop`, also for a backbone without that method that has the attribute ``hop_samples``.

    Args:
        backbone: any.
        seconds: distance between the beginnings of patches, rounded to whole samples.

    Returns:
        a copy that shares the model; the backbone is left as it is.

    Raises:
        InputError: not between one sample and one patch, or the backbone does not cut audio into patches.
    """
    method = _member(backbone, "with_hop")
    return cast(Backbone, method(seconds)) if callable(method) else _changed_hop(backbone, seconds)


def with_model(backbone: Backbone, model: nn.Module) -> Backbone:
    """`Backbone.with_model`, also for a backbone without that method that has the attribute ``model``.

    Args:
        backbone: any.
        model: takes the place of its network.

    Returns:
        a copy; the backbone is left as it is.

    Raises:
        InputError: the backbone is a black box, or ``model`` is no ``nn.Module``.
    """
    method = _member(backbone, "with_model")
    return cast(Backbone, method(model)) if callable(method) else _changed_model(backbone, model)


def _member(backbone: object, name: str) -> Any:
    """The one place that reads a member that a user's backbone may lack."""
    return getattr(backbone, name, None)


def _changed_hop(backbone: _B, seconds: float) -> _B:
    rate, length, hop = (_member(backbone, name) for name in ("sample_rate", "patch_seconds", "hop_samples"))
    if not rate or not length or not hop:
        name = _member(backbone, "name") or type(backbone).__name__
        raise InputError(f"hop={short_repr(seconds)}: {name} does not cut audio into patches; leave hop out")
    if not seconds > 0 or seconds > length or round(seconds * rate) < 1:
        raise InputError(
            f"hop={short_repr(seconds)}: out of range; give seconds above 0, and at most the {length:.2f} s of a patch"
        )
    changed: Any = copy.copy(backbone)
    changed.hop_samples = round(seconds * rate)
    return cast(_B, changed)


def _changed_model(backbone: _B, model: nn.Module) -> _B:
    if not isinstance(model, nn.Module):
        raise InputError(f"model={short_repr(model)}: is no torch.nn.Module; give one")
    if not isinstance(_member(backbone, "model"), nn.Module):
        name = _member(backbone, "name") or type(backbone).__name__
        raise InputError(f"backbone={short_repr(name)}: is a black box without a model; give a TorchBackbone")
    changed: Any = copy.copy(backbone)
    changed.model = model
    return cast(_B, changed)
