"""Detection rate of each warning about concepts, and its false alarm rate where the fault is absent.

python benchmarks/validity/concept_warnings.py [--repeat 200] [--data ../shared/data] [--processes 2] [--update-docs]

--update-docs writes docs/explanation/figures/concept_warnings.md (with 200 repetitions or more).

The synthetic data have 6 concepts of 16 groups, 2 patches a group and a pool of 60 groups; a clean concept moves the
mean by ``SHIFT`` standard deviations along an axis of its own. A rate is the share of explanations (one layer, all
concepts) with at least one such warning, with its 95 % interval (Wilson). Where DIR holds ``philharmonia/``,
``gtzan_mini/`` and ``models/deezer/``, the same is measured at pool5 of MSD-VGG: random sets of notes as concepts
(clean: they share nothing), instruments with their families (a fault: families hold their instruments), instruments
with full mixes as negatives (a fault), and with other notes as negatives (clean).
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import captum_concepts as cc
from captum_concepts.activations.extraction import extract
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import find_audio
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.concepts.overlap import Overlap, shared
from captum_concepts.diagnostics.layer_diagnostics import LayerChecks
from captum_concepts.diagnostics.pushforward import push_forward
from captum_concepts.diagnostics.random_sets import GroupSampler
from captum_concepts.results.diagnostics import is_confounded

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, options, parse, row, table, wilson, write_figure

K, PER, POOL, FRAMES, CHANNELS = 6, 16, 60, 4, 8
SHIFT = 3.0
#: Kind of warning -> whether a table of ``LayerChecks.check`` holds it, by the name of that table.
KINDS: dict[str, tuple[str, Callable[[pd.DataFrame], bool]]] = {
    "unstable": ("stability", lambda table: bool((table["cosine"] <= table["chance"]).any())),
    "entangled": ("pairs", lambda table: bool(table["chance"].notna().any())),
    "domain": ("domain", lambda table: is_confounded(table.iloc[0])),
    "position": ("positions", lambda table: bool((table["unevenness"] > table["chance"]).any())),
}


def world(
    rng: np.random.Generator,
    *,
    pool: bool = True,
    together: float = 0,
    domain: float = 0,
    early: bool = False,
    per: int = PER,
) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Rows (N, FRAMES x CHANNELS), positives, negatives, groups; the noise is the same at all frames."""
    owner = np.repeat([*range(K), -1], [per] * K + [POOL if pool else 0])
    axes = np.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))[0]
    x = rng.normal(size=(len(owner), FRAMES, CHANNELS))
    frames = np.ones((len(owner), FRAMES, 1))
    if early:
        frames[owner == 0, FRAMES // 2 :] = 0
    step = SHIFT / FRAMES**0.5
    x += step * frames * np.where(owner[:, None] >= 0, axes[owner.clip(0)], 0)[:, None]
    x += together / FRAMES**0.5 * np.isin(owner, (0, 1))[:, None, None] * axes[K]
    x += domain / FRAMES**0.5 * (owner >= 0)[:, None, None] * axes[K + 1]
    x = np.repeat(x.reshape(len(owner), -1), 2, axis=0) + 0.3 * rng.normal(size=(2 * len(owner), FRAMES * CHANNELS))
    positives = np.repeat(owner[:, None] == np.arange(K), 2, axis=0)
    negatives = np.repeat(np.repeat(owner[:, None] == -1, 2, axis=0), K, axis=1) if pool else ~positives
    groups = np.repeat(np.array([f"g{i}" for i in range(len(owner))], dtype=object), 2)
    return torch.tensor(x, dtype=torch.float32), positives, negatives, groups


def warned(
    x: torch.Tensor,
    positives: np.ndarray,
    negatives: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    shape: dict[str, int] | None = None,
    admit: bool = False,
    names: list[str] | None = None,
) -> tuple[set[str], list[str]]:
    """The kinds of warnings of one explanation, and their lines; ``admit`` lets all through the quality gate."""
    names = names or [f"concept {k}" for k in range(positives.shape[1])]
    bank = fit_cavs(x, positives, "pattern", groups, negatives=negatives, names=names, layer="layer", seed=seed)
    if admit:
        bank.quality["status"] = "ok"
    overlap = Overlap(bank.names, shared(positives), shared(GroupSampler(groups).marked(positives)))
    rows = LabelledRows(x, positives, negatives, groups)
    tables, lines = LayerChecks(rows, CavMethod(fit_pattern), overlap, seed).check(bank, shape)
    return {kind for kind, (name, holds) in KINDS.items() if name in tables and holds(tables[name])}, lines


def rate(count: int, repeat: int) -> str:
    low, high = wilson(count, repeat)
    return f"{count / repeat:.3f} [{low:.3f}, {high:.3f}]"


class Workers:
    """As many processes as are asked for; each task goes to copies of this process, which hold it and its data."""

    count = 1
    task: Callable[[int], set[str]]

    @classmethod
    def run(cls, task: Callable[[int], set[str]], repeat: int) -> list[set[str]]:
        cls.task = task
        with multiprocessing.get_context("fork").Pool(cls.count) as workers:
            return workers.map(call, range(repeat), chunksize=1)


def call(seed: int) -> set[str]:
    return Workers.task(seed)


def show(
    title: str, fault: str | None, found: Callable[[int], set[str]], repeat: int, kinds: tuple[str, ...]
) -> list[str]:
    """Lines of the table, printed as they come."""
    counts: Counter[str] = Counter()
    for kinds_found in Workers.run(found, repeat):
        counts.update(kinds_found)
    lines = []
    for kind in kinds:
        role = "fires" if kind == fault else "false alarms"
        lines.append(row((title, kind, role, rate(counts[kind], repeat), repeat)))
        print(lines[-1], flush=True)
    return lines


def synthetic(repeat: int) -> list[str]:
    shape = {"T": FRAMES, "C": CHANNELS}
    every = tuple(KINDS)

    def found(seed: int, **fault: object) -> set[str]:
        data = world(np.random.default_rng(seed), **fault)  # type: ignore[arg-type]
        return warned(*data, seed=seed, shape=shape)[0]

    def unstable(seed: int) -> set[str]:
        rng = np.random.default_rng(seed)
        x, positives, negatives, groups = world(rng)
        x[torch.from_numpy(positives[:, 0])] = torch.tensor(
            np.repeat(rng.normal(size=(PER, x.shape[1])), 2, axis=0), dtype=torch.float32
        )
        return warned(x, positives, negatives, groups, seed=seed, shape=shape, admit=True)[0]

    apart = tuple(kind for kind in KINDS if kind != "domain")
    part = max(repeat // 2, 1)
    lines = show("clean, against a pool", None, found, repeat, every)
    lines += show("clean, against each other", None, lambda seed: found(seed, pool=False), repeat, apart)
    lines += show("a random set let through the gate", "unstable", unstable, part, ("unstable",))
    lines += show(
        "two concepts with a shared cause", "entangled", lambda s: found(s, together=7.0), part, ("entangled",)
    )
    lines += show("all concepts from another domain", "domain", lambda s: found(s, domain=9.0), part, ("domain",))
    for per in (PER, 20, 2 * PER):
        title = f"a concept always in the first half, {per} groups"
        lines += show(title, "position", lambda s, per=per: found(s, early=True, per=per), part, ("position",))
    return lines


def propagated(repeat: int) -> list[str]:
    """A linear net of two layers; clean: CAVs of the second layer are those of the first, propagated."""

    def found(seed: int, shuffled: bool) -> set[str]:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(40, 24, bias=False), torch.nn.Linear(24, 20, bias=False))
        backbone = cc.TorchBackbone(model, ["0", "1"], sample_rate=40, patch_seconds=1.0)
        own = torch.nn.functional.normalize(torch.randn(K, 24), dim=1)
        weight = model[1].weight.detach()
        weight = weight[torch.randperm(20)] if shuffled else weight
        later = torch.nn.functional.normalize(own @ weight.T, dim=1)
        zeros = torch.zeros(K)
        names = tuple(map(str, range(K)))
        banks = {name: ConceptBank(names, name, v, zeros, zeros) for name, v in (("0", own), ("1", later))}
        cosines = push_forward(backbone, banks, torch.randn(2, 40))
        return {"push"} if (cosines["cosine"] <= cosines["chance"]).any() else set()

    part = max(repeat // 2, 1)
    lines = show("clean: CAVs pushed through a linear layer", None, lambda s: found(s, False), repeat, ("push",))
    return lines + show("shuffled weights between the layers", "push", lambda s: found(s, True), part, ("push",))


def real(data: Path, repeat: int) -> list[str]:
    """Lines of the table, and after it what two explanations are warned of."""
    with (data / "philharmonia/clips.csv").open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    backbone = cc.load_backbone("msd-vgg", weights=str(data / "models/deezer/MSD_vgg.h5"), device="cpu")
    notes = extract(backbone, [Clip(str(data / "philharmonia" / record["file"])) for record in records], ["pool5"])
    mixes = extract(backbone, [Clip(path) for path in find_audio(data / "gtzan_mini/genres")], ["pool5"])
    x, kept = notes.activations["pool5"], notes.kept[notes.rows]
    groups = np.array([f"note {number}" for number in notes.rows], dtype=object)

    def labels(column: str) -> tuple[np.ndarray, list[str]]:
        names = sorted({record[column] for record in records} - {""})
        positives = np.array([[record[column] == name for name in names] for record in records])
        return positives[kept], names

    instruments, names = labels("instrument")
    families, family_names = labels("family")

    def random_sets(seed: int) -> set[str]:
        order = np.random.default_rng(seed).permutation(len(notes.clips))
        owner = np.full(len(order), -1)
        owner[order[: 8 * 40]] = np.repeat(np.arange(8), 40)
        positives = owner[notes.rows][:, None] == np.arange(8)
        return warned(x, positives, ~positives, groups, seed=seed, admit=True)[0]

    def same_domain(seed: int) -> set[str]:
        in_pool = (np.random.default_rng(seed).random(len(notes.clips)) < 0.5)[notes.rows]
        pool = np.repeat(in_pool[:, None], len(names), axis=1)
        return warned(x, instruments & ~pool, pool, groups, seed=seed)[0]

    part = max(repeat // 10, 1)
    found = show("notes: 8 disjoint random sets of 40 as concepts", None, random_sets, repeat, ("entangled",))
    found += show("notes: instruments against other notes", None, same_domain, part, ("domain",))
    both = np.concatenate([instruments, families], axis=1)
    _, lines = warned(x, both, ~both, groups, seed=0, names=[*names, *(f"family {name}" for name in family_names)])
    found += ["", f"Notes, instruments and their families: {' / '.join(lines) or 'no warning'}"]
    everything = torch.cat([x, mixes.activations["pool5"]])
    all_groups = np.concatenate([groups, np.array([f"mix {number}" for number in mixes.rows], dtype=object)])
    positives = np.concatenate([instruments, np.zeros((len(mixes.rows), len(names)), dtype=bool)])
    negatives = np.repeat((~positives.any(axis=1))[:, None], len(names), axis=1)
    _, lines = warned(everything, positives, negatives, all_groups, seed=0, names=names)
    found += ["", f"Notes, instruments against full mixes: {' / '.join(lines) or 'no warning'}"]
    print("\n".join(found[-4:]))
    return found


def main() -> None:
    parser = options(__doc__, quick="4 repetitions", data=DATA, update_docs="concept_warnings.md")
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parse(parser, {"repeat": 4})
    if given.update_docs and given.repeat < 200:
        parser.error(f"--update-docs needs --repeat 200 or more, not {given.repeat}")
    torch.set_num_threads(1)  # many small products
    Workers.count = given.processes
    lines = table(("concepts", "warning", "it", "in [95 % interval]", "of explanations"))
    lines += synthetic(given.repeat)
    lines += propagated(given.repeat)
    if given.quick:
        print("skipped: recorded notes, with --quick")
    elif (given.data / "philharmonia/clips.csv").exists() and (given.data / "models/deezer/MSD_vgg.h5").exists():
        lines += real(given.data, given.repeat)
    else:
        print(f"skipped: recorded notes, there is no {given.data}")
    if given.update_docs:
        write_figure("concept_warnings", __file__, lines)


if __name__ == "__main__":
    main()
