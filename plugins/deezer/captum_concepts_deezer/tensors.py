"""Read the paper's ``.tensor`` files: serialised TensorFlow tensors of the embeddings of one track.

A file is one ``TensorProto`` (tensorflow/core/framework/tensor.proto): dtype=1, tensor_shape=2, tensor_content=4,
float_val=5, in protocol-buffer wire format. The few fields that occur are read here, so that TensorFlow is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from os import PathLike

import numpy as np

from captum_concepts.audio import AudioError

#: Rows (about one second each) x embedding of one 30 s track.
EMBEDDING_SHAPE = (29, 128)
_FLOAT = 1  # DataType.DT_FLOAT
_BYTES_PER_NUMBER = 5  # a float, and a tag where each is a field of its own
_SPARE_BYTES = 1024  # room for the fields around the numbers


def read_tensor(path: str | PathLike[str], shape: tuple[int, ...] = EMBEDDING_SHAPE) -> np.ndarray:
    """The float32 array of the given shape in a ``.tensor`` file.

    Raises:
        AudioError: no such file ("unreadable"), empty, damaged or cut short ("truncated"), a tensor of another dtype or
            shape ("mislabelled"), NaN or infinite values ("nan").
    """
    name, limit = str(path), _BYTES_PER_NUMBER * int(np.prod(shape)) + _SPARE_BYTES
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise AudioError(name, "unreadable", str(error.strerror or error), "check the path") from None
    if not content:
        raise AudioError(name, "empty", "no bytes", "download the file again")
    if len(content) > limit:
        raise AudioError(name, "mislabelled", f"more than {limit} bytes", f"expected one float32 tensor {shape}")
    try:
        dtype, found, data = _parse(content)
    except (ValueError, struct.error) as error:
        raise AudioError(name, "truncated", f"not a whole TensorProto ({error})", "download the file again") from None
    if dtype != _FLOAT or found != shape:
        what = f"a tensor of dtype {dtype} and shape {found}"
        raise AudioError(name, "mislabelled", what, f"expected dtype {_FLOAT} (float32) and shape {shape}")
    if len(data) != 4 * int(np.prod(shape)):
        raise AudioError(name, "truncated", f"{len(data)} bytes of numbers for {shape}", "download the file again")
    values = np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise AudioError(name, "nan", "values are NaN or infinite", "download the file again")
    return values


def _parse(message: bytes) -> tuple[int, tuple[int, ...], bytes]:
    """dtype, shape, and the numbers as bytes."""
    dtype, content, floats = 0, b"", b""
    shape: tuple[int, ...] = ()
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2 and isinstance(value, bytes):
            shape = tuple(_size(part) for field, part in _fields(value) if field == 2)
        elif number == 4 and isinstance(value, bytes):
            content = value
        elif number == 5 and isinstance(value, bytes):
            floats += value
    return dtype, shape, content or floats


def _size(dimension: int | bytes) -> int:
    if not isinstance(dimension, bytes):
        raise ValueError("a dimension is not a message")
    return next((value for field, value in _fields(dimension) if field == 1 and isinstance(value, int)), 0)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value): an int for a varint, bytes for everything else."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(message):
            raise ValueError(f"ends {position + length - len(message)} bytes early")
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("ends within a number")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 10 bytes")
