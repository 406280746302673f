"""Betweenness against networkx, and against an exact count in fractions where networkx overflows."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import torch
from scipy import sparse

from captum_concepts.errors import InputError
from captum_concepts.miners.centrality import api as centrality
from captum_concepts.miners.centrality import edge_lists, path_counts
from captum_concepts.miners.centrality.api import betweenness


def layered(*widths: int) -> nx.Graph:
    """Layers of nodes, neighbouring layers fully linked: widths multiply into path counts."""
    ends = list(itertools.accumulate(widths, initial=0))
    layers = [range(a, b) for a, b in itertools.pairwise(ends)]
    graph = nx.empty_graph(ends[-1])
    for left, right in itertools.pairwise(layers):
        graph.add_edges_from(itertools.product(left, right))
    return graph


def above_a_threshold() -> nx.Graph:
    """Low-rank cosines above 0.6: clustered, as graphs of similarity are."""
    points = np.random.default_rng(8).normal(size=(80, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return nx.from_numpy_array(np.triu(points @ points.T > 0.6, 1))


GRAPHS = {
    "none": nx.empty_graph(0),
    "one": nx.empty_graph(1),
    "two": nx.path_graph(2),
    "no edges": nx.empty_graph(6),
    "path": nx.path_graph(40),
    "star": nx.star_graph(12),
    "complete": nx.complete_graph(9),
    "bipartite": nx.complete_bipartite_graph(30, 41),
    "diameter two": nx.gnp_random_graph(70, 0.35, seed=1),
    "diameter three": nx.gnp_random_graph(90, 0.12, seed=1),
    "pieces": nx.gnp_random_graph(120, 0.015, seed=2),
    "two dense pieces": nx.disjoint_union(nx.gnp_random_graph(30, 0.5, seed=3), nx.gnp_random_graph(40, 0.2, seed=4)),
    "lollipop": nx.lollipop_graph(20, 12),
    "few beyond two": nx.compose(nx.gnp_random_graph(60, 0.4, seed=5), nx.Graph([(0, 60), (60, 61)])),
    "hubs": nx.barabasi_albert_graph(100, 2, seed=6),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 9)),
    "layers": layered(6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6),
    "similarity above a threshold": above_a_threshold(),
    "uneven layers": layered(3, 20, 20, 20, 20, 3, 1, 30),
    "many paths": layered(*[8] * 12),
}


def expected(graph: nx.Graph, normalized: bool) -> np.ndarray:
    found = nx.betweenness_centrality(graph, normalized=normalized)
    return np.array([found[node] for node in range(len(graph))])


def matrix(graph: nx.Graph) -> np.ndarray:
    result = np.zeros((len(graph), len(graph)), dtype=bool)
    for a, b in graph.edges:
        result[a, b] = result[b, a] = True
    return result


@pytest.fixture(params=["chosen", "lists", "sparse products", "dense", "pairs at two"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force every graph through each way of computing."""
    if request.param in ("lists", "sparse products"):
        monkeypatch.setattr(centrality, "_fastest", lambda *graph: request.param)
    elif request.param != "chosen":
        monkeypatch.setattr(centrality, "_fastest", lambda *graph: "dense")
        share = 1.0 if request.param == "dense" else 0.0
        monkeypatch.setattr(centrality, "_share_beyond_two", lambda linked: share)
    return request.param


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("block", [None, 7])
def test_equals_networkx(name: str, block: int | None, way: str) -> None:
    graph = GRAPHS[name]
    for normalized in (True, False):
        found = betweenness(matrix(graph), normalized=normalized, block=block)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), expected(graph, normalized), rtol=1e-11, atol=1e-13)


def test_counts_beyond_float32_integers_stay_exact_to_1e_11(way: str) -> None:
    # 41^4 > 2^24: a float32 count would be off
    graph = layered(1, 41, 41, 41, 41, 41, 1)
    np.testing.assert_allclose(betweenness(matrix(graph)).numpy(), expected(graph, True), rtol=1e-11)


