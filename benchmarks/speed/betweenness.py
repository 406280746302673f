"""Speed of betweenness centrality, compared with igraph and networkx in the same run.

python benchmarks/speed/betweenness.py [--nodes 3443] [--density 0.11] [--repeats 3] [--device cpu] [--graph all]
python benchmarks/speed/betweenness.py --nodes 20000 --once [--limit 120] [--density 0.01]

Prints, for each graph, the least and the median of the repeats after a warm-up, the largest relative difference of
the results, and the ratios. networkx is timed at 800 nodes at most and extrapolated with nodes * edges.

--once computes once, alone, and prints the peak memory of the process too. --limit stops it after so many seconds; the
time for all sources is then extrapolated from those done since the first block, in a line that says so.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import torch

from captum_concepts.miners.centrality.api import betweenness

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Times, cuda_settle, options, parse, peak_memory, time_runs

NETWORKX_NODES = 800


def random_graph(n: int, density: float, seed: int) -> torch.Tensor:
    """Every pair linked with the same probability: diameter two."""
    values = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
    linked = torch.triu(values < density, 1)
    return linked | linked.T


def similarity_graph(n: int, density: float, seed: int, rank: int) -> torch.Tensor:
    """Cosine of random vectors of a low rank above a threshold: clustered, and the wider the lower the rank."""
    vectors = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed))
    cosine = torch.nn.functional.normalize(vectors, dim=1)
    cosine = cosine @ cosine.T
    sample = cosine[torch.triu(torch.ones(n, n, dtype=torch.bool), 1)].numpy()
    linked = cosine > float(np.quantile(sample, 1 - density))
    return (linked | linked.T).fill_diagonal_(False)


GRAPHS: dict[str, Callable[[int, float, int], torch.Tensor]] = {
    "random": random_graph,
    "similarity, rank 20": lambda n, density, seed: similarity_graph(n, density, seed, 20),
    "similarity, rank 3": lambda n, density, seed: similarity_graph(n, density, seed, 3),
}


class OutOfTimeError(Exception):
    """The limit of time is over."""


def once(linked: torch.Tensor, limit: float) -> None:
    """One computation, stopped at the limit."""
    start, worked = time.perf_counter(), time.process_time()
    blocks: list[tuple[float, int]] = []

    def watch(_: str, done: int, total: int) -> None:
        blocks.append((time.perf_counter() - start, done))
        if blocks[-1][0] > limit and len(blocks) > 1 and done < total:
            raise OutOfTimeError

    try:
        betweenness(linked, progress=watch)
        took = f"{time.perf_counter() - start:.1f} s, processor {time.process_time() - worked:.1f} s"
    except OutOfTimeError:
        (first, skipped), (now, done) = blocks[0], blocks[-1]
        whole = first + (now - first) / (done - skipped) * (len(linked) - skipped)
        took = f"stopped after {now:.1f} s and {done} of {len(linked)} sources; extrapolated to all: {whole:.0f} s"
    print(f"  captum_concepts, once: {took}; peak memory of the process {peak_memory():.1f} GiB", flush=True)


def show(what: str, times: Times) -> float:
    print(f"  {what:<34} min {times.least:8.3f} s   median {times.median:8.3f} s", flush=True)
    return times.median


def compare_igraph(linked: torch.Tensor, ours: np.ndarray, repeats: int, own: float) -> None:
    try:
        import igraph
    except ImportError:
        print("  igraph is not installed; pip install igraph to compare")
        return
    graph = igraph.Graph(n=len(linked), edges=torch.triu(linked, 1).nonzero().tolist())
    n = len(linked)
    times = time_runs(lambda: graph.betweenness(directed=False), repeats)
    result = np.array(times.result) * 2 / ((n - 1) * (n - 2))
    peer = show(f"igraph {igraph.__version__}", times)
    difference = np.max(np.abs(ours - result) / np.maximum(result, 1e-300), where=result > 0, initial=0.0)
    print(f"  igraph / captum_concepts = {peer / own:.1f}   largest relative difference {difference:.1e}")


def compare_networkx(build: Callable[[int, float, int], torch.Tensor], args: argparse.Namespace, own: float) -> None:
    nodes = min(NETWORKX_NODES, args.nodes)
    small = build(nodes, args.density, args.seed)
    graph = nx.from_numpy_array(small.numpy())
    times = time_runs(lambda: nx.betweenness_centrality(graph), 1, warm_up=0)
    peer, result = times.median, np.array(list(times.result.values()))
    ours = betweenness(small.to(args.device)).cpu().numpy()
    difference = np.max(np.abs(ours - result) / np.maximum(result, 1e-300), where=result > 0, initial=0.0)
    mine = show(
        f"captum_concepts, n = {nodes}",
        time_runs(lambda: betweenness(small.to(args.device)), args.repeats, settle=cuda_settle(args.device)),
    )
    print(f"  networkx {nx.__version__}, n = {nodes}: {peer:.2f} s once, ratio {peer / mine:.0f}", end="")
    print(f"   largest relative difference {difference:.1e}")
    scale = (args.nodes / nodes) ** 3
    print(f"  networkx extrapolated to n = {args.nodes}: {peer * scale:.0f} s, ratio {peer * scale / own:.0f}")


def main() -> None:
    parser = options(__doc__, quick="300 nodes, one repeat", seed=0)
    parser.add_argument("--nodes", type=int, default=3443)
    parser.add_argument("--density", type=float, default=0.11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--graph", choices=["all", *GRAPHS], default="all")
    parser.add_argument("--alone", action="store_true", help="without igraph and networkx")
    parser.add_argument("--once", action="store_true", help="one computation, with its peak memory, and no others")
    parser.add_argument("--limit", type=float, default=math.inf, help="with --once: seconds after which it stops")
    args = parse(parser, {"nodes": 300, "repeats": 1})
    print(f"n = {args.nodes}, density {args.density}, {torch.get_num_threads()} threads, device {args.device}")
    for name in GRAPHS if args.graph == "all" else [args.graph]:
        linked = GRAPHS[name](args.nodes, args.density, args.seed)
        print(f"{name}: {int(linked.sum()) // 2} edges")
        on_device = linked.to(args.device)
        if args.once:
            once(on_device, args.limit)
            continue
        times = time_runs(lambda graph=on_device: betweenness(graph), args.repeats, settle=cuda_settle(args.device))
        own = show("captum_concepts", times)
        if not args.alone:
            compare_igraph(linked, betweenness(on_device).cpu().numpy(), args.repeats, own)
            compare_networkx(GRAPHS[name], args, own)


if __name__ == "__main__":
    main()
