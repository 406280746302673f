"""Calibration of p-values, q-values and intervals, power of the tests, and their cost.

    python benchmarks/validity/calibration.py                  # all sections
    python benchmarks/validity/calibration.py --update-docs    # written to docs/explanation/figures/calibration.* too
    python benchmarks/validity/calibration.py --quick          # a tenth of the repetitions
    python benchmarks/validity/calibration.py --section fdr --section timing

Sections: calibration, in-domain and power (random and planted sets of clips as concepts, in the activations of the
embedded model on music of its generator, and of MSD-VGG on notes of the Philharmonia Orchestra where these are in
the data folder), fdr (20 planted among 200 concepts), coverage (of the intervals), timing (219 concepts x 4 layers x 10
targets).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.significance.classical import refit_scores, tutorial_test, welch
from captum_concepts.significance.corrections import adjust, hierarchical
from captum_concepts.significance.intervals import mean_interval, share_interval
from captum_concepts.significance.layer_nulls import NullKey, null_families
from captum_concepts.significance.null_concepts import NullPlan, NullSets, effects, null_sets
from captum_concepts.significance.rank_tests import gated_rank_test, rank_test
from captum_concepts.significance.scores import score_layer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from calibration_worlds import Mixed, Rows, generator_rows, mixed_truth, real_rows
from harness import DATA, FIGURES, options, table, write_figure

SIZE, ALPHA, RUNS, CUTS = 20, 0.05, 10, 10


@dataclass(frozen=True)
class Plan:
    """How much is sampled for a CAV method.

    Attributes:
        batches: independent ones, each with clips, class, explained clips, folds and null concepts of its own.
        nulls: null concepts of a batch.
        fits: calls of ``fit_cavs`` in a batch, each with the folds of its own concepts: ``CUTS`` times the clips are
            cut in disjoint ones.
    """

    batches: int
    nulls: int
    fits: int


PLANS = {"pattern": Plan(60, 1999, 6), "lda": Plan(40, 1999, 5), "logistic": Plan(17, 1999, 8)}
AGAINST_POOL = Plan(80, 999, 1)
QUICK = {"pattern": Plan(8, 999, 2), "lda": Plan(6, 999, 1), "logistic": Plan(2, 199, 1)}
QUICK_POOL = Plan(8, 199, 1)


def line(rows: Rows, method: str, test: str, p_values: list[np.ndarray]) -> dict[str, Any]:
    """Rejections at 0.05 in independent batches of tests that are not independent of each other within a batch.

    Tests of a batch share null concepts, of which R put the rate of rejections itself off by sqrt(0.05 x 0.95 / R),
    or as many of them as pass the gate. So the standard error is taken between batches (that of a ratio of sums), but
    never below the binomial one, and stated as so many independent tests.
    """
    rejected = np.array([(part <= ALPHA).sum() for part in p_values], dtype=float)
    tests = np.array([len(part) for part in p_values], dtype=float)
    total, many = tests.sum(), len(tests)
    rate = rejected.sum() / total
    between = many / max(many - 1, 1) * ((rejected - rate * tests) ** 2).sum() / total**2
    variance = max(between, ALPHA * (1 - ALPHA) / total)
    reach = stats.t.ppf(0.995, max(many - 1, 1)) * variance**0.5
    return {
        "activations": rows.name,
        "CAV": method,
        "test": test,
        "batches": many,
        "tests": int(total),
        "as many as independent": round(ALPHA * (1 - ALPHA) / variance),
        "rejected at 0.05": round(rate, 3),
        "99 % band": f"{max(ALPHA - reach, 0):.3f} to {ALPHA + reach:.3f}",
        "inside": bool(abs(rate - ALPHA) <= reach),
    }


def calibration(rows: Rows, plans: dict[str, Plan], pool: Plan) -> list[dict[str, Any]]:
    """Random sets of groups as concepts, through ``fit_cavs`` and ``score_layer`` as an explanation's go."""
    found = [entry for method, plan in plans.items() for entry in of_method(rows, method, plan)]
    tables = [batch(rows, "pattern", pool, seed, rest=False) for seed in range(pool.batches)]
    label = "rank test against a fixed pool (p_unconditional)"
    found.append(line(rows, "pattern", label, [table["p_unconditional"].to_numpy() for table in tables]))
    return found + classical(rows)


