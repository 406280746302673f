"""A backbone without gradients: the graph runs in Essentia, sensitivities are central differences."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio import Clip, Frontend, Patches, Short, iter_patches
from captum_concepts.backbones import BackboneBase, Gradients, Unhashable, check_pooling, fingerprint, pool_map
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.functions import FlatNode, saturation, split_reference
from captum_concepts_essentia.graphdef.listing import choices, computed
from captum_concepts_essentia.runtime.differences import Derivatives, central_differences
from captum_concepts_essentia.runtime.session import Session

MAX_DIRECTIONS = 4096
_AXES = {2: "BC", 3: "BTC", 4: "BTFC"}
logger = logging.getLogger(__name__)


class RuntimeBackbone(BackboneBase):
    """A frozen graph that Essentia runs, as a `captum_concepts.backbones.protocol.Backbone`.

    Layers are nodes outside of functions; outputs of three axes are read as time and channels, of four as time,
    frequency and channels. Gradients are differences along every number of a pooled layer, 4 D runs of the graph
    behind the layer for each patch, so choose dense layers; `sensitivities` takes 4 K for K directions.

    Args:
        path: the ``.pb`` file.
        nodes: the graph in it, with functions inlined.
        input, output: names of nodes; ``output`` gives class probabilities or logits.
        layers: default layers.
        frontend: waveforms to the graph's input.
        classes: names of the output's columns.
        head: (rows, D) -> logits (rows, C), on top of ``output``, which is then an embedding.
        step: of the differences, relative to the root mean square of an activation.
        short, hop_seconds, name: as in `captum_concepts.backbones.torch_backbone.TorchBackbone`.

    Raises:
        InputError: Essentia is not installed or cannot run the graph; a node is not there.
    """

    device = torch.device("cpu")
    sample_rate: int
    patch_seconds: float
    hop_samples: int

    def __init__(
        self,
        path: str | PathLike[str],
        nodes: dict[str, FlatNode],
        input: str,
        output: str,
        layers: Sequence[str],
        frontend: Frontend,
        classes: Sequence[str] = (),
        *,
        head: Callable[[np.ndarray], np.ndarray] | None = None,
        step: float = 1e-2,
        short: Short = "repeat",
        hop_seconds: float | None = None,
        name: str = "essentia",
    ) -> None:
        self.path = Path(path)
        self.name = name
        self.layers = tuple(layers)
        self.frontend = frontend
        self.sample_rate = frontend.sample_rate
        self.patch_seconds = (frontend.patch_samples - sum(frontend.pad)) / frontend.sample_rate
        self.hop_samples = frontend.hop_samples if hop_seconds is None else round(hop_seconds * self.sample_rate)
        self.short = short
        self.step = step
        self._nodes = nodes
        self._input = input
        self._output, self._to_logits = _logits_node(nodes, output) if head is None else (output, head)
        self._sessions: dict[tuple[str, tuple[str, ...]], Session] = {}
        self._warned = False
        silence = np.zeros((1, frontend.patch_samples), np.float32)
        columns = self._logits(
            self._run(self._input, [self._output], self._model_inputs(torch.from_numpy(silence)))
        ).shape[1]
        self.classes = tuple(classes) or tuple(map(str, range(columns)))
        if len(self.classes) != columns:
            raise InputError(
                f"classes: {len(self.classes)} names for {columns} outputs of {self.name}; give one for each"
            )
        self.check_layers(self.layers)

    def fingerprint(self) -> str | None:
        """sha256 of the graph's bytes, of what prepares its input and of the head; None if that cannot be read."""
        file = hashlib.sha256(self.path.read_bytes()).hexdigest()
        settings = (self._input, self._output, self.hop_samples, self.short, self.step)
        try:
            return fingerprint("captum_concepts_essentia runtime 1", file, self.frontend, settings, self._to_logits)
        except Unhashable as reason:
            logger.info("%s has no fingerprint, so nothing is kept: %s", self.name, reason)
            return None

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise InputError, listing some that exist, unless all layers are nodes that TensorFlow can give."""
        if not layers:
            raise InputError("layers=(): is empty; name nodes of the graph")
        outside = [node for node in self._nodes.values() if not node.inside]
        names = {node.name for node in outside}
        for layer in layers:
            if split_reference(layer)[0] not in names:
                listed = choices(layer, computed(outside))
                raise InputError(
                    f"{self.name}: layer={short_repr(layer)}: is not one of its layers; layers are: {listed}"
                )

    def read(self, clip: Clip) -> Iterator[Patches]:
        """The clip's patches: mono waveforms (P, patch_samples) at the model's sample rate."""
        samples = self.frontend.patch_samples
        return iter_patches(clip, self.sample_rate, samples, self.hop_samples, pad=self.frontend.pad, short=self.short)

    def activations(self, inputs: Tensor, layers: Sequence[str], pool: str = "time") -> dict[str, Tensor]:
        """Pooled activations, layer -> (B, D), from one pass."""
        check_pooling(pool)
        self.check_layers(layers)
        found = self._run(self._input, list(layers), self._model_inputs(inputs))
        return {layer: pool_map(torch.from_numpy(found[layer]), _axes(layer, found[layer]), pool) for layer in layers}

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str = "time") -> Gradients:
        """Logits, pooled activations and gradients by differences along each number of the pooled activation.

        Raises:
            InputError: a layer has more than ``MAX_DIRECTIONS`` numbers once pooled, or there is no such target.
        """
        activations = self.activations(inputs, layers, pool)
        gradients, logits = {}, torch.zeros(len(inputs), len(self.classes))
        for layer in layers:
            size = activations[layer].shape[1]
            if size > MAX_DIRECTIONS:
                raise InputError(
                    f"layer={short_repr(layer)}: {size} numbers are too many for differences (at most "
                    f"{MAX_DIRECTIONS}); choose a dense layer, or pool='time_freq'"
                )
            found = self._derivatives(inputs, layer, np.eye(size), pool)
            gradients[layer] = torch.from_numpy(found.values[:, self._checked(targets)]).float()
            logits = torch.from_numpy(found.outputs).float()
            self._warn(layer, found, targets)
        return Gradients(logits, activations, gradients)

    def sensitivities(
        self, inputs: Tensor, layer: str, targets: Sequence[int], directions: np.ndarray, pool: str = "time"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the targets' logits along K directions (CAVs) and their errors.

        Args:
            inputs: waveforms (B, patch_samples).
            layer: a node.
            targets: column numbers.
            directions: (K, D), in the pooled activation space.
            pool: as in ``activations``.

        Returns:
            values and errors, each (B, T, K). Where an error exceeds its value, the sign is not known.
        """
        check_pooling(pool)
        found = self._derivatives(inputs, layer, np.asarray(directions, np.float64), pool)
        chosen = self._checked(targets)
        return found.values[:, chosen], found.errors[:, chosen]

    def _derivatives(self, inputs: Tensor, layer: str, directions: np.ndarray, pool: str) -> Derivatives:
        maps = self._run(self._input, [layer], self._model_inputs(inputs))[layer]
        places = _places(maps.shape[1:], _axes(layer, maps)[1:], pool)
        if directions.shape[1] != places.max() + 1:
            raise InputError(
                f"directions of {directions.shape[1]} numbers for {places.max() + 1} of layer {short_repr(layer)}"
            )

        def logits(rows: np.ndarray) -> np.ndarray:
            return self._logits(self._run(layer, [self._output], rows))

        return central_differences(logits, maps, directions[:, places], self.step)

    def _warn(self, layer: str, found: Derivatives, targets: Sequence[int]) -> None:
        values, errors = found.values[:, list(targets)], found.errors[:, list(targets)]
        spread = float(np.linalg.norm(errors) / max(np.linalg.norm(values), 1e-300))
        logger.debug("layer %s: derivatives by differences, relative error %.1e", layer, spread)
        if spread > 0.1 and not self._warned:
            self._warned = True
            logger.warning("layer %s: derivatives by differences are uncertain by %.0f %%", layer, 100 * spread)

    def _checked(self, targets: Sequence[int]) -> list[int]:
        for target in targets:
            if not 0 <= target < len(self.classes):
                raise InputError(
                    f"target={short_repr(target)}: is out of range; {self.name} has 0 to {len(self.classes) - 1}"
                )
        return list(targets)

    def _model_inputs(self, inputs: Tensor) -> np.ndarray:
        with torch.no_grad():
            return self.frontend(inputs.cpu()).numpy()

    def _logits(self, found: dict[str, np.ndarray]) -> np.ndarray:
        values = found[self._output]
        logits: np.ndarray = self._to_logits(values.reshape(len(values), -1).astype(np.float64))
        return logits

    def _run(self, start: str, outputs: Sequence[str], x: np.ndarray) -> dict[str, np.ndarray]:
        key = (start, tuple(outputs))
        if key not in self._sessions:
            self._sessions[key] = Session(self.path, start, outputs)
        return self._sessions[key](x)


