"""Miners that put concepts under more general ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.matrix import incoming, off_diagonal, per_concept

# ---------------------------------------------------------------------- generality


def null_threshold(similarity: Tensor) -> float:
    """What an unrelated pair reaches: median plus one robust standard deviation of the off-diagonal entries."""
    off = off_diagonal(similarity)
    median = np.median(off, overwrite_input=True)
    off -= median
    return float(median + 1.4826 * np.median(np.abs(off, out=off), overwrite_input=True))


def estimated_generality(similarity: Tensor) -> np.ndarray:
    """(K,) mean off-diagonal column: how strongly the other concepts' clips speak for this concept's CAV.

    A guess that stands in for true set sizes; where these are known, give them to the miner instead.
    """
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    return (sim.sum(0) - sim.diagonal()) / max(len(sim) - 1, 1)


def attach_by_generality(
    similarity: Tensor,
    names: Sequence[str],
    *,
    generality: Tensor | np.ndarray | Sequence[float] | None = None,
    min_sim: float | None = None,
) -> ConceptHierarchy:
    """From the most general concept down, each under the most similar one that is more general.

    Args:
        similarity: (K, K); ``similarity[p, c]`` speaks for p above c.
        generality: (K,), larger is more general, e.g. set sizes; None: :func:`estimated_generality`. Equal
            generality or similarity: the earlier concept first.
        min_sim: a link must exceed it, else the concept is a root; None: :func:`null_threshold`.
    """
    values = estimated_generality(similarity) if generality is None else generality
    order = np.argsort(-per_concept("generality", values, len(names)), kind="stable")
    floor = null_threshold(similarity) if min_sim is None else min_sim
    links = incoming(similarity)
    unplaced = np.ones(len(names), dtype=bool)
    edges = []
    for above, child in itertools.pairwise(order.tolist()):
        unplaced[above] = False
        parent = int(np.where(unplaced, -np.inf, links[child]).argmax())
        if links[child, parent] > floor:
            edges.append((names[parent], names[child], float(links[child, parent])))
    return ConceptHierarchy.from_edges(names, edges)
