"""Subsumption compared with inclusion of sets and with networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from helpers.similarities import named

from captum_concepts.errors import InputError
from captum_concepts.miners.api import mine


def test_subsumption_finds_inclusion_of_sets() -> None:
    rng = np.random.default_rng(0)
    sets = {
        "all": set(range(60)),
        "left": set(range(30)),
        "ll": set(range(12)),
        "other": set(range(25, 55)),
        "one": {40},
    }
    sets["twice"] = set(range(26, 30))  # within both "left" and "other"
    names = [str(name) for name in rng.permutation(list(sets))]
    share = torch.tensor([[len(sets[p] & sets[c]) / len(sets[c]) for c in names] for p in names], dtype=torch.float64)
    mined = mine(share, names, "subsumption")
    assert set(mined.graph.edges) == {
        ("all", "left"), ("left", "ll"), ("all", "other"), ("other", "one"), ("left", "twice"), ("other", "twice"),
    }  # fmt: skip
    assert set(mine(share, names, "subsumption", threshold=0.1).ancestors("twice")) == {"all", "left", "other"}


@pytest.mark.parametrize("seed", range(6))
def test_subsumption_equals_networkx_step_by_step(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "captum_concepts.miners.subsumption._ROWS", 7 + 10 * seed
    )  # blocks that do and do not divide 30
    monkeypatch.setattr("captum_concepts.miners.subsumption._LINKS", 1 + 50 * seed)
    rng = np.random.default_rng(seed)
    sim = np.round(rng.random((30, 30)), 2)  # many ties, many circles
    graph = nx.DiGraph()
    graph.add_nodes_from(range(30))
    pairs = [(p, c) for p, c in np.ndindex(30, 30) if sim[p, c] >= 0.7 and sim[p, c] > sim[c, p]]
    for parent, child in sorted(pairs, key=lambda pair: (-sim[pair], pair[1], pair[0])):
        if not nx.has_path(graph, child, parent):
            graph.add_edge(parent, child)
    expected = {(f"c{p}", f"c{c}") for p, c in nx.transitive_reduction(graph).edges}
    assert len(expected) < graph.number_of_edges() < len(pairs)
    assert set(mine(sim, named(30), "subsumption", threshold=0.7).graph.edges) == expected


def test_subsumption_breaks_circles_and_refuses_bad_thresholds() -> None:
    ring = torch.tensor([[1, 0.95, 0.1], [0.1, 1, 0.9], [0.85, 0.1, 1]])
    assert set(mine(ring, named(3), "subsumption").graph.edges) == {("c0", "c1"), ("c1", "c2")}
    with pytest.raises(InputError, match="threshold=2"):
        mine(ring, named(3), "subsumption", threshold=2)
