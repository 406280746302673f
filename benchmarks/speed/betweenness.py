"""Betweenness centrality: captum_concepts beside igraph and networkx, in the same run.

python benchmarks/speed/betweenness.py [--nodes 3443] [--density 0.11] [--repeats 3] [--device cpu] [--graph all]
python benchmarks/speed/betweenness.py --nodes 20000 --once [--limit 120] [--density 0.01]

Prints, for each graph, the least and the median of the repeats after a warm-up, the largest relative difference of
the results, and the ratios. networkx is timed at 800 nodes and extrapolated with nodes * edges, the algorithm's order.

--once computes once, alone, and prints the peak of memory too. --limit stops it after so many seconds; what all sources
would have taken is then extrapolated from those done since the first block, in a line that says so. The memory is that
of the run, with all that it holds for this many nodes.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
import torch

from captum_concepts.miners.centrality.api import betweenness

NETWORKX_NODES = 800


def random_graph(n: int, density: float) -> torch.Tensor:
    """Every pair linked with the same probability: diameter two."""
    draw = torch.rand(n, n, generator=torch.Generator().manual_seed(0))
    linked = torch.triu(draw < density, 1)
    return linked | linked.T


def similarity_graph(n: int, density: float, rank: int) -> torch.Tensor:
    """Cosine of random vectors of a low rank above a threshold: clustered, and the wider the lower the rank."""
    vectors = torch.randn(n, rank, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.normalize(vectors, dim=1)
    cosine = cosine @ cosine.T
    sample = cosine[torch.triu(torch.ones(n, n, dtype=torch.bool), 1)].numpy()
    linked = cosine > float(np.quantile(sample, 1 - density))
    return (linked | linked.T).fill_diagonal_(False)


GRAPHS: dict[str, Callable[[int, float], torch.Tensor]] = {
    "random": random_graph,
    "similarity, rank 20": lambda n, density: similarity_graph(n, density, 20),
    "similarity, rank 3": lambda n, density: similarity_graph(n, density, 3),
}


def seconds(run: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Wall times after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


class Enough(Exception):
    """The limit of time is over."""


def once(linked: torch.Tensor, limit: float) -> None:
    """One computation, stopped at the limit."""
    start, worked = time.perf_counter(), time.process_time()
    blocks: list[tuple[float, int]] = []

    def look(_: str, done: int, total: int) -> None:
        blocks.append((time.perf_counter() - start, done))
        if blocks[-1][0] > limit and len(blocks) > 1 and done < total:
            raise Enough

    try:
        betweenness(linked, progress=look)
        took = f"{time.perf_counter() - start:.1f} s, processor {time.process_time() - worked:.1f} s"
    except Enough:
        (first, skipped), (now, done) = blocks[0], blocks[-1]
        whole = first + (now - first) / (done - skipped) * (len(linked) - skipped)
        took = f"stopped after {now:.1f} s and {done} of {len(linked)} sources; extrapolated to all: {whole:.0f} s"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  captum_concepts, once: {took}; peak memory of the process {peak:.1f} GiB", flush=True)


def show(what: str, times: list[float]) -> float:
    middle = statistics.median(times)
    print(f"  {what:<34} min {min(times):8.3f} s   median {middle:8.3f} s", flush=True)
    return middle


def against_igraph(linked: torch.Tensor, ours: np.ndarray, repeats: int, own: float) -> None:
    try:
        import igraph
    except ImportError:
        print("  igraph is not installed; pip install igraph to compare")
        return
    graph = igraph.Graph(n=len(linked), edges=torch.triu(linked, 1).nonzero().tolist())
    n = len(linked)
    result = np.array(graph.betweenness(directed=False)) * 2 / ((n - 1) * (n - 2))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        graph.betweenness(directed=False)
        times.append(time.perf_counter() - start)
    peer = show(f"igraph {igraph.__version__}", times)
    difference = np.max(np.abs(ours - result) / np.maximum(result, 1e-300), where=result > 0, initial=0.0)
    print(f"  igraph / captum_concepts = {peer / own:.1f}   largest relative difference {difference:.1e}")


def against_networkx(build: Callable[[int, float], torch.Tensor], args: argparse.Namespace, own: float) -> None:
    small = build(NETWORKX_NODES, args.density)
    graph = nx.from_numpy_array(small.numpy())
    start = time.perf_counter()
    result = np.array(list(nx.betweenness_centrality(graph).values()))
    peer = time.perf_counter() - start
    ours = betweenness(small.to(args.device)).cpu().numpy()
    difference = np.max(np.abs(ours - result) / np.maximum(result, 1e-300), where=result > 0, initial=0.0)
    mine = show(
        f"captum_concepts, n = {NETWORKX_NODES}",
        seconds(lambda: betweenness(small.to(args.device)), args.repeats, args.device),
    )
    print(f"  networkx {nx.__version__}, n = {NETWORKX_NODES}: {peer:.2f} s once, ratio {peer / mine:.0f}", end="")
    print(f"   largest relative difference {difference:.1e}")
    scale = (args.nodes / NETWORKX_NODES) ** 3
    print(f"  networkx extrapolated to n = {args.nodes}: {peer * scale:.0f} s, ratio {peer * scale / own:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3443)
    parser.add_argument("--density", type=float, default=0.11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--graph", choices=["all", *GRAPHS], default="all")
    parser.add_argument("--alone", action="store_true", help="without igraph and networkx")
    parser.add_argument("--once", action="store_true", help="one computation, with its peak of memory, and no others")
    parser.add_argument("--limit", type=float, default=math.inf, help="with --once: seconds after which it stops")
    args = parser.parse_args()
    print(f"n = {args.nodes}, density {args.density}, {torch.get_num_threads()} threads, device {args.device}")
    for name in GRAPHS if args.graph == "all" else [args.graph]:
        linked = GRAPHS[name](args.nodes, args.density)
        print(f"{name}: {int(linked.sum()) // 2} edges")
        on_device = linked.to(args.device)
        if args.once:
            once(on_device, args.limit)
            continue
        times = seconds(lambda graph=on_device: betweenness(graph), args.repeats, args.device)
        own = show("captum_concepts", times)
        if not args.alone:
            against_igraph(linked, betweenness(on_device).cpu().numpy(), args.repeats, own)
            against_networkx(GRAPHS[name], args, own)


if __name__ == "__main__":
    main()
