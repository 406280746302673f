"""Read frozen TensorFlow graphs without TensorFlow: the few protocol-buffer messages that a GraphDef is made of.

The reader is bounded: it follows no nesting that the file decides about, takes no size from the file on trust, and
answers everything that is not a whole GraphDef with one line. Field numbers are those of ``graph.proto``,
``node_def.proto``, ``attr_value.proto``, ``tensor.proto``, ``tensor_shape.proto``, ``function.proto`` and
``op_def.proto`` in tensorflow/core/framework.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.storage.protobuf_wire import MalformedMessage, as_message, as_number, fields, numbers, signed
from captum_concepts.text import short_repr

MAX_FILE_BYTES = 2**31  # no protocol-buffer message may be larger
MAX_NODES = 200_000
MAX_DIMENSIONS = 16
MAX_NAME_BYTES = 4096
#: Numbers that a file may ask for without holding them (a tensor may give its one value once for all its elements).
MAX_REPEATED_NUMBERS = 2**24

# DataType -> the number type its bytes are in; strings, resources and the like hold no numbers.
_DTYPES: dict[int, str] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    10: "|b1",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
#: TensorProto's field of single values -> how they are packed; None is varints.
_VALUE_FIELDS: dict[int, str | None] = {5: "<f4", 6: "<f8", 7: None, 10: None, 11: None, 13: None, 16: None, 17: None}


@dataclass(frozen=True)
class Attributes:
    """A node's attributes by the kind of value; tensors are in ``tensors``, as arrays.

    Attributes:
        ints: numbers, truth values and types.
        floats: single floats.
        texts: byte strings, decoded, and names of functions.
        lists: lists of ints.
        text_lists: lists of byte strings, decoded.
        shapes: sizes, -1 where unknown; None for an unknown rank.
        tensors: constants.
        unread: constants of types that hold no numbers (strings, resources), by what they are.
    """

    ints: dict[str, int] = field(default_factory=dict)
    floats: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[int, ...]] = field(default_factory=dict)
    text_lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """One operation: ``inputs`` are names of nodes, with ":k" for output k and "^" for a control dependency."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Attributes


@dataclass(frozen=True)
class Function:
    """A function of the graph's library.

    Attributes:
        name: what calls it by.
        arguments: names of its inputs, in order.
        results: what its outputs are, in order, each "node:output name:k" or an argument's name.
        nodes: its body; inputs are written as ``results`` are.
    """

    name: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Graph:
    """A GraphDef: nodes by name, in the file's order, and the functions they may call."""

    nodes: dict[str, Node]
    functions: dict[str, Function]


def read_graph(path: str | PathLike[str]) -> Graph:
    """The frozen graph in a ``.pb`` file.

    Raises:
        InputError: no such file, one that is no whole GraphDef, or one beyond the limits above.
    """
    where = short_repr(os.fspath(path), 200)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(MAX_FILE_BYTES) if size < MAX_FILE_BYTES else b""
    except (OSError, ValueError) as error:  # a zero byte in the name is no OSError
        raise InputError(f"{where}: cannot be read ({getattr(error, 'strerror', error)}); check the path") from None
    if size >= MAX_FILE_BYTES:
        raise InputError(f"{where}: {size} bytes are more than a protocol buffer can have; not a frozen graph")
    return parse_graph(content, where)


def parse_graph(content: bytes, where: str = "graph") -> Graph:
    """The graph in the bytes of a GraphDef; ``where`` is named in complaints.

    Raises:
        InputError: as `read_graph`.
    """
    try:
        graph = _Reader().graph(memoryview(content))
    except (ValueError, OverflowError, struct.error) as error:
        reason = "a name is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise InputError(f"{where}: not a whole frozen graph ({reason}); download or freeze it again") from None
    if not graph.nodes:
        raise InputError(f"{where}: no nodes in it; give a frozen TensorFlow graph (.pb)")
    return graph


