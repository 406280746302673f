"""Exact betweenness centrality, many sources at once.

Brandes' algorithm (2001) needs, for every source s and node w, the number of shortest paths sigma(s, w) and then the
dependency delta(s, v) = sum over w one step behind v of sigma(s, v) / sigma(s, w) * (1 + delta(s, w)). Both run level
by level over the distance from the source, and one level for a whole block of sources is one matrix product with the
adjacency matrix. Every connected component is taken alone, in the one of four ways that is expected to be the fastest:

* *pairs at distance two*: most dense similarity graphs have diameter two; then sigma = A A, everything is symmetric,
  and half of two matrix products is all there is to do. The few sources that reach further go through the next way,
  which there counts only the targets beyond distance two.
* *dense*: level by level with matrix products, only over the rows and columns that still have something to do.
* *sparse products*: level by level with products of the matrix in compressed rows, where few pairs are linked.
* *lists*: level by level over lists of edges, where there are many levels.

Numbers: path counts are formed in float32 and again in float64 (relative error below n * 1.1e-16 a level) where one
reaches 2^24, up to which float32 holds every integer. Counts beyond 2^500
are scaled by powers of two, source by source, so that they never overflow. Dependencies are float64 sums of positive
terms. The result agrees with networkx to about 1e-12 relative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.miners.centrality import edge_lists, sparse_products
from captum_concepts.miners.centrality.path_counts import EXACT, growth_of, scaled
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

_BYTES = 2**29  # work space of one block of sources
# Seconds on one CPU core, only for choosing a way: a multiply-add in a dense product; in a sparse one, while a block of
# sources stays in the cache and where it does not; the work on one (source, node) at one level beside them; an edge in
# a list; a level of a block.
_DENSE_SECONDS, _SPARSE_SECONDS, _SPARSE_SECONDS_LARGE = 4e-11, 3e-10, 5e-10
_CELL_SECONDS, _EDGE_SECONDS, _LEVEL_SECONDS = 1.5e-8, 1.2e-7, 1e-3
_CACHED_NODES = 2**13
_NAN = "adjacency: NaN; give True or 1 where there is an edge, False or 0 elsewhere"


def betweenness(
    adjacency: Tensor | np.ndarray,
    *,
    normalized: bool = True,
    device: str | torch.device | None = None,
    block: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Exact betweenness centrality of an undirected, unweighted graph.

    Args:
        adjacency: (n, n), symmetric; what is not zero is an edge. The diagonal is ignored.
        normalized: divide by the number of pairs of other nodes, (n - 1)(n - 2) / 2, as networkx does.
        device: where to compute (it must know float64); default: where ``adjacency`` is.
        block: sources at a time; default: as many as fit in about half a gigabyte of work space.
        progress: called as ``progress("betweenness", sources done, n)``.

    Returns:
        (n,) float64 on ``device``. The same input gives the same bytes on a CPU.

    Raises:
        InputError: not a dense square matrix of real numbers, NaN, not symmetric (for a directed graph give
            ``adjacency | adjacency.T``), a device that is not there or lacks float64, or ``block`` no whole number of
            at least 1.

    Source: Brandes, A faster algorithm for betweenness centrality (2001), in matrix form.
    """
    linked = _checked(adjacency, device)
    if block is not None and (isinstance(block, bool) or not isinstance(block, Integral) or block < 1):
        raise InputError(f"block: {short_repr(block)} sources at a time; give a whole number of at least 1")
    n = len(linked)
    total = torch.zeros(n, dtype=torch.float64, device=linked.device)
    report = _Report(progress, n)
    for nodes, levels in _components(linked):
        part = linked if len(nodes) == n else linked[nodes][:, nodes]
        total[nodes] = _component(part, levels, block, report)
    report.finish()
    if normalized:
        return total / ((n - 1) * (n - 2)) if n > 2 else total
    return total / 2


def _checked(adjacency: Tensor | np.ndarray, device: str | torch.device | None) -> Tensor:
    """(n, n) bool of its own, on the device, without a diagonal."""
    linked = _links_of_tensor(adjacency) if isinstance(adjacency, Tensor) else _links_of_array(adjacency)
    if device is not None:
        try:
            torch.ones((), dtype=torch.float64, device=device).item()
            linked = linked.to(device)
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = short_repr(str(error).partition("\n")[0])
            raise InputError(
                f"device {short_repr(device)}: {reason}; give one that is there and knows float64"
            ) from None
    if linked.ndim != 2 or linked.shape[0] != linked.shape[1]:
        raise InputError(f"adjacency: shape {tuple(linked.shape)}; give a square matrix")
    if not torch.equal(linked, linked.T):
        raise InputError("adjacency: not symmetric; give adjacency | adjacency.T, betweenness is undirected here")
    return linked.fill_diagonal_(False)


