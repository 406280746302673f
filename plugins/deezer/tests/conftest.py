"""Files of the paper's formats, written here so that the tests need none of its data."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "models" / "deezer"


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """The path of a published file; skips where it is not available."""

    def path(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"the published {name} is not available")
        return SHARED / name

    return path


def random_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of the architecture: gains of both signs, dead channels, some with a constant that is read."""
    random = np.random.default_rng(seed)

    def norm(layer: str, size: int) -> dict[str, np.ndarray]:
        return {
            f"{layer}/{layer}/gamma:0": random.normal(size=size) + 0.1,
            f"{layer}/{layer}/beta:0": random.normal(size=size) * 0.1,
            f"{layer}/{layer}/moving_mean:0": np.abs(random.normal(size=size)) * 0.2,
            f"{layer}/{layer}/moving_variance:0": random.uniform(0.2, 1.0, size=size),
        }

    arrays = norm("bn_input", 1)
    for number in range(1, 6):
        inputs = 1 if number == 1 else 128
        kernel = random.normal(size=(3, 3, inputs, 128)) / np.sqrt(9 * inputs)
        bias = random.normal(size=128) * 0.1
        arrays |= norm(f"bn_conv{number}", 128)
        kernel[..., :40] = 0  # dead; those up to 20 have no offset either, so that the next block need not read them
        bias[:20] = -1
        arrays[f"bn_conv{number}/bn_conv{number}/beta:0"][:20] = 0
        arrays[f"bn_conv{number}/bn_conv{number}/moving_mean:0"][:20] = 0
        arrays[f"{number}CNN/{number}CNN/kernel_1:0"] = kernel
        arrays[f"{number}CNN/{number}CNN/bias_1:0"] = bias
    arrays["output/output/kernel:0"] = random.normal(size=(256, 50)) / 16
    arrays["output/output/bias:0"] = random.normal(size=50)
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    return random_arrays()


@pytest.fixture
def write_h5(tmp_path: Path) -> Callable[[dict[str, np.ndarray]], Path]:
    def write(arrays: dict[str, np.ndarray]) -> Path:
        path = tmp_path / "weights.h5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        return path

    return write


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def tensor_proto(values: np.ndarray, dtype: int = 1, store: str = "content") -> bytes:
    """A TensorProto with its numbers in tensor_content, as TensorFlow serialises it, or in float_val: "packed" in one
    field, or a field for each, "single", which readers of the format must accept too."""
    sizes = (b"\x08" + varint(size) for size in values.shape)
    shape = b"".join(b"\x12" + varint(len(size)) + size for size in sizes)
    head = b"\x08" + varint(dtype) + b"\x12" + varint(len(shape)) + shape
    if store == "single":
        return head + b"".join(b"\x2d" + struct.pack("<f", value) for value in values.ravel())
    data = values.astype("<f4").tobytes()
    return head + {"content": b"\x22", "packed": b"\x2a"}[store] + varint(len(data)) + data


@pytest.fixture(scope="session")
def proto() -> Callable[..., bytes]:
    return tensor_proto
