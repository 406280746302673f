"""Sanity checks without new sound: randomised weights, permuted labels, a second pool of negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import betabinom, kstwo, rankdata
from scipy.stats import t as student
from torch import Tensor

from captum_concepts.cavs.directions import separation
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights, index_groups
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.choices import ALPHA
from captum_concepts.errors import InputError
from captum_concepts.significance.null_concepts import NullPlan
from captum_concepts.significance.null_draws import draw_null_concepts
from captum_concepts.significance.rank_tests import rank_test
from captum_concepts.significance.scores import score_layer

FALSE_ALARM = 0.01  # error rate of a check that decides by a p-value, over all layers
UNRELATED = 0.5  # mean rank correlation with randomised weights below which effects count as changed
MIN_CONCEPTS = 5  # for a rank correlation to mean anything
SPLITS = 20  # ways to split the pool of negatives
RESAMPLES = 200
CHANCE = 999
BLOCK = 512  # columns of concepts fitted at once


@dataclass(frozen=True)
class Check:
    """One check at one layer.

    Attributes:
        check, layer: which.
        verdict: "passed", "failed" or "not possible".
        measured: what ``value`` is.
        value, low, high: the figure and its 95 % interval; NaN where there is none.
        bound: the limit of the figure.
        sentence: the outcome in plain words.
        details: further figures.
    """

    check: str
    layer: str
    verdict: str
    measured: str
    value: float
    low: float
    high: float
    bound: str
    sentence: str
    details: dict[str, Any] = field(default_factory=dict)


def impossible(check: str, layer: str, reason: str, measured: str = "") -> Check:
    """A check that is not possible, with the reason instead of a number."""
    nan = float("nan")
    return Check(check, layer, "not possible", measured, nan, nan, nan, "", f"Not possible: {reason}.")


@dataclass(frozen=True)
class LayerView:
    """The data of one layer, as in an explanation.

    Attributes:
        names, targets: K concepts, T classes.
        activations: (N, D) of the concept clips' patches.
        positives, negatives: bool (N, K).
        groups: (N,).
        order: (N,), see ``LabelledRows``.
        gradients: (clips, T, D), mean over the patches of each explained clip.
        clip_groups: (clips,).
        plan: CAV method and null.
    """

    layer: str
    names: tuple[str, ...]
    targets: tuple[str, ...]
    activations: Tensor
    positives: np.ndarray
    negatives: np.ndarray
    groups: np.ndarray
    order: np.ndarray
    gradients: Tensor
    clip_groups: list[str]
    plan: NullPlan

    def effects(self, positives: np.ndarray, negatives: np.ndarray) -> Tensor:
        """(T, C): mean derivative along each CAV times the distance of its two sets, on the CPU."""
        return self._sensitivities(positives, negatives)[1]

    def magnitudes(self, positives: np.ndarray, negatives: np.ndarray) -> Tensor:
        """(T, C): mean derivative along each unit CAV, on the CPU."""
        return self._sensitivities(positives, negatives)[0]

    def _sensitivities(self, positives: np.ndarray, negatives: np.ndarray) -> tuple[Tensor, Tensor]:
        x = self.activations
        weights = torch.from_numpy(group_weights(self.groups)).to(x)
        gradient = self.gradients.mean(0).to(x)
        slopes, effects = [], []
        for start in range(0, positives.shape[1], BLOCK):
            positive, negative = (
                torch.from_numpy(np.ascontiguousarray(mask[:, start : start + BLOCK])).to(x.device)
                for mask in (positives, negatives)
            )
            directions = self.plan.method(x, positive, negative, weights)[0]
            slopes.append(gradient @ directions.T)
            effects.append(slopes[-1] * separation(x, directions, positive, negative, weights))
        return torch.cat(slopes, 1).cpu(), torch.cat(effects, 1).cpu()

    @cached_property
    def own_effects(self) -> Tensor:
        """(T, K): of the concepts themselves."""
        return self.effects(self.positives, self.negatives)

    def rank(self, effects: Tensor, sizes: np.ndarray, pools: np.ndarray) -> np.ndarray:
        """(T, C) effects of sets of groups -> (T, C) p-values among null concepts, without the quality gate.

        Args:
            effects: (T, C).
            sizes: (C,), groups in each set.
            pools: bool (N, C), the rows that null concepts are drawn from.
        """
        p_values = np.full(tuple(effects.shape), np.nan)
        same_null: dict[tuple[int, bytes], list[int]] = {}
        for column in range(len(sizes)):
            same_null.setdefault((int(sizes[column]), np.packbits(pools[:, column]).tobytes()), []).append(column)
        for (size, _), columns in same_null.items():
            pool = pools[:, columns[0]]
            try:
                nulls = draw_null_concepts(self.groups, pool, size, self.nulls, self.plan.seed)
            except InputError:
                continue  # too few groups to draw from: such concepts have no p-value in an explanation either
            null = self.effects(nulls, ~nulls & pool[:, None])
            p_values[:, columns] = rank_test(effects[:, columns], null.T).cpu().numpy()
        return p_values

    @property
    def nulls(self) -> int:
        """Number of null concepts of each size."""
        return self.plan.count if self.plan.count is not None else 999

    @cached_property
    def verdicts(self) -> np.ndarray:
        """(T, K): the sign of each significant effect, else 0; every concept is tested."""
        _, index = index_groups(self.groups)
        sizes = np.array([len(set(index[self.positives[:, k]])) for k in range(len(self.names))])
        pools = self.negatives | self.positives if self.plan.own else self.negatives
        pools = np.ones_like(self.negatives) if self.plan.rest else pools
        p_values = self.rank(self.own_effects, sizes, pools)
        return np.where(p_values < ALPHA, np.sign(self.own_effects.numpy()), 0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of scores as an explanation has it."""
        bank = fit_cavs(
            self.activations,
            self.positives,
            self.plan.method.fit,
            self.groups,
            negatives=self.negatives,
            names=self.names,
            layer=self.layer,
            min_groups=2,
            seed=self.plan.seed,
            **self.plan.method.options,
        ).to("cpu")
        data = LabelledRows(self.activations, self.positives, self.negatives, self.groups, self.order)
        # As many nulls as the family needs.
        plan = replace(self.plan, count=None)
        return score_layer(bank, data, self.gradients, self.clip_groups, self.targets, plan, 100)[0]


