"""What the paper published for its 219 genres: the CAVs (``apm_genres_cav.npy``) and the tree mined from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch

from captum_concepts.cavs import ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_deezer.pickles import read_object_npy

#: Layers of the published CAVs, by their index in the file. The first three are time averages flattened as (F, C);
#: ``output`` is the 50 sigmoids.
LAYERS: tuple[str, ...] = ("pool3", "pool4", "pool5", "output")
MAX_TREE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PublishedCavs:
    """The contents of a published CAV file.

    Attributes:
        weights: layer index (see ``LAYERS``) -> (D, K), one logistic regression per column.
        biases: layer index -> (K,).
        names: the K concepts.
    """

    weights: dict[int, np.ndarray]
    biases: dict[int, np.ndarray]
    names: tuple[str, ...]


def read_published_cavs(path: str | PathLike[str]) -> PublishedCavs:
    """Read ``(weights, biases, names)`` as the paper's aggregation script saves them; runs no code from the file.

    Raises:
        InputError: not such a file, one that asks for code to be run, or weights that are not finite.
    """
    where = short_repr(str(path), 200)
    parts = read_object_npy(path)
    if parts.shape != (3,) or not isinstance(parts[0], dict) or not isinstance(parts[1], dict):
        raise InputError(f"{where}: not a file of CAVs; expected (weights, biases, names) as in apm_genres_cav.npy")
    names = tuple(parts[2]) if isinstance(parts[2], (list, tuple)) else ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(
            f"{where}: the names of the CAVs must be a list of different texts, not {short_repr(parts[2])}"
        )
    if not parts[0] or parts[0].keys() != parts[1].keys() or not parts[0].keys() <= set(range(len(LAYERS))):
        raise InputError(f"{where}: the CAVs are of layers {short_repr(list(parts[0]))}, expected some of 0 to 3")
    weights, biases = {}, {}
    for layer, matrix in parts[0].items():
        weights[layer] = _finite(matrix, where, f"weights of layer {layer}", (None, len(names)))
        biases[layer] = _finite(parts[1][layer], where, f"biases of layer {layer}", (1, len(names)))[0]
    return PublishedCavs(weights, biases, names)


def _finite(value: Any, where: str, what: str, shape: tuple[int | None, int]) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim != 2:
        raise InputError(f"{where}: {what} are not a matrix of floats; download the file again")
    if value.shape[1] != shape[1] or value.shape[0] != (shape[0] or value.shape[0]) or not value.shape[0]:
        raise InputError(f"{where}: {what} have shape {value.shape}, which does not fit {shape[1]} concepts")
    if not np.isfinite(value).all():
        raise InputError(f"{where}: {what} hold NaN or infinite values; download the file again")
    return value


def load_published_cavs(path: str | PathLike[str], layer: int | str) -> ConceptBank:
    """The published CAVs of one layer as a concept bank.

    ``bank.logits(f)`` equals ``f @ weights + biases`` of the file: directions are the columns at unit length, their
    lengths the scales. ``quality`` is empty, as the file does not tell how well each CAV did.

    Args:
        path: e.g. ``apm_genres_cav.npy``.
        layer: "pool3", "pool4", "pool5", "output", or its index 0 to 3.

    Raises:
        InputError: as `read_published_cavs`; a layer that is not in the file; a CAV of length zero.
    """
    index = LAYERS.index(layer) if isinstance(layer, str) and layer in LAYERS else layer
    published = read_published_cavs(path)
    if isinstance(index, bool) or index not in published.weights:
        known = ", ".join(f"{number} ({LAYERS[number]})" for number in sorted(published.weights))
        raise InputError(f"layer={short_repr(layer)}: is not in {short_repr(str(path), 200)}; it has {known}")
    weights = torch.tensor(published.weights[index], dtype=torch.float64)
    biases = torch.tensor(published.biases[index], dtype=torch.float64)
    scales = weights.norm(dim=0)
    if not scales.all():
        name = published.names[int((scales == 0).nonzero()[0])]
        raise InputError(
            f"{short_repr(str(path), 200)}: the CAV of {short_repr(name)} is zero at layer {short_repr(layer)}"
        )
    return ConceptBank(
        names=published.names,
        layer=LAYERS[index],
        directions=(weights / scales).T.float().contiguous(),
        biases=(biases / scales).float(),
        scales=scales.float(),
        method="logistic (published)",
    )


def load_published_hierarchy(path: str | PathLike[str]) -> nx.DiGraph:
    """The published tree (``apm_genres_published_hierarchy.json``): edges parent -> child between concept names.

    Each node carries ``cluster``, the colour by which the paper's page marks its ground-truth cluster.

    Raises:
        InputError: not such a file, names or ids that repeat, a link to nowhere, a node with two parents, a cycle.
    """
    where = short_repr(str(path), 200)
    try:
        if Path(path).stat().st_size > MAX_TREE_BYTES:
            raise InputError(f"{where}: larger than {MAX_TREE_BYTES} bytes; is it the right file?")
        page = json.loads(Path(path).read_text(encoding="utf-8"))
        labels = {_text(node["id"]): (_text(node["label"]), _text(node["color"])) for node in page["nodes"]}
        links = [(_text(link["source"]), _text(link["target"])) for link in page["links"]]
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error}); check the path") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{where}: not a published hierarchy; expected JSON with nodes and links") from None
    if len({label for label, _ in labels.values()}) < len(page["nodes"]):
        raise InputError(f"{where}: two nodes have the same id or label")
    tree = nx.DiGraph()
    for label, colour in labels.values():
        tree.add_node(label, cluster=colour)
    for parent, child in links:
        if parent not in labels or child not in labels:
            raise InputError(f"{where}: a link goes to a node that is not there: {short_repr((parent, child))}")
        if tree.in_degree(labels[child][0]):
            raise InputError(f"{where}: {short_repr(labels[child][0])} has two parents; expected a tree")
        tree.add_edge(labels[parent][0], labels[child][0])
    if not nx.is_directed_acyclic_graph(tree):
        raise InputError(f"{where}: its links run in a circle; expected a tree")
    return tree


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value
