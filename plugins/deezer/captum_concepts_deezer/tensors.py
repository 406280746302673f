"""Read the paper's ``.tensor`` files: serialised TensorFlow tensors of the embeddings of one track.

A file is one ``TensorProto`` (tensorflow/core/framework/tensor.proto): dtype=1, tensor_shape=2, tensor_content=4,
float_val=5, in protocol-buffer wire format. Only these fields are read, so that TensorFlow is not needed.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from captum_concepts.audio import AudioError
from captum_concepts.storage import protobuf_wire

#: Rows (about one second each) x embedding of one 30 s track.
EMBEDDING_SHAPE = (29, 128)
_FLOAT = 1  # DataType.DT_FLOAT
_BYTES_PER_NUMBER = 5  # a float, and a tag where each is a field of its own
_SPARE_BYTES = 1024  # space for the fields around the numbers


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
    except protobuf_wire.MalformedMessage as error:
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
    for number, value in protobuf_wire.fields(message):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2 and not isinstance(value, int):
            shape = tuple(_size(part) for field, part in protobuf_wire.fields(value) if field == 2)
        elif number == 4 and not isinstance(value, int):
            content = bytes(value)
        elif number == 5 and not isinstance(value, int):
            floats += value
    return dtype, shape, content or floats


def _size(dimension: memoryview | int) -> int:
    message = protobuf_wire.as_message(dimension)
    return next((value for field, value in protobuf_wire.fields(message) if field == 1 and isinstance(value, int)), 0)
