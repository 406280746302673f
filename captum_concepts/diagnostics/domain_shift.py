"""Domain shift: whether all concepts differ from the random pool in the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.diagnostics.random_sets import GroupSampler
from captum_concepts.results.diagnostics import is_confounded

RANDOM_SETS = 20


@dataclass(frozen=True)
class DomainCheck:
    """The difference between all concepts together and the pool of negatives.

    Attributes:
        auc, low, high: held-out AUC of all concept clips together against the pool, with its 95 % interval.
        random_sets: share of random sets of concept clips that pass the quality gate against the pool on held-out
            groups.
        common: share of the squared distance between a concept's mean and the pool's that all concepts have in common:
            the mean inner product of the displacements of two concepts over that of one with itself, each between
            displacements measured on different groups.
    """

    auc: float
    low: float
    high: float
    random_sets: float
    common: float

    @property
    def confounded(self) -> bool:
        """Whether CAVs against this pool describe the source of the clips rather than the concepts."""
        return is_confounded(vars(self))


def check_domain(
    method: CavMethod,
    activations: Tensor,
    positives: np.ndarray,
    negatives: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    folds: int = 5,
) -> DomainCheck | None:
    """Check whether any set of the concepts' clips would be significant, whatever its concepts.

    Single notes against a pool of full mixes make every set of notes significant: their CAVs all say "a single note".

    Args:
        method: the CAV method.
        activations: (N, D).
        positives, negatives: bool (N, K).
        groups: (N,).
        seed: of folds and random sets.
        folds: of the held-out AUC.

    Returns:
        None where there is nothing to check: concepts with each other as negatives, fewer than two of them, or
        fewer than 10 groups of either side.
    """
    own: np.ndarray = np.asarray(positives.any(axis=1))
    pool: np.ndarray = np.asarray(negatives.any(axis=1))
    if positives.shape[1] < 2 or (own & pool).any():
        return None
    rows = np.flatnonzero(own | pool)
    shuffles = GroupSampler(groups[rows])
    marked = shuffles.marked(positives[rows])
    any_shown: np.ndarray = np.asarray(marked.any(axis=1))
    members = np.flatnonzero(any_shown)
    if len(members) < 10 or shuffles.count - len(members) < 10:
        return None
    size = int(np.clip(np.median(marked.sum(axis=0)), 5, len(members) // 2))
    generator = shuffles.generator(seed, "domain")
    drawn = np.zeros((shuffles.count, 1 + RANDOM_SETS), dtype=bool)
    drawn[:, 0] = any_shown
    for column in range(1, 1 + RANDOM_SETS):
        order = shuffles.order(generator)
        drawn[order[any_shown[order]][:size], column] = True
    x = activations[torch.from_numpy(rows).to(activations.device)]
    marked = drawn[shuffles.index] & own[rows, None]
    against = np.repeat((pool[rows] & ~any_shown[shuffles.index])[:, None], drawn.shape[1], axis=1)
    bank = fit_cavs(
        x, marked, method.fit, groups[rows], negatives=against, folds=folds, seed=seed, layer="", **method.options
    )
    whole = bank.quality.iloc[0]
    return DomainCheck(
        float(whole["auc"]),
        float(whole["low"]),
        float(whole["high"]),
        float((bank.quality["status"].iloc[1:] == "ok").mean()),
        _common_share(x, positives[rows], against[:, 0], groups[rows], shuffles, seed),
    )


def _common_share(
    x: Tensor, positives: np.ndarray, pool: np.ndarray, groups: np.ndarray, shuffles: GroupSampler, seed: int
) -> float:
    """See ``DomainCheck.common``; both means of every displacement are of one half of the groups."""
    against = np.repeat(pool[:, None], positives.shape[1], axis=1)
    first = shuffles.halves(positives, against, seed)
    weights = group_weights(groups)[:, None]
    moved = []
    for half in (first, ~first):
        shares = [weights * (mask & half) for mask in (positives, against)]
        parts = [torch.from_numpy(share / share.sum(axis=0).clip(1e-300)) for share in shares]
        moved.append((parts[0] - parts[1]).T @ x.double().cpu())
    products = moved[0] @ moved[1].T
    k = len(products)
    own = float(products.diagonal().mean())
    others = float((products.sum() - products.diagonal().sum()) / (k * (k - 1)))
    return others / own if own > 0 else float("nan")
