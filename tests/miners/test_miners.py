"""Miners against slow, independent versions of the same rules."""

from __future__ import annotations

import itertools
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.agglomerative import agglomerative
from captum_concepts.miners.api import mine
from captum_concepts.miners.arborescence import optimum_arborescence
from captum_concepts.miners.branching import branching
from captum_concepts.miners.builtin import MINERS
from captum_concepts.miners.generality import attach_by_generality, estimated_generality, null_threshold
from captum_concepts.miners.heymann import _levels, heymann


def named(k: int) -> list[str]:
    return [f"c{i}" for i in range(k)]


def random_similarity(k: int, seed: int, decimals: int | None = None, symmetric: bool = False) -> torch.Tensor:
    sim = np.random.default_rng(seed).random((k, k))
    sim = (sim + sim.T) / 2 if symmetric else sim
    return torch.as_tensor(sim if decimals is None else sim.round(decimals))


def links(hierarchy: ConceptHierarchy) -> set[tuple[str, str, float]]:
    return {(parent, child, weight) for parent, child, weight, _ in hierarchy.edges}


# ---------------------------------------------------------------------- the paper


def slow_heymann(
    sim: list[list[float]],
    centrality: list[float],
    min_sim: float = 0.2,
    parents_per_node: int = 1,
    additional_threshold: float = 0.2,
    max_children: int = 20,
) -> set[tuple[str, str, float]]:
    """The paper's steps, one concept and one candidate at a time, with plain lists."""
    n = len(sim)
    smallest = min(min(row) for row in sim)
    sim = [[smallest - 0.1 if i == j else sim[i][j] for j in range(n)] for i in range(n)]
    ascending = sorted(range(n), key=lambda i: centrality[i])
    placed: list[int] = []
    children = dict.fromkeys(range(n), 0)
    result = set()
    for child in reversed(ascending):
        ranking = sorted((-sim[p][child], p) for p in placed if children[p] < max_children)[:parents_per_node]
        for negative, parent in ranking:
            if -negative > min_sim and -negative > -ranking[0][0] - additional_threshold:
                result.add((f"c{parent}", f"c{child}", -negative))
                children[parent] += 1
        placed.append(child)
    return result


def paper_centrality(sim: np.ndarray, threshold: float = 0.5) -> list[float]:
    graph = nx.empty_graph(len(sim))
    graph.add_edges_from((i, j) for i, j in np.argwhere(sim > threshold).tolist() if i != j)
    found = nx.betweenness_centrality(graph)
    return [found[i] for i in range(len(sim))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parents_per_node": 2},
        {"parents_per_node": 3, "additional_threshold": 0.05, "min_sim": 0.8},
        {"max_children_per_node": 2, "threshold": 0.85},
        {"max_children_per_node": 1, "min_sim": 0.95},
    ],
    ids=str,
)
@pytest.mark.parametrize("decimals", [None, 1])
def test_heymann_equals_the_slow_version(seed: int, options: dict, decimals: int | None) -> None:
    # rounded to one decimal nearly every similarity is tied; few distinct centralities tie the order as well
    sim = random_similarity(45, seed, decimals)
    rules = {k.replace("_per_node", "") if k.startswith("max") else k: v for k, v in options.items()}
    threshold = rules.pop("threshold", 0.5)
    array = sim.numpy()
    found = mine(sim, named(45), "heymann", **options)
    if decimals is None:
        assert links(found) == slow_heymann(array.tolist(), paper_centrality(array, threshold), **rules)
    tied = [float(i % 4) for i in range(45)]
    found = heymann(sim, named(45), centrality=np.array(tied), **options)
    assert links(found) == slow_heymann(array.tolist(), tied, **rules)


def exact_betweenness(linked: np.ndarray) -> list[Fraction]:
    """Every shortest path counted, in fractions: what is equal is equal."""
    graph = nx.from_numpy_array(linked)
    total = [Fraction(0)] * len(linked)
    for start, end in itertools.permutations(graph, 2):
        if nx.has_path(graph, start, end):
            paths = list(nx.all_shortest_paths(graph, start, end))
            for path in paths:
                for inner in path[1:-1]:
                    total[inner] += Fraction(1, len(paths))
    return total


