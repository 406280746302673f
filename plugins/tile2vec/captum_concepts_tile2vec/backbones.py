"""A trained embedding as the backbone ``tile2vec``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

from torch import nn

from captum_concepts.audio import Clip, Patches, Short, iter_patches
from captum_concepts.backbones import TorchBackbone
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_tile2vec.checkpoints import Tile2Vec, load_tile2vec
from captum_concepts_tile2vec.heads import Head, head_path, load_head

#: Of each architecture the encoder's layers that are watched unless others are named.
ENCODER_LAYERS: dict[str, tuple[str, ...]] = {
    **{f"ResNet{depth}": ("layer1", "layer2", "layer3", "layer4") for depth in (18, 34, 50, 101, 152)},
    "ConvNet1D": ("4", "9", "14"),  # the poolings
    "ConvNet2D": ("0", "1", "2"),
    "ConvGRUNet": ("convolutions.0", "convolutions.1", "convolutions.2", "convolutions.3"),
    "GRUNet": ("gru1:0", "gru2:0"),
    "DenseNet": (),
    "StatisticsNet": ("1",),  # normalised
    "ContrastNet": ("1",),
}


class Tile2VecBackbone(TorchBackbone):
    """An embedding, with or without a head, as a backbone.

    The layer ``embedding`` is the embedding as everything else in this package uses it, divided by its length: what
    distances, clusters and classifiers are about. Before the division it is ``embedding.embedding``, the encoder's
    layers are ``embedding.encoder.…`` and the head, where there is one, is ``head``.

    Args:
        loaded: the embedding.
        head: from `captum_concepts_tile2vec.heads`; without one there are no classes, and concepts, similarities and
            hierarchies are all that can be asked for.
        layers: names; by default the encoder's stages and ``embedding``.
        options: ``hop_seconds`` (default: the length of a tile), ``short`` and ``device`` of `TorchBackbone`.

    Attributes:
        loaded: the embedding.
    """

    def __init__(
        self, loaded: Tile2Vec, head: Head | None = None, layers: str | Sequence[str] = (), **options: Any
    ) -> None:
        self.loaded = loaded
        parts: list[tuple[str, nn.Module]] = [("embedding", loaded.network)]
        if head is not None:
            parts.append(("head", head.module))
        inner = (f"embedding.encoder.{name}" for name in ENCODER_LAYERS[loaded.settings.architecture])
        super().__init__(
            nn.Sequential(OrderedDict(parts)).eval(),
            layers or (*inner, "embedding"),
            loaded.features,
            head.classes if head is not None else (),
            name="tile2vec",
            **options,
        )
        if head is None:
            self._classes = ()  # the numbers of an embedding are no classes

    def read(self, clip: Clip) -> Iterator[Patches]:
        """The clip's patches at 16 kHz: (P, samples), or (P, channels, samples) where all channels are read.

        Raises:
            InputError: the file has another number of channels than the embedding takes.
        """
        channels = self.loaded.settings.channels
        if channels == 1:
            yield from super().read(clip)
            return
        for patches in iter_patches(
            clip, self.sample_rate, self.patch_samples, self.hop_samples, short=self.short, channels="all"
        ):
            if patches.inputs.shape[1] != channels:
                raise InputError(
                    f"{short_repr(clip.path, 200)} has {patches.inputs.shape[1]} channels where the embedding takes "
                    f"{channels}; give files with as many"
                )
            yield patches


def tile2vec(
    weights: str | PathLike[str] | None,
    device: str = "auto",
    head: str | PathLike[str] | None = None,
    layers: str | Sequence[str] = (),
    hop_seconds: float | None = None,
    short: Short = "repeat",
) -> Tile2VecBackbone:
    """The backbone ``tile2vec``.

    Args:
        weights: the model.safetensors of ``captum-concepts tile2vec train``.
        device: "auto", "cpu", "cuda", ...
        head: the classifier.safetensors of ``tile2vec classify``, the clusters.safetensors of ``tile2vec evaluate``,
            or "clusters" for the one beside the weights; None leaves the embedding without classes.
        layers: see `Tile2VecBackbone`.
        hop_seconds: between the beginnings of patches; the length of a tile by default.
        short: see `TorchBackbone`.

    Raises:
        InputError: no weights, weights or a head of something else, an unknown layer or device.
    """
    if weights is None:
        raise InputError(
            "weights=None: tile2vec needs weights; give the model.safetensors of `captum-concepts tile2vec train`"
        )
    loaded = load_tile2vec(weights)
    on_top = None if head is None else load_head(head_path(head, weights), loaded)
    return Tile2VecBackbone(loaded, on_top, layers, device=device, hop_seconds=hop_seconds, short=short)