def exact(graph: nx.Graph) -> list[Fraction]:
    """Brandes with integers and fractions."""
    total = [Fraction(0)] * len(graph)
    for source in graph:
        distance, counts, order, queue = {source: 0}, {source: 1}, [], deque([source])
        while queue:
            node = queue.popleft()
            order.append(node)
            for other in graph[node]:
                if other not in distance:
                    distance[other], counts[other] = distance[node] + 1, 0
                    queue.append(other)
                if distance[other] == distance[node] + 1:
                    counts[other] += counts[node]
        dependency = dict.fromkeys(order, Fraction(0))
        for node in reversed(order):
            for other in graph[node]:
                if distance[other] == distance[node] - 1:
                    dependency[other] += Fraction(counts[other], counts[node]) * (1 + dependency[node])
            if node != source:
                total[node] += dependency[node]
    return [value / 2 for value in total]


def test_counts_beyond_float64_are_scaled(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the scaling starts at 2^500 so that it cannot overflow; here early, to reach it with a small graph
    monkeypatch.setattr(path_counts, "HUGE", 2.0**6)
    graph = layered(5, 4, 3, 5, 4, 3, 5, 4)
    found = betweenness(matrix(graph), normalized=False, block=10).numpy()
    np.testing.assert_allclose(found, [float(value) for value in exact(graph)], rtol=1e-12)


def test_counts_beyond_2_to_the_1024() -> None:
    n = 1030
    found = betweenness(matrix(layered(*[2] * n)), normalized=False).numpy()
    # in layer k every path from a layer before to a layer behind takes either node alike: 2 * 2 / 2 for each pair of
    # layers; and the two nodes of a neighbouring layer are joined by all the nodes of the layers beside it
    k = np.arange(n)
    between = 2.0 * k * (n - 1 - k)
    shared = np.where((k == 0) | (k == n - 1), 0.5, 0.25)  # 1 / nodes beside a layer
    between[1:] += shared[:-1]
    between[:-1] += shared[1:]
    np.testing.assert_allclose(found, np.repeat(between, 2), rtol=1e-10)


def test_counts_too_far_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_counts, "HUGE", 2.0**6)
    # a chain of single nodes beside a chain of layers of four of the same length, from one common source
    graph = layered(1, *[4] * 520)
    n = len(graph)
    nx.add_path(graph, [0, *range(n, n + 520)])
    with pytest.raises(InputError, match="beyond float64"):
        betweenness(matrix(graph), block=1)


def test_long_path_takes_the_sparse_way_in_seconds() -> None:
    n = 1500
    found = betweenness(matrix(nx.path_graph(n)), normalized=False).numpy()
    np.testing.assert_array_equal(found, [i * (n - 1 - i) for i in range(n)])


def test_renumbering_nodes_renumbers_the_result(way: str) -> None:
    linked = matrix(GRAPHS["diameter three"])
    order = np.random.default_rng(0).permutation(len(linked))
    shuffled = betweenness(linked[order][:, order]).numpy()
    np.testing.assert_allclose(shuffled, betweenness(linked).numpy()[order], rtol=1e-12, atol=1e-15)


def test_same_input_same_bytes(way: str) -> None:
    linked = matrix(GRAPHS["hubs"])
    assert betweenness(linked).numpy().tobytes() == betweenness(linked).numpy().tobytes()