# ------------------------------------------------------------------ randomised weights


def check_randomised(name: str, view: LayerView, copies: Sequence[LayerView]) -> Check:
    """Whether the effects of concepts on classes change with randomised weights.

    The figure is the rank correlation, over concepts, of their effects on a class in the model and in its randomised
    copies, averaged over classes and copies. A last matrix of random weights is as likely as its negative, so that the
    expected correlation is exactly 0; scores that ignore the model give 1. How many concepts are significant is *not*
    compared with the nominal level: activations of a random network still depend on the sound, and a valid test
    detects that.
    """
    measured = "rank correlation of effects, model against random weights"
    own = view.own_effects.double().numpy()
    if not np.any(own):
        sentence = f"The effect of every concept is exactly 0: the classes do not depend on layer {view.layer}."
        return Check(name, view.layer, "failed", measured, np.nan, np.nan, np.nan, "effects other than 0", sentence)
    if len(view.names) < MIN_CONCEPTS:
        return impossible(name, view.layer, f"{len(view.names)} concepts, {MIN_CONCEPTS} needed", measured)
    # (copies, T)
    found = np.array([_rank_correlations(own, other.own_effects.double().numpy()) for other in copies])
    if not np.isfinite(found).all():
        return impossible(name, view.layer, "with random weights some effects are all equal", measured)
    value = float(found.mean())
    spread = found.mean(1).std(ddof=1) / np.sqrt(len(found))
    reach = float(student.ppf(0.975, len(found) - 1) * spread)
    details = {"copies": len(copies), **_repeated(view, copies)}
    sentence = (
        f"With random weights the concepts' effects on a class correlate {value:+.2f} with those of the model (1: "
        f"unchanged, 0: unrelated). {details['significant at 0.05, random weights']:.0%} of effects are significant "
        f"with random weights and {details['significant at 0.05, model']:.0%} in the model; of the latter "
        f"{details['repeated with the same sign']:.0%} are repeated with the same sign and "
        f"{details['repeated with the opposite sign']:.0%} with the opposite one."
    )
    passed = value < UNRELATED
    if not passed:
        sentence += " The scores do not depend on the weights as they should."
    verdict, bound = "passed" if passed else "failed", f"below {UNRELATED:g}; expected 0"
    low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return Check(name, view.layer, verdict, measured, value, low, high, bound, sentence, details)


