"""Time and memory to mine a hierarchy from a given similarity, for every miner.

Processor seconds, over all threads, are printed too: on a machine with other work only these compare.

python benchmarks/speed/mining.py [--concepts 3456] [--repeats 1] [--only heymann,branching]

The similarity is made up, from a tree of vectors in 64 dimensions: inner products for the miners that want a symmetric
one, sigmoids of which 11 % exceed 0.5, as in the paper's S, for the others. Each miner runs in a process of its own, so
that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from pathlib import Path

import torch

from captum_concepts.miners.api import mine
from captum_concepts.miners.builtin import MINERS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import options, parse, peak_memory, time_runs

OPTIONS = {"heymann": {"threshold": 0.5}, "subsumption": {"threshold": 0.5}}
SYMMETRIC = ("agglomerative", "spanning_tree")


def similarity_of(concepts: int, symmetric: bool, seed: int) -> torch.Tensor:
    """A tree of concepts, ten children each, whose means drift from their parents'."""
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(concepts, 64, generator=random)
    for child in range(1, concepts):
        means[child] = means[(child - 1) // 10] + 0.7 * means[child]
    if symmetric:
        return means @ means.T / 64
    directions = torch.nn.functional.normalize(means, dim=1)
    logits = means @ directions.T
    sample = logits.flatten()[:: max(1, logits.numel() // 2**20)]
    return torch.sigmoid(3 * (logits - sample.quantile(0.89)))  # the paper's density: 11 % above 0.5


def job(miner: str, concepts: int, repeats: int, seed: int, answer: multiprocessing.Queue) -> None:
    matrix = similarity_of(concepts, miner in SYMMETRIC, seed)
    names = [f"concept {i}" for i in range(concepts)]
    times = time_runs(lambda: mine(matrix, names, miner, **OPTIONS.get(miner, {})), repeats, warm_up=0)
    answer.put((times.median, statistics.median(times.processor), peak_memory(), len(times.result.edges)))


def main() -> None:
    parser = options(__doc__, quick="600 concepts", seed=0)
    parser.add_argument("--concepts", type=int, default=3456)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default=",".join(MINERS))
    args = parse(parser, {"concepts": 600})
    print(f"{args.concepts} concepts, {torch.get_num_threads()} threads; median of {args.repeats}")
    context = multiprocessing.get_context("spawn")
    for miner in args.only.split(","):
        answer = context.Queue()
        process = context.Process(target=job, args=(miner, args.concepts, args.repeats, args.seed, answer))
        process.start()
        process.join()
        if process.exitcode:
            print(f"  {miner:<14} failed, exit code {process.exitcode}")
            continue
        seconds, busy, peak, links = answer.get()
        line = f"  {miner:<14} {seconds:8.2f} s   processor {busy:8.2f} s   peak {peak:5.1f} GiB   {links} links"
        print(line, flush=True)


if __name__ == "__main__":
    main()
