"""Inline the functions of a graph, and sort its nodes in an order in which they can be computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.protobuf import MAX_NODES, Attributes, Graph, Node

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
MAX_DEPTH = 64
#: What inlining may write anew, though the file holds it once: characters of names, and numbers of constants.
MAX_NAME_CHARACTERS = 2**28
MAX_COPIED_NUMBERS = 2**24
#: Operations with several outputs of different names, in order; all others count theirs.
_NORMALISATION = ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3")
_OUTPUT_NAMES = dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _NORMALISATION)
_TEXT = 7  # DataType of strings
Reference = tuple[str, int]


@dataclass(frozen=True)
class FlatNode:
    """A node without functions around it.

    Attributes:
        name: its name; in a function, the caller's is before it.
        op: its type.
        inputs: what it reads, (node's name, number of its output).
        attributes: its settings.
        inside: whether it belongs to a function.
    """

    name: str
    op: str
    inputs: tuple[Reference, ...]
    attributes: Attributes
    inside: bool = False


class _Scope:
    """The names that the inputs of nodes in the graph, or in one call of a function, refer to."""

    def __init__(self, nodes: Iterable[Node], prefix: str, arguments: Mapping[str, Reference]) -> None:
        self.nodes = tuple(nodes)
        self.prefix = prefix
        self._arguments = arguments
        self._ops = {node.name: node.op for node in self.nodes}

    def resolve(self, text: str) -> Reference:
        """What "node", "node:1", "node:output name:1" or an argument's name refers to."""
        name, *rest = text.split(":")
        if name in self._arguments:
            return self._arguments[name]
        number = _number(rest.pop()) if rest and _is_number(rest[-1]) else 0
        names = _OUTPUT_NAMES.get(self._ops.get(name, ""), ())
        if rest and names:
            if rest[0] not in names:
                raise InputError(f"{short_repr(text)} is no output of {short_repr(name)}; it has {', '.join(names)}")
            number += names.index(rest[0])
        if len(rest) > 1 or (rest and not rest[0].isidentifier()):
            raise InputError(f"{short_repr(text)} is no output of a node; write node:0")
        return self.prefix + name, number


def split_reference(text: str) -> Reference:
    """ "node:1" as ("node", 1); without a number it is output 0."""
    name, colon, number = text.rpartition(":")
    return (name, _number(number)) if colon and _is_number(number) else (text, 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(digits: str) -> int:
    return int(digits[:9])  # no node has as many outputs


class _Budget:
    """Counts what inlining writes anew, so that a small file cannot ask for much of it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._characters = self._numbers = 0
        self._seen: set[int] = set()

    def spend(self, node: FlatNode) -> None:
        """Raise InputError if this node is one too many."""
        # A reference takes memory however short the name is.
        self._characters += len(node.name) + sum(len(name) + 200 for name, _ in node.inputs)
        for value in node.attributes.tensors.values():
            if id(value) in self._seen:
                self._numbers += value.size
            self._seen.add(id(value))
        if self._characters > MAX_NAME_CHARACTERS or self._numbers > MAX_COPIED_NUMBERS:
            what = "names" if self._characters > MAX_NAME_CHARACTERS else "constants"
            raise InputError(f"{self._where}: too many {what} once functions are inlined; not a frozen graph")


def flatten(graph: Graph, where: str) -> dict[str, FlatNode]:
    """All nodes of the graph by name, with functions inlined: a node of one has the caller's name before its own.

    The call itself stays as an ``IdentityN`` of what the function returns. Control dependencies say when, not what, and
    are left out.

    Raises:
        InputError: a function that is not in the graph, functions nested too deeply or into too many nodes.
    """
    found: dict[str, FlatNode] = {}
    _inline(graph, _Scope(graph.nodes.values(), "", {}), found, _Budget(where), where, 0)
    return found


def _inline(graph: Graph, scope: _Scope, found: dict[str, FlatNode], budget: _Budget, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: functions call each other more than {MAX_DEPTH} deep; not a frozen graph")
    for node in scope.nodes:
        name, op = scope.prefix + node.name, node.op
        try:
            inputs = tuple(scope.resolve(text) for text in node.inputs if not text.startswith("^"))
        except InputError as error:
            raise InputError(f"{where}: node {short_repr(name)}: input {error}") from None
        if op in CALLS:
            called = node.attributes.texts.get("f", "")
            function = graph.functions.get(called)
            if function is None:
                raise InputError(
                    f"{where}: node {short_repr(name)} calls {short_repr(called)}, which is not there; freeze it again"
                )
            if len(inputs) != len(function.arguments):
                raise InputError(
                    f"{where}: node {short_repr(name)} gives {len(inputs)} inputs to {short_repr(called)}; freeze it "
                    "again"
                )
            inner = _Scope(function.nodes, f"{name}/", dict(zip(function.arguments, inputs, strict=True)))
            _inline(graph, inner, found, budget, where, depth + 1)
            try:
                inputs, op = tuple(map(inner.resolve, function.results)), "IdentityN"
            except InputError as error:
                raise InputError(f"{where}: function {short_repr(called)}: result {error}") from None
        if name in found:
            raise InputError(f"{where}: two nodes are called {short_repr(name)} once functions are inlined; rename one")
        found[name] = FlatNode(name, op, inputs, node.attributes, inside=depth > 0)
        budget.spend(found[name])
        if len(found) > MAX_NODES:
            raise InputError(f"{where}: more than {MAX_NODES} nodes once functions are inlined; not a frozen graph")


def in_order(nodes: Mapping[str, FlatNode]) -> tuple[list[str], set[str]]:
    """Names so that every node comes after its inputs, and those that are part of a cycle or depend on one.

    Inputs that are not in the graph are passed over.
    """
    waiting = dict.fromkeys(nodes, 0)
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for source in {source for source, _ in node.inputs if source in nodes}:
            waiting[node.name] += 1
            readers[source].append(node.name)
    ordered = [name for name, count in waiting.items() if count == 0]
    for name in ordered:  # grows as inputs become known
        for reader in readers[name]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ordered.append(reader)
    return ordered, set(nodes) - set(ordered)


def ends(nodes: Mapping[str, FlatNode], order: Iterable[str]) -> tuple[str, ...]:
    """ "node" or "node:k" of all values that depend on an input and that no node reads, functions' own apart.

    What saves and restores files hangs on a placeholder for text, and does not count.

    Args:
        nodes: a graph.
        order: its names, as far as possible after those that they depend on.
    """
    read = {source for node in nodes.values() for source, _ in node.inputs}
    reached: set[str] = set()
    for name in order:
        node = nodes[name]
        is_input = node.op == "Placeholder" and node.attributes.ints.get("dtype", 1) != _TEXT
        if is_input or any(source in reached or source not in nodes for source, _ in node.inputs):
            reached.add(name)
    last = [
        node
        for name, node in nodes.items()
        if name in reached and name not in read and not node.inside and node.op != "Placeholder"
    ]
    found: list[str] = []
    for node in last:
        several = node.op == "IdentityN" and len(node.inputs) > 1
        found += [f"{node.name}:{k}" for k in range(len(node.inputs))] if several else [node.name]
    return tuple(found)


def saturation(nodes: Mapping[str, FlatNode], output: Reference) -> tuple[str, Reference] | None:
    """("Sigmoid" or "Softmax", what goes into it) if that is what ``output`` comes straight out of."""
    name, number = output
    while name in nodes and nodes[name].op in ("Identity", "IdentityN") and number < len(nodes[name].inputs):
        name, number = nodes[name].inputs[number]
    if name not in nodes or nodes[name].op not in ("Sigmoid", "Softmax") or not nodes[name].inputs:
        return None
    return nodes[name].op, nodes[name].inputs[0]


def join(
    below: Mapping[str, FlatNode], embedding: Reference, head: Mapping[str, FlatNode], head_input: str
) -> dict[str, FlatNode]:
    """One graph of two: the head's nodes get "head/" before their names, and its input is the embedding."""
    found = dict(below)
    for node in head.values():
        inputs = tuple((f"head/{source}", number) for source, number in node.inputs)
        op = node.op
        if node.name == head_input:
            inputs, op = (embedding,), "Identity"
        found[f"head/{node.name}"] = replace(node, name=f"head/{node.name}", op=op, inputs=inputs)
    return found


def free_batch(nodes: Mapping[str, FlatNode], batch: int) -> dict[str, FlatNode]:
    """The graph for any number of rows, where it was frozen for ``batch``: constant shapes that reshape to it.

    Only shapes that begin with ``batch`` and leave no other size open are changed.
    """
    shapes = {node.inputs[1][0] for node in nodes.values() if node.op == "Reshape" and len(node.inputs) == 2}
    found = dict(nodes)
    for name in shapes & set(nodes):
        value = nodes[name].attributes.tensors.get("value")
        if value is not None and value.ndim == 1 and len(value) and value[0] == batch and (value[1:] > 0).all():
            sizes = value.copy()
            sizes[0] = -1
            attributes = replace(nodes[name].attributes, tensors={"value": sizes})
            found[name] = replace(nodes[name], attributes=attributes)
    return found


def ancestors(nodes: Mapping[str, FlatNode], name: str) -> set[str]:
    """A node and all it depends on, as far as that is in the graph."""
    found = {name} & set(nodes)
    waiting = list(found)
    while waiting:
        for source, _ in nodes[waiting.pop()].inputs:
            if source not in found and source in nodes:
                found.add(source)
                waiting.append(source)
    return found