def in_domain(rows: Rows, quick: bool) -> list[dict[str, Any]]:
    """Random sets with ``SIZE`` other groups each as negatives, permuted with them, as in-domain negatives are."""
    found = []
    for method in ("pattern", "lda"):
        p_values = [permuted(rows, method, seed) for seed in range(4 if quick else 30)]
        found.append(line(rows, method, "rank test with in-domain negatives (p_unconditional)", p_values))
    return found


def permuted(rows: Rows, method: str, seed: int) -> np.ndarray:
    """p-values of one batch of disjoint sets, on one class."""
    rng = np.random.default_rng([seed, len(method)])
    names = np.array(sorted(set(rows.groups)), dtype=object)
    positives = disjoint(rows.groups, rng.permutation(names))
    negatives = np.zeros_like(positives)
    for k in range(positives.shape[1]):
        others = sorted(set(rows.groups[~positives[:, k]]))
        negatives[:, k] = np.isin(rows.groups, rng.choice(np.array(others, dtype=object), SIZE, replace=False))
    gradient = rows.gradients[:, [seed % rows.gradients.shape[1]]].mean(0)
    bank = fit_cavs(rows.activations, positives, method, rows.groups, negatives=negatives, layer="l", seed=seed)
    data = LabelledRows(rows.activations, positives, negatives, rows.groups)
    plan = NullPlan(CavMethod(CAV_METHODS[method]), 199, seed, False, own=True)
    found = []
    for key, columns in null_families(data, range(len(bank)), False, own=True).items():
        null = null_sets(data, np.frombuffer(key[2], dtype=bool), key[0], gradient, plan, key[1])
        found.append(p_values_table(bank, data, gradient, columns, null)["p_unconditional"].to_numpy())
    return np.concatenate(found)


def of_method(rows: Rows, method: str, plan: Plan) -> list[dict[str, Any]]:
    """Each p-value of one CAV method's concepts, with the rest as negatives."""
    tables = [batch(rows, method, plan, seed, rest=True) for seed in range(plan.batches)]
    passed = [table[table["status"] == "ok"] for table in tables]
    share = sum(map(len, passed)) / sum(map(len, tables))
    return [
        line(rows, method, test, [table[column].to_numpy() for table in chosen])
        for test, column, chosen in (
            ("rank test, all random sets (p_unconditional)", "p_unconditional", tables),
            (f"the same, sets that passed the gate ({share:.1%})", "p_unconditional", passed),
            ("gated rank test, sets that passed (p_value)", "p_value", passed),
            ("permutation test of the gate (cav_p)", "cav_p", tables),
        )
    ]