def _repeated(view: LayerView, copies: Sequence[LayerView]) -> dict[str, float]:
    """Shares of the model's significant effects that its copies repeat, with the same or the opposite sign."""
    own, *others = (one.verdicts for one in (view, *copies))
    certain = own != 0
    nothing = float("nan")
    again = [(other == own)[certain].mean() if certain.any() else nothing for other in others]
    against = [(other == -own)[certain].mean() if certain.any() else nothing for other in others]
    return {
        "significant at 0.05, model": float(certain.mean()),
        "significant at 0.05, random weights": float(np.mean([(other != 0).mean() for other in others])),
        "repeated with the same sign": float(np.mean(again)),
        "repeated with the opposite sign": float(np.mean(against)),
    }


def _rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T, K), (T, K) -> (T,): Spearman's correlation of each row, over the columns finite in both; NaN if constant."""
    both = np.isfinite(first).all(0) & np.isfinite(second).all(0)
    return (_unit_ranks(first[:, both]) * _unit_ranks(second[:, both])).sum(1)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """(R, K): the ranks of each row, centred and brought to length 1; NaN where all are equal."""
    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return ranks / np.sqrt((ranks**2).sum(1, keepdims=True))


# ------------------------------------------------------------------ permuted labels


def check_permuted_labels(view: LayerView, permutations: int, layers: int) -> Check:
    """Whether concepts whose labels are permuted at random, by group, get uniform p-values.

    Every permutation takes one concept in turn, gives its label to as many random groups, takes the other groups as
    negatives, and tests the effect on one class at random: independent tests. Given R nulls the number of rejections
    among B tests is beta-binomial (the level of the rank test is a Beta order statistic), from which the band comes;
    the whole distribution is compared with the uniform one by Kolmogorov and Smirnov with B R / (B + R) observations.
    """
    name, measured = "permuted labels", f"share of p below {ALPHA:g} with labels at random"
    names, index = index_groups(view.groups)
    sizes = np.array([len(set(index[view.positives[:, k]])) for k in range(len(view.names))])
    sizes = np.minimum(sizes, len(names) - 2)
    # A generator of its own, so that labels and null concepts are never the same.
    generator = np.random.default_rng([view.plan.seed, 0xC0FFEE])
    concept = np.arange(permutations) % len(view.names)
    chosen = np.zeros((len(names), permutations), dtype=bool)
    for column in range(permutations):
        chosen[generator.permutation(len(names))[: sizes[concept[column]]], column] = True
    labels = chosen[index]
    effects = view.effects(labels, ~labels)
    target = generator.integers(len(view.targets), size=permutations)
    p_values = view.rank(effects, sizes[concept], np.ones_like(labels))[target, np.arange(permutations)]
    if not np.isfinite(p_values).all() or not effects.any():
        return impossible(name, view.layer, "the effects of random labels are all 0 or not numbers", measured)
    return _uniformity(name, measured, view.layer, p_values, view.nulls, FALSE_ALARM / 2 / layers)


def _uniformity(name: str, measured: str, layer: str, p_values: np.ndarray, nulls: int, level: float) -> Check:
    count = len(p_values)
    rank = max(1, int(np.floor(ALPHA * (nulls + 1))))
    law = betabinom(count, rank, nulls + 1 - rank)
    low, high = (float(law.ppf(q)) / count for q in (level / 2, 1 - level / 2))
    rejected = float((p_values <= rank / (nulls + 1)).mean())
    ordered = np.sort(p_values)
    steps = np.arange(1, count + 1) / count
    distance = float(max((steps - ordered).max(), (ordered - (steps - 1 / count)).max()))
    effective = max(1, round(count * nulls / (count + nulls)))
    # p-values lie on a grid of 1 / (nulls + 1): that much distance is no deviation.
    uniform_p = float(kstwo.sf(max(distance - 1 / (nulls + 1), 0.0), effective))
    passed = low <= rejected <= high and uniform_p > level
    sentence = f"Of {count} concepts with permuted labels {rejected:.1%} are significant at {ALPHA:.0%}" + (
        ", as they should be." if passed else f": the p-values are not valid here (expected {low:.1%} to {high:.1%})."
    )
    error = float(np.sqrt(rejected * (1 - rejected) / count) * 1.96)
    details = {"Kolmogorov-Smirnov distance": distance, "Kolmogorov-Smirnov p": uniform_p, "draws": count}
    bound = f"{low:.3f} to {high:.3f}, and uniform (p > {level:.2g})"
    verdict = "passed" if passed else "failed"
    return Check(
        name,
        layer,
        verdict,
        measured,
        rejected,
        max(0.0, rejected - error),
        min(1.0, rejected + error),
        bound,
        sentence,
        details,
    )


