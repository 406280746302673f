"""``BatchedTCAV`` against Captum's ``TCAV``, side by side in one run, and against what any TCAV must do.

    python benchmarks/captum_tcav.py                     # the whole job; Captum needs many minutes for it
    python benchmarks/captum_tcav.py --quick             # the same, smaller

Three parts. *End to end*: K instruments against R random sets with a real model (the MSD VGG), five tags, in turn
(a) by Captum, (b) by Captum with its work-around ``force_train=True``, (c) by ``BatchedTCAV``; and the floor, the bare
passes: one forward over the data of the K + R concepts, one forward and one backward per target over the explained
patches. *Everything but the model*: the same three with a model that costs nothing. *Growth*: fitting alone, against K;
and the memory that 100,000 sets take. Figures are minimum and median over the repeats, which alternate.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import statistics
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

import captum_concepts as cc
from captum_concepts.resampling import Blocks, fit_sets, held_out

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
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


def alternate(repeat: int, runs: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[str, list[float]], against: tuple[str, ...]) -> None:
    for name, values in seconds.items():
        least, middle = min(values), statistics.median(values)
        ratios = "  ".join(
            f"{min(seconds[other]) / least:8.2f} / {statistics.median(seconds[other]) / middle:.2f} x vs {other}"
            for other in against
            if other != name
        )
        print(f"  {name:28s} min {least:8.3f} s  median {middle:8.3f} s   {ratios}", flush=True)


def real_data(count: int, patches: int, explained: int) -> tuple[nn.Module, list[Tensor], Tensor] | None:
    """The MSD VGG, log-mel patches of ``count`` instruments' and random sets, and patches to explain."""
    weights = SHARED / "models" / "deezer" / "MSD_vgg.h5"
    if not weights.exists():
        return None
    backbone = cc.load_backbone("msd-vgg", weights=str(weights), device="cpu")
    model = backbone.model.eval().requires_grad_(False)  # type: ignore[attr-defined]
    table_of_clips = cc.ConceptSet.from_table(SHARED / "philharmonia" / "clips.csv", column="instrument")
    needed = patches * count + explained
    heard: list[Tensor] = []
    for clip in table_of_clips.clips:
        for block in backbone.read(clip):
            with torch.no_grad():
                heard.append(backbone.frontend(block.inputs))  # type: ignore[attr-defined]
        if sum(map(len, heard)) >= needed:
            break
    rows = torch.cat(heard)
    rows = rows[torch.arange(needed) % len(rows)]
    return model, list(rows[: patches * count].split(patches)), rows[patches * count :]


def growth(sizes: list[int], randoms: int, rows: int) -> None:
    print(f"\nGrowth: fitting K x {randoms} sets, {rows} rows per concept, D = {FEATURES}, activations given")
    generator = torch.Generator().manual_seed(0)
    for method in ("pattern", "lda", "logistic"):
        for k in sizes:
            counts = [rows] * (k + randoms)
            values = torch.randn(sum(counts), FEATURES, generator=generator)
            held = held_out([str(i) for i in range(len(counts))], counts, 0.33, 0)
            sets = [(i, k + j) for i in range(k) for j in range(randoms)]
            found = []
            for _ in range(2):
                start = time.perf_counter()
                for _ in fit_sets(Blocks(values, counts, held), sets, method):
                    pass
                found.append(time.perf_counter() - start)
            print(
                f"  {method:9s} K = {k:5d}  {min(found):8.3f} s  {1e6 * min(found) / len(sets):8.1f} us/set", flush=True
            )


