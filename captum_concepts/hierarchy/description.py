"""Why a concept sits where it sits in a hierarchy, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.strength import ROUNDING, is_inner_products, link_strengths
from captum_concepts.text import one_line, pluralize

if TYPE_CHECKING:
    from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy


def describe(
    hierarchy: ConceptHierarchy,
    concept: str,
    similarity: np.ndarray | None = None,
    candidates: int = 3,
    stability: float | None = None,
) -> str:
    """Why a concept is where it is in a hierarchy, in words.

    Args:
        hierarchy: mined from ``similarity``.
        concept: one of its concepts.
        similarity: (K, K) in the order of ``hierarchy.names``; row p, column c speaks for p above c. With it, parents
            and the most similar concepts that are not below ``concept`` are named on one scale
            (``strength.link_strengths``), and the rank of its generality is given: with inner products, how near it
            lies to the mean of all clips; else how similar the others are to it on average.
        candidates: how many similar concepts, at least 1.
        stability: share of bootstrap samples in which it has the same parents, see ``support.Support``.

    Raises:
        InputError: an unknown concept, no candidate, or a similarity of another shape or not finite.
    """
    if not candidates >= 1:
        raise InputError(f"candidates = {candidates}; give at least 1")
    strength = None if similarity is None else _checked(hierarchy, similarity)
    index = {name: i for i, name in enumerate(hierarchy.names)}
    lines = []
    for parent in hierarchy.parents(concept):
        data = hierarchy.graph.edges[parent, concept]
        value = data["weight"] if strength is None else strength[index[parent], index[concept]]
        known = "" if math.isnan(data["support"]) else f", found in {data['support']:.0%} of the resamples"
        lines.append(f"{one_line(concept)} is under {one_line(parent)}: similarity {value:.2f}{known}.")
    if not lines:
        lines.append(f"{one_line(concept)} is a root: nothing stands above it.")
    if stability is not None:
        same = "these parents and no others" if len(hierarchy.parents(concept)) > 1 else "this parent and no other"
        same = same if hierarchy.parents(concept) else "no parent"
        lines.append(f"It has {same} in {stability:.0%} of the resamples.")
    if similarity is not None and strength is not None:
        matrix = np.asarray(similarity, dtype=np.float64)
        lines += _nearest(hierarchy, concept, matrix, strength, candidates)
    path = [concept]
    while above := hierarchy.parents(path[-1]):
        path.append(above[0])
    if len(path) > 2:
        lines.append(f"The way up: {' < '.join(map(one_line, path))}.")
    below = len(hierarchy.descendants(concept))
    lines.append(f"Below it: {pluralize(below, 'concept')}, {len(hierarchy.children(concept))} of them next.")
    return "\n".join(lines)


def _checked(hierarchy: ConceptHierarchy, similarity: np.ndarray) -> np.ndarray:
    k = len(hierarchy)
    if np.shape(similarity) != (k, k):
        raise InputError(f"similarity: shape {np.shape(similarity)} for {k} concepts; give ({k}, {k}) in their order")
    if not np.isfinite(similarity).all():
        raise InputError("similarity: NaN or infinity; give the one that the hierarchy was mined from")
    return link_strengths(similarity)


def _nearest(
    hierarchy: ConceptHierarchy, concept: str, matrix: np.ndarray, strength: np.ndarray, candidates: int
) -> list[str]:
    """The concepts that could have stood above it, and how general it is."""
    index = hierarchy.names.index(concept)
    own = matrix.diagonal()
    products = is_inner_products(matrix)
    if products and not own[index] > 0:
        return ["It lies no farther from the mean of all clips than noise does."]
    below = set(hierarchy.descendants(concept))
    possible = [
        i for i, name in enumerate(hierarchy.names) if i != index and name not in below and (not products or own[i] > 0)
    ]
    best = sorted(possible, key=lambda i: -strength[i, index])[:candidates]
    named = ", ".join(f"{one_line(hierarchy.names[i])} {strength[i, index]:.2f}" for i in best)
    what = "Most similar of what is not below it" if below else "Most similar to it"
    lines = [f"{what}: {named}." if best else "There is no other concept to stand above it."]
    if products and np.ptp(own) > ROUNDING * np.abs(own).max():
        lines.append(
            f"It is number {1 + int(((own > 0) & (own < own[index])).sum())} of {int((own > 0).sum())} in generality, "
            "how near it lies to the mean of all clips."
        )
    else:
        mean = strength.sum(0) - strength.diagonal()
        lines.append(
            f"It is number {1 + int((mean > mean[index]).sum())} of {len(own)} in generality, "
            "how similar the others are to it on average."
        )
    return lines
