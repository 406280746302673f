"""Frozen TensorFlow graphs as torch modules: every node a named layer with exact gradients, on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.cards import ModelCard, find_card
from captum_concepts_essentia.graphdef.functions import (
    FlatNode,
    Reference,
    ancestors,
    ends,
    flatten,
    free_batch,
    in_order,
    saturation,
    split_reference,
)
from captum_concepts_essentia.graphdef.listing import choices, computed
from captum_concepts_essentia.graphdef.protobuf import read_graph
from captum_concepts_essentia.importer.fusion import Chain, find_chains
from captum_concepts_essentia.ops import table
from captum_concepts_essentia.ops.layers import Constant, Operation, Placeholder
from captum_concepts_essentia.ops.values import FAILURES, BadGraph, Result, Value, first_line, pick


class UnsupportedOperation(InputError):
    """A node that the importer cannot compute; the runtime path may."""


class GraphModule(nn.Module):
    """A frozen graph.

    Every node that can be computed is a submodule under the name it has in TensorFlow, with "." as "_" and, where torch
    has an attribute of that name, "_" behind it; nodes of functions have the caller's name before theirs. Weights are
    parameters that do not require gradients. Only ancestors of what is asked for are computed. Where no hook is on
    them, convolution, bias, activation and normalisation before a pooling are computed behind it, with the same result
    (see `fusion`).

    Args:
        nodes: the graph, with functions inlined.
        input: name of the Placeholder; by default the only one that ``output`` depends on.
        output: "node" or "node:k" that ``module(x)`` returns; by default the only one of ``ends``.
        where: what complaints name.

    Attributes:
        nodes: the graph without its constants.
        order: names of nodes in the order in which they can be computed.
        layers: node -> its name as a layer, for those that can be computed.
        ends: "node" or "node:k" of all values that depend on an input and that no node reads, functions' own apart.
        input_name, output_name: as above; ``output_name`` is None if several values could be meant.
        input_shape: sizes the Placeholder states, None where any will do; None if it states nothing.

    Raises:
        InputError: no such node, several Placeholders, a cycle.
        UnsupportedOperation: ``output`` depends on an operation that is not supported; it is named.
    """

    def __init__(
        self, nodes: Mapping[str, FlatNode], input: str | None = None, output: str | None = None, where: str = "graph"
    ) -> None:
        super().__init__()
        # All attributes are set before the layers, whose names must not be theirs.
        self._where = where
        self.input_name: str | None = None
        self.output_name: str | None = None
        self.input_shape: tuple[int | None, ...] | None = None
        self.ends: tuple[str, ...] = ()
        self._chains: dict[str, Chain] = {}
        # Without the constants, which the layers hold: they would keep the whole file in memory.
        self.nodes = {
            name: replace(node, attributes=replace(node.attributes, tensors={})) for name, node in nodes.items()
        }
        self.order, self._cyclic = in_order(nodes)
        self._position = {name: place for place, name in enumerate(self.order)}
        self.layers: dict[str, str] = {}
        used: dict[str, int] = {}
        for name in self.order:
            self._register(nodes[name], used)
        self.ends = ends(self.nodes, [*self.order, *sorted(self._cyclic)])
        self.output_name = output if output is not None or len(self.ends) != 1 else self.ends[0]
        if self.output_name is not None:
            self._check(self.output_name)
        self.input_name = self._find_input(nodes, input)
        shape = nodes[self.input_name].attributes.shapes.get("shape") if self.input_name else None
        self.input_shape = None if shape is None else tuple(size if size >= 0 else None for size in shape)
        self._chains = find_chains(nodes, self.layers)

    # Building

    def _register(self, node: FlatNode, used: dict[str, int]) -> None:
        """Make the node a layer, if all it depends on are layers; ``used`` counts layers of nearly the same name."""
        if any(source not in self.layers for source, _ in node.inputs):
            return
        if node.op == "Const":
            value = node.attributes.tensors.get("value")
            if value is None:
                return
            module: nn.Module = Constant(node.name, value)
        elif node.op == "Placeholder":
            module = Placeholder()
        elif node.op in table.OPERATIONS:
            module = Operation(node)
        else:
            return
        name = base = node.name.replace(".", "_")
        while hasattr(self, name):
            used[base] = used.get(base, 0) + 1
            name = f"{base}_{used[base]}" if used[base] > 1 else f"{base}_"
        self.add_module(name, module)
        self.layers[node.name] = name

    def _find_input(self, nodes: Mapping[str, FlatNode], given: str | None) -> str | None:
        if given is not None:
            name = split_reference(given)[0]
            if name not in self.nodes or self.nodes[name].op != "Placeholder":
                known = [node.name for node in self.nodes.values() if node.op == "Placeholder"]
                raise InputError(
                    f"{self._where}: input={short_repr(given)}: is not a Placeholder of the graph; it has "
                    f"{short_repr(known, 200)}"
                )
            return name
        names = self.layers if self.output_name is None else ancestors(self.nodes, split_reference(self.output_name)[0])
        found = [name for name in names if self.nodes[name].op == "Placeholder"]
        if len(found) > 1 and self.output_name is None:
            return None  # the output asked for decides
        if len(found) != 1:
            raise InputError(
                f"{self._where}: the graph has {len(found)} inputs, {short_repr(found)}; name one with input="
            )
        return found[0]

    def _check(self, reference: str) -> Reference:
        """The node and number of an output that can be computed.

        Raises:
            InputError: it cannot be; the message says why.
        """
        name, number = split_reference(reference)
        if name in self.layers:
            return name, number
        if name not in self.nodes:
            listed = choices(reference, computed(self.nodes[node] for node in self.layers))
            raise InputError(f"{self._where}: there is no node {short_repr(reference)}; its nodes: {listed}")
        behind = ancestors(self.nodes, name)
        if behind & self._cyclic:
            some = short_repr(sorted(behind & self._cyclic)[0])
            raise InputError(f"{self._where}: {short_repr(name)} depends on a cycle around {some}; not a frozen graph")
        for node in sorted(behind, key=lambda node: self._position[node]):
            if node in self.layers:
                continue
            missing = [source for source, _ in self.nodes[node].inputs if source not in self.nodes]
            if missing:
                raise InputError(
                    f"{self._where}: node {short_repr(node)} reads {short_repr(missing[0])}, which is not in the graph"
                )
            unread = self.nodes[node].attributes.unread.get("value")
            if unread is not None:
                raise UnsupportedOperation(
                    f"{self._where}: constant {short_repr(node)} holds {unread}, which are not supported; choose a "
                    "node that does not depend on it"
                )
            raise UnsupportedOperation(
                f"{self._where}: operation {short_repr(self.nodes[node].op)} of node {short_repr(node)} is not "
                f"supported; supported are {', '.join(table.SUPPORTED)}"
            )
        raise AssertionError(name)

    # Asking

    def require_output(self) -> str:
        """``output_name``.

        Raises:
            InputError: several values could be meant, or none; they are listed.
        """
        if self.output_name is not None:
            return self.output_name
        if not self.ends:
            raise InputError(f"{self._where}: nothing in the graph depends on an input; name a node with output=")
        found = f"{', '.join(name[:200] for name in self.ends[:10])}{', ...' if len(self.ends) > 10 else ''}"
        raise InputError(
            f"{self._where}: the graph has several outputs ({found}); name one with output=, or give the model's card="
        )

    def layer_name(self, node: str) -> str:
        """The name of a node ("node" or "node:k") as a layer of this module.

        Raises:
            InputError: no such node, or one that cannot be computed.
        """
        name, number = self._check(node)
        return self.layers[name] + (f":{number}" if ":" in node and number else "")

    def find_logits(self) -> str | None:
        """The layer whose value a Sigmoid or Softmax turns into the module's output; None if neither does."""
        if self.output_name is None:
            return None
        found = saturation(self.nodes, split_reference(self.output_name))
        return None if found is None else self.layer_name(f"{found[1][0]}:{found[1][1]}")

    # Computing

    def forward(self, x: Tensor, output: str | None = None, input: str | None = None) -> Any:
        """The value of a node.

        Args:
            x: what the Placeholder takes, as a rule (B, frames, bands) or (B, D).
            output: "node" or "node:k"; by default ``output_name``.
            input: another node to start from: ``x`` is its value.

        Raises:
            InputError: no such node, or ``x`` has a shape that the graph does not take.
        """
        if not isinstance(x, Tensor):
            raise InputError(f"{self._where}: the input is of type {type(x).__name__}; give a torch.Tensor")
        wanted = self.require_output() if output is None else output
        target, number = self._check(wanted)
        start = self._start(target, input)
        if input is None:
            self._check_shape(x)
        values = self._run(x, start, target)
        if isinstance(values, tuple):
            if number >= len(values):
                raise InputError(f"output={short_repr(wanted)}: the node has {len(values)} outputs, counted from 0")
            return values[number]
        if number:
            raise InputError(f"output={short_repr(wanted)}: the node has one output; leave out the number")
        return values

    def _start(self, target: str, given: str | None) -> str:
        if given is not None:
            name, number = self._check(given)
            if number:
                raise InputError(f"{self._where}: input={short_repr(given)}: start from a node's first output")
            return name
        if self.input_name is not None:
            return self.input_name
        found = [name for name in ancestors(self.nodes, target) if self.nodes[name].op == "Placeholder"]
        if len(found) != 1:
            raise InputError(
                f"{self._where}: {short_repr(target)} depends on {len(found)} inputs, {short_repr(found)}; give input="
            )
        return found[0]

    def _check_shape(self, x: Tensor) -> None:
        expected = self.input_shape
        if expected is None:
            return
        fits = x.dim() == len(expected) and all(
            want is None or want == have for want, have in zip(expected[1:], x.shape[1:], strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in ("B", *expected[1:]))
            raise InputError(f"{self._where}: the input has shape {tuple(x.shape)}; {self.input_name} takes ({sizes})")

    def _run(self, x: Tensor, start: str, target: str) -> Result:
        needed = self._needed(start, target)
        chains = self._usable_chains(needed, start, target)
        # What a chain reads is read when its pooling is computed, however many nodes come in between.
        when = {name: name for name in needed if name != start}
        when |= {inner: name for name, chain in chains.items() for inner in chain.inside}
        last_reader: dict[str, str] = {}
        for name in sorted(when, key=lambda name: self._position[when[name]]):
            last_reader |= dict.fromkeys((source for source, _ in self.nodes[name].inputs), when[name])
        finished: dict[str, list[str]] = {}
        for source, reader in last_reader.items():
            finished.setdefault(reader, []).append(source)
        skipped = {name for chain in chains.values() for name in chain.inside}
        values: dict[str, Result] = {}
        for name in needed:
            if name in skipped:
                continue
            module = self.get_submodule(self.layers[name])
            if name == start:
                values[name] = module(x) if self.nodes[name].op == "Placeholder" else x
            elif name in chains:
                values[name] = module(computed=self._chained(chains[name], values))
            else:
                values[name] = module(*self._inputs(name, values))
            for source in finished.get(name, ()):
                values.pop(source, None)
        return values[target]

    def _inputs(self, name: str, values: Mapping[str, Result]) -> list[Value]:
        try:
            return [pick(values, source) for source in self.nodes[name].inputs]
        except BadGraph as reason:
            raise InputError(f"{self._where}: node {short_repr(name)} reads {reason} counted from 0") from None

    def _chained(self, chain: Chain, values: Mapping[str, Result]) -> Tensor:
        try:
            return chain.compute(self._modules, values)
        except (InputError, torch.cuda.OutOfMemoryError):
            raise
        except FAILURES as error:
            raise InputError(
                f"{self._where}: nodes {short_repr(chain.inside[0])} to {short_repr(chain.pooling)} do not fit "
                f"together: {first_line(error)}"
            ) from error

    def _needed(self, start: str, target: str) -> list[str]:
        """The nodes between the two, in order of computation."""
        found, waiting = {target}, [target]
        while waiting:
            name = waiting.pop()
            if name == start:
                continue
            for source, _ in self.nodes[name].inputs:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        others = [name for name in found if self.nodes[name].op == "Placeholder" and name != start]
        if others:
            raise InputError(
                f"{self._where}: {short_repr(target)} also depends on {short_repr(others[0])}, which has no value"
            )
        return sorted(found, key=self._position.__getitem__)

    def _usable_chains(self, needed: Sequence[str], start: str, target: str) -> dict[str, Chain]:
        """Chains whose inner nodes have no hook, are not asked for and are not read elsewhere."""
        usable = {}
        present = set(needed)
        for name in needed:
            chain = self._chains.get(name)
            if chain is None or name == start or {start, target} & set(chain.inside):
                continue
            watched = any(_hooked(self.get_submodule(self.layers[inside])) for inside in chain.inside)
            if not watched and all(set(chain.readers[inside]) & present <= chain.members for inside in chain.inside):
                usable[name] = chain
        return usable


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def import_graph(
    path: str | PathLike[str],
    card: str | PathLike[str] | ModelCard | None = None,
    *,
    input: str | None = None,
    output: str | None = None,
) -> GraphModule:
    """A frozen TensorFlow graph as a torch module; see `GraphModule`.

    Args:
        path: the ``.pb`` file.
        card: its metadata JSON; by default the file of the same name that ends in ``.json``, if there is one.
        input, output: names of nodes, where the card does not tell or is not there.

    Returns:
        ``module(x)`` gives the card's predictions, ``module(x, output="node[:k]")`` that node's value.

    Raises:
        InputError: not a frozen graph, or the card names a node that is not there.
        UnsupportedOperation: the predictions depend on an operation that is not supported.
    """
    where = short_repr(fspath(path), 200)
    found = find_card(path, card)
    named = {} if found is None else found.named(input=input, predictions=output)
    input, output = input or named.get("input"), output or named.get("predictions")
    nodes = flat_graph(path, input)
    if found is not None:
        found.check(named, nodes, where)
    return GraphModule(nodes, input, output, where)


def flat_graph(path: str | PathLike[str], input: str | None = None) -> dict[str, FlatNode]:
    """The nodes of a ``.pb`` file, with functions inlined, for any number of rows.

    Raises:
        InputError: not a frozen graph.
    """
    nodes = flatten(read_graph(path), short_repr(fspath(path), 200))
    for node in nodes.values():
        shape = node.attributes.shapes.get("shape")
        if node.op == "Placeholder" and input in (None, node.name) and shape and shape[0] > 0:
            nodes = free_batch(nodes, shape[0])
    return nodes
