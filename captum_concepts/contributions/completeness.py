"""How much of a class its concepts account for, and how that is shared out along the hierarchy.

The game: the players are concepts, and a coalition is worth its *completeness*, after Yeh et al. (NeurIPS 2020,
"On completeness-aware concept-based explanations", eq. 1): how well the class can be told from the activations
projected on the span of the coalition's CAVs, between chance (0) and all of the layer (1). Here "how well" is the share
of the variance of the class's *logit* that a ridge regression explains on explained clips of held-out groups, so that
everything it needs comes from the pass over the explained clips.

The shares are Owen values (Owen 1977; for nested coalitions Winter 1989) over the mined tree: Shapley values in which a
branch enters as one. What the concepts of a branch get adds up to what the branch gets, and all roots to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.groups import group_weights, index_groups
from captum_concepts.concepts.folds import stratified_parts
from captum_concepts.contributions.owen import ORDERS, branches_of, coalitions, owen_values
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.results.tables import empty_shares, share_table
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.text import pluralize, short_repr

if TYPE_CHECKING:
    from captum_concepts.activations.extraction import Extraction
    from captum_concepts.types import Progress

FOLDS = 5
RIDGES = tuple(10.0**power for power in range(-5, 3))  # of the mean variance of the layer's features
BLOCK_VALUES = 2**22
JITTER = 1e-10  # of the mean diagonal, so that CAVs that depend on others linearly can be factored


def check_groups(groups: Sequence[str]) -> None:
    """Raise InputError unless there are two groups of explained clips for each fold."""
    found = len(set(groups))
    if found < 2 * FOLDS:
        raise InputError(f"shares: {found} groups of explained clips; give at least {2 * FOLDS}")


class Completeness:
    """The game whose coalitions are worth their completeness, for all classes of a layer at once.

    Args:
        activations: (clips, D), mean over the patches of each explained clip.
        logits: (clips, T), likewise.
        directions: (K, D), CAVs.
        groups: (clips,) of str; folds never cut a group, and every group weighs the same.
        seed: of the folds.

    Attributes:
        folds: (clips,) int, the part in which each clip is held out.
        explained: (T,), share of the logit's variance that all of the layer explains on held-out groups.

    Raises:
        InputError: fewer than two groups for each fold.
    """

    def __init__(self, activations: Tensor, logits: Tensor, directions: Tensor, groups: Sequence[str], seed: int = 0):
        names, index = index_groups(groups)
        check_groups(names)
        self.folds = stratified_parts(names, np.zeros((len(names), 0), dtype=bool), [], [1 / FOLDS] * FOLDS, seed)[
            index
        ]
        x, y = activations.detach().double().cpu(), logits.detach().double().cpu()
        v = torch.nn.functional.normalize(directions.detach().double().cpu(), dim=1)
        weights = torch.from_numpy(group_weights(groups))
        self._parts = [_Fold.of(x, y, v, weights, torch.from_numpy(self.folds == number)) for number in range(FOLDS)]
        self._total = torch.stack([part.baseline for part in self._parts]).sum(0)
        self._span = v @ v.T
        self._variance = float((x.var(0).sum() / x.shape[1]).clamp_min(torch.finfo(torch.float64).tiny))
        # One penalty for each class, the best for all of the layer: completeness is compared with the strongest rival.
        losses = torch.stack(
            [torch.stack([p.full(ridge * self._variance) for p in self._parts]).sum(0) for ridge in RIDGES]
        )
        best = losses.min(0)
        self._ridges = [RIDGES[i] * self._variance for i in best.indices.tolist()]
        self.explained = 1 - best.values / self._total

    def along(self, orders: Tensor) -> Tensor:
        """(B, K) orders -> (B, K + 1, T): completeness of the first 0, 1, ..., K concepts of each order."""
        lines = []
        size = max(1, BLOCK_VALUES // orders.shape[1] ** 2)
        for block in orders.split(size):
            loss = self._total.new_empty(len(block), orders.shape[1] + 1, len(self._total))
            for ridge in set(self._ridges):  # classes with the same penalty share the factors
                same_ridge = [t for t, other in enumerate(self._ridges) if other == ridge]
                found = [part.along(block, same_ridge, ridge, self._span) for part in self._parts]
                loss[:, :, same_ridge] = torch.stack(found).sum(0)
            lines.append(1 - loss / self._total)
        return torch.cat(lines) / self.explained


@dataclass(frozen=True)
class _Fold:
    """One split of the clips: what a ridge regression needs of the fitted part and of the held-out part."""

    x: Tensor
    y: Tensor
    x_out: Tensor
    y_out: Tensor
    z: Tensor
    z_out: Tensor
    baseline: Tensor
    weights: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, v: Tensor, weights: Tensor, out: Tensor) -> _Fold:
        """Centred by the fitted part's means; rows scaled by the root of their weights."""
        share = weights[~out] / weights[~out].sum()
        mean_x, mean_y = share @ x[~out], share @ y[~out]
        inner, outer = share.sqrt()[:, None], weights[out].sqrt()[:, None]
        fitted, held = (x[~out] - mean_x) * inner, (x[out] - mean_x) * outer
        rest = (y[out] - mean_y) * outer
        return cls(
            x=fitted,
            y=(y[~out] - mean_y) * inner,
            x_out=held,
            y_out=rest,
            z=fitted @ v.T,
            z_out=held @ v.T,
            baseline=rest.square().sum(0),
            weights=share,
        )

    def full(self, ridge: float) -> Tensor:
        """(T,): squared error on the held-out part of a regression on all of the layer."""
        gram = self.x @ self.x.T
        identity = torch.eye(len(gram), dtype=gram.dtype)
        solved = torch.linalg.solve(gram + ridge * identity, self.y)
        return (self.y_out - self.x_out @ (self.x.T @ solved)).square().sum(0)

    def along(self, orders: Tensor, targets: list[int], ridge: float, span: Tensor) -> Tensor:
        """(B, K + 1, T): squared error of regressions on the activations projected on the first 0, 1, ..., K CAVs.

        With Z = X V' the coefficients a of the CAVs solve (Z'Z + ridge V V') a = Z'y: the penalty is on the weight
        vector V'a in the layer's space, so that it does not matter how a span is written. The Cholesky factor of the
        ordered matrix holds those of all its beginnings, and every concept adds one orthogonal feature to the fit.
        """
        count, k = orders.shape
        matrix = self.z.T @ self.z + ridge * span
        # A dependent CAV gets a direction of its own along which there is next to nothing.
        matrix = matrix + JITTER * matrix.diagonal().mean() * torch.eye(k, dtype=matrix.dtype)
        factor = torch.linalg.cholesky(matrix[orders[:, :, None], orders[:, None, :]])
        # What is known of the fitted part and of the held-out part, turned to the orthogonal features.
        right = torch.cat([self.z.T @ self.y[:, targets], self.z_out.T], 1)[orders]
        turned = torch.linalg.solve_triangular(factor, right, upper=False)
        amounts, features = turned[..., : len(targets)], turned[..., len(targets) :]
        errors = [
            (self.y_out[:, target] - (features * amounts[..., [t]]).cumsum(1)).square().sum(2)
            for t, target in enumerate(targets)
        ]
        start = self.baseline[targets].expand(count, 1, len(targets))
        return torch.cat([start, torch.stack(errors, -1)], 1)


