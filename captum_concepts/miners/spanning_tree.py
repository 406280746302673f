"""The spanning tree of the strongest links, rooted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.matrix import check_symmetric
from captum_concepts.text import short_repr

# ---------------------------------------------------------------------- spanning tree


def spanning_tree(similarity: Tensor, names: Sequence[str], *, root_factor: float = 1.3) -> ConceptHierarchy:
    """The minimum spanning tree of the concepts and the origin, read from the origin outwards.

    Takes the similarity as inner products: concepts i and j are ``S[i, i] + S[j, j] - 2 S[i, j]`` apart, and concept i
    is ``root_factor * S[i, i]`` from the origin, which stands for all clips equally. The mean of a parent's clips lies
    between the means of its children and nearer to the origin than they do, so the tree links them through it, and no
    guess of which concept is the more general is needed. Concepts linked to the origin are roots; so are those with
    ``S[i, i] <= 0``, which noise alone may have moved, and they take no children. The weight of a link is
    ``S[p, c] / sqrt(S[p, p] S[c, c])``, within [-1, 1].

    Args:
        similarity: (K, K), symmetric: "discriminant", or cosines (diagonal 1).
        root_factor: 1 treats the origin like a concept; above 1 makes fewer roots. With cosines a link from a root
            needs more than ``1 - root_factor / 2``.

    Prim's algorithm, O(K^2). Equal distances: the origin first, then the earlier concept.
    """
    if not 0 < root_factor < np.inf:
        raise InputError(f"root_factor={short_repr(root_factor)}: out of range; give a number above 0")
    check_symmetric(similarity, "spanning_tree")
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    sim = (sim + sim.T) / 2
    own = sim.diagonal()
    nearest = root_factor * own
    parent = np.full(len(names), -1)
    waiting = own > 0
    while waiting.any():
        new = int(np.where(waiting, nearest, np.inf).argmin())
        waiting[new] = False
        distance = own[new] + own - 2 * sim[new]
        nearer = waiting & (distance < nearest)
        nearest = np.where(nearer, distance, nearest)
        parent[nearer] = new
    edges = []
    for child, above in enumerate(parent):
        if above >= 0:
            cosine = sim[above, child] / np.sqrt(own[child] * own[above])
            edges.append((names[above], names[child], float(np.clip(cosine, -1, 1))))
    return ConceptHierarchy.from_edges(names, edges)
