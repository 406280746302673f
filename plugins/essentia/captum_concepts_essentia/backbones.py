"""The backbones of this plugin: Essentia's models, imported into torch or, failing that, run by Essentia.

Weights are the user's own files: MTG publishes them at https://essentia.upf.edu/models.html under CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio import Frontend
from captum_concepts.backbones import Backbone, Gradients, TorchBackbone, resolve_device
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.cards import ModelCard
from captum_concepts_essentia.frontends import algorithm_frontend
from captum_concepts_essentia.graphdef.functions import ancestors, ends, in_order, split_reference
from captum_concepts_essentia.graphdef.listing import choices, computed
from captum_concepts_essentia.importer.axes import layer_axes, observed
from captum_concepts_essentia.importer.graph_module import GraphModule, UnsupportedOperation
from captum_concepts_essentia.models import KINDS, Model, read_model
from captum_concepts_essentia.runtime.backbone import RuntimeBackbone

LETTERS = {"TensorflowPredictTempoCNN": "BFTC"}
GRADIENTS = ("auto", "exact", "differences")
#: What a user may say about a model; the rest follows from the files.
OPTIONS = (
    *("card", "head", "head_card", "embedding_weights", "input", "output", "embedding", "algorithm", "classes"),
    *("layers", "gradients", "hop_seconds", "short"),
)
LISTS = ("classes", "layers")
logger = logging.getLogger(__name__)


class ImportedBackbone(TorchBackbone):
    """A graph as a backbone; messages about layers leave its constants out."""

    model: GraphModule

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise InputError, listing some, the nearest first, unless the output depends on all ``layers``."""
        module = self.model
        behind = ancestors(module.nodes, split_reference(module.require_output())[0])
        nodes = {module.layers[name]: module.nodes[name] for name in module.order if name in behind}
        known = [module.layers[name] for name in computed(nodes.values())]
        if not layers:
            raise InputError(f"layers=(): is empty; choose from: {choices('', known)}")
        for layer in layers:
            bare = layer if layer in nodes else split_reference(layer)[0]
            if bare in nodes and nodes[bare].op != "Const":
                continue
            reason = "is not one of its layers"
            if bare in nodes:
                reason = "is a constant"
            elif bare in module.layers.values():
                reason = "is not before its output"
            raise InputError(f"{self.name}: layer={short_repr(layer)}: {reason}; layers are: {choices(layer, known)}")


class Embedder(ImportedBackbone):
    """A model without predictions: concepts can be related in its embedding, but there is no decision to explain."""

    @property
    def classes(self) -> Sequence[str]:
        return ()

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str = "time") -> Gradients:
        """Raises InputError: there is nothing to differentiate."""
        raise InputError(
            f"backbone={short_repr(self.name)}: has no predictions here, so nothing to explain; give head="
        )


def essentia_backbone(kind: str, weights: str | PathLike[str] | None, device: str = "auto", **options: Any) -> Backbone:
    """One of the backbones in ``KINDS``.

    Args:
        kind: its name.
        weights: the user's ``.pb`` file, of a backbone or of a head on one.
        device: "auto", "cpu", "cuda", ...
        options: ``card``: the metadata JSON; by default the file beside the graph that is called like it.
            ``head``, ``head_card``: a head on this backbone, and its card.
            ``embedding_weights``: where ``weights`` is a head, the graph it takes embeddings of; by default the file
            that its card names, beside it.
            ``input``, ``output``, ``embedding``, ``algorithm``, ``classes``: where no card tells.
            ``layers``: default layers, by default the embedding.
            ``gradients``: "exact" (import the graph), "differences" (run it in Essentia) or "auto": differences if the
            graph has an operation that cannot be imported.
            ``hop_seconds``, ``short``: as in `TorchBackbone`; patches are as far apart as in Essentia by default.

    Raises:
        InputError: an unknown option; a file that is missing or no such model; a card that does not fit; nodes that
            nothing names.
    """
    for option in options:
        if option not in OPTIONS:
            raise InputError(f"option={short_repr(option)}: is not one of {kind}; it has {', '.join(OPTIONS)}")
    _check_types(options)
    gradients = options.pop("gradients", "auto")
    if gradients not in GRADIENTS:
        raise InputError(f"gradients={short_repr(gradients)}: is not known; use {', '.join(GRADIENTS)}")
    layers = options.pop("layers", None) or ()
    patching: dict[str, Any] = {key: options.pop(key) for key in ("hop_seconds", "short") if key in options}
    model = read_model(kind, weights, **options)
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if gradients != "differences":
        try:
            return _imported(kind, model, layers, device, patching)
        except UnsupportedOperation as reason:
            if gradients == "exact":
                raise
            logger.warning("%s; its gradients are taken by differences in Essentia instead", reason)
    return _run_by_essentia(kind, model, layers, device, patching)


