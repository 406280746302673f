"""The protocol that every backbone follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.patches import Patches


class Gradients(NamedTuple):
    """Results of one forward pass, and one backward pass per target, over a batch.

    Attributes:
        logits: (B, C), all classes.
        activations: layer -> (B, D), pooled by mean.
        gradients: layer -> (B, T, D), derivative of each target's logit with respect to the pooled activation.
    """

    logits: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]


@runtime_checkable
class Backbone(Protocol):
    """What every stage after decoding relies on.

    A class that derives from `BackboneBase` has the members ``model``, ``sample_rate``, ``patch_seconds``, ``with_hop``
    and ``with_model``. A backbone without them still works, as a black box that does not cut audio into patches.

    Attributes:
        name: short name for results.
        layers: default layers, in the model's order.
        classes: class names; empty without a head.
        device: where the model computes.
        model: the network; None for a black box.
        sample_rate: Hz of the audio that the model takes; None if it takes none.
        patch_seconds: length of a patch; None if the backbone does not cut audio into patches.
    """

    @property
    def name(self) -> str: ...

    @property
    def layers(self) -> Sequence[str]: ...

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def model(self) -> nn.Module | None: ...

    @property
    def sample_rate(self) -> int | None: ...

    @property
    def patch_seconds(self) -> float | None: ...

    def fingerprint(self) -> str | None:
        """Hash of all that decides the activations of given audio; None if it cannot be known (nothing is cached)."""

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise InputError, listing the valid names, unless every layer exists."""

    def read(self, clip: Clip) -> Iterator[Patches]:
        """The clip's patches, in blocks of bounded size."""

    def activations(self, inputs: Tensor, layers: Sequence[str], pool: str) -> dict[str, Tensor]:
        """Pooled activations (B, D) of every layer from one forward pass over patches (B, ...)."""

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str) -> Gradients:
        """Logits, pooled activations and pooled gradients from one forward and one backward per target."""

    def with_hop(self, seconds: float) -> Backbone:
        """The backbone with another distance between patches; the model is shared. InputError where there is none."""

    def with_model(self, model: nn.Module) -> Backbone:
        """The backbone with another network of the same architecture. InputError for a black box."""