def branch_shares(
    layer: str,
    targets: Sequence[str],
    names: Sequence[str],
    game: Completeness,
    hierarchy: ConceptHierarchy,
    *,
    orders: int = ORDERS,
    seed: int = 0,
) -> pd.DataFrame:
    """The table of shares of one layer.

    Args:
        layer, targets, names: T classes, the K concepts of ``game``.
        game: completeness of coalitions of the concepts.
        hierarchy: mined from the same concepts.
        orders: drawn where exact values are too many, see ``owen_values``.
        seed: of the orders.

    Returns:
        one row per target and concept, columns ``SHARE_COLUMNS``: ``share`` is the concept's own Owen value, ``branch``
        that of the concept with all below it, ``error`` and ``branch_error`` their standard errors (0 where exact),
        ``completeness`` of all concepts together, ``explained`` the share of the logit's variance that all of the layer
        explains on held-out groups. Where that is not above 0 there is nothing to share out: NaN.
    """
    structure = coalitions(hierarchy, names)
    draws, weights = owen_values(game.along, structure, orders=orders, seed=seed)
    whole = game.along(torch.arange(len(names))[None])[0, -1]
    members = branches_of(structure)
    index = {name: i for i, name in enumerate(names)}
    rows = []
    for t, target in enumerate(targets):
        explained = float(game.explained[t])
        for name in (name for name in hierarchy.names if name in members):
            own = draws[:, index[name], t] if name in index else torch.full((len(draws),), torch.nan)
            numbers = [*_mean_and_error(own, weights), *_mean_and_error(draws[:, members[name], t].sum(1), weights)]
            share, error, branch, branch_error = numbers if explained > 0 else [float("nan")] * 4
            complete = float(whole[t]) if explained > 0 else float("nan")
            rows.append((layer, target, name, share, branch, error, branch_error, complete, explained))
    return share_table(rows)


