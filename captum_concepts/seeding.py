"""Random numbers that depend on a seed and on names, never on the order of rows."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch


def random_key(seed: int, name: str) -> bytes:
    """32 random bytes that depend on the seed and the name only, not on which other names there are.

    Args:
        seed: any whole number.
        name: what the bytes are for.

    Returns:
        32 bytes; the same ones for the same arguments.

    Example:
        >>> random_key(0, "violin") == random_key(0, "violin") != random_key(1, "violin")
        True
    """
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()


def without_common_folder(groups: Sequence[str]) -> list[str]:
    """Group names without the folder that all of them are in.

    Groups are paths by default; the same data under another path must be split the same way.

    Args:
        groups: at least one name.

    Returns:
        the names in the same order.

    Example:
        >>> without_common_folder([os.path.join("music", "a.wav"), os.path.join("music", "b.wav")])
        ['a.wav', 'b.wav']
    """
    first, last = min(groups), max(groups)
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    cut = first.rfind(os.sep, 0, common) + 1
    return [group[cut:] for group in groups]


def draw_seed(seed: int, *parts: int | str) -> int:
    """A seed of 63 bits that depends on a seed and on what the random numbers are for.

    Args:
        seed: any whole number.
        parts: what they are for, e.g. ``"noise", epoch, index``; 1 and "1" are different parts.

    Returns:
        a whole number from 0 to 2**63 - 1.

    Example:
        >>> draw_seed(0, "noise", 1) != draw_seed(0, "noise", "1")
        True
    """
    text = "\0".join(f"{type(part).__name__}{part}" for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """PyTorch's seeded generator, on the CPU; values are moved to the device afterwards, so that devices agree.

    Args:
        seed: as in `draw_seed`.
        parts: as in `draw_seed`. Without parts the generator starts from ``seed`` itself.

    Returns:
        the generator.

    Example:
        >>> one, two = (torch.rand(2, generator=generator(0, "noise")) for _ in range(2))
        >>> bool((one == two).all())
        True
    """
    return torch.Generator().manual_seed(draw_seed(seed, *parts) if parts else seed)


def numpy_generator(seed: int, *parts: int | str) -> np.random.Generator:
    """NumPy's seeded generator.

    Args:
        seed: as in `draw_seed`; without parts not negative.
        parts: as in `draw_seed`. Without parts the generator starts from ``seed`` itself.

    Returns:
        the generator.

    Example:
        >>> bool((numpy_generator(0, "folds").permutation(5) == numpy_generator(0, "folds").permutation(5)).all())
        True
    """
    return np.random.default_rng(draw_seed(seed, *parts) if parts else seed)


@contextlib.contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """PyTorch's global generator starts from `draw_seed` inside the block, and is put back afterwards.

    Args:
        seed: as in `draw_seed`.
        parts: as in `draw_seed`.

    Yields:
        nothing.

    Example:
        >>> with seeded(0, "weights"):
        ...     one = torch.nn.Linear(2, 1).weight
        >>> with seeded(0, "weights"):
        ...     two = torch.nn.Linear(2, 1).weight
        >>> bool((one == two).all())
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(seed, *parts))
        yield
