"""Speed and memory of ``BatchedTCAV``, compared in one run with Captum's ``TCAV`` and with the bare passes of a model.

    python benchmarks/speed/captum_tcav.py                              # every part; Captum needs many minutes for it
    python benchmarks/speed/captum_tcav.py --quick                      # the same, smaller
    python benchmarks/speed/captum_tcav.py --parts end --randoms 50 --repeat 1
    python benchmarks/speed/captum_tcav.py --parts rest --runs b,c      # some of the runs only

Parts. *end*, end to end: K instruments against R random sets with a real model (the MSD VGG), five tags, in turn
(a) by Captum, (b) by Captum with its work-around ``force_train=True``, (c) by ``BatchedTCAV``; and the *floor*, the
bare passes: one forward over the data of the K + R concepts, one forward and one backward per target over the explained
patches. *rest*, everything but the model: the same three with a model that costs nothing. *growth*: fitting alone,
against K. *memory*: what 100,000 sets take beside the stated bound. *rate*: what share of the rate of plain matrix
products the fits and scores of many concepts (4,096 on a GPU) reach. Figures are minimum and median over the repeats,
which alternate.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from captum.concept import TCAV, Concept
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import captum_concepts as cc
from captum_concepts.tcav.scores import Totals, stacks
from captum_concepts.tcav.set_fits import METHODS, Blocks, fit_sets, held_out

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, Peak, Times, cuda_settle, options, resident, time_in_turn, time_runs

TARGETS = 5
FEATURES = 1536


class Given(nn.Module):
    """A model whose layer is its input: activations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(FEATURES, TARGETS)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(rows)))


def job(data: list[Tensor], concepts: int) -> list[list[Concept]]:
    """Every one of the first ``concepts`` against every other, as Captum takes it."""
    made = [Concept(i, f"c{i}", DataLoader(TensorDataset(rows), batch_size=40)) for i, rows in enumerate(data)]
    return [[concept, random] for concept in made[:concepts] for random in made[concepts:]]


