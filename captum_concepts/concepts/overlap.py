"""How many clips and groups concepts have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Overlap:
    """How many clips and groups every two concepts share; the diagonals hold the numbers of each concept alone.

    Attributes:
        names: the K concepts.
        clips: int (K, K), clips that have both.
        groups: int (K, K), groups that have a clip of one and a clip of the other.
    """

    names: tuple[str, ...]
    clips: np.ndarray
    groups: np.ndarray

    @property
    def clip_jaccard(self) -> np.ndarray:
        """float (K, K): shared clips / clips that have either; 0 where neither has any."""
        return _jaccard(self.clips)

    @property
    def group_jaccard(self) -> np.ndarray:
        """float (K, K): shared groups / groups that have either; 0 where neither has any."""
        return _jaccard(self.groups)


def _jaccard(shared: np.ndarray) -> np.ndarray:
    size = np.diagonal(shared)
    either = size[:, None] + size[None, :] - shared
    return np.asarray(shared / np.maximum(either, 1))


def shared(labels: np.ndarray) -> np.ndarray:
    """bool (N, K) -> int64 (K, K), how many rows have both."""
    # Sparse, as clips have few of the concepts: the dense product of 100,000 x 3,000 takes a minute, this a second.
    matrix = sparse.csr_array(labels, dtype=np.int64)
    return np.asarray((matrix.T @ matrix).todense())
