"""Trained embeddings as files: safetensors with everything in the metadata that is needed to use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.storage import read_weights, write_weights
from captum_concepts.text import short_repr
from captum_concepts_tile2vec.features import Kind, TileFeatures
from captum_concepts_tile2vec.models import Network, Shape, build_network

METADATA_KEY = "tile2vec"
LEARNT_FROM_KEY = "learnt_from"
LONGEST_TILE = 3600.0  # seconds


@dataclass(frozen=True)
class Settings:
    """What decides the shape and the input of an embedding.

    Attributes:
        architecture: a key of `captum_concepts_tile2vec.models.BUILDERS`.
        channels: of the recordings; 1 where they are averaged.
        size: of the embedding.
        features: "logmel", "mfcc" or "raw".
        seconds: length of a tile.
    """

    architecture: str = "ResNet18"
    channels: int = 1
    size: int = 16
    features: Kind = "logmel"
    seconds: float = 5.0

    def make_features(self) -> TileFeatures:
        """The front-end, which has no weights."""
        return TileFeatures(self.features, self.seconds)

    def shape(self) -> Shape:
        """Of the network's input and embedding."""
        features = self.make_features()
        return Shape(self.channels, features.frames, features.bands, self.size)

    def make_network(self) -> Network:
        """A network of this shape with random weights, drawn from PyTorch's global generator."""
        return build_network(self.architecture, self.shape())

    def metadata(self) -> dict[str, str]:
        """The entry of a weights file by which `load_tile2vec` knows these settings."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True)}


@dataclass(frozen=True)
class Tile2Vec:
    """An embedding ready to use: front-end and network in evaluation mode, on one device.

    Attributes:
        settings: its shape.
        features: waveforms to features.
        network: features to embeddings.
        metadata: all of the weights file, such as options of the training; empty for an untrained one.
    """

    settings: Settings
    features: TileFeatures
    network: Network
    metadata: Mapping[str, str]

    @torch.no_grad()
    def embed(self, inputs: Tensor, ready: bool = False) -> Tensor:
        """Waveforms (B, channels, samples), or features where they are ``ready``, to embeddings (B, size)."""
        device = next(self.network.parameters()).device
        inputs = inputs.to(device)
        result: Tensor = self.network(inputs if ready else self.features(inputs))
        return result


def untrained(settings: Settings, seed: int, device: str | torch.device = "cpu") -> Tile2Vec:
    """The same shape with random weights: what learning must beat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = settings.make_network()
    return Tile2Vec(settings, settings.make_features().to(device), network.to(device).eval(), {})


def save_tile2vec(path: str | PathLike[str], model: Tile2Vec) -> None:
    """Write an embedding as `load_tile2vec` reads it; training writes such a file by itself."""
    write_weights(path, model.network.state_dict(), {**model.metadata, **model.settings.metadata()})


def load_tile2vec(path: str | PathLike[str], device: str | torch.device = "cpu") -> Tile2Vec:
    """Read an embedding: the ``model.safetensors`` of a run folder.

    Raises:
        InputError: no such file, no safetensors, or weights of something else.
    """
    tensors, metadata = read_weights(path)
    settings, network = _described(metadata, path)
    expected = {name: value.shape for name, value in network.state_dict().items()}
    given = {name: value.shape for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise InputError(
            f"{short_repr(str(path), 200)}: {len(wrong)} tensors do not fit a {settings.architecture}, first "
            f"{short_repr(wrong[0])}; give the model.safetensors of a run"
        )
    for name, value in network.state_dict().items():
        if tensors[name].dtype != value.dtype or not tensors[name].isfinite().all():
            raise InputError(
                f"{short_repr(str(path), 200)}: tensor {short_repr(name)} is not of finite {str(value.dtype)[6:]} "
                "numbers; give "
                "the model.safetensors that `captum-concepts tile2vec train` wrote"
            )
    network.load_state_dict(tensors, assign=True)
    return Tile2Vec(settings, settings.make_features().to(device), network.to(device).eval(), metadata)


def learnt_from(model: Tile2Vec) -> frozenset[str]:
    """The identities of the recordings that an embedding was trained on; empty where its file does not tell."""
    try:
        told = json.loads(model.metadata.get(LEARNT_FROM_KEY, "[]"))
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(map(str, told)) if isinstance(told, list) else frozenset()


def weights_digest(model: Tile2Vec) -> str:
    """sha256 over the settings, names and values of an embedding, by which what was fitted to it knows it again."""
    digest = hashlib.sha256(json.dumps(asdict(model.settings), sort_keys=True).encode())
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _described(metadata: Mapping[str, str], path: str | PathLike[str]) -> tuple[Settings, Network]:
    """The settings in the metadata, which are untrusted, and a network of their shape that takes no memory."""
    try:
        stated: Any = json.loads(metadata[METADATA_KEY])
        settings = Settings(**stated)
        if not 0 < settings.seconds <= LONGEST_TILE:
            raise ValueError(settings.seconds)
        shape = settings.shape()
        with torch.device("meta"):
            return settings, build_network(settings.architecture, shape)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{short_repr(str(path), 200)}: its metadata does not describe an embedding of tile2vec; give the "
            "model.safetensors that `captum-concepts tile2vec train` wrote"
        ) from error
