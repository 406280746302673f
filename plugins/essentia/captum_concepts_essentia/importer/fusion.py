"""Faster pooling: pool first, then add, clip and scale, which gives the same values with less work.

Bias, ReLU and normalisation act on each channel by a function that only rises or only falls, so the maximum over a
window is that function of the window's maximum (where it rises) or minimum (where it falls, that is, where the
normalisation's gain is negative). Rounding rises with its argument too, so the result is the same to the last bit. A
minimum is the negated maximum of the negated map; the convolution in front negates the map at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from captum_concepts_essentia.graphdef.functions import FlatNode, Reference
from captum_concepts_essentia.ops.maps import channels_first
from captum_concepts_essentia.ops.values import Result, pick

_NORMALISATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_RISING = ("BiasAdd", "Relu", "Relu6", "Sigmoid", "Tanh", "Identity")
#: Numbers of a map that are computed at once: what a CPU's caches hold is pooled before it leaves them.
_CHUNK_NUMBERS = 2**24
#: Nodes that wait for one pooling, and readers that each of them may have: more are not worth the search.
_MAX_INSIDE = _MAX_READERS = 16


@dataclass(frozen=True)
class Chain:
    """A pooling and the nodes before it that can wait until it is done.

    Attributes:
        inside: the nodes in front of the pooling, in order.
        convolution: whether the first of them is a convolution.
        pooling: the pooling's own name.
        readers: node of ``inside`` -> all nodes of the graph that read it.
        inputs: node -> what it reads.
        layers: node -> its name as a layer.
    """

    inside: tuple[str, ...]
    convolution: bool
    pooling: str
    readers: Mapping[str, tuple[str, ...]]
    inputs: Mapping[str, tuple[Reference, ...]]
    layers: Mapping[str, str]
    members: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", frozenset((*self.inside, self.pooling)))

    def compute(self, modules: Mapping[str, Any], values: Mapping[str, Result]) -> Tensor:
        """The pooling's output; ``values`` holds what the chain reads from outside."""
        source, *rest = (_tensor(values, reference) for reference in self.inputs[self.inside[0]])
        sign = self._sign(modules, values)
        waiting = self.inside[1:] if self.convolution else self.inside
        pool = modules[self.layers[self.pooling]].forward  # hooks see the end of the chain, not its parts
        if self.convolution:
            first = modules[self.layers[self.inside[0]]].forward
            kernel = rest[0] if sign is None else rest[0] * sign
            pooled = torch.cat([pool(first(part, kernel)) for part in self._parts(source, kernel)])
            found = pooled if sign is None else pooled * self._along_channels(sign, modules)
        elif sign is None:
            found = pool(source)
        else:
            sign = self._along_channels(sign, modules)
            found = pool(source * sign) * sign
        for name in waiting:
            result = modules[self.layers[name]].forward(found, *(pick(values, at) for at in self.inputs[name][1:]))
            found = result[0] if isinstance(result, tuple) else result
        return found

    def _sign(self, modules: Mapping[str, Any], values: Mapping[str, Result]) -> Tensor | None:
        """(C,), -1 where the functions together fall; None where they rise in all channels whatever the weights."""
        sign = None
        for name in self.inside:
            if modules[self.layers[name]].op in _NORMALISATIONS:
                gain = _tensor(values, self.inputs[name][1])
                own = torch.where(gain < 0, -torch.ones_like(gain), torch.ones_like(gain))
                sign = own if sign is None else sign * own
        return sign

    def _along_channels(self, sign: Tensor, modules: Mapping[str, Any]) -> Tensor:
        attributes = modules[self.layers[self.pooling]].attributes
        return sign[:, None, None] if channels_first(attributes) else sign

    def _parts(self, source: Tensor, kernel: Tensor) -> tuple[Tensor, ...]:
        places = math.prod(source.shape[1:]) // kernel.shape[2]
        rows = max(1, _CHUNK_NUMBERS // max(1, places * kernel.shape[3]))
        return source.split(rows) if source.device.type == "cpu" else (source,)


def _tensor(values: Mapping[str, Result], reference: Reference) -> Tensor:
    return cast(Tensor, pick(values, reference))  # maps and weights are never arrays


def find_chains(nodes: Mapping[str, FlatNode], layers: Mapping[str, str]) -> dict[str, Chain]:
    """Poolings by name, with what can wait for them; ``layers`` are the nodes that can be computed."""
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for source in {source for source, _ in node.inputs if source in nodes}:
            readers[source].append(node.name)
    found = {}
    for name in layers:
        if nodes[name].op != "MaxPool":
            continue
        inside = _before(nodes, layers, readers, nodes[name])
        convolution = bool(inside) and nodes[inside[0]].op == "Conv2D"
        if len(inside) > convolution:
            members = (*inside, name)
            found[name] = Chain(
                inside,
                convolution,
                name,
                {inner: tuple(readers[inner]) for inner in inside},
                {member: nodes[member].inputs for member in members},
                {member: layers[member] for member in members},
            )
    return found


def _before(
    nodes: Mapping[str, FlatNode], layers: Mapping[str, str], readers: Mapping[str, Sequence[str]], pooling: FlatNode
) -> tuple[str, ...]:
    """Names of the nodes before a pooling that can wait, a convolution before them included."""
    layout = pooling.attributes.texts.get("data_format", "NHWC")
    inside: list[str] = []
    current = pooling
    while len(inside) < _MAX_INSIDE and current.inputs:
        source, number = current.inputs[0]
        current = nodes[source]
        own = "NHWC" if current.op in ("Conv2D", "BiasAdd", *_NORMALISATIONS) else layout
        agrees = current.attributes.texts.get("data_format", own) == layout
        if number or source not in layers or not agrees or len(readers[source]) > _MAX_READERS:
            break
        if current.op == "Conv2D":
            inside.append(source)
            break
        training = current.op in _NORMALISATIONS and current.attributes.ints.get("is_training", 1)
        if training or (current.op not in _RISING and current.op not in _NORMALISATIONS):
            break
        inside.append(source)
    return tuple(reversed(inside))