class _Reader:
    """Parses one file, and counts what the file asks for."""

    def __init__(self) -> None:
        self.nodes = 0
        self.repeated = 0

    def graph(self, message: memoryview) -> Graph:
        nodes: dict[str, Node] = {}
        functions: dict[str, Function] = {}
        for number, value in fields(message):
            if number == 1:
                node = self.node(as_message(value))
                if node.name in nodes:
                    raise MalformedMessage(f"two nodes are called {short_repr(node.name)}")
                nodes[node.name] = node
            elif number == 2:
                for inner, part in fields(as_message(value)):
                    if inner == 1:
                        function = self.function(as_message(part))
                        if function.name in functions:
                            raise MalformedMessage(f"two functions are called {short_repr(function.name)}")
                        functions[function.name] = function
        return Graph(nodes, functions)

    def node(self, message: memoryview) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise MalformedMessage(f"more than {MAX_NODES} nodes")
        name = op = ""
        inputs: list[str] = []
        attributes = Attributes()
        for number, value in fields(message):
            if number == 1:
                name = _text(value)
            elif number == 2:
                op = _text(value)
            elif number == 3:
                inputs.append(_text(value))
            elif number == 5:
                key, content = _entry(as_message(value))
                self.attribute(attributes, key, content)
        if not name or not op:
            raise MalformedMessage(f"node {short_repr(name)} of type {short_repr(op)}: both must be given")
        return Node(name, op, tuple(inputs), attributes)

    def attribute(self, into: Attributes, key: str, message: memoryview) -> None:
        for number, value in fields(message):
            if number == 2:
                into.texts[key] = as_message(value).tobytes().decode("utf-8", "replace")
            elif number in (3, 5, 6):
                into.ints[key] = signed(as_number(value))
            elif number == 4:
                into.floats[key] = struct.unpack("<f", as_message(value))[0]
            elif number == 7:
                into.shapes[key] = _shape(as_message(value))
            elif number == 8:
                self.tensor(into, key, as_message(value))
            elif number == 10:
                name = next((_text(part) for inner, part in fields(as_message(value)) if inner == 1), "")
                into.texts[key] = name
            elif number == 1:
                parts = list(fields(as_message(value)))
                ints = [number for inner, part in parts if inner in (3, 5, 6) for number in numbers(part)]
                into.lists[key] = tuple(map(signed, ints))
                texts = [as_message(part).tobytes().decode("utf-8", "replace") for inner, part in parts if inner == 2]
                into.text_lists[key] = tuple(texts)

    def tensor(self, into: Attributes, key: str, message: memoryview) -> None:
        code, content = 0, None
        shape: tuple[int, ...] = ()
        values: dict[int, list[memoryview | int]] = {}
        for number, value in fields(message):
            if number == 1:
                code = as_number(value)
            elif number == 2:
                shape = _shape(as_message(value)) or ()
            elif number == 4:
                content = as_message(value)
            elif number in _VALUE_FIELDS:
                values.setdefault(number, []).append(value)
        if code not in _DTYPES:
            into.unread[key] = f"values of type {code}"
            return
        if any(size < 0 for size in shape):
            raise MalformedMessage(f"a constant of unknown size {shape}")
        dtype = np.dtype(_DTYPES[code])
        count = _count(shape)
        if content is not None and len(content):
            if len(content) != count * dtype.itemsize:
                raise MalformedMessage(f"{len(content)} bytes of numbers for a constant of shape {shape}")
            into.tensors[key] = np.frombuffer(content, dtype).reshape(shape)
            return
        into.tensors[key] = self.filled(_single_values(values, dtype), shape, count)

    def filled(self, single: np.ndarray, shape: tuple[int, ...], count: int) -> np.ndarray:
        """As TensorFlow does, the last value given counts for all elements that have none."""
        if len(single) > count:
            raise MalformedMessage(f"{len(single)} values for a constant of shape {shape}")
        missing = count - len(single)
        self.repeated += missing
        if self.repeated > MAX_REPEATED_NUMBERS:
            raise MalformedMessage(f"a constant of shape {shape} with {len(single)} values")
        last = single[-1] if len(single) else single.dtype.type(0)
        return np.concatenate([single, np.full(missing, last, single.dtype)]).reshape(shape)

    def function(self, message: memoryview) -> Function:
        name = ""
        arguments: list[str] = []
        outputs: list[str] = []
        nodes: list[Node] = []
        returned: dict[str, str] = {}
        for number, value in fields(message):
            if number == 1:
                for inner, part in fields(as_message(value)):
                    if inner == 1:
                        name = _text(part)
                    elif inner in (2, 3):
                        listed = arguments if inner == 2 else outputs
                        listed.append(next((_text(v) for k, v in fields(as_message(part)) if k == 1), ""))
            elif number == 3:
                nodes.append(self.node(as_message(value)))
            elif number == 4:
                key, result = _entry(as_message(value))
                returned[key] = _text(result)
        missing = [output for output in outputs if output not in returned]
        if not name or missing:
            raise MalformedMessage(
                f"function {short_repr(name)}: nothing says what its outputs {short_repr(missing)} are"
            )
        return Function(name, tuple(arguments), tuple(returned[output] for output in outputs), tuple(nodes))


def _single_values(values: dict[int, list[memoryview | int]], dtype: np.dtype) -> np.ndarray:
    """Values given one by one or packed, of one field of the message."""
    if len(values) > 1:
        raise MalformedMessage(f"a constant with values in {len(values)} fields")
    for number, parts in values.items():
        packing = _VALUE_FIELDS[number]
        if packing is not None:
            return np.frombuffer(b"".join(as_message(part) for part in parts), packing).astype(dtype)
        found = [signed(value) for part in parts for value in numbers(part)]
        if number == 13:  # half precision, as the bits of the number
            return np.array(found, np.int64).astype("<u2").view("<f2").astype(dtype)
        return np.array(found, np.int64).astype(dtype)
    return np.zeros(0, dtype)


def _shape(message: memoryview) -> tuple[int, ...] | None:
    """Sizes, -1 where unknown; None for an unknown rank."""
    sizes = []
    for number, value in fields(message):
        if number == 3 and value:
            return None
        if number == 2:
            size = next((signed(as_number(part)) for inner, part in fields(as_message(value)) if inner == 1), 0)
            sizes.append(max(size, -1))
    if len(sizes) > MAX_DIMENSIONS:
        raise MalformedMessage(f"a shape of {len(sizes)} dimensions")
    return tuple(sizes)


def _count(shape: tuple[int, ...]) -> int:
    """Elements of a shape, in Python's own numbers, which do not overflow."""
    count = 1
    for size in shape:
        count *= size
    return count


def _entry(message: memoryview) -> tuple[str, memoryview]:
    """Key and value of one entry of a map."""
    key, value = "", memoryview(b"")
    for number, part in fields(message):
        if number == 1:
            key = _text(part)
        elif number == 2:
            value = as_message(part)
    return key, value


def _text(value: memoryview | int) -> str:
    """A name."""
    message = as_message(value)
    if len(message) > MAX_NAME_BYTES:
        raise MalformedMessage(f"a name of {len(message)} bytes")
    return message.tobytes().decode()
