"""Heymann's algorithm, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.centrality.api import betweenness
from captum_concepts.miners.matrix import ROUNDING, incoming, largest_positions, per_concept
from captum_concepts.text import short_repr

# ---------------------------------------------------------------------- the paper's miner


def heymann(
    similarity: Tensor,
    names: Sequence[str],
    *,
    threshold: float = 0.5,
    min_sim: float = 0.2,
    parents_per_node: int = 1,
    additional_threshold: float = 0.2,
    max_children_per_node: int = 20,
    centrality: str | Tensor | np.ndarray = "betweenness",
) -> ConceptHierarchy:
    """The Heymann & Garcia-Molina variant of Afchar, Hennequin & Guigue (ISMIR 2022), step by step.

    The diagonal becomes ``min(S) - 0.1``. Concepts are taken by falling centrality in the undirected graph with an
    edge where ``S > threshold`` in either direction; equal centrality (of betweenness, equal but for rounding, 1e-12
    relative): the later concept first. Candidates for the parent of c are the concepts already placed that have fewer
    than ``max_children_per_node`` children; the ``parents_per_node`` best by ``S[p, c]`` are considered (equal: the
    earlier concept first), and p is linked if ``S[p, c] > min_sim`` and ``S[p, c] > best - additional_threshold``. A
    concept without a link is a root (the paper's ``<root>`` is no node here). All comparisons are strict and made in
    float64.

    Args:
        similarity: (K, K); the paper's S: row p = whose tracks, column c = whose CAV.
        centrality: "betweenness", or one number per concept.

    Raises:
        InputError: an option out of range, or a centrality of the wrong length or with NaN.
    """
    for option, value in (("parents_per_node", parents_per_node), ("max_children_per_node", max_children_per_node)):
        if value < 1 or value % 1:
            raise InputError(f"{option}={short_repr(value)}: too small or not whole; give a whole number of at least 1")
    order = np.argsort(_centrality(similarity, centrality, threshold), kind="stable")[::-1]
    links = incoming(similarity)
    open_nodes = np.zeros(len(names), dtype=bool)
    n_children = np.zeros(len(names), dtype=np.int64)
    edges = []
    for child in order:
        candidates = np.flatnonzero(open_nodes)
        best = largest_positions(links[child, candidates], parents_per_node)
        chosen = [(p, links[child, p]) for p in candidates[best]]
        for parent, strength in chosen:
            if strength > min_sim and strength > chosen[0][1] - additional_threshold:
                edges.append((names[parent], names[child], float(strength)))
                n_children[parent] += 1
                open_nodes[parent] = n_children[parent] < max_children_per_node
        open_nodes[child] = True
    return ConceptHierarchy.from_edges(names, edges)


def _centrality(similarity: Tensor, centrality: str | Tensor | np.ndarray, threshold: float) -> np.ndarray:
    if isinstance(centrality, str):
        if centrality != "betweenness":
            raise InputError(f"centrality: no {short_repr(centrality)}; give 'betweenness' or one number per concept")
        linked = similarity.detach().double() > threshold
        linked = linked | linked.T
        linked.fill_diagonal_(False)
        return _levels(betweenness(linked).cpu().numpy())
    return per_concept("centrality", centrality, len(similarity))


def _levels(values: np.ndarray) -> np.ndarray:
    """(K,) the rank of each value; what differs by rounding alone is equal, so that no machine's sums set the order."""
    order = np.argsort(values, kind="stable")
    rising = values[order]
    levels = np.empty(len(values), dtype=np.int64)
    levels[order] = np.cumsum(np.diff(rising, prepend=rising[:1]) > ROUNDING * rising)
    return levels
