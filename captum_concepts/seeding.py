"""Random draws that depend on a seed and on names, never on the order of rows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

import torch


def random_key(seed: int, name: str) -> bytes:
    """A random draw (32 bytes) that depends on the seed and the name only, never on the company it is drawn in."""
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()


def without_common_folder(groups: Sequence[str]) -> list[str]:
    """Group names without the folder they all lie in.

    Groups are paths by default; the same data reached by another path must be cut the same way.
    """
    first, last = min(groups), max(groups)
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    cut = first.rfind(os.sep, 0, common) + 1
    return [group[cut:] for group in groups]


def draw_seed(seed: int, *parts: int | str) -> int:
    """A number (63 bits) that depends on the seed and on what it is drawn for, e.g. ``("noise", epoch, index)``."""
    text = "\0".join(f"{type(part).__name__}{part}" for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A generator on the CPU that starts from `draw_seed`; draws are moved to the device, so that devices agree."""
    return torch.Generator().manual_seed(draw_seed(seed, *parts))


@contextlib.contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """PyTorch's global generator draws from `draw_seed` within, as when weights are made; then it is as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(seed, *parts))
        yield