def batch(rows: Rows, method: str, plan: Plan, seed: int, rest: bool) -> pd.DataFrame:
    """Status and p-values of null concepts of one half of the groups, on one class and half of the clips.

    Their negatives are the rest of the half, or the other half as a fixed pool.
    """
    rng = np.random.default_rng([seed, len(method), rest])
    names = rng.permutation(np.array(sorted(set(rows.groups)), dtype=object))
    half, other = names[: len(names) // 2], names[len(names) // 2 :]
    kept = np.isin(rows.groups, half if rest else names)
    x, groups = rows.activations[torch.from_numpy(kept)], rows.groups[kept]
    pool = np.isin(groups, other)
    clips = torch.from_numpy(rng.permutation(len(rows.gradients))[: len(rows.gradients) // 2])
    gradient = rows.gradients[clips][:, [seed % rows.gradients.shape[1]]].mean(0)
    null_plan = NullPlan(CavMethod(CAV_METHODS[method]), plan.nulls, seed, rest)
    found: list[pd.DataFrame] = []
    nulls: dict[NullKey, NullSets] = {}
    for number in range(plan.fits):
        positives = np.concatenate([disjoint(groups, rng.permutation(half)) for _ in range(CUTS)], axis=1)
        negatives = ~positives if rest else np.repeat(pool[:, None], positives.shape[1], axis=1)
        bank = fit_cavs(x, positives, method, groups, negatives=negatives, layer="l", seed=1000 * seed + number)
        data = LabelledRows(x, positives, negatives, groups)
        for key, columns in null_families(data, range(len(bank)), rest).items():
            if key not in nulls:
                eligible = np.frombuffer(key[2], dtype=bool)
                nulls[key] = null_sets(data, eligible, key[0], gradient, null_plan, key[1])
            found.append(p_values_table(bank, data, gradient, columns, nulls[key]))
    return pd.concat(found)


def p_values_table(
    bank: ConceptBank, data: LabelledRows, gradient: torch.Tensor, columns: list[int], null: NullSets
) -> pd.DataFrame:
    """Status and p-values as ``score_layer`` gives them, also of concepts that did not pass the gate."""
    masks = torch.from_numpy(data.positives), torch.from_numpy(data.negatives)
    weights = torch.from_numpy(group_weights(data.groups)).to(data.activations)
    found = effects(data.activations, bank.directions, *masks, weights, gradient)[:, columns]
    quality = bank.quality.iloc[columns]
    reached = np.nan_to_num(null.auc.numpy(), nan=0.5)[:, None] >= quality["auc"].to_numpy()
    return pd.DataFrame(
        {
            "status": quality["status"],
            "p_unconditional": rank_test(found, null.effects)[0].numpy(),
            "p_value": gated_rank_test(found, null.effects, null.low - 0.5)[0].numpy(),
            "cav_p": (1 + reached.sum(0)) / (1 + len(reached)),
        }
    )


def disjoint(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """bool (N, K): the groups in the order given, ``SIZE`` to a concept; what is left over is in none."""
    place = {name: number // SIZE for number, name in enumerate(order)}
    return np.array([place.get(name, -1) for name in groups])[:, None] == np.arange(len(order) // SIZE)


def classical(rows: Rows, batches: int = 20, sets: int = 40) -> list[dict[str, Any]]:
    """The t-tests of other tools, on random sets of one half of the groups, compared with random sets of the other."""
    tests: dict[str, Callable[..., np.ndarray]] = {
        f"Welch, {RUNS} refits (classical)": welch,
        f"Captum tutorials' t-test, {RUNS} refits (classical)": lambda one, _: tutorial_test(one, 1 - one),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in tests}
    for seed in range(batches):
        rng = np.random.default_rng(seed)
        names = rng.permutation(np.array(sorted(set(rows.groups)), dtype=object))
        half = names[: len(names) // 2]
        sampled = [rng.choice(half, SIZE, replace=False) for _ in range(sets)]
        positives = np.stack([np.isin(rows.groups, chosen) for chosen in sampled], axis=1)
        pool = ~np.isin(rows.groups, half)
        gradients = rows.gradients[:, [seed % rows.gradients.shape[1]]]
        concept, random = refit_scores(
            rows.activations, positives, pool, rows.groups, gradients, CAV_METHODS["pattern"], runs=RUNS, seed=seed
        )
        for name, test in tests.items():
            found[name].append(np.nan_to_num(test(concept, random)[:, 0], nan=1.0))
    return [line(rows, "pattern", name, p_values) for name, p_values in found.items()]


def power(rows: Rows, repetitions: int) -> list[dict[str, Any]]:
    """Sets whose activations are shifted so that the linearised logit rises, as both vary together in the data."""
    found = []
    centred = rows.activations - rows.activations.mean(0)
    gradients = rows.gradients[:, :1]
    logit = centred @ gradients.mean((0, 1))
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
            positives = owner[:, None] == np.arange(sets_at_once)
            x = rows.activations + strength * torch.from_numpy(owner >= 0)[:, None] * step
            data = LabelledRows(x, positives, np.repeat(owner[:, None] < 0, sets_at_once, 1), rows.groups)
            bank = fit_cavs(x, positives, groups=rows.groups, negatives=data.negatives, layer="l")
            plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), 999, seed, False)
            table = score_layer(bank, data, gradients, rows.clip_groups, ["target"], plan, 100)[0]
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
        plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), 3999, seed, False)
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


LIKE, UNLIKE = "alike", "one or two hold most"


def group_sizes(groups: int) -> list[tuple[str, list[int]]]:
    """Clips of each group: one, one to four, three; half of them in one group, four in five in one, and in two."""
    alike = [(LIKE, np.resize(sizes, groups).tolist()) for sizes in ((1,), (1, 2, 4), (3,))]
    few, many = [2] * (groups - 1), 2 * (groups - 1)
    return [*alike, (UNLIKE, [*few, many]), (UNLIKE, [*few, 4 * many]), (UNLIKE, [*few[1:], 2 * many, 2 * many])]


def coverage(repetitions: int) -> list[dict[str, Any]]:
    """Planted sensitivities: groups and clips normal around a mean, so that all three effect sizes are known.

    Clips of a group are similar in part or nearly the same; scores from 0.5 to 0.95. Coverage of a single score
    oscillates, as shares of few groups come in steps.
    """
    found: dict[tuple[int, str, str], list[float]] = {}
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    for groups in (4, 6, 10, 20, 50):
        for kind, sizes in group_sizes(groups):
            owner = np.repeat(np.arange(groups), sizes)
            for shared, score in product((0.6, 0.9), (0.5, 0.65, 0.8, 0.9, 0.95)):
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
                    found.setdefault((groups, kind, what), []).append(inside)
    return [
        {
            "groups": groups,
            "clips of groups": kind,
            "interval of": what,
            "covered, mean": round(float(np.mean(shares)), 3),
            "least": round(min(shares), 3),
            "most": round(max(shares), 3),
        }
        for (groups, kind, what), shares in found.items()
    ]


def timing() -> list[dict[str, Any]]:
    """219 concepts of 12 groups x layers of 1536, 768, 128 and 50 features x 10 targets, 4,999 null concepts."""
    concepts, per, nulls = 219, 12, 4999
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(concepts).repeat_interleave(per)
    positives = (owner[:, None] == torch.arange(concepts)).numpy()
    groups = np.array([f"g{i}" for i in range(len(owner))], dtype=object)
    took = flops = 0.0
    for width in (1536, 768, 128, 50):
        x = torch.randn(len(owner), width, generator=generator)
        x += 2 * torch.randn(concepts, width, generator=generator)[owner] / width**0.25
        gradients = torch.randn(100, 10, width, generator=generator)
        bank = fit_cavs(x, positives, groups=groups, layer=str(width))
        plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), nulls, 0, True)
        data = LabelledRows(x, positives, ~positives, groups)
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


def worlds(quick: bool, data: Path) -> list[Rows]:
    with tempfile.TemporaryDirectory() as folder:
        found = [generator_rows(Path(folder), 120 if quick else 300)]
    real = real_rows(120 if quick else 400, data)
    if real is None:
        print("skipped: MSD_vgg.h5, philharmonia and gtzan_mini are not in the data folder", file=sys.stderr)
    return found + ([real] if real is not None else [])


def main() -> None:
    parser = options(
        __doc__, quick="a tenth of the repetitions", data=DATA, update_docs="calibration.md and calibration.json"
    )
    names = ("calibration", "in-domain", "power", "fdr", "coverage", "timing")
    parser.add_argument("--section", action="append", choices=names)
    given = parser.parse_args()
    chosen, quick = given.section or names, given.quick
    if quick and given.update_docs:
        parser.error("--update-docs needs all repetitions, without --quick")
    places = worlds(quick, given.data) if {"calibration", "in-domain", "power"} & set(chosen) else []
    steps: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "calibration": lambda: [
            row
            for place in places
            for row in calibration(place, *((QUICK, QUICK_POOL) if quick else (PLANS, AGAINST_POOL)))
        ],
        "in-domain": lambda: [row for place in places for row in in_domain(place, quick)],
        "power": lambda: [row for place in places for row in power(place, 4 if quick else 12)],
        "fdr": lambda: fdr(6 if quick else 60),
        "coverage": lambda: coverage(100 if quick else 300),
        "timing": timing,
    }
    results: dict[str, list[dict[str, Any]]] = {}
    for name in chosen:
        start = time.perf_counter()
        results[name] = steps[name]()
        print(f"\n{name}  ({time.perf_counter() - start:.0f} s)")
        print(pd.DataFrame(results[name]).to_string(index=False), flush=True)
    if given.update_docs:
        write(results)


def write(results: dict[str, list[dict[str, Any]]]) -> None:
    """Sections measured now replace the earlier ones, the others stay."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / "calibration.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update(results)
    path.write_text(json.dumps(known, indent=1) + "\n")
    parts: list[str] = []
    for name, rows in known.items():
        heads = list(rows[0])
        parts += [f"**{name}**", "", *table(heads, ([row[head] for head in heads] for row in rows)), ""]
    write_figure("calibration", __file__, parts[:-1])


if __name__ == "__main__":
    main()