# ------------------------------------------------------------------ second negative pool


def check_negative_pool(view: LayerView, _permutations: int, layers: int) -> Check:
    """Whether two disjoint halves of the negatives, split by group, give similar ranks of the concepts.

    The figure is the rank correlation, over concepts, of the magnitudes for a class with one half and with the other,
    averaged over classes and ``SPLITS`` splits; the interval resamples concepts. It is compared with its value
    with the concepts of one half in random order. (Not of the effects: with differences of means and one pool for
    all concepts another pool moves all effects by the same amount, so that their order could not change.)
    """
    name, measured = "second negative pool", "rank correlation of magnitudes, two halves of the negatives"
    names, index = index_groups(view.groups)
    generator = np.random.default_rng([view.plan.seed, 0xB001])
    half = np.zeros((len(names), SPLITS), dtype=bool)
    pool = np.flatnonzero(np.bincount(index, view.negatives.any(1), len(names)) > 0)
    for split in range(SPLITS):
        half[generator.permutation(pool)[: len(pool) // 2], split] = True
    first = half[index]
    # (N, SPLITS, K)
    sides = [(view.negatives[:, None, :] & side[:, :, None]) for side in (first, ~first)]
    kept = np.flatnonzero(np.all([side.any(0).all(0) for side in sides], axis=0))
    if len(kept) < MIN_CONCEPTS:
        return impossible(
            name, view.layer, f"{len(kept)} concepts with negatives in both halves, {MIN_CONCEPTS} needed", measured
        )
    positives = np.repeat(view.positives[:, None, kept], SPLITS, axis=1).reshape(len(index), -1)
    shape = (len(view.targets) * SPLITS, len(kept))
    one, two = (
        view.magnitudes(positives, side[:, :, kept].reshape(len(index), -1)).double().numpy().reshape(shape)
        for side in sides
    )
    found = _rank_correlations(one, two)
    if not np.isfinite(found).all():
        return impossible(name, view.layer, "the magnitudes of the concepts are all equal", measured)
    value = float(found.mean())
    samples = []
    for _ in range(RESAMPLES):
        rows = generator.integers(len(kept), size=len(kept))
        samples.append(_rank_correlations(one[:, rows], two[:, rows]).mean())
    # Ranks of another order are the ranks in another order, so that these need no ranking.
    ranks = [_unit_ranks(values) for values in (one, two)]
    orders = np.argsort(generator.random((CHANCE, len(kept))), axis=1)
    chance = np.einsum("rk,rpk->p", ranks[0], ranks[1][:, orders]) / len(ranks[0])
    low, high = np.nanquantile(samples, [0.025, 0.975])
    bound = float(np.quantile(chance, 1 - FALSE_ALARM / layers))
    passed = value > bound
    per_target = found.reshape(len(view.targets), SPLITS).mean(1)
    sentence = (
        f"Two halves of the negatives rank the {len(kept)} concepts of a class with correlation {value:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}; chance reaches {bound:.2f})."
    )
    if not passed:
        sentence += " The order of concepts depends on the choice of negatives."
    same_sign = float((np.sign(one) == np.sign(two)).mean())
    details = {
        "same sign with both halves": same_sign,
        "by class": {t: round(float(r), 3) for t, r in zip(view.targets, per_target, strict=True)},
    }
    verdict = "passed" if passed else "failed"
    return Check(
        name, view.layer, verdict, measured, value, float(low), float(high), f"above {bound:.2f}", sentence, details
    )