def memory(method: str, sets_wanted: int, features: int, chunk_bytes: int) -> str:
    """Run in a process of its own, whose peak is its own."""
    randoms, rows = 50, 8
    k = sets_wanted // randoms
    counts = [rows] * (k + randoms)
    values = torch.randn(sum(counts), features, generator=torch.Generator().manual_seed(0))
    blocks = Blocks(values, counts, held_out([str(i) for i in range(len(counts))], counts, 0.25, 0))
    sets = [(i, k + j) for i in range(k) for j in range(randoms)]
    for _ in fit_sets(blocks, sets[:randoms], method, chunk_bytes=chunk_bytes):
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    done = sum(len(part.numbers) for part in fit_sets(blocks, sets, method, chunk_bytes=chunk_bytes))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return (
        f"  {method:9s} {done} sets, D = {features}: {time.perf_counter() - start:.1f} s, peak grows by "
        f"{peak / 2**10:.0f} MiB; chunk_bytes {chunk_bytes / 2**20:.0f} MiB, rows {values.nbytes / 2**20:.0f} MiB, "
        f"all CAVs together {done * 2 * features * 4 / 2**20:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--concepts", type=int, help="K of the end-to-end job (15)")
    parser.add_argument("--randoms", type=int, help="R of the end-to-end job (10)")
    parser.add_argument("--patches", type=int, help="patches per concept (40; quick 8)")
    parser.add_argument("--explained", type=int, help="explained patches (60; quick 16)")
    parser.add_argument("--layer", default="pool4")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--parts", default="end,rest,growth,memory", help="which parts to run")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    k, r = given.concepts or 15, given.randoms or 10
    patches, explained = given.patches or (8 if given.quick else 40), given.explained or (16 if given.quick else 60)
    parts = given.parts.split(",")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    found = real_data(k + r, patches, explained) if "end" in parts else None
    if "end" in parts and found is None:
        print("end to end: skipped, the weights and the audio of this job are not here")
    if found is not None:
        model, data, inputs = found
        print(
            f"\nEnd to end: {k} concepts x {r} random sets of {patches} patches, {len(inputs)} explained, {TARGETS} "
            f"targets, layer {given.layer}; concept passes 2KR = {2 * k * r}, needed K + R = {k + r}: "
            f"{2 * k * r / (k + r):.1f} x"
        )
        runs: dict[str, Callable[[], None]] = {
            "(a) Captum": lambda: stock(model, given.layer, data, k, inputs, force=False),
            "(b) Captum, force_train": lambda: stock(model, given.layer, data, k, inputs, force=True),
            "(c) BatchedTCAV": lambda: batched(model, given.layer, data, k, inputs, "logistic"),
            "floor": lambda: bare(model, given.layer, data, inputs),
        }
        runs["(c) BatchedTCAV"]()
        seconds = alternate(given.repeat, runs)
        table(seconds, ("(a) Captum", "(b) Captum, force_train", "floor"))
        print(f"  distance from the floor: {min(seconds['(c) BatchedTCAV']) / min(seconds['floor']):.3f} x (min)")
    if "rest" in parts:
        k2, r2 = given.concepts or (16 if given.quick else 64), given.randoms or (10 if given.quick else 50)
        rows = torch.randn((k2 + r2) * 40 + 60, FEATURES, generator=torch.Generator().manual_seed(0))
        data, inputs = list(rows[:-60].split(40)), rows[-60:]
        free = Given().eval()
        print(
            f"\nEverything but the model: {k2} x {r2} sets of 40 rows, D = {FEATURES}, 60 explained, {TARGETS} targets"
        )
        theirs: dict[str, Callable[[], None]] = {
            "(a) Captum": lambda: stock(free, "layer", data, k2, inputs, force=False),
            "(b) Captum, force_train": lambda: stock(free, "layer", data, k2, inputs, force=True),
        }
        ours: dict[str, Callable[[], None]] = {
            f"(c) {m}": lambda m=m: batched(free, "layer", data, k2, inputs, m)  # type: ignore[misc]
            for m in ("logistic", "pattern", "lda")
        }
        alternate(1, ours)
        before = alternate(given.repeat, ours)
        seconds = alternate(given.repeat if given.quick else 1, theirs)
        after = alternate(given.repeat, ours)
        seconds |= {name: before[name] + after[name] for name in ours}
        table(seconds, ("(a) Captum", "(b) Captum, force_train"))
    if "growth" in parts:
        growth([16, 64, 256] if given.quick else [16, 64, 256, 1024], 5, 20)
    if "memory" in parts:
        print("\nMemory of 100,000 sets")
        for method in ("pattern", "logistic"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                features = 256 if given.quick else FEATURES
                print(fresh.submit(memory, method, 100_000, features, 2**27).result(), flush=True)


if __name__ == "__main__":
    main()
