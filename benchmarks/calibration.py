"""Do the p-values, q-values and intervals mean what they say? And what does it cost?

    python benchmarks/calibration.py                  # all sections, written to docs/explanation/figures/calibration.*
    python benchmarks/calibration.py --quick          # fewer repetitions, nothing written
    python benchmarks/calibration.py --section fdr --section timing

Sections: calibration and power (random and planted sets of clips as concepts, in the activations of the embedded model
on music of its generator, and of MSD-VGG on notes of the Philharmonia Orchestra where these are in ../shared/data), fdr
(20 planted among 200 concepts), coverage (of the intervals), timing (219 concepts x 4 layers x 10 targets).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibration_worlds import Mixed, Rows, generator_rows, mixed_truth, real_rows
from scipy import stats

from captum_concepts.cavs import CAV_METHODS, fit_cavs
from captum_concepts.classical import refit_scores, tutorial_test, welch
from captum_concepts.corrections import adjust, hierarchical
from captum_concepts.intervals import mean_interval, share_interval
from captum_concepts.nulls import LayerData, NullPlan, null_sets
from captum_concepts.scoring import score_layer
from captum_concepts.significance import gated_rank_test, rank_test

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "figures"
SIZE, ALPHA, RUNS = 20, 0.05, 10
#: Chunks of (pseudo-concepts, random sets as concepts) for each CAV method; every chunk has pseudo-concepts of its own.
CHUNKS = {"pattern": [(4999, 4000)] * 6, "lda": [(4999, 3000)] * 3, "logistic": [(1999, 1000)] * 2}
QUICK = {"pattern": [(1999, 1000)] * 2, "lda": [(1999, 1000)], "logistic": [(499, 400)]}


def band(count: int) -> str:
    """The binomial 99 % band of 0.05 for so many repetitions."""
    low, high = stats.binom.interval(0.99, count, ALPHA) if count else (0, 0)
    return f"{low / max(count, 1):.3f} to {high / max(count, 1):.3f}"


def rejection(p_values: list[np.ndarray]) -> tuple[float, int]:
    joined = np.concatenate(p_values)
    return (float((joined <= ALPHA).mean()) if len(joined) else np.nan), len(joined)


def line(rows: Rows, method: str, test: str, p_values: list[np.ndarray]) -> dict[str, Any]:
    rate, count = rejection(p_values)
    low, high = stats.binom.interval(0.99, count, ALPHA) if count else (np.nan, np.nan)
    return {
        "activations": rows.name,
        "CAV": method,
        "test": test,
        "repetitions": count,
        "rejected at 0.05": round(rate, 3),
        "99 % band": band(count),
        "inside": bool(low <= rate * count <= high) if count else None,
    }


def calibration(rows: Rows, chunks: dict[str, list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Random sets of groups as concepts: what each test rejects."""
    found = []
    empty = np.zeros((len(rows.groups), 0), dtype=bool)
    data = LayerData(rows.activations, empty, empty, rows.groups)
    everyone = np.ones(len(rows.groups), dtype=bool)
    for method, parts in chunks.items():
        plain: list[np.ndarray] = []
        without: list[np.ndarray] = []
        gated: list[np.ndarray] = []
        passed = 0
        for number, (nulls, sets) in enumerate(parts):
            drawn = [
                null_sets(
                    data, everyone, SIZE, rows.gradients.mean(0), NullPlan(CAV_METHODS[method], {}, n, seed, True)
                )
                for n, seed in ((nulls, 2 * number), (sets, 2 * number + 1))
            ]
            null, concepts = drawn
            unconditional = rank_test(concepts.effects.T, null.effects)[0].numpy()
            conditional = gated_rank_test(concepts.effects.T, null.effects, null.low - 0.5)[0].numpy()
            ok = (concepts.low > 0.5).numpy()
            passed += int(ok.sum())
            # As many from every chunk as make 1,000: more would measure the chunk's own draw of pseudo-concepts.
            plain.append(unconditional[: max(400, 1000 // len(parts))])
            without.append(unconditional[ok])
            gated.append(conditional[ok])
        share = passed / sum(sets for _, sets in parts)
        found.append(line(rows, method, "rank test, all random sets (p_unconditional)", plain))
        found.append(line(rows, method, f"the same, sets that passed the gate ({share:.1%})", without))
        found.append(line(rows, method, "gated rank test, sets that passed (p_value)", gated))
    return found + classical(rows)


def classical(rows: Rows, sets: int = 400) -> list[dict[str, Any]]:
    """The t-tests of other tools, on random sets of one half of the groups against random sets of the other."""
    rng = np.random.default_rng(0)
    names = np.array(sorted(set(rows.groups)), dtype=object)
    half = set(rng.permutation(names)[: len(names) // 2])
    ours = np.array([group in half for group in rows.groups])
    positives = np.zeros((len(rows.groups), sets), dtype=bool)
    for column in range(sets):
        chosen = set(rng.choice(np.array(sorted(half), dtype=object), SIZE, replace=False))
        positives[:, column] = [group in chosen for group in rows.groups]
    concept, random = refit_scores(
        rows.activations, positives, ~ours, rows.groups, rows.gradients, CAV_METHODS["pattern"], runs=RUNS
    )
    tests: dict[str, Callable[..., np.ndarray]] = {
        f"Welch, {RUNS} refits (classical)": lambda one: welch(one, random),
        f"Captum tutorials' t-test, {RUNS} refits (classical)": lambda one: tutorial_test(one, 1 - one),
    }
    return [line(rows, "pattern", name, [np.nan_to_num(test(concept)[:, 0], nan=1.0)]) for name, test in tests.items()]


def power(rows: Rows, repetitions: int) -> list[dict[str, Any]]:
    """Sets whose activations are shifted so that the linearised logit rises, as both vary together in the data."""
    found = []
    centred = rows.activations - rows.activations.mean(0)
    logit = centred @ rows.gradients.mean((0, 1))
    # Their covariance with the logit, long enough to raise it by one standard deviation.
    step = (centred * logit[:, None]).mean(0) / logit.std(correction=0)
    sets_at_once = min(5, len(set(rows.groups)) // (3 * SIZE))
    names = np.array(sorted(set(rows.groups)), dtype=object)
    for strength in (0.0, 0.5, 1.0, 2.0):
        status, p_values = [], []
        for seed in range(repetitions):
            order = np.random.default_rng(seed).permutation(names)
            sets = {name: k for k in range(sets_at_once) for name in order[k * SIZE : (k + 1) * SIZE]}
            owner = np.array([sets.get(group, -1) for group in rows.groups])
            shows = owner[:, None] == np.arange(sets_at_once)
            x = rows.activations + strength * torch.from_numpy(owner >= 0)[:, None] * step
            data = LayerData(x, shows, np.repeat(owner[:, None] < 0, sets_at_once, 1), rows.groups)
            bank = fit_cavs(x, shows, groups=rows.groups, negatives=data.negatives, layer="l")
            plan = NullPlan(CAV_METHODS["pattern"], {}, 999, seed, False)
            table = score_layer(bank, data, rows.gradients, rows.clip_groups, ["target"], plan, 100)[0]
            status.append((table["status"] == "ok").mean())
            p_values.append((table["p_value"] <= ALPHA).mean())
        found.append(
            {
                "activations": rows.name,
                "logit raised by (standard deviations)": strength,
                "sets": sets_at_once * repetitions,
                "passed the gate": round(float(np.mean(status)), 2),
                "passed and p <= 0.05": round(float(np.mean(p_values)), 2),
            }
        )
    return found


def fdr(repetitions: int) -> list[dict[str, Any]]:
    """20 planted of 200 concepts, the others random sets or separable but irrelevant."""
    kept: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, rejected: np.ndarray, truth: np.ndarray) -> None:
        false = (rejected & ~truth).sum() / max(1, rejected.sum())
        kept.setdefault(name, []).append((float(false), float(rejected[truth].mean())))

    for seed in range(repetitions):
        world: Mixed = mixed_truth(seed)
        bank = fit_cavs(
            world.data.activations, world.data.positives, groups=world.data.groups,
            negatives=world.data.negatives, names=world.names, layer="l",
        )  # fmt: skip
        plan = NullPlan(CAV_METHODS["pattern"], {}, 3999, seed, False)
        table = score_layer(bank, world.data, world.gradients, world.clip_groups, ["target"], plan, 100)[0]
        family = table["p_unconditional"].mask(table["status"] != "ok", 1.0).to_numpy()
        for method in ("bh", "by", "holm"):
            note(method, adjust(family, method) <= ALPHA, world.truth)
        for name, tree in (("truth follows the tree", world.tree), ("tree at random", world.random_tree)):
            q_values = hierarchical(dict(zip(world.names, family, strict=True)), tree)
            note(f"hierarchical, {name}", np.array(list(q_values.values())) <= ALPHA, world.truth)
    rows = []
    for name, values in kept.items():
        false, hit = np.array(values).T
        rows.append(
            {
                "correction": name,
                "repetitions": repetitions,
                "realised FDR": round(false.mean(), 4),
                "standard error": round(false.std(ddof=1) / repetitions**0.5, 4),
                "power": round(hit.mean(), 3),
            }
        )
    return rows


def coverage(repetitions: int) -> list[dict[str, Any]]:
    """Planted sensitivities: groups and clips normal around a mean, so that all three effect sizes are known.

    Groups of one clip, of one to four that are alike in part, and of three that are nearly the same; scores from 0.5 to
    0.95. Coverage of a single score oscillates, as shares of few groups come in steps.
    """
    rows = []
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    for groups in (6, 10, 20, 50):
        found: dict[str, list[float]] = {}
        for sizes, shared in (((1,), 1.0), ((1, 2, 4), 0.6), ((3,), 0.9)):
            owner = np.repeat(np.arange(groups), np.resize(sizes, groups))
            for score in (0.5, 0.65, 0.8, 0.9, 0.95):
                mean = stats.norm.ppf(score)
                generator = torch.Generator().manual_seed(groups)
                of_group = torch.randn(groups, repetitions, generator=generator, dtype=torch.float64)[owner]
                of_clip = torch.randn(len(owner), repetitions, generator=generator, dtype=torch.float64)
                values = mean + shared * of_group + (1 - shared**2) ** 0.5 * of_clip
                smooth = float((weights / weights.sum()) @ (1 / (1 + np.exp(-(mean + nodes)))))
                for what, truth, (low, high) in (
                    ("score", score, share_interval(values > 0, owner.astype(str))),
                    ("smooth", smooth, mean_interval(torch.sigmoid(values), owner.astype(str), 1000)),
                    ("magnitude", mean, mean_interval(values, owner.astype(str), 1000)),
                ):
                    inside = float(((low <= truth) & (truth <= high)).double().mean())
                    found.setdefault(what, []).append(inside)
        for what, shares in found.items():
            rows.append(
                {
                    "groups": groups,
                    "interval of": what,
                    "covered, mean": round(float(np.mean(shares)), 3),
                    "least": round(min(shares), 3),
                    "most": round(max(shares), 3),
                }
            )
    return rows


def timing() -> list[dict[str, Any]]:
    """219 concepts of 12 groups x layers of 1536, 768, 128 and 50 features x 10 targets, 4,999 pseudo-concepts."""
    concepts, per, nulls = 219, 12, 4999
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(concepts).repeat_interleave(per)
    shows = (owner[:, None] == torch.arange(concepts)).numpy()
    groups = np.array([f"g{i}" for i in range(len(owner))], dtype=object)
    took = flops = 0.0
    for width in (1536, 768, 128, 50):
        x = torch.randn(len(owner), width, generator=generator)
        x += 2 * torch.randn(concepts, width, generator=generator)[owner] / width**0.25
        gradients = torch.randn(100, 10, width, generator=generator)
        bank = fit_cavs(x, shows, groups=groups, layer=str(width))
        plan = NullPlan(CAV_METHODS["pattern"], {}, nulls, 0, True)
        data = LayerData(x, shows, ~shows, groups)
        start = time.perf_counter()
        score_layer(bank, data, gradients, [str(i) for i in range(100)], [str(t) for t in range(10)], plan, 1000)
        took += time.perf_counter() - start
        # One product for the CAVs of all groups and one for projections, and for each of 5 folds 0.8 of one and one.
        flops += 2 * len(x) * width * nulls * (2 + 5 * 1.8)
    a = torch.randn(2048, 2048)
    a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    speed = 10 * 2 * 2048**3 / (time.perf_counter() - start)
    return [
        {
            "threads": torch.get_num_threads(),
            "seconds": round(took, 1),
            "products, Gflop": round(flops / 1e9),
            "this machine, Gflop/s": round(speed / 1e9),
            "floor, seconds": round(flops / speed, 1),
        }
    ]


def worlds(quick: bool) -> list[Rows]:
    with tempfile.TemporaryDirectory() as folder:
        found = [generator_rows(Path(folder), 120 if quick else 300)]
    real = real_rows(120 if quick else 400)
    if real is None:
        print("skipped: MSD_vgg.h5, philharmonia and gtzan_mini are not in ../shared/data", file=sys.stderr)
    return found + ([real] if real is not None else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("calibration", "power", "fdr", "coverage", "timing")
    parser.add_argument("--section", action="append", choices=names)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, nothing written")
    options = parser.parse_args()
    chosen, quick = options.section or names, options.quick
    places = worlds(quick) if {"calibration", "power"} & set(chosen) else []
    steps: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "calibration": lambda: [row for place in places for row in calibration(place, QUICK if quick else CHUNKS)],
        "power": lambda: [row for place in places for row in power(place, 4 if quick else 12)],
        "fdr": lambda: fdr(6 if quick else 60),
        "coverage": lambda: coverage(200 if quick else 2000),
        "timing": timing,
    }
    results: dict[str, list[dict[str, Any]]] = {}
    for name in chosen:
        start = time.perf_counter()
        results[name] = steps[name]()
        print(f"\n{name}  ({time.perf_counter() - start:.0f} s)")
        print(pd.DataFrame(results[name]).to_string(index=False), flush=True)
    if not quick:
        write(results)


def write(results: dict[str, list[dict[str, Any]]]) -> None:
    """Sections measured now replace those of before, the others stay."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / "calibration.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update(results)
    path.write_text(json.dumps(known, indent=1) + "\n")
    parts = ["<!-- written by benchmarks/calibration.py -->"]
    for name, rows in known.items():
        heads = list(rows[0])
        parts.append(f"\n**{name}**\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        parts += [f"| {' | '.join(str(row[head]) for head in heads)} |" for row in rows]
    (FIGURES / "calibration.md").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