@pytest.mark.parametrize("seed", range(30))
def test_rounding_does_not_break_ties_of_centrality(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    k = int(rng.integers(6, 15))
    sim = rng.random((k, k)).round(1)
    threshold = float(rng.choice([0.3, 0.5, 0.66]))
    linked = (sim > threshold) | (sim > threshold).T
    np.fill_diagonal(linked, False)
    exact = exact_betweenness(linked)
    found = heymann(torch.from_numpy(sim), named(k), threshold=threshold, max_children_per_node=3)
    assert links(found) == slow_heymann(sim.tolist(), exact, max_children=3)


def test_centralities_that_differ_by_rounding_are_one_level() -> None:
    values = np.array([0.3, 0.1 + 0.2, 0.0, 0.3 + 1e-9, 1e-300])
    assert values[0] != values[1]
    assert _levels(values).tolist() == [2, 2, 0, 3, 1]


def test_heymann_takes_float32_at_its_exact_value() -> None:
    # float32(0.2) is above 0.2; compared in float32 it would not be
    sim = torch.full((2, 2), 0.2, dtype=torch.float32)
    assert heymann(sim, named(2), centrality=[1, 0], min_sim=0.2).roots == ["c0"]


def test_heymann_ties_and_roots_by_hand() -> None:
    # all centralities are 0: the last concept first; then equal similarity: under the earlier of the placed ones
    sim = torch.full((3, 3), 0.75)
    assert links(heymann(sim, named(3))) == {("c2", "c1", 0.75), ("c1", "c0", 0.75)}
    assert heymann(sim, named(3), min_sim=0.8).roots == named(3)


def test_heymann_bad_options() -> None:
    sim = random_similarity(4, 0)
    for options in ({"parents_per_node": 0}, {"max_children_per_node": 0}, {"parents_per_node": 1.5}):
        with pytest.raises(InputError, match="at least 1"):
            heymann(sim, named(4), **options)
    with pytest.raises(InputError, match="no 'degree'"):
        heymann(sim, named(4), centrality="degree")
    with pytest.raises(InputError, match="one finite number for each"):
        heymann(sim, named(4), centrality=[1.0, 2.0])


@pytest.mark.parametrize(
    ("miner", "option"),
    [("heymann", "min_sim"), ("heymann", "threshold"), ("branching", "tilt"), ("agglomerative", "min_sim")],
)
def test_no_option_is_nan(miner: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} = nan; give a number"):
        mine(random_similarity(4, 0, symmetric=True), named(4), miner, **{option: float("nan")})


@pytest.mark.parametrize("miner", sorted(MINERS))
def test_whatever_holds_numbers_is_a_matrix(miner: str) -> None:
    sim = random_similarity(5, 0, symmetric=True).numpy()
    assert mine(sim[::-1, ::-1], named(5), miner) == mine(sim[::-1, ::-1].copy(), named(5), miner)
    assert mine(sim.tolist(), named(5), miner) == mine(sim, named(5), miner)
    assert len(mine(sim > 0.5, named(5), miner)) == 5
    assert mine(torch.from_numpy(sim).requires_grad_(), named(5), miner) == mine(sim, named(5), miner)
    for wrong, message in (
        ("abc", "matrix of numbers"),
        (3.0, "shape"),
        ([[1, "x"], [0, 1]], "matrix of numbers"),
        ([[1], [0, 1]], "matrix of"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            mine(wrong, ["a", "b"], miner)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="beyond 1e"):
        mine(sim * 1e200, named(5), miner)


# ---------------------------------------------------------------------- generality


def test_generality_attaches_to_the_most_similar_more_general() -> None:
    sim = random_similarity(30, 1)
    sizes = np.random.default_rng(2).permutation(30)
    found = attach_by_generality(sim, named(30), generality=sizes, min_sim=0.7)
    for child in range(30):
        larger = [p for p in range(30) if sizes[p] > sizes[child]]
        best = max(larger, key=lambda p: float(sim[p, child]), default=None)
        right = [] if best is None or sim[best, child] <= 0.7 else [f"c{best}"]
        assert found.parents(f"c{child}") == right


def test_estimates_by_hand() -> None:
    sim = torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0], [5.0, 6.0, 9.0]])
    assert estimated_generality(sim).tolist() == [4.0, 3.5, 3.0]
    # off the diagonal 1..6: median 3.5, absolute deviations .5 .5 1.5 1.5 2.5 2.5
    assert null_threshold(sim) == pytest.approx(3.5 + 1.4826 * 1.5)


