"""Atomic writing of files, and weights as safetensors: reproducible bytes, and no file runs code."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

_PARTIAL = ".partial"


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write to, which is then renamed to ``path``: readers see the old file or the new one, never a part.

    Args:
        path: of the finished file; its folder exists.

    Yields:
        the path of a temporary file in the same folder. It is removed if the block raises.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "notes.txt")
        >>> with written(path) as partial:
        ...     size = partial.write_text("all of it")
        >>> path.read_text()
        'all of it'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the renames in a folder to the disk."""
    if os.name != "nt":  # there a folder cannot be opened, and renaming is journalled
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write copies of tensors as a safetensors file; the same tensors and metadata give the same bytes.

    Args:
        path: of the file, which is replaced.
        tensors: by name.
        metadata: text by name.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp(), "model.safetensors")
        >>> write_weights(path, {"weight": torch.ones(2)}, {"classes": "2"})
        >>> read_weights(path)
        ({'weight': tensor([1., 1.])}, {'classes': '2'})
    """
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with written(Path(path)) as partial:
        partial.write_bytes(_sorted_header(save(copies, metadata=dict(metadata))))


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Args:
        path: of the file.

    Returns:
        tensors by name, and text by name.

    Raises:
        InputError: the file is missing or is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"weights={short_repr(str(path), 200)}: there is no such file; give a weights file") from None
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"weights={short_repr(str(path), 200)}: is not a safetensors file ({reason[:80]}); give the "
            "model.safetensors of a run"
        ) from None


def _sorted_header(data: bytes) -> bytes:
    """The library writes the metadata in the order of a hash table, another one in every process."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
