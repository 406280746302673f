"""Agglomerative clustering compared with worked examples and scipy's dendrogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.similarities import links, named
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from captum_concepts.errors import InputError
from captum_concepts.miners.agglomerative import agglomerative
from captum_concepts.miners.api import mine


def test_agglomerative_by_hand() -> None:
    sim = torch.tensor(
        [
            [1.0, 0.9, 0.5, 0.1],
            [0.9, 1.0, 0.7, 0.1],
            [0.5, 0.7, 1.0, 0.1],
            [0.1, 0.1, 0.1, 1.0],
        ],
        dtype=torch.float64,
    )
    # 0 and 1 merge (1 is closer to all: on top); then {0, 1} and 2: 1 has .9 + .7, 2 has .5 + .7; 3 stays apart
    found = agglomerative(sim, named(4), min_sim=0.2)
    assert links(found) == {("c1", "c0", 0.9), ("c1", "c2", 0.7)} and found.roots == ["c1", "c3"]
    assert agglomerative(sim, named(4), min_sim=-1.0).is_tree
    with pytest.raises(InputError, match="linkage"):
        agglomerative(sim, named(4), linkage="ward")


def test_agglomerative_with_unnamed_inner_nodes_is_the_dendrogram() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3))
    sim = torch.from_numpy(-((points[:, None] - points[None]) ** 2).sum(2))
    names = [*named(11), f"{named(1)[0]} and 1 more"]
    found = mine(sim, names, "agglomerative", min_sim=-1e9, inner="unnamed", linkage="complete")
    assert found.names[:12] == tuple(names)
    assert found.leaves == names
    assert len(set(found.names)) == 23
    distance = squareform((sim.max() - sim).fill_diagonal_(0).numpy(), checks=False)
    _, nodes = to_tree(linkage(distance, "complete"), rd=True)
    clusters = {frozenset(names[i] for i in node.pre_order()) for node in nodes if not node.is_leaf()}
    assert {frozenset(found.descendants(node)) & set(names) for node in found.names[12:]} == clusters
    tops = linkage(distance, "complete")[:, 2]
    weights = {weight for _, _, weight, _ in found.edges}
    np.testing.assert_allclose(sorted(weights), np.sort(float(sim.max()) - tops))
    with pytest.raises(InputError, match="max_parents: needs a hierarchy whose nodes are all concepts"):
        mine(sim, names, "agglomerative", inner="unnamed", max_parents=2)
    with pytest.raises(InputError, match="inner='none'"):
        mine(sim, names, "agglomerative", inner="none")