def _links_of_tensor(adjacency: Tensor) -> Tensor:
    if adjacency.layout != torch.strided or adjacency.is_complex():
        what = f"a tensor of layout {adjacency.layout} and type {adjacency.dtype}"
        raise InputError(f"adjacency: {what}; give a dense matrix of real numbers or booleans")
    if adjacency.is_floating_point() and bool(adjacency.isnan().any()):
        raise InputError(_NAN)
    return adjacency.detach() != 0


def _links_of_array(adjacency: object) -> Tensor:
    try:
        array = np.asarray(adjacency)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        what = f"{type(adjacency).__name__} of {array.dtype}"
        raise InputError(f"adjacency: {what}; give a dense matrix of real numbers or booleans")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(_NAN)
    return torch.from_numpy(np.not_equal(array, 0, order="C", subok=False))


class _Report:
    def __init__(self, progress: Progress | None, n: int) -> None:
        self.progress, self.n, self.done = progress, n, 0

    def add(self, sources: int) -> None:
        self.done += sources
        if self.progress:
            self.progress("betweenness", self.done, self.n)

    def finish(self) -> None:
        """Nodes alone or in pairs lie on no path and are never sources."""
        if self.progress and self.done < self.n:
            self.progress("betweenness", self.n, self.n)


def _components(linked: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Connected components of at least three nodes, each with the eccentricity of its first node."""
    new = linked.any(1)
    while bool(new.any()):
        front = new.nonzero()[:1, 0]
        members = torch.zeros_like(new)
        members[front] = True
        levels = -1
        while len(front):
            levels += 1
            found = linked[front].any(0) & ~members
            members |= found
            front = found.nonzero()[:, 0]
        new &= ~members
        nodes = members.nonzero()[:, 0]
        if len(nodes) > 2:
            yield nodes, levels


def _component(linked: Tensor, levels: int, block: int | None, report: _Report) -> Tensor:
    """Sum over ordered pairs, for a connected graph."""
    n = len(linked)
    near = _share_beyond_two(linked) < 0.5
    way = _fastest(n, int(linked.sum()), max(levels, 1), near)
    if way == "lists":
        return _lists(linked, block, report)
    if way == "sparse products":
        return _sparse_products(linked, levels, block, report)
    edges = _Edges(linked)
    total = torch.zeros(n, dtype=torch.float64, device=linked.device)
    sources, credit_from = torch.arange(n, device=linked.device), 2
    if near:
        sources, credit_from = _pairs_at_two(edges, total, block or _block(n, 3), report), 3
    step = block or _block(n, 2 * max(levels, 2))
    for some in sources.split(step):
        _add_dependencies(edges, some, credit_from, total)
        if credit_from == 2:
            report.add(len(some))
    return total


def _fastest(n: int, entries: int, levels: int, near: bool) -> str:
    """The way of least estimated seconds; ``near``: most nodes reach all others in two steps."""
    product = _SPARSE_SECONDS if n <= _CACHED_NODES else _SPARSE_SECONDS_LARGE
    seconds = {
        "dense": _DENSE_SECONDS * float(n) ** 3 * (1 if near else 2 * levels),
        "sparse products": 2 * product * levels * entries * n + _CELL_SECONDS * levels * float(n) ** 2,
        "lists": _EDGE_SECONDS * entries * n + _LEVEL_SECONDS * levels,
    }
    return min(seconds, key=seconds.__getitem__)


def _block(n: int, arrays: int) -> int:
    """Sources for which so many float64 arrays fit in the work space."""
    return max(1, min(n, _BYTES // (8 * n * arrays)))


class _Edges:
    """The adjacency matrix as booleans, and as float32 and float64 factors of products."""

    def __init__(self, linked: Tensor) -> None:
        self.linked = linked
        self.double = linked.double()
        # a user may have allowed shorter float32 products (TF32, bfloat16), which are not exact
        self.single = linked.float() if torch.get_float32_matmul_precision() == "highest" else None

    def count(self, counts: Tensor, rows: Tensor, columns: Tensor, wanted: Tensor) -> Tensor:
        """``counts @ A[rows][:, columns]`` where wanted, else 0; exact while counts and sums stay below 2^53."""
        if self.single is not None and counts.dtype == torch.float32:
            found = (counts @ _block_of(self.single, rows, columns)).masked_fill_(~wanted, 0.0)
            if float(found.max()) < EXACT:  # a sum of counts only grows, so none was rounded on its way
                return found
        return (counts.double() @ _block_of(self.double, rows, columns)).masked_fill_(~wanted, 0.0)


# ---------------------------------------------------------------------- pairs at distance two


def _share_beyond_two(linked: Tensor) -> float:
    """Share of nodes, out of 64 evenly spaced ones, that are more than two steps from some other."""
    n = len(linked)
    sample = range(0, n, max(1, n // 64))
    beyond = 0
    for node in sample:
        within = linked[linked[node]].any(0) | linked[node]
        within[node] = True
        beyond += not bool(within.all())
    return beyond / len(sample)


def _pairs_at_two(edges: _Edges, total: Tensor, block: int, report: _Report) -> Tensor:
    """Add what the pairs at distance two contribute; returns the sources that reach further than two.

    With W[s, t] = 1 / sigma(s, t) at those pairs, node v gets (A W A)[v, v]; W is symmetric, so its upper half will do.
    """
    n = len(edges.linked)
    far = torch.zeros(n, dtype=torch.bool, device=total.device)
    for start in range(0, n, block):
        rows, rest = slice(start, min(n, start + block)), slice(start, n)
        factor = edges.double if edges.single is None else edges.single
        counts = factor[rows] @ factor[:, rest]
        apart = ~edges.linked[rows, rest]
        apart.triu_(1)
        beyond = apart & (counts == 0)
        far[rows] |= beyond.any(1)
        far[rest] |= beyond.any(0)
        weights = counts.double().reciprocal_().masked_fill_(~apart | beyond, 0.0)
        total += 2 * (weights @ edges.double[rest]).mul_(edges.linked[rows]).sum(0)
        report.add(len(counts))
    return far.nonzero()[:, 0]


# ---------------------------------------------------------------------- dense, any distance


@dataclass
class _Level:
    """Path counts at one distance, for the rows (of a block of sources) and columns (nodes) that have any.

    ``counts`` is (rows, columns), zero where a node is not at this distance; the true counts are ``counts`` times a
    power of two per source, whose growth since the level before is ``growth`` (rows, 1), None for no growth.
    """

    rows: Tensor
    columns: Tensor
    counts: Tensor
    growth: Tensor | None = None


def _add_dependencies(edges: _Edges, sources: Tensor, credit_from: int, total: Tensor) -> None:
    """Add the dependencies of all sources on every node, for targets at a distance of at least ``credit_from``."""
    levels = _levels(edges, sources)
    dependency = None
    for depth in range(len(levels) - 1, 0, -1):
        level = levels.pop()
        share = torch.zeros_like(level.counts, dtype=torch.float64) if dependency is None else dependency
        if dependency is not None:
            total.index_add_(0, level.columns, dependency.sum(0))
        if depth >= credit_from:
            share = share + 1
        if depth == 1:
            break
        share = torch.where(level.counts > 0, share / level.counts, 0.0)
        if level.growth is not None:
            share /= level.growth
        before = levels[-1]
        passed = share @ _block_of(edges.double, level.columns, before.columns)
        dependency = torch.zeros(before.counts.shape, dtype=torch.float64, device=total.device)
        at = torch.searchsorted(before.rows, level.rows)
        dependency[at] = passed.mul_(before.counts[at])


def _block_of(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``matrix[rows][:, columns]`` of a symmetric matrix, without a copy where all are meant."""
    if len(columns) < len(matrix):  # whole rows are copied faster than columns
        matrix = matrix[columns].T
    return matrix if len(rows) == len(matrix) else matrix[rows]


def _levels(edges: _Edges, sources: Tensor) -> list[_Level]:
    """Breadth-first search from all sources at once; level 0, the sources, is only a placeholder."""
    rows = torch.arange(len(sources), device=sources.device)
    nodes = torch.arange(len(edges.linked), device=sources.device)
    unseen = ~edges.linked[sources]
    unseen[rows, sources] = False
    first = edges.linked[sources].to(torch.float64 if edges.single is None else torch.float32)
    levels = [_Level(rows, nodes, first[:0]), _Level(rows, nodes, first)]
    while bool(unseen.any()):
        last = levels[-1]
        keep, open_columns = unseen.any(1), unseen.any(0)
        if not bool(keep.all()):
            unseen = unseen[keep]
        if not bool(open_columns.all()):
            unseen = unseen[:, open_columns]
        rows, nodes = rows[keep], nodes[open_columns]
        counts = last.counts if len(rows) == len(last.rows) else last.counts[torch.searchsorted(last.rows, rows)]
        found = edges.count(counts, last.columns, nodes, unseen)
        unseen = unseen & (found == 0)
        growth = growth_of(found.amax(1, keepdim=True))
        if growth is not None:
            found = scaled(found, growth)
        levels.append(_Level(rows, nodes, found, growth))
    return levels


# ---------------------------------------------------------------------- sparse


def _sparse_products(linked: Tensor, levels: int, block: int | None, report: _Report) -> Tensor:
    n = len(linked)
    edges = sparse_products.SparseEdges(linked)
    total = torch.zeros(n, dtype=torch.float64, device=linked.device)
    step = block or min(max(64, sparse_products.CELLS // n), _block(n, 2 * levels))
    for sources in torch.arange(n, device=linked.device).split(step):
        total += sparse_products.dependencies(edges, sources)
        report.add(len(sources))
    return total


def _lists(linked: Tensor, block: int | None, report: _Report) -> Tensor:
    n = len(linked)
    edges = edge_lists.EdgeLists(linked)
    total = torch.zeros(n, dtype=torch.float64, device=linked.device)
    step = block or max(1, min(n, _BYTES // (32 * n + 48 * len(edges.neighbours))))
    for sources in torch.arange(n, device=linked.device).split(step):
        total += edge_lists.dependencies(edges, sources)
        report.add(len(sources))
    return total
