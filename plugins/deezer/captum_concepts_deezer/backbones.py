"""The two backbones of this plugin: the paper's tagger, and the embeddings of it that were published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio import AudioError, Clip, Patches
from captum_concepts.backbones import BackboneBase, Gradients, TorchBackbone, check_pooling, resolve_device
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_deezer.checkpoints import load_msd_vgg
from captum_concepts_deezer.models import CLASSES
from captum_concepts_deezer.tensors import EMBEDDING_SHAPE, read_tensor

TRACK_SECONDS = 30.0
#: What a user may change about ``msd-vgg``; the rest of `TorchBackbone`'s arguments belong to the model.
OPTIONS = ("layers", "hop_seconds", "short")


def msd_vgg(weights: str | PathLike[str] | None, device: str = "auto", **options: Any) -> TorchBackbone:
    """The backbone ``msd-vgg``: 50 Million Song Dataset tags from 3 s patches of 16 kHz audio.

    Args:
        weights: path of a user's ``MSD_vgg.h5``, published in https://github.com/deezer/concept_hierarchy.
        device: "auto", "cpu", "cuda", ...
        options: of `TorchBackbone`, those in ``OPTIONS``; ``layers`` is pool3, pool4 and pool5 by default.

    Raises:
        InputError: see `load_msd_vgg`; an unknown device or option.
    """
    for option in options:
        if option not in OPTIONS:
            raise InputError(f"option={short_repr(option)}: is not one of msd-vgg; it has {', '.join(OPTIONS)}")
    options.setdefault("layers", ("pool3", "pool4", "pool5"))
    model = load_msd_vgg(weights)
    return TorchBackbone(model, frontend="musicnn", classes=CLASSES, name="msd-vgg", device=device, **options)


class DeezerEmbeddings(BackboneBase):
    """The backbone ``deezer-embeddings``: reads the published ``.tensor`` files, 29 rows of 128 numbers per track.

    The rows are spread evenly over the track's 30 s. There is no head, so concepts can be related but no decision
    explained.
    """

    name = "deezer-embeddings"
    layers: Sequence[str] = ("embedding",)
    classes: Sequence[str] = ()

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)

    def fingerprint(self) -> str:
        """The files hold the activations, so only this reader's version can change them."""
        return hashlib.sha256(b"captum_concepts_deezer embeddings 1").hexdigest()

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise InputError unless every layer is "embedding"."""
        for layer in layers:
            if layer not in self.layers:
                raise InputError(f"layer={short_repr(layer)}: is not in {self.name}; its only layer is: embedding")

    def read(self, clip: Clip) -> Iterator[Patches]:
        """The rows of a ``.tensor`` file that begin and end within the clip: inputs (P, 128).

        Raises:
            AudioError: not a readable tensor of shape (29, 128) (see `read_tensor`), or no row within the clip.
        """
        if not clip.path.endswith(".tensor"):
            raise AudioError(clip.path, "mislabelled", "not a .tensor file", f"{self.name} reads no audio")
        values = read_tensor(clip.path)
        edges = np.linspace(0.0, TRACK_SECONDS, EMBEDDING_SHAPE[0] + 1)
        end = TRACK_SECONDS if clip.end is None else clip.end
        inside = (edges[:-1] >= clip.start - 1e-6) & (edges[1:] <= end + 1e-6)
        if not inside.any():
            raise AudioError(
                clip.path, "too short", f"no row from {clip.start} s to {end} s", "give at least 2 s of 30"
            )
        yield Patches(torch.from_numpy(values[inside]), edges[:-1][inside], edges[1:][inside])

    def activations(self, inputs: Tensor, layers: Sequence[str], pool: str = "time") -> dict[str, Tensor]:
        """The rows as they are: "embedding" -> (B, 128)."""
        check_pooling(pool)
        self.check_layers(layers)
        return dict.fromkeys(layers, inputs.to(self.device))

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str = "time") -> Gradients:
        """Raises InputError: there is no head to differentiate."""
        raise InputError(f"backbone={short_repr(self.name)}: has no head, so nothing to explain; give no target")


def deezer_embeddings(weights: str | PathLike[str] | None = None, device: str = "auto") -> DeezerEmbeddings:
    """The backbone ``deezer-embeddings``.

    Raises:
        InputError: weights were given, or an unknown device.
    """
    if weights is not None:
        raise InputError(f"weights={short_repr(str(weights))}: deezer-embeddings has none; leave it out")
    return DeezerEmbeddings(device)