def share_warnings(table: pd.DataFrame) -> list[str]:
    """What a table of shares of one layer, columns ``SHARE_COLUMNS``, does not say of classes, in a line each."""
    classes = table.drop_duplicates("target")
    layer = short_repr(table["layer"].iloc[0])
    lost = classes.loc[classes["explained"] <= 0, "target"].tolist()
    useless = classes.loc[classes["completeness"] <= 0]
    lines = []
    if lost:
        lines.append(
            f"{layer}: no shares for {pluralize(len(lost), 'class', 'classes')} "
            f"({', '.join(short_repr(t, 30) for t in lost[:5])}): "
            "on held-out groups the layer does not tell their logit linearly"
        )
    if len(useless):
        some = zip(useless["target"][:5], useless["completeness"], strict=False)
        lines.append(
            f"{layer}: shares say nothing of {pluralize(len(useless), 'class', 'classes')} (completeness of "
            f"{', '.join(f'{short_repr(t, 30)} {worth:.2f}' for t, worth in some)}): on held-out groups the concepts "
            "together predict their logit no better than chance; explain more clips, or give other concepts"
        )
    return lines


def _mean_and_error(draws: Tensor, weights: Tensor) -> tuple[float, float]:
    """(R,) draws -> mean and its standard error."""
    mean = float((weights * draws.double()).sum())
    return mean, abs(0.0 * mean) if len(draws) == 1 else float(draws.std()) / len(draws) ** 0.5


def contributions_of_layers(
    banks: Mapping[str, ConceptBank],
    hierarchies: Mapping[str, ConceptHierarchy],
    explained: Extraction,
    targets: Mapping[str, int],
    *,
    orders: int = ORDERS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """The table of shares of an explanation, from the pass over the explained clips.

    Args:
        banks, hierarchies: by layer; layers without a hierarchy are left out.
        explained: the pass over the explained clips.
        targets: T classes, name -> number.
        orders, seed: see ``owen_values``.
        progress: called with (stage, layers done, layers in all).

    Returns:
        the table (columns ``SHARE_COLUMNS``) and warnings: classes that a layer does not tell on held-out groups.

    Raises:
        InputError: too few groups of explained clips.
    """
    counts = torch.from_numpy(explained.counts)
    logits = clip_means(cast(Tensor, explained.logits), counts)[:, list(targets.values())]
    groups = [clip.group for clip in explained.clips]
    tables, warnings = [empty_shares()], []
    for number, (layer, hierarchy) in enumerate(hierarchies.items(), 1):
        bank = banks[layer]
        fitted = torch.isfinite(bank.directions).all(1).tolist()
        names = [name for name, fine in zip(bank.names, fitted, strict=True) if fine and name in hierarchy]
        if names:
            rows = clip_means(explained.activations[layer], counts)
            game = Completeness(rows, logits, bank.subset(names).directions, groups, seed)
            tables.append(branch_shares(layer, list(targets), names, game, hierarchy, orders=orders, seed=seed))
            warnings += share_warnings(tables[-1])
        if progress is not None:
            progress("sharing out along the hierarchy", number, len(hierarchies))
    # Not together with the empty one, whose columns would decide the types.
    return (pd.concat(tables[1:], ignore_index=True) if tables[1:] else tables[0]), warnings
