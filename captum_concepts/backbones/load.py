"""Backbones by name."""

from __future__ import annotations

from typing import Any, cast

from captum_concepts.backbones.protocol import Backbone


def load_backbone(name: str, weights: str | None = None, device: str = "auto", **options: Any) -> Backbone:
    """A registered backbone by name.

    Args:
        name: as listed by ``captum-concepts plugins``.
        weights: the user's own weights file, where the backbone needs one.
        device: "auto", "cpu", "cuda", ...
        options: passed on to the backbone's factory.

    Returns:
        the backbone, on the device.

    Raises:
        InputError: unknown name (known ones are listed), or weights that do not fit.

    Example:
        >>> load_backbone("no-such-model")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        captum_concepts.errors.InputError: ...no-such-model...
    """
    from captum_concepts.plugins.registry import lookup

    return cast(Backbone, lookup("backbones", name).factory(weights=weights, device=device, **options))
