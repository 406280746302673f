"""Rows and the groups they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError


def index_groups(groups: Sequence[str] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Index the group of each row.

    Args:
        groups: (N,) the track or recording of each row.

    Returns:
        the distinct group names, sorted, and int64 (N,), the place of each row's group among them.

    Example:
        >>> names, index = index_groups(["b", "a", "b"])
        >>> names, index.tolist()
        (['a', 'b'], [1, 0, 1])
    """
    # As objects: an array of fixed width would make every name as long as the longest, and cut NULs off.
    names = np.array([str(group) for group in groups], dtype=object)
    unique, index = np.unique(names, return_inverse=True)
    return list(unique), index.astype(np.int64)


def group_means(values: Tensor, members: Tensor, index: Tensor, n_groups: int) -> Tensor:
    """Mean over each group's member rows.

    Args:
        values: (N, K).
        members: bool (N, K), the rows that count for each column.
        index: int (N,), group of each row.
        n_groups: how many groups.

    Returns:
        (n_groups, K); NaN for a group without members.

    Example:
        >>> values, members = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[True], [True], [False]])
        >>> group_means(values, members, torch.tensor([0, 0, 1]), 2).tolist()
        [[2.0], [nan]]
    """
    zeros = values.new_zeros(n_groups, values.shape[1])
    sums = zeros.index_add(0, index, torch.where(members, values, 0))
    return sums / zeros.index_add(0, index, members.to(values.dtype))


def group_weights(groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """Weights that let every group count the same, however many patches it has.

    Args:
        groups: (N,) the track or recording of each row.

    Returns:
        (N,) 1 / (rows of the row's group).

    Example:
        >>> group_weights(["a", "b", "b"]).tolist()
        [1.0, 0.5, 0.5]
    """
    _, index = index_groups(groups)
    return np.asarray(1.0 / np.bincount(index)[index])


def row_weights(weights: Tensor | np.ndarray, like: Tensor) -> Tensor:
    result = torch.as_tensor(weights).to(like)
    if tuple(result.shape) != (len(like),):
        raise InputError(f"weights: shape {tuple(result.shape)}; pass ({len(like)},), one number for each row")
    if not (torch.isfinite(result) & (result > 0)).all():
        raise InputError("weights: zero, negative, infinite or NaN; give positive numbers, and leave other rows out")
    return result


@dataclass(frozen=True)
class Grouping:
    """G sorted group names, and the group of each row: int (N,)."""

    names: list[str]
    index: Tensor

    def any(self, mask: Tensor) -> Tensor:
        """bool (N, K) -> bool (G, K): whether any row of the group is marked."""
        counts = torch.zeros(len(self.names), mask.shape[1], device=mask.device)
        return counts.index_add_(0, self.index, mask.float()) > 0
