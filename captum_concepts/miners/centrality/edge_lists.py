"""Dependencies of betweenness by lists of edges, for :mod:`captum_concepts.miners.centrality.api`.

One level of Brandes' search for a block of sources is a list of (source, node) pairs, each written as one number: row
of the source * n + node. What is done at a level is as much as there are edges in it, however many levels there are.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from captum_concepts.miners.centrality import path_counts
from captum_concepts.miners.centrality.path_counts import growth_of, scaled


class EdgeLists:
    """The neighbours of all nodes, one node after the other, and where each one's begin."""

    def __init__(self, linked: Tensor) -> None:
        self.neighbours = linked.nonzero()[:, 1]
        self.degree = linked.sum(1)
        self.offset = self.degree.cumsum(0) - self.degree

    def around(self, front: Tensor) -> tuple[Tensor, Tensor]:
        """All (tail, head) pairs that lead from the front's pairs to neighbours of their nodes."""
        node = front % len(self.degree)
        times = self.degree[node]
        nth = torch.arange(int(times.sum()), device=front.device) - (times.cumsum(0) - times).repeat_interleave(times)
        heads = self.neighbours[self.offset[node].repeat_interleave(times) + nth]
        return front.repeat_interleave(times), (front - node).repeat_interleave(times) + heads


def dependencies(edges: EdgeLists, sources: Tensor) -> Tensor:
    """(n,) float64: the dependencies of the sources on every node, summed."""
    n, device = len(edges.degree), sources.device
    starts = torch.arange(len(sources), device=device) * n + sources
    counts = torch.zeros(len(sources) * n, dtype=torch.float64, device=device)
    counts[starts] = 1.0
    seen = counts > 0
    place = torch.full((len(counts),), torch.iinfo(torch.int64).max, device=device)
    front, steps = starts, []
    while len(front):
        tails, heads = edges.around(front)
        fresh = ~seen[heads]
        tails, heads = tails[fresh], heads[fresh]
        counts.index_add_(0, heads, counts[tails])
        seen[heads] = True
        front = _each_once(heads, place)
        steps.append((tails, heads, _shrink_front(counts, front, n)))
    return _summed_back(counts, steps, starts).view(len(sources), n).sum(0)


def _each_once(heads: Tensor, place: Tensor) -> Tensor:
    """Each of the heads once, in the order of their first places; ``place`` holds more than any place for all of them.

    An assignment ``place[heads] = order`` would do, but its winner depends on the threads, and with it the last bits.
    """
    order = torch.arange(len(heads), device=heads.device)
    place.scatter_reduce_(0, heads, order, "amin")
    return heads[place[heads] == order]


def _shrink_front(counts: Tensor, front: Tensor, n: int) -> Tensor | None:
    """Scale the newest counts source by source where they are huge; returns the scale of each source's row."""
    newest = counts[front]
    if not len(front) or float(newest.max()) <= path_counts.HUGE:
        return None
    row = front // n
    largest = torch.zeros(len(counts) // n, dtype=counts.dtype, device=counts.device)
    growth = cast(Tensor, growth_of(largest.scatter_reduce_(0, row, newest, "amax")))
    counts[front] = scaled(newest, growth[row])
    return growth


def _summed_back(counts: Tensor, steps: list[tuple[Tensor, Tensor, Tensor | None]], starts: Tensor) -> Tensor:
    """Dependencies of every (source, node) pair; consumes ``steps``."""
    dependency = torch.zeros_like(counts)
    n = len(counts) // len(starts)
    while steps:
        tails, heads, growth = steps.pop()
        share = (1 + dependency[heads]) / counts[heads]
        if growth is not None:
            share /= growth[heads // n]
        dependency.index_add_(0, tails, share * counts[tails])
    dependency[starts] = 0.0
    return dependency
