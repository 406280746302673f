"""From a forest to a DAG: further parents for the concepts that lie about as near to another one.

*Jazz fusion* is jazz and it is rock; a forest must choose. Any miner's hierarchy can be given the links it had to leave
out, without changing those it has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.strength import link_strengths
from captum_concepts.text import short_repr


def add_parents(
    hierarchy: ConceptHierarchy, similarity: Tensor | np.ndarray, *, max_parents: int = 2, margin: float = 0.1
) -> ConceptHierarchy:
    """Link each concept that has a parent to others that are nearly as similar to it.

    A concept p becomes a further parent of c if it lies nearer to its root than c does, is neither above nor below one
    of c's parents, and ``strength[p, c] > strength[parent, c] - margin`` for c's strongest parent, where strength is
    ``hierarchy.link_strengths``. The strongest come first (equal: the earlier concept). Roots stay roots.

    Args:
        hierarchy: what was mined; none of its links is changed.
        similarity: (K, K), in the order of its names; row p, column c speaks for the link p -> c.
        max_parents: of one concept, at least 1.
        margin: how much weaker a further link may be; at least 0.

    Raises:
        InputError: a similarity of another shape or not finite, ``max_parents`` below 1, or a negative margin.
    """
    k = len(hierarchy.names)
    check_parent_options(max_parents, margin)
    if tuple(similarity.shape) != (k, k):
        raise InputError(f"similarity: shape {tuple(similarity.shape)} for {k} concepts; give ({k}, {k})")
    strength = link_strengths(torch.as_tensor(similarity).detach().cpu().double().numpy())
    if not np.isfinite(strength).all():
        raise InputError("similarity: NaN or infinity; leave out concepts without a usable vector")
    index = {name: i for i, name in enumerate(hierarchy.names)}
    depths = hierarchy.depths
    depth = np.array([depths[name] for name in hierarchy.names])
    edges = hierarchy.edges
    above = np.zeros((k, k), dtype=bool)  # [c, a]: a is an ancestor of c, with the links added so far
    for name in sorted(hierarchy.names, key=lambda n: (depths[n], index[n])):  # parents before children
        child = index[name]
        parents = [index[p] for p in hierarchy.parents(name)]
        if parents:
            least = max(strength[p, child] for p in parents) - margin
            for p in np.argsort(-strength[:, child], kind="stable"):
                if len(parents) >= max_parents or strength[p, child] <= least:
                    break
                related = any(p == q or above[p, q] or above[q, p] for q in parents)
                if depth[p] < depth[child] and not related:
                    parents.append(int(p))
                    edges.append((hierarchy.names[p], name, float(strength[p, child]), float("nan")))
        for p in parents:
            above[child] |= above[p]
            above[child, p] = True
    return ConceptHierarchy.from_edges(hierarchy.names, edges)


def check_parent_options(max_parents: int, margin: float) -> None:
    """Raises InputError for ``max_parents`` below 1 or not whole, or a negative margin."""
    if not max_parents >= 1 or max_parents % 1:
        raise InputError(f"max_parents={short_repr(max_parents)}: out of range; give a whole number of at least 1")
    if not margin >= 0:
        raise InputError(f"parent margin = {margin}; give a number of at least 0")