# ---------------------------------------------------------------------- branching


@pytest.mark.parametrize("k", [1, 2, 3, 8, 30, 60])
@pytest.mark.parametrize("seed", range(5))
def test_arborescence_equals_networkx(k: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(k + 1, k))
    weights[k] -= 50 * (seed % 2)  # every other time a single root
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((p, c, weights[p, c] + 1e3) for p in range(k + 1) for c in range(k) if p != c)
    best = nx.maximum_spanning_arborescence(graph)
    expected = np.empty(k, dtype=int)
    for parent, child in best.edges:
        expected[child] = parent
    assert optimum_arborescence(weights).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_arborescence_with_ties_and_symmetry_is_as_heavy(seed: int) -> None:
    k = 25
    weights = np.random.default_rng(seed).integers(0, 4, (k + 1, k)).astype(float)
    weights[:k] = np.maximum(weights[:k], weights[:k].T)
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((p, c, weights[p, c] + 1e3) for p in range(k + 1) for c in range(k) if p != c)
    parents = optimum_arborescence(weights)
    best = nx.maximum_spanning_arborescence(graph).size(weight="weight") - 1e3 * k
    assert weights[parents, np.arange(k)].sum() == pytest.approx(best)
    found = nx.DiGraph(zip(parents.tolist(), range(k), strict=True))
    assert nx.is_arborescence(found)


@pytest.mark.parametrize("matrix", [np.eye(4), np.ones((4, 4)), np.zeros((4, 4)), np.full((2, 2), 0.9)])
def test_branching_links_nothing_that_is_no_nearer_than_unrelated(matrix: np.ndarray) -> None:
    assert branching(torch.as_tensor(matrix), named(len(matrix))).roots == named(len(matrix))


def test_branching_root_weight_and_tilt() -> None:
    sim = random_similarity(20, 3, symmetric=True)
    assert len(branching(sim, named(20), min_sim=-100.0).roots) == 1
    assert branching(sim, named(20), min_sim=100.0).roots == named(20)
    sizes = np.arange(20)[::-1]
    strict = branching(sim, named(20), generality=sizes, tilt=1e3, min_sim=-1e6)
    assert all(int(parent[1:]) < int(child[1:]) for parent, child, _, _ in strict.edges)


# ---------------------------------------------------------------------- agglomeration


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
    with pytest.raises(InputError, match="inner = 'none'"):
        mine(sim, names, "agglomerative", inner="none")


# ---------------------------------------------------------------------- all of them


@pytest.mark.parametrize("miner", MINERS)
def test_every_miner_keeps_the_laws(miner: str) -> None:
    sim = random_similarity(25, 4, symmetric=True)
    names = named(25)
    found = mine(sim, names, miner)
    assert found.names == tuple(names) and (found.is_forest or miner == "subsumption")
    assert found == mine(sim.numpy(), names, miner)
    order = np.random.default_rng(5).permutation(25)
    shuffled = mine(sim[order][:, order], [names[i] for i in order], miner)
    # centralities are sums in another order, so only the links themselves are compared
    assert {edge[:2] for edge in shuffled.edges} == {edge[:2] for edge in found.edges}


@pytest.mark.parametrize("miner", MINERS)
def test_identical_concepts_and_small_sets(miner: str) -> None:
    assert mine(torch.ones(1, 1), ["only"], miner).roots == ["only"]
    for k in (2, 6):
        assert len(mine(torch.ones(k, k), named(k), miner)) == k


def test_a_function_of_the_users() -> None:
    def star(similarity: torch.Tensor, names: tuple[str, ...], centre: int = 0) -> ConceptHierarchy:
        return ConceptHierarchy.from_edges(names, [(names[centre], n) for n in names if n != names[centre]])

    assert mine(torch.eye(3), named(3), star, centre=1).roots == ["c1"]
    with pytest.raises(InputError, match="must return a ConceptHierarchy"):
        mine(torch.eye(3), named(3), lambda similarity, names: None)


