"""Weights on disk: the same bytes in every process, and never a part of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captum_concepts.errors import InputError
from captum_concepts.storage.safetensors_files import read_weights, write_weights, written

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int64)}
METADATA = {f"key {i}": str(i) for i in range(20)}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    turned = {**TENSORS, "view": TENSORS["a"].T, "shared": TENSORS["a"]}
    write_weights(tmp_path / "w.safetensors", turned, METADATA)
    tensors, metadata = read_weights(tmp_path / "w.safetensors")
    assert metadata == METADATA
    assert set(tensors) == set(turned)
    assert all(torch.equal(tensors[name], value) for name, value in turned.items())


def test_same_weights_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from captum_concepts.storage.safetensors_files import *; import torch; "
        "write_weights(sys.argv[1], {'a': torch.arange(3.0)}, {f'key {i}': str(i) for i in range(20)})"
    )
    for name in ("one", "two", "three"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


def die_half_way(path: Path) -> None:
    with written(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError("killed")


def test_a_writer_that_dies_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, TENSORS, {})
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="killed"):
        die_half_way(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no such file"), (b"no weights", "is not a safetensors")]
)
def test_what_is_no_weights_file_is_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
