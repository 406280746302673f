"""The paper's baselines and its yardstick: graphs of concepts without mining, and the distance between neighbours.

Afchar, Hennequin & Guigue (ISMIR 2022) compare their hierarchy with plain graphs read from the same similarity, with
hierarchies mined from other embeddings of the concepts, and with chance; the yardstick is how close the two ends of a
link lie in an embedding that took no part in the mining.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.api import mine
from captum_concepts.text import short_repr

GRAPHS = ("random_top", "random_pairs", "similarity", "matching", "top1")
METRICS = ("euclidean", "cosine")
BLOCK = 2**22


def concept_graph(
    kind: str,
    similarity: Tensor | np.ndarray,
    names: Sequence[str],
    *,
    threshold: float | None = None,
    probability: float = 0.1,
    seed: int = 0,
) -> nx.DiGraph:
    """One of the paper's graphs without mining.

    Args:
        kind: ``"similarity"`` links p -> c where ``similarity[p, c] > threshold`` (0.5), ``"matching"`` the same with
            0.66, ``"top1"`` every concept with the largest entry of its row (equal ones: the first),
            ``"random_top"`` every concept with one other at random, ``"random_pairs"`` every ordered pair with
            ``probability``. The diagonal never links.
        similarity: (K, K), finite; the random graphs look at its size only.
        names: K unique names.
        threshold: for "similarity" and "matching".
        probability: for "random_pairs".
        seed: of the random graphs.

    Returns:
        a directed graph over all names; similarities as the edges' ``weight``. It may have cycles.

    Raises:
        InputError: an unknown kind, no concept, a matrix of another shape or not finite, duplicate names, a negative
            seed, or a probability outside [0, 1].
    """
    names = tuple(names)
    if not names:
        raise InputError("names: no concepts; a graph needs at least one")
    ConceptHierarchy.from_edges(names, [])  # complains about empty and duplicate names
    if isinstance(similarity, Tensor):
        similarity = similarity.detach().cpu().double().numpy()
    matrix = np.asarray(similarity, dtype=np.float64)
    k = len(names)
    if matrix.shape != (k, k):
        raise InputError(f"similarity: shape {matrix.shape} for {k} names; give ({k}, {k})")
    if not np.isfinite(matrix).all():
        raise InputError("similarity: NaN or infinity; leave out concepts without a usable vector")
    if threshold is not None and np.isnan(threshold):
        raise InputError("threshold=nan: not a number; give a number")
    if seed < 0:
        raise InputError(f"seed={seed}: negative; give a whole number of at least 0")
    if not 0 <= probability <= 1:
        raise InputError(f"probability={probability}: out of range; give a number from 0 to 1")
    linked = _links(kind, matrix, threshold, probability, np.random.default_rng(seed))
    np.fill_diagonal(linked, False)
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_weighted_edges_from((names[p], names[c], float(matrix[p, c])) for p, c in np.argwhere(linked))
    return graph


def _links(
    kind: str, matrix: np.ndarray, threshold: float | None, probability: float, draw: np.random.Generator
) -> np.ndarray:
    k = len(matrix)
    if kind in ("similarity", "matching"):
        floor = threshold if threshold is not None else 0.5 if kind == "similarity" else 0.66
        return matrix > floor
    if kind == "random_pairs":
        return draw.random((k, k)) < probability
    linked = np.zeros((k, k), dtype=bool)
    if kind == "top1":
        others = matrix.copy()
        np.fill_diagonal(others, -np.inf)
        partner = others.argmax(1)
    elif kind == "random_top":
        partner = (np.arange(k) + draw.integers(1, max(k, 2), k)) % k
    else:
        raise InputError(f"graph {short_repr(kind)}: unknown; use one of {', '.join(GRAPHS)}")
    linked[np.arange(k), partner] = True
    return linked


def embedding_hierarchy(
    vectors: Mapping[str, Sequence[float] | np.ndarray | Tensor],
    *,
    metric: str = "cosine",
    density: float = 0.1,
    threshold: float | None = None,
    **options: Any,
) -> ConceptHierarchy:
    """The paper's algorithm (`heymann`) on an embedding of the concepts, such as words or usage.

    The similarity is the cosine, or minus the squared Euclidean distance. Its centrality is betweenness in the graph of
    the similarities above ``threshold``; as in the paper, ``min_sim`` is -3 where the mean similarity is at most -0.5.

    Args:
        vectors: concept -> its vector, all of one length; at least one concept.
        metric: "cosine" or "euclidean".
        density: share of the pairs that the graph links, if no threshold is given (the paper chose about 0.1).
        threshold: of the graph.
        options: of `heymann`.

    Raises:
        InputError: no vectors, vectors of different lengths or not finite, a zero vector with the cosine, an unknown
            metric, or an option of `heymann` out of range.
    """
    names, points = _points(vectors, list(vectors))
    if not 0 < density < 1:
        raise InputError(f"density={density}: out of range; give a number between 0 and 1")
    matrix = -(_pairwise(points, metric) ** 2) if metric == "euclidean" else _pairwise(points, metric)
    off = matrix[~np.eye(len(names), dtype=bool)]
    if threshold is None and len(off):
        threshold = float(np.quantile(off, 1 - density))
    if len(off) and off.mean() <= -0.5:
        options.setdefault("min_sim", -3.0)
    return mine(torch.from_numpy(matrix), names, "heymann", threshold=threshold, **options)


def neighbour_distance(
    graph: nx.DiGraph | ConceptHierarchy,
    vectors: Mapping[str, Sequence[float] | np.ndarray | Tensor],
    metric: str = "euclidean",
) -> dict[str, float]:
    """How close linked concepts lie in an embedding of the concepts.

    Args:
        graph: links parent -> child; a hierarchy has none from its roots upwards.
        vectors: concept -> its vector. Links of concepts without one are left out and counted.
        metric: "euclidean" (lower is closer) or "cosine" (higher is closer), as in the paper.

    Returns:
        ``mean`` over the links; ``half``: half the 95 % interval as the paper states it, 1.96 standard deviations over
        the square root of the number of links, which takes links for independent; ``half_by_concept``: the same where
        links that share a concept are not independent (the variance of a mean over pairs with common members, Cameron,
        Gelbach & Miller 2011, both ends as clusters), the wider and honest one; ``links`` counted and
        ``left_out``. NaN where there is no link.

    Raises:
        InputError: vectors of different lengths or not finite, a zero vector with the cosine, or an unknown metric.
    """
    if isinstance(graph, ConceptHierarchy):
        graph = graph.graph
    known = [name for name in graph.nodes if name in vectors]
    pairs = [(p, c) for p, c in graph.edges if p in vectors and c in vectors]
    left_out = graph.number_of_edges() - len(pairs)
    if not pairs:
        nan = float("nan")
        return {"mean": nan, "half": nan, "half_by_concept": nan, "links": 0, "left_out": left_out}
    names, points = _points(vectors, known)
    index = {name: i for i, name in enumerate(names)}
    ends = np.array([(index[p], index[c]) for p, c in pairs])
    values = _distances(points, ends, metric)
    centred = values - values.mean()
    n = len(values)
    return {
        "mean": float(values.mean()),
        "half": float(1.96 * values.std() / np.sqrt(n)),
        "half_by_concept": float(1.96 * np.sqrt(_clustered_variance(centred, ends, len(names)))),
        "links": n,
        "left_out": left_out,
    }


def _clustered_variance(centred: np.ndarray, ends: np.ndarray, k: int) -> float:
    """Variance of the mean over links, with any two links correlated that share an end.

    The sum over all pairs of links with a common end is the sum over concepts of (sum over its links) squared, less
    what is counted twice: each link with itself, and with one of the same two ends read the other way round.
    """
    per_concept = np.bincount(ends.ravel(), weights=np.repeat(centred, 2), minlength=k)
    _, same = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    twice = np.bincount(same.ravel(), weights=centred)
    variance = (per_concept**2).sum() - (twice**2).sum()
    return float(max(variance, (centred**2).sum()) / len(centred) ** 2)


def _points(
    vectors: Mapping[str, Sequence[float] | np.ndarray | Tensor], names: list[str]
) -> tuple[list[str], np.ndarray]:
    if not names:
        raise InputError("vectors: none given; give concept -> vector")
    rows = [_row(name, vectors[name]) for name in names]
    for name, row in zip(names, rows, strict=True):
        if row.shape != rows[0].shape:
            raise InputError(
                f"vectors: {short_repr(name)} has {len(row)} numbers, {short_repr(names[0])} {len(rows[0])}; give "
                "equal lengths"
            )
        if not np.isfinite(row).all():
            raise InputError(f"vectors: {short_repr(name)} has NaN or infinity; leave the concept out")
    return names, np.stack(rows)


def _row(name: str, vector: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
    try:
        return np.asarray(vector.detach().cpu() if isinstance(vector, Tensor) else vector, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise InputError(f"vectors: {short_repr(name)} has {short_repr(vector)}; give a vector of numbers") from None


def _unit(points: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if not (length > 0).all():
        raise InputError("vectors: one is all zeros and has no cosine; leave the concept out, or use euclidean")
    return points / length


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise InputError(f"metric {short_repr(metric)}: unknown; use {' or '.join(METRICS)}")


def _pairwise(points: np.ndarray, metric: str) -> np.ndarray:
    _check_metric(metric)
    if metric == "cosine":
        unit = _unit(points)
        return unit @ unit.T
    rows = torch.from_numpy(points)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def _distances(points: np.ndarray, ends: np.ndarray, metric: str) -> np.ndarray:
    """Of the two ends of each link; in blocks, as dense graphs have millions of links."""
    _check_metric(metric)
    points = _unit(points) if metric == "cosine" else points
    parts = []
    for some in np.array_split(ends, max(1, ends.shape[0] * points.shape[1] // BLOCK)):
        a, b = points[some[:, 0]], points[some[:, 1]]
        parts.append((a * b).sum(1) if metric == "cosine" else np.linalg.norm(a - b, axis=1))
    return np.concatenate(parts)
