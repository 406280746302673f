"""Random sets of groups, and bootstrap samples of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.groups import index_groups
from captum_concepts.errors import InputError
from captum_concepts.seeding import random_key, without_common_folder
from captum_concepts.text import pluralize

#: Pseudo-concepts are spread evenly over this many parts of the pool, as concepts are over the folds of their quality.
POOL_FOLDS = 5


def draw_null_concepts(groups: np.ndarray, eligible: np.ndarray, size: int, count: int, seed: int) -> np.ndarray:
    """Random sets of groups, as masks over rows.

    Every set is spread evenly over the parts of ``pool_folds``, as a concept is over the folds in which its quality is
    measured. The parts are random, and every group is as likely as any other.

    Args:
        groups: (N,) group of each row.
        eligible: bool (N,), rows that may be drawn.
        size: groups in each set.
        count: number of sets.
        seed: the draw depends on it, ``size`` and the set of eligible group names, not on the order of rows.

    Returns:
        bool (N, count).

    Raises:
        InputError: fewer than size + 2 eligible groups, so that nothing is left to compare a set with.
    """
    names, index = index_groups(np.asarray(groups, dtype=object)[eligible])
    if len(names) < size + 2:
        raise InputError(
            f"random sets of {pluralize(size, 'group')} cannot be drawn from {pluralize(len(names), 'group')} of "
            f"negatives; give at least {size + 2} groups"
        )
    fold = pool_folds(names, seed)
    order, generator = _random_order(names, seed, str(size))
    parts = [order[fold[order] == number] for number in np.unique(fold)]
    drawn = np.zeros((len(names), count), dtype=bool)
    edges = np.cumsum([0, *(len(part) for part in parts)]) * size / len(names)
    edges[-1] = size
    for column in range(count):
        # Systematic sampling: every part gets its share rounded up or down, every group the same chance.
        shares = np.diff(np.floor(edges + generator.random())).astype(np.int64)
        for part, share in zip(parts, shares, strict=True):
            drawn[part[generator.choice(len(part), share, replace=False)], column] = True
    rows = np.zeros((len(groups), count), dtype=bool)
    rows[eligible] = drawn[index]
    return rows


def pool_folds(names: list[str], seed: int) -> np.ndarray:
    """int64 (G,): the part, of ``POOL_FOLDS`` equally large ones, that each of G distinct groups is in."""
    order, _ = _random_order(names, seed, "folds")
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % POOL_FOLDS
    return fold


def _random_order(names: list[str], seed: int, purpose: str) -> tuple[np.ndarray, np.random.Generator]:
    """The groups in an order, and a generator, that depend on seed, purpose and the set of names only."""
    keys = [random_key(seed, name) for name in without_common_folder(names)]
    # Not as fixed-width bytes: those lose NULs at the end.
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    state = hashlib.sha256(f"{seed} {purpose} ".encode() + b"".join(sorted(keys))).digest()
    return order, np.random.Generator(np.random.PCG64(int.from_bytes(state[:16], "big")))


def bootstrap_weights(groups: Sequence[str] | np.ndarray, count: int, seed: int) -> Tensor:
    """How often each clip counts in each bootstrap sample of groups.

    Args:
        groups: (clips,) group of each clip.
        count: number of samples.
        seed: with the set of group names it decides the draw.

    Returns:
        (count, clips) float32; all clips of a group have the same weight.
    """
    names, index = index_groups(groups)
    order, generator = _random_order(names, seed, "bootstrap")
    draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    weights = np.empty((count, len(names)), dtype=np.float32)
    weights[:, order] = draws
    return torch.from_numpy(weights[:, index])
