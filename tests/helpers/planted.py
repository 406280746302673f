"""Activations in which concepts are planted, so that the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

#: Child -> parent of ``planted_family``: two parents with three children each.
PARENTS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "b3": "b", "a": None, "b": None}
NAMES = sorted(PARENTS)


def planted_family(seed: int, n: int, dimensions: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Activations (8 n, dimensions) and labels (8 n, 8) of ``NAMES``, n clips each.

    Clips of a parent are drawn from its children at random; no clip serves two concepts.
    """
    rng = np.random.default_rng(seed)
    place = {name: rng.normal(size=dimensions) for name in ("a", "b")}
    place |= {name: place[parent] + rng.normal(size=dimensions) for name, parent in PARENTS.items() if parent}
    rows, labels = [], []
    for column, name in enumerate(NAMES):
        of_leaf = [c for c, p in PARENTS.items() if p == name] or [name]
        for _ in range(n):
            rows.append(place[of_leaf[rng.integers(len(of_leaf))]] + noise * rng.normal(size=dimensions))
            labels.append(np.arange(len(NAMES)) == column)
    return torch.as_tensor(np.array(rows)), torch.as_tensor(np.array(labels))


def planted_shifts(
    shifts: Sequence[float], per: int, pool: int, dimensions: int, domain: float = 0.0, seed: int = 0
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Concepts that move the activation along an axis of their own, and a pool of negatives; each row is a group.

    Args:
        shifts: standard deviations by which each concept moves its axis; 0 makes a null concept.
        per: groups of each concept.
        pool: groups of the pool.
        dimensions: of the activations.
        domain: standard deviations by which all concepts move the last axis, as if from another domain.
        seed: of the noise.

    Returns:
        Activations (N, dimensions), positives (N, K), negatives (N, K), groups (N,).
    """
    count = len(shifts)
    rng = np.random.default_rng(seed)
    owner = np.repeat([*range(count), -1], [per] * count + [pool])
    positives = owner[:, None] == np.arange(count)
    x = rng.normal(size=(len(owner), dimensions))
    x[:, :count] += np.array(shifts) * positives
    x[:, -1] += domain * (owner >= 0)
    negatives = np.repeat(owner[:, None] == -1, count, axis=1)
    groups = np.array([f"g{i}" for i in range(len(owner))], dtype=object)
    return torch.tensor(x, dtype=torch.float32), positives, negatives, groups


def planted_directions(n: int, dimensions: int, concepts: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (n, D) with little noise, labels (n, K), and the orthonormal directions (K, D) of the concepts."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, concepts, generator=generator) < 0.4
    directions = torch.linalg.qr(torch.randn(dimensions, concepts, generator=generator)).Q.T
    rows = 0.3 * torch.randn(n, dimensions, generator=generator) + 3 * (labels.float() - 0.4) @ directions
    return rows, labels, directions