@pytest.mark.parametrize(
    ("similarity", "names", "options", "message"),
    [
        (torch.zeros(0, 0), [], {}, "no concepts"),
        (torch.zeros(2, 3), ["a", "b"], {}, r"shape \(2, 3\) for 2 names"),
        (torch.zeros(2, 2), ["a", "a"], {}, "occurs twice"),
        (torch.tensor([[0, float("nan")], [0, 0]]), ["a", "b"], {}, "nan at 'a', 'b'"),
        (torch.tensor([[0, float("inf")], [0, 0]]), ["a", "b"], {}, "inf at"),
        (torch.tensor([[0, 1.0], [0, 0]]), ["a", "b"], {"miner": "agglomerative"}, "symmetric"),
        (torch.zeros(2, 2), ["a", "b"], {"miner": "nothing"}, "unknown miner 'nothing'; known: .*heymann"),
        (torch.zeros(2, 2), ["a", "b"], {"branches": 3}, "branches"),
        (torch.zeros(2, 2, dtype=torch.complex64), ["a", "b"], {}, "complex"),
    ],
)
def test_bad_input(similarity: torch.Tensor, names: list[str], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        mine(similarity, names, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- spanning tree


def euclidean_forest(points: np.ndarray, factor: float) -> set[tuple[int, int]]:
    """scipy's minimum spanning tree over the points and the origin, as undirected links; the origin is -1."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    places = np.vstack([points, np.zeros(points.shape[1])])
    distance = ((places[:, None] - places[None]) ** 2).sum(2)
    distance[-1] *= factor
    distance[:, -1] *= factor
    found = np.argwhere(minimum_spanning_tree(distance).toarray() > 0)
    return {(min(a, b), max(a, b)) for a, b in found.tolist()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("factor", [1.0, 1.3, 3.0])
def test_spanning_tree_is_scipys(seed: int, factor: float) -> None:
    points = np.random.default_rng(seed).normal(size=(15, 6))
    mined = mine(torch.as_tensor(points @ points.T), named(15), "spanning_tree", root_factor=factor)
    index = {name: i for i, name in enumerate(mined.names)}
    links_found = {(min(index[p], index[c]), max(index[p], index[c])) for p, c in mined.graph.edges}
    links_found |= {(index[root], 15) for root in mined.roots}
    assert links_found == euclidean_forest(points, factor)
    for parent, child, weight, _ in mined.edges:
        a, b = points[index[parent]], points[index[child]]
        assert weight == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)


def test_spanning_tree_puts_the_mean_above_what_it_is_the_mean_of() -> None:
    leaves = np.eye(6)
    points = np.vstack([leaves, leaves[:3].mean(0), leaves[3:].mean(0)])
    points -= leaves.mean(0)
    mined = mine(torch.as_tensor(points @ points.T), [*"abcdef", "abc", "def"], "spanning_tree")
    assert {root: mined.children(root) for root in mined.roots} == {"abc": ["a", "b", "c"], "def": ["d", "e", "f"]}


def test_spanning_tree_of_identical_concepts_and_of_noise() -> None:
    same = mine(torch.ones(4, 4), named(4), "spanning_tree")
    assert same.roots == ["c0"] and same.children("c0") == ["c1", "c2", "c3"]
    nothing = mine(torch.zeros(4, 4), named(4), "spanning_tree")
    assert nothing.roots == named(4)
    below = mine(-torch.eye(3), named(3), "spanning_tree")  # less far from the origin than noise
    assert below.roots == named(3)


def test_spanning_tree_refuses() -> None:
    with pytest.raises(InputError, match="root_factor = 0"):
        mine(torch.eye(3), named(3), "spanning_tree", root_factor=0)
    with pytest.raises(InputError, match="symmetric"):
        mine(random_similarity(4, 0), named(4), "spanning_tree")


# ---------------------------------------------------------------------- subsumption


def test_subsumption_is_that_of_sets() -> None:
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


def test_subsumption_breaks_circles_and_refuses() -> None:
    ring = torch.tensor([[1, 0.95, 0.1], [0.1, 1, 0.9], [0.85, 0.1, 1]])
    assert set(mine(ring, named(3), "subsumption").graph.edges) == {("c0", "c1"), ("c1", "c2")}
    with pytest.raises(InputError, match="threshold = 2"):
        mine(ring, named(3), "subsumption", threshold=2)
