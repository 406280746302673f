"""Agglomerative clustering with or without inner nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.generality import null_threshold
from captum_concepts.miners.matrix import check_symmetric
from captum_concepts.text import short_repr

# ---------------------------------------------------------------------- agglomeration


def agglomerative(
    similarity: Tensor,
    names: Sequence[str],
    *,
    linkage: str = "average",
    min_sim: float | None = None,
    inner: str = "medoid",
) -> ConceptHierarchy:
    """Cluster from the leaves up; every merged cluster is headed by one of the two heads that it joins.

    The head with the larger mean similarity to the joined cluster (equal, as for any two single concepts: the one
    with the larger mean similarity to all concepts, then the earlier one) stays on top, the other becomes its child,
    so that every node is a concept. With ``inner="unnamed"`` the head and the other both become children of a new node
    that is no concept, called after the head and the number of concepts in it; concepts are then the leaves, and the
    weight of a link to a cluster is the similarity at which it was merged.

    Args:
        similarity: (K, K), symmetric.
        linkage: a method of ``scipy.cluster.hierarchy.linkage`` for given distances: "average", "complete", "single"
            or "weighted".
        min_sim: clusters whose linkage similarity does not exceed it stay apart; None: :func:`null_threshold`.
        inner: "medoid" or "unnamed". Unnamed nodes stand behind the concepts in the hierarchy's names.
    """
    from scipy.cluster import hierarchy as clustering
    from scipy.spatial.distance import squareform

    if linkage not in ("average", "complete", "single", "weighted"):
        raise InputError(f"linkage={short_repr(linkage)}: unknown; use average, complete, single or weighted")
    if inner not in ("medoid", "unnamed"):
        raise InputError(f"inner={short_repr(inner)}: unknown; give 'medoid' or 'unnamed'")
    check_symmetric(similarity, "agglomerative")
    floor = null_threshold(similarity) if min_sim is None else min_sim
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    sim = (sim + sim.T) / 2
    top = sim.max()
    distance = top - sim
    np.fill_diagonal(distance, 0.0)
    merges = clustering.linkage(squareform(distance, checks=False), method=linkage)
    np.fill_diagonal(sim, 0.0)
    overall = sim.sum(1)
    members = {i: np.array([i]) for i in range(len(names))}
    heads = {i: i for i in range(len(names))}
    nodes, taken = dict(enumerate(names)), set(names)
    edges = []
    for step, (left, right, height, _) in enumerate(merges, start=len(names)):
        if top - height <= floor:
            break  # the merges come by falling similarity
        joined = np.concatenate([members.pop(int(left)), members.pop(int(right))])
        pair = (heads.pop(int(left)), heads.pop(int(right)))
        child, head = sorted(pair, key=lambda i: (sim[i, joined].sum(), overall[i], -i))
        if inner == "medoid":
            edges.append((names[head], names[child], float(sim[head, child])))
        else:
            nodes[step] = _cluster_name(names[head], len(joined), taken)
            edges += [(nodes[step], nodes[int(part)], float(top - height)) for part in (left, right)]
        members[step], heads[step] = joined, head
    return ConceptHierarchy.from_edges(nodes.values(), edges)


def _cluster_name(head: str, size: int, taken: set[str]) -> str:
    name = f"{head} and {size - 1} more"
    while name in taken:  # a concept may be called so
        name += "\N{PRIME}"
    taken.add(name)
    return name