def _check_types(options: Mapping[str, Any]) -> None:
    """What is read as JSON on the command line may be of any type."""
    for option, value in options.items():
        if option in LISTS:
            names = [value] if isinstance(value, str) else value
            fits = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
            expected = "a name or a list of names"
        elif option == "hop_seconds":
            fits, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number of seconds"
        else:
            fits, expected = isinstance(value, str | PathLike | ModelCard), "text"
        if value is not None and not fits:
            raise InputError(f"{option}={short_repr(value)}: must be {expected}")


def _imported(kind: str, model: Model, layers: tuple[str, ...], device: str, patching: dict[str, Any]) -> TorchBackbone:
    embeds = model.listed and model.output is None and model.embedding is not None
    output = model.embedding if embeds else model.output
    module = GraphModule(model.nodes, model.input, output, short_repr(str(model.path), 200))
    output = module.require_output()
    embedding = [] if model.embedding is None else [module.layer_name(model.embedding)]
    logits = module.find_logits()
    seen = observed(module)
    if not embeds and model.classes and seen is not None:
        _check_classes(model, seen.output)
    return (Embedder if embeds else ImportedBackbone)(
        module.to(resolve_device(device)),
        layers or embedding or [logits or module.layer_name(output)],
        _frontend(model, module.input_shape),
        () if embeds else model.classes,
        axes=layer_axes(module, LETTERS.get(model.algorithm, "BTF"), seen),
        logits=logits,
        name=kind,
        **patching,
    )


def _check_classes(model: Model, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] != len(model.classes):
        sizes = ", ".join(["B", *map(str, shape[1:])])
        whose = model.path.name if model.head is None else f"the head on {model.path.name}"
        raise InputError(
            f"classes: {len(model.classes)} names for the output of {whose}, of shape ({sizes}); give one for each "
            "column, or another output="
        )


def _run_by_essentia(
    kind: str, model: Model, layers: tuple[str, ...], device: str, patching: dict[str, Any]
) -> RuntimeBackbone:
    output = model.embedding if model.head is not None else model.output
    if output is None:
        order, cyclic = in_order(model.nodes)
        last = ends(model.nodes, [*order, *sorted(cyclic)])
        if len(last) != 1:
            raise InputError(
                f"{model.path.name}: {len(last)} nodes could be its predictions, {short_repr(last, 200)}; give "
                "output=, or its card="
            )
        output = last[0]
    if resolve_device("cpu" if device == "auto" else device).type != "cpu":
        raise InputError(f"device={short_repr(device)}: Essentia runs graphs on the CPU; use device='cpu'")
    behind = ancestors(model.nodes, split_reference(output)[0])
    found = [node for node in behind if model.nodes[node].op == "Placeholder"]
    if model.input is None and len(found) != 1:
        raise InputError(f"{model.path.name}: the graph has {len(found)} inputs; give input=, or its card=")
    name = model.input or found[0]
    if name not in model.nodes:
        raise InputError(f"{model.path.name}: there is no input {short_repr(name)}; give input=, or its card=")
    shape = model.nodes[name].attributes.shapes.get("shape")
    return RuntimeBackbone(
        model.path,
        model.nodes,
        name,
        output,
        layers or ([model.embedding] if model.embedding else [output]),
        _frontend(model, shape and tuple(size if size >= 0 else None for size in shape)),
        model.classes,
        head=None if model.head is None else _head_logits(model.head),
        name=kind,
        **patching,
    )


def _head_logits(head: GraphModule) -> Callable[[np.ndarray], np.ndarray]:
    """The head, which is imported, on embeddings that Essentia gives."""
    logits = head.find_logits() or head.output_name

    def compute(embeddings: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: Tensor = head(torch.from_numpy(embeddings).float(), output=logits)
        return found.double().numpy()

    return compute


def _frontend(model: Model, shape: tuple[int | None, ...] | None) -> Frontend:
    """The algorithm's front-end with patches of the length that the graph takes, if it states one."""
    axis = LETTERS.get(model.algorithm, "BTF").index("T")
    frames = shape[axis] if shape is not None and len(shape) > 2 else None
    front = algorithm_frontend(model.algorithm, frames)
    if model.sample_rate not in (None, front.sample_rate):
        raise InputError(
            f"{model.path.name}: its card says {model.sample_rate} Hz, and {model.algorithm} takes "
            f"{front.sample_rate} Hz; correct the card"
        )
    return front


def _factory(kind: str) -> Callable[..., Backbone]:
    def make(weights: str | PathLike[str] | None = None, device: str = "auto", **options: Any) -> Backbone:
        return essentia_backbone(kind, weights, device, **options)

    make.__doc__ = essentia_backbone.__doc__
    return make


FACTORIES: Mapping[str, Callable[..., Backbone]] = {kind: _factory(kind) for kind in KINDS}