def _logits_node(nodes: dict[str, FlatNode], output: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The node to ask for, and what makes logits of its value.

    Inside a function TensorFlow cannot be asked. Then sigmoids become log-odds, and softmax outputs log-probabilities.
    """
    found = saturation(nodes, split_reference(output))
    if found is None:
        return output, np.asarray
    kind, (name, number) = found
    if not nodes[name].inside:
        return (f"{name}:{number}" if number else name), np.asarray
    tiny = float(np.finfo(np.float32).eps)
    if kind == "Softmax":
        return output, lambda p: np.log(np.maximum(p, tiny))
    return output, lambda p: np.log(np.clip(p, tiny, 1 - tiny)) - np.log1p(-np.clip(p, tiny, 1 - tiny))


def _axes(layer: str, values: np.ndarray) -> str:
    if values.ndim not in _AXES:
        raise InputError(f"layer={short_repr(layer)}: gives {values.ndim} axes; choose one that gives 2 to 4")
    return _AXES[values.ndim]


def _places(sizes: Sequence[int], letters: str, pool: str) -> np.ndarray:
    """For each number of a map, of the given sizes, its place in the pooled and flattened activation."""
    gone = {"time": "T", "none": "", "time_freq": "TF"}[pool]
    kept = [size if letter not in gone else 1 for size, letter in zip(sizes, letters, strict=True)]
    # Maps here are in the order T, F, C already, which is the order that pooled activations are flattened in.
    return np.broadcast_to(np.arange(int(np.prod(kept))).reshape(kept), tuple(sizes))