def test_heads_come_in_one_order_whatever_the_threads_do() -> None:
    heads = torch.randint(0, 20_000, (300_000,), generator=torch.Generator().manual_seed(0))
    first = list(dict.fromkeys(heads.tolist()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for _ in range(3):
            place = torch.full((20_000,), 300_000)
            assert edge_lists._each_once(heads, place).tolist() == first
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("graph", "way"),
    [
        ((20_000, 4_000_000, 3, False), "sparse products"),
        ((3_443, 1_300_000, 2, True), "dense"),
        ((3_443, 1_300_000, 3, False), "sparse products"),
        ((20_000, 44_000_000, 3, False), "dense"),
        ((3_443, 3_500_000, 4, False), "dense"),
        ((1_500, 3_000, 1_499, False), "lists"),
    ],
)
def test_the_way_fits_the_graph(graph: tuple[int, int, int, bool], way: str) -> None:
    assert centrality._fastest(*graph) == way


def test_shorter_float32_products_are_not_trusted() -> None:
    linked = matrix(GRAPHS["diameter three"])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = betweenness(linked)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(found.numpy(), expected(GRAPHS["diameter three"], True), rtol=1e-11)


def test_diagonal_is_ignored_input_is_kept_and_any_number_is_an_edge() -> None:
    linked = torch.as_tensor(matrix(GRAPHS["hubs"])).double() * -0.3
    linked.fill_diagonal_(2.0)
    kept = linked.clone()
    np.testing.assert_allclose(betweenness(linked).numpy(), expected(GRAPHS["hubs"], True), rtol=1e-11)
    assert torch.equal(linked, kept)
    booleans = torch.ones(4, 4, dtype=torch.bool)
    betweenness(booleans)
    assert booleans.all()


def test_progress_ends_at_n_and_never_falls(way: str) -> None:
    said: list[tuple[str, int, int]] = []
    betweenness(matrix(GRAPHS["pieces"]), block=5, progress=lambda *step: said.append(step))
    done = [step[1] for step in said]
    assert done == sorted(done) and done[-1] == 120 and {step[2] for step in said} == {120}


@pytest.mark.parametrize(
    "kind",
    [
        lambda linked: linked.tolist(),
        lambda linked: linked.astype(np.uint16),
        lambda linked: linked.astype(">i4"),
        lambda linked: linked.astype(np.float16),
        lambda linked: np.asfortranarray(linked)[::-1, ::-1],
        lambda linked: torch.as_tensor(linked).bfloat16().requires_grad_(),
        lambda linked: np.where(linked, np.inf, -0.0),
    ],
)
def test_any_real_numbers_will_do(kind: Callable[[np.ndarray], object]) -> None:
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3))  # the same read backwards
    np.testing.assert_allclose(betweenness(kind(matrix(graph))).numpy(), expected(graph, True), rtol=1e-12)


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (np.zeros((3, 4)), "square"),
        (np.zeros(3), "square"),
        (np.array([[0, 1], [0, 0]]), "not symmetric"),
        (np.array([[0, np.nan], [np.nan, 0]]), "NaN"),
        (torch.tensor([[0, np.nan], [np.nan, 0]]), "NaN"),
        (np.eye(3) * 1j, "ndarray of complex128; give a dense matrix of real numbers"),
        (torch.eye(3).to_sparse(), "layout torch.sparse_coo"),
        (sparse.eye(3), "dia_matrix of object"),
        (np.array([["a", "b"], ["b", "a"]]), "ndarray of <U1"),
        ([[0, 1], [0]], "list of object"),
        (None, "NoneType of object"),
    ],
)
def test_bad_input(adjacency: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        betweenness(adjacency)
    assert "\n" not in str(caught.value)


def test_bad_options() -> None:
    for block in (0, 2.5, True, math.nan):
        with pytest.raises(InputError, match="whole number of at least 1"):
            betweenness(np.zeros((3, 3)), block=block)
    for device in ("nowhere", "meta"):
        with pytest.raises(InputError, match=f"device '{device}': .*give one that is there") as caught:
            betweenness(np.zeros((3, 3)), device=device)
        assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_cuda_finds_the_same(way: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for name in ("diameter three", "few beyond two", "layers"):
        found = betweenness(matrix(GRAPHS[name]), device="cuda", block=30).cpu()
        np.testing.assert_allclose(found.numpy(), expected(GRAPHS[name], True), rtol=1e-11, atol=1e-13)
