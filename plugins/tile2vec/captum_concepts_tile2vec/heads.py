"""Heads on an embedding that give targets: a trained classifier, or membership of unlabelled clusters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captum_concepts.errors import InputError
from captum_concepts.storage import read_weights, write_weights
from captum_concepts.text import short_repr
from captum_concepts_tile2vec.checkpoints import Tile2Vec, weights_digest
from captum_concepts_tile2vec.embedding_analysis import Clusters, cluster_name

CLUSTERS_FILE = "clusters.safetensors"


class Head(NamedTuple):
    """A network from embeddings (B, size) to logits (B, C), and the names of its C outputs."""

    module: nn.Module
    classes: tuple[str, ...]


class ClusterHead(nn.Module):
    """Soft membership of clusters: logits (B, k) are -|e - centre|² / temperature.

    Their softmax is the probability of each cluster under equal spherical Gaussians around the centres, the model that
    k-means is the hard form of, if the temperature is twice the variance per dimension; the largest logit is that of
    the cluster k-means would assign. All of it can be differentiated.

    Args:
        centres: (k, size).
        temperature: above 0.
    """

    centres: Tensor
    temperature: Tensor

    def __init__(self, centres: Tensor, temperature: float) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, size) to logits (B, k)."""
        return -(embeddings[:, None] - self.centres).square().sum(2) / self.temperature


def cluster_head(clusters: Clusters, embeddings: np.ndarray) -> Head:
    """The clusters of some embeddings as targets, "cluster 1" the largest.

    Args:
        clusters: from `captum_concepts_tile2vec.embedding_analysis.cluster`.
        embeddings: float (N, D), what was clustered; its mean squared distance from the centres sets the temperature.
    """
    spread = np.square(embeddings - clusters.centres[clusters.assigned]).mean()  # the variance per dimension
    centres = torch.from_numpy(np.ascontiguousarray(clusters.centres, dtype=np.float32))
    # Where every row is its own centre, any temperature gives the same hard membership.
    return _clusters(centres, 2 * float(spread) or 1.0)


def _clusters(centres: Tensor, temperature: float) -> Head:
    return Head(ClusterHead(centres, temperature), tuple(map(cluster_name, range(len(centres)))))


def save_clusters(path: str | PathLike[str], head: Head, embedding: str) -> None:
    """Write the clusters of an embedding as `load_head` reads them.

    Args:
        path: file to write.
        head: from `cluster_head`.
        embedding: `weights_digest` of the embedding.
    """
    write_weights(path, head.module.state_dict(), {"embedding": embedding})


def load_head(path: str | PathLike[str], model: Tile2Vec) -> Head:
    """Read what ``tile2vec classify`` (classifier.safetensors) or ``tile2vec evaluate`` (clusters.safetensors) wrote.

    Raises:
        InputError: no such file, something else, or the head of another embedding.
    """
    where = short_repr(str(path), 200)
    if not Path(path).exists():
        raise InputError(
            f"{where}: there is no such head; give head=FILE, a clusters.safetensors of `tile2vec evaluate` or a "
            "classifier.safetensors of `tile2vec classify`"
        )
    tensors, metadata = read_weights(path)
    try:
        head = _read_clusters(tensors) if "centres" in tensors else _read_classifier(tensors, metadata)
        takes = int(next(iter(head.module.state_dict().values())).shape[1])
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise InputError(
            f"{where}: holds neither a classifier nor clusters; give the classifier.safetensors of `tile2vec classify` "
            "or the clusters.safetensors of `tile2vec evaluate`"
        ) from error
    if takes != model.settings.size or metadata.get("embedding") != weights_digest(model):
        raise InputError(f"{where}: belongs to another embedding; make it again with the weights you give")
    return head


def _read_clusters(tensors: Mapping[str, Tensor]) -> Head:
    centres, temperature = tensors["centres"], tensors["temperature"].item()
    if set(tensors) != {"centres", "temperature"} or centres.ndim != 2 or not len(centres):
        raise ValueError("tensors")
    if not centres.isfinite().all() or not 0 < temperature < float("inf"):
        raise ValueError("values")
    return _clusters(centres.float(), temperature)


def _read_classifier(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Head:
    classes: Any = json.loads(metadata["classes"])
    layers: list[nn.Module] = []
    for place in range(0, len(tensors), 2):  # linear layers at 0, 2, 4, ... with a weight and a bias each
        linear = nn.utils.skip_init(nn.Linear, *reversed(tensors[f"{place}.weight"].shape))
        layers += [nn.ReLU(), linear] if layers else [linear]
    module = nn.Sequential(*layers)
    module.load_state_dict(tensors)
    widths = [layer.weight.shape for layer in module if isinstance(layer, nn.Linear)]
    if any(after[1] != before[0] for before, after in itertools.pairwise(widths)):
        raise ValueError("widths")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise ValueError("values")
    if not isinstance(classes, list) or len({str(name) for name in classes}) != widths[-1][0]:
        raise ValueError("classes")
    return Head(module.eval(), tuple(map(str, classes)))


def head_path(head: str | PathLike[str], weights: str | PathLike[str]) -> Path:
    """``head`` itself, or for "clusters" the clusters.safetensors beside the weights."""
    return Path(weights).parent / CLUSTERS_FILE if str(head) == "clusters" else Path(head)
