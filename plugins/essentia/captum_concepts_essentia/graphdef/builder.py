"""Write small frozen graphs, a few kilobytes each, without TensorFlow: for tests and examples.

    graph = GraphBuilder()
    x = graph.placeholder("model/Placeholder", (None, 187, 96))
    mean = graph.add("Mean", "mean", x, graph.constant("axis", np.array([1], np.int32)), keep_dims=False)
    product = graph.add("MatMul", "product", mean, graph.constant("kernel", kernel))
    graph.add("Sigmoid", "model/Sigmoid", product)
    Path("tiny.pb").write_bytes(graph.content)

TensorFlow itself loads what this writes. The messages are those that `protobuf` reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10}
#: Operations whose type attribute TensorFlow does not fill in, and what it is called.
_TYPED = {"Cast": (), "Const": (), "Placeholder": (), "NoOp": (), "PartitionedCall": ()}
Setting = bool | int | float | str | Sequence[int] | np.dtype


class GraphBuilder:
    """A GraphDef under construction; every method that adds a node returns its name."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._functions: list[bytes] = []

    @property
    def content(self) -> bytes:
        """The GraphDef's bytes."""
        library = field(2, b"".join(field(1, function) for function in self._functions)) if self._functions else b""
        return b"".join(field(1, node) for node in self._parts) + library

    @property
    def nodes(self) -> list[bytes]:
        """The NodeDefs so far, as the body of a function."""
        return self._parts

    def placeholder(self, name: str, shape: Sequence[int | None] | None, dtype: str = "float32") -> str:
        """An input; None is an unknown size or, for the whole shape, an unknown rank."""
        attributes = {"dtype": type_value(dtype), "shape": field(7, shape_message(shape))}
        return self._append(name, "Placeholder", (), attributes)

    def constant(self, name: str, value: np.ndarray) -> str:
        """A constant, its numbers as bytes."""
        value = np.asarray(value)
        code = _DTYPES[value.dtype.name]
        tensor = field(1, code) + field(2, shape_message(value.shape)) + field(4, value.tobytes())
        return self._append(name, "Const", (), {"dtype": type_value(value.dtype.name), "value": field(8, tensor)})

    def add(self, op: str, name: str, *inputs: str, **settings: Setting | bytes) -> str:
        """Any operation.

        Args:
            op: its type.
            name: the node's name.
            inputs: names of nodes, "node:1" for a second output; inside functions "node:output name:0".
            settings: attributes; bytes are a ready AttrValue. ``T`` is float32 unless it is given.
        """
        attributes = {key: attribute(value) for key, value in settings.items()}
        if op not in _TYPED:
            attributes.setdefault("T", type_value("float32"))
        return self._append(name, op, inputs, attributes)

    def function(self, name: str, arguments: Sequence[str], results: Mapping[str, str], body: GraphBuilder) -> None:
        """A function of floats: ``results`` says for each output's name what it is, "node:output name:0"."""
        listed = [field(2, field(1, argument.encode()) + field(3, 1)) for argument in arguments]
        outputs = [field(3, field(1, output.encode()) + field(3, 1)) for output in results]
        signature = field(1, name.encode()) + b"".join(listed) + b"".join(outputs)
        returned = [field(4, field(1, key.encode()) + field(2, value.encode())) for key, value in results.items()]
        self._functions.append(
            field(1, signature) + b"".join(field(3, node) for node in body.nodes) + b"".join(returned)
        )

    def call(self, name: str, function: str, *inputs: str, outputs: int = 1) -> str:
        """A call of a function of floats."""
        types = {
            "Tin": field(1, field(6, bytes([1] * len(inputs)))),
            "Tout": field(1, field(6, bytes([1] * outputs))),
            "f": field(10, field(1, function.encode())),
        }
        return self._append(name, "PartitionedCall", inputs, types)

    def _append(self, name: str, op: str, inputs: Sequence[str], attributes: Mapping[str, bytes]) -> str:
        entries = [field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items()]
        sources = [field(3, source.encode()) for source in inputs]
        self._parts.append(field(1, name.encode()) + field(2, op.encode()) + b"".join(sources) + b"".join(entries))
        return name


def attribute(value: Setting | bytes) -> bytes:
    """An AttrValue."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return field(5, int(value))
    if isinstance(value, int):
        return field(3, value)
    if isinstance(value, float):
        return b"\x25" + struct.pack("<f", value)
    if isinstance(value, str):
        return field(2, value.encode())
    if isinstance(value, np.dtype):
        return type_value(value.name)
    return field(1, field(3, b"".join(varint(number) for number in value)))


def type_value(dtype: str) -> bytes:
    """An AttrValue that is a type."""
    return field(6, _DTYPES[dtype])


def shape_message(shape: Sequence[int | None] | None) -> bytes:
    """A TensorShapeProto."""
    if shape is None:
        return field(3, 1)
    return b"".join(field(2, field(1, -1 if size is None else size)) for size in shape)


def field(number: int, value: int | bytes) -> bytes:
    """One field: a varint, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """A number in groups of seven bits; negative ones as the two's complement of 64 bits."""
    value &= 2**64 - 1
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
