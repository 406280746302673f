"""Exact betweenness centrality by dense linear algebra."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError

Progress = Callable[[str, int, int], None]


def betweenness(
    adjacency: Tensor | np.ndarray,
    *,
    normalized: bool = True,
    device: str | torch.device | None = None,
    block: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Betweenness centrality of every node, equal to ``networkx.betweenness_centrality``; see module text."""
    linked = torch.as_tensor(adjacency)
    linked = linked.to(device or linked.device) != 0
    n = len(linked)
    if linked.shape != (n, n):
        raise InputError(f"adjacency: shape {tuple(linked.shape)}; give a square matrix")
    if not torch.equal(linked, linked.T):
        raise InputError("adjacency: not symmetric; give adjacency | adjacency.T, an undirected graph")
    linked.fill_diagonal_(False)
    total = torch.zeros(n, dtype=torch.float64, device=linked.device)
    edges = linked.double()
    step = block or max(1, min(n, 2**24 // max(n, 1)))
    for start in range(0, n, step):
        total += _dependencies(edges, torch.arange(start, min(n, start + step), device=linked.device))
        if progress:
            progress("betweenness", min(n, start + step), n)
    if normalized:
        return total / ((n - 1) * (n - 2)) if n > 2 else torch.zeros_like(total)
    return total / 2


def _dependencies(edges: Tensor, sources: Tensor) -> Tensor:
    rows = torch.arange(len(sources), device=edges.device)
    fronts = [torch.zeros(len(sources), len(edges), dtype=edges.dtype, device=edges.device)]
    fronts[0][rows, sources] = 1.0
    seen = fronts[0] > 0
    while True:
        front = (fronts[-1] @ edges).masked_fill_(seen, 0.0)
        if not front.any():
            break
        fronts.append(front)
        seen |= front > 0
    delta = torch.zeros_like(fronts[0])
    level = torch.zeros_like(delta)
    for depth in range(len(fronts) - 1, 1, -1):
        share = torch.where(fronts[depth] > 0, (1 + level) / fronts[depth], 0.0)
        level = (share @ edges) * fronts[depth - 1]
        delta += level
    return delta.sum(0)
