"""Dependencies of betweenness by products with a sparse matrix, for :mod:`captum_concepts.miners.centrality.api`.

One level of Brandes' search for a block of sources is one product of the adjacency matrix in compressed rows with a
(nodes, sources) matrix. Few sources at a time, so that what is read again and again stays in the processor's cache.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from captum_concepts.miners.centrality.path_counts import EXACT, growth_of, scaled

CELLS = 2**20  # nodes times sources at a time


class SparseEdges:
    """The adjacency matrix in compressed rows, as float32 (exact products only) and float64 factors."""

    def __init__(self, linked: Tensor) -> None:
        degree = linked.sum(1)
        starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        columns = linked.nonzero()[:, 1]

        def as_(dtype: torch.dtype) -> Tensor:
            ones = torch.ones(len(columns), dtype=dtype, device=linked.device)
            with warnings.catch_warnings():  # PyTorch's notes to whoever uses its sparse tensors, who is not our user
                warnings.filterwarnings("ignore", "Sparse (CSR tensor support|invariant checks)", UserWarning)
                return torch.sparse_csr_tensor(starts, columns, ones, linked.shape)

        self.double = as_(torch.float64)
        self.single = as_(torch.float32) if torch.get_float32_matmul_precision() == "highest" else None

    def count(self, counts: Tensor, wanted: Tensor) -> Tensor:
        """``A @ counts`` where wanted, else 0; exact while counts and sums are integers below 2^53."""
        if self.single is not None and counts.dtype == torch.float32:
            found = (self.single @ counts).mul_(wanted)
            if float(found.max()) < EXACT:  # a sum of counts only grows, so none was rounded on its way
                return found
        return (self.double @ counts.double()).mul_(wanted)


def dependencies(edges: SparseEdges, sources: Tensor) -> Tensor:
    """(n,) float64: the dependencies of the sources on every node, summed, in a connected graph."""
    levels = _levels(edges, sources)
    total = torch.zeros(len(levels[0][0]), dtype=torch.float64, device=sources.device)
    dependency = torch.zeros_like(levels[0][0], dtype=torch.float64)
    while len(levels) > 2:
        counts, growth = levels.pop()
        share = torch.where(counts > 0, (1 + dependency) / counts, 0.0)
        if growth is not None:
            share /= growth
        dependency = (edges.double @ share).mul_(levels[-1][0])
        total += dependency.sum(1)
    return total


def _levels(edges: SparseEdges, sources: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Path counts (n, sources) at each distance, and by how much each source's were scaled down there."""
    n, width = edges.double.shape[0], len(sources)
    dtype = torch.float64 if edges.single is None else torch.float32
    found = torch.zeros(n, width, dtype=dtype, device=sources.device)
    found[sources, torch.arange(width, device=sources.device)] = 1
    unseen = found == 0
    levels: list[tuple[Tensor, Tensor | None]] = [(found, None)]
    while bool(unseen.any()):
        found = edges.count(found, unseen)
        growth = growth_of(found.amax(0, keepdim=True))
        unseen = unseen & (found == 0)
        if growth is not None:
            found = scaled(found, growth)
        levels.append((found, growth))
    return levels