def stock(model: nn.Module, layer: str, data: list[Tensor], concepts: int, inputs: Tensor, *, force: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tcav = TCAV(model, layer, save_path=folder)
        sets = job(data, concepts)
        if force:
            tcav.compute_cavs(sets, force_train=True)
        for target in range(TARGETS):
            tcav.interpret(inputs, sets, target=target)


def batched(model: nn.Module, layer: str, data: list[Tensor], concepts: int, inputs: Tensor, method: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tcav = cc.BatchedTCAV(model, layer, save_path=folder, method=method)
        tcav.interpret_targets(inputs, job(data, concepts), range(TARGETS))


def bare(model: nn.Module, layer: str, data: list[Tensor], inputs: Tensor) -> None:
    """The floor."""
    for rows in data:
        with torch.no_grad():
            model(rows)
    for batch in inputs.split(32):
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(output.detach().requires_grad_(True))
            return kept[0]

        handle = model.get_submodule(layer).register_forward_hook(keep)
        logits = model(batch)
        handle.remove()
        for target in range(TARGETS):
            torch.autograd.grad(logits[:, target].sum(), kept, retain_graph=True)


def show(times: dict[str, Times], references: tuple[str, ...]) -> None:
    """Seconds of each run, and the ratios of the references' to them: of the minima and of the medians."""
    references = tuple(name for name in references if name in times)
    for name, own in times.items():
        ratios = "  ".join(
            f"{times[other].least / own.least:8.2f} / {times[other].median / own.median:.2f} x vs {other}"
            for other in references
            if other != name
        )
        print(f"  {name:28s} min {own.least:8.3f} s  median {own.median:8.3f} s   {ratios}", flush=True)


def real_data(data: Path, count: int, patches: int, explained: int) -> tuple[nn.Module, list[Tensor], Tensor] | None:
    """The MSD VGG, log-mel patches of ``count`` instruments' and random sets, and patches to explain."""
    weights = data / "models" / "deezer" / "MSD_vgg.h5"
    if not weights.exists():
        return None
    backbone = cc.load_backbone("msd-vgg", weights=str(weights), device="cpu")
    model = backbone.model.eval().requires_grad_(False)  # type: ignore[attr-defined]
    table_of_clips = cc.ConceptSet.from_table(data / "philharmonia" / "clips.csv", column="instrument")
    needed = patches * count + explained
    extracted: list[Tensor] = []
    for clip in table_of_clips.clips:
        for block in backbone.read(clip):
            with torch.no_grad():
                extracted.append(backbone.frontend(block.inputs))  # type: ignore[attr-defined]
        if sum(map(len, extracted)) >= needed:
            break
    rows = torch.cat(extracted)
    rows = rows[torch.arange(needed) % len(rows)]
    return model, list(rows[: patches * count].split(patches)), rows[patches * count :]


def random_blocks(concepts: int, rows: int, features: int, held: float, device: str = "cpu") -> Blocks:
    counts = [rows] * concepts
    values = torch.randn(sum(counts), features, generator=torch.Generator().manual_seed(0))
    return Blocks(values.to(device), counts, held_out([str(i) for i in range(concepts)], counts, held, 0))


def one_vs_random(concepts: int, randoms: int) -> list[tuple[int, int]]:
    return [(i, concepts + j) for i in range(concepts) for j in range(randoms)]


def fastest(run: Callable[[], object], device: str, repeat: int = 3) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    return time_runs(run, repeat, settle=cuda_settle(device)).least


def growth(sizes: list[int], randoms: int, rows: int, device: str) -> None:
    print(f"\nGrowth on {device}: K x {randoms} sets, {rows} rows per concept, D = {FEATURES}, activations given")
    for method in METHODS:
        for k in sizes:
            blocks, sets = random_blocks(k + randoms, rows, FEATURES, 0.33, device), one_vs_random(k, randoms)
            took = fastest(lambda b=blocks, s=sets, m=method: list(fit_sets(b, s, m)), device, 2)  # type: ignore[misc]
            print(f"  {method:9s} K = {k:5d}  {took:8.3f} s  {1e6 * took / len(sets):8.1f} us/set", flush=True)


def memory(method: str, sets_wanted: int, features: int, chunk_bytes: int) -> str:
    """Run in a process of its own, whose memory is its own."""
    randoms, rows = 50, 8
    k = sets_wanted // randoms
    blocks, sets = random_blocks(k + randoms, rows, features, 0.25), one_vs_random(k, randoms)
    for _ in fit_sets(blocks, sets[:randoms], method, chunk_bytes=chunk_bytes):
        pass
    before = resident()
    start = time.perf_counter()
    with Peak() as peak:
        done = sum(len(part.numbers) for part in fit_sets(blocks, sets, method, chunk_bytes=chunk_bytes))
    took = time.perf_counter() - start
    grown = peak.bytes - before
    rows_bytes = blocks.rows.nbytes
    # As ``fit_sets`` states it: the chunk, for "lda" the rows in double precision, some hundred bytes per set.
    bound = chunk_bytes + (2 * rows_bytes if method == "lda" else 0) + 500 * len(sets)
    return (
        f"  {method:9s} {done} sets, D = {features}: {took:.1f} s, memory grows by {grown / 2**20:.0f} MiB, stated "
        f"bound {bound / 2**20:.0f} MiB (chunk_bytes {chunk_bytes / 2**20:.0f}): "
        f"{'kept' if grown <= bound else 'EXCEEDED'}; all CAVs together {done * 2 * features * 4 / 2**20:.0f} MiB"
    )


def rate(concepts: int, rows: int, inputs: int, device: str) -> None:
    """Shares of the rate of one large float32 product; the products of each step are counted by PyTorch."""
    left, right = (torch.randn(4096, 4096, device=device) for _ in range(2))
    best = 2 * 4096**3 / fastest(lambda: left @ right, device)
    print(f"\nRate on {device}: float32 products of 4096 x 4096 run at {best / 1e12:.3f} TFLOP/s")
    blocks = random_blocks(concepts + 1, rows, FEATURES, 0.0, device)
    sets = one_vs_random(concepts, 1)
    steps: dict[str, Callable[[], object]] = {
        f"fit {method}, one against random": lambda m=method: [  # type: ignore[misc]
            fits.weights for fits in fit_sets(blocks, sets, m)
        ]
        for method in METHODS
    }
    steps["fit logistic, one against the rest"] = lambda: list(fit_sets(blocks, [range(concepts)], "logistic"))
    weights = torch.randn(concepts, 2, FEATURES, device=device)
    stats = [{"weights": found, "classes": [0, 1]} for found in weights.unbind()]
    ids = [(0, 1)] * concepts
    gradients = torch.randn(TARGETS, inputs, FEATURES, device=device)
    held = list(stacks(stats, ids, TARGETS * inputs, gradients, 2**31))

    def scores() -> None:
        totals = Totals(None)
        totals.begin(inputs)
        for position, stack in enumerate(held):
            totals.add(position, stack, stack.along(gradients))
        for _ in totals.means():
            pass

    steps[f"scores of {inputs} inputs, {TARGETS} targets"] = scores
    steps["derivatives alone"] = lambda: [stack.along(gradients) for stack in held]
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        work, took = counter.get_total_flops(), fastest(step, device, 2)
        print(
            f"  K = {concepts}, D = {FEATURES}, {name:36s} {took:8.3f} s  {work / 1e9:10.1f} GFLOP in products  "
            f"{100 * work / took / best:5.1f} % of the rate of products",
            flush=True,
        )


def end_to_end(given: argparse.Namespace, patches: int, explained: int) -> None:
    k, r = given.concepts or 15, given.randoms or 10
    found = real_data(given.data, k + r, patches, explained)
    if found is None:
        print("end to end: skipped, the weights and the audio of this part are not there")
        return
    model, data, inputs = found
    factor = 2 * k * r / (k + r)
    print(
        f"\nEnd to end: {k} concepts x {r} random sets of {patches} patches, {len(inputs)} explained, {TARGETS} "
        f"targets, layer {given.layer}; concept passes 2KR = {2 * k * r}, needed K + R = {k + r}: {factor:.1f} x"
    )
    runs: dict[str, Callable[[], None]] = {
        "(a) Captum": lambda: stock(model, given.layer, data, k, inputs, force=False),
        "(b) Captum, force_train": lambda: stock(model, given.layer, data, k, inputs, force=True),
        "(c) BatchedTCAV": lambda: batched(model, given.layer, data, k, inputs, "logistic"),
        "floor": lambda: bare(model, given.layer, data, inputs),
    }
    runs = {name: run for name, run in runs.items() if name == "floor" or name[1] in given.runs}
    for name in ("floor", "(c) BatchedTCAV"):
        if name in runs:
            runs[name]()
    times = time_in_turn(runs, given.repeat, warm_up=0)
    show(times, ("(a) Captum", "(b) Captum, force_train", "floor"))
    least = {name: found.least for name, found in times.items()}
    if "(c) BatchedTCAV" in least:
        ours = least["(c) BatchedTCAV"]
        print(f"  distance from the floor: {ours / least['floor']:.3f} x (min; aim: at most 1.25)")
        if "(a) Captum" in least:
            share = least["(a) Captum"] / ours / factor
            print(f"  share of the factor of passes, {factor:.1f}, over (a): {share:.2f} (aim: at least 0.8)")


def rest(given: argparse.Namespace) -> None:
    k, r = given.concepts or (16 if given.quick else 64), given.randoms or (10 if given.quick else 50)
    rows = torch.randn((k + r) * 40 + 60, FEATURES, generator=torch.Generator().manual_seed(0))
    data, inputs = list(rows[:-60].split(40)), rows[-60:]
    free = Given().eval()
    print(f"\nEverything but the model: {k} x {r} sets of 40 rows, D = {FEATURES}, 60 explained, {TARGETS} targets")
    stocks: dict[str, Callable[[], None]] = {
        "(a) Captum": lambda: stock(free, "layer", data, k, inputs, force=False),
        "(b) Captum, force_train": lambda: stock(free, "layer", data, k, inputs, force=True),
    }
    stocks = {name: run for name, run in stocks.items() if name[1] in given.runs}
    batches: dict[str, Callable[[], None]] = {
        f"(c) {m}": lambda m=m: batched(free, "layer", data, k, inputs, m)  # type: ignore[misc]
        for m in METHODS
    }
    before = time_in_turn(batches, given.repeat)
    times = time_in_turn(stocks, given.repeat if given.quick else 1, warm_up=0)
    for name, after in time_in_turn(batches, given.repeat, warm_up=0).items():
        before[name].extend(after)
    show({**times, **before}, ("(a) Captum", "(b) Captum, force_train"))


def main() -> None:
    parser = options(__doc__, quick="fewer and smaller sets", data=DATA)
    parser.add_argument(
        "--concepts", type=int, help="K of the parts end (15), rest (64; quick 16) and rate (4096; CPU 256)"
    )
    parser.add_argument("--randoms", type=int, help="R of the parts end (10) and rest (50; quick 10)")
    parser.add_argument("--patches", type=int, help="patches per concept (40; quick 8)")
    parser.add_argument("--explained", type=int, help="explained patches (60; quick 16)")
    parser.add_argument("--layer", default="pool4")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--parts", default="end,rest,growth,memory,rate", help="which parts to run")
    parser.add_argument("--runs", default="a,b,c", help="which of (a), (b), (c) to run in the parts end and rest")
    parser.add_argument("--device", default="cpu", help="of the parts growth and rate")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    patches, explained = given.patches or (8 if given.quick else 40), given.explained or (16 if given.quick else 60)
    parts = given.parts.split(",")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if "end" in parts:
        end_to_end(given, patches, explained)
    if "rest" in parts:
        rest(given)
    if "growth" in parts:
        growth([16, 64, 256] if given.quick else [16, 64, 256, 1024], 5, 20, given.device)
    if "memory" in parts:
        print("\nMemory of 100,000 sets")
        for method in METHODS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                features = 256 if given.quick else FEATURES
                print(fresh.submit(memory, method, 100_000, features, 2**27).result(), flush=True)
    if "rate" in parts:
        largest = 64 if given.quick else 256 if given.device == "cpu" else 4096
        rate(given.concepts or largest, 4 if given.quick else 10, 64, given.device)


if __name__ == "__main__":
    main()
