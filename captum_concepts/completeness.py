"""How much of a class its concepts account for, and how that is shared out along the hierarchy.

The game: the players are concepts, and a coalition is worth its *completeness*, after Yeh et al. (NeurIPS 2020,
"On completeness-aware concept-based explanations", eq. 1): how well the class can be told from the activations
projected on the span of the coalition's CAVs, between chance (0) and all of the layer (1). Here "how well" is the share
of the variance of the class's *logit* that a ridge regression explains on explained clips of held-out groups, so that
everything it needs was heard in the explained pass.

The shares are Owen values (Owen 1977; for nested coalitions Winter 1989) over the mined tree: Shapley values in which a
branch enters as one. What the concepts of a branch get adds up to what the branch gets, and all roots to the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs import group_weights
from captum_concepts.errors import InputError, shown
from captum_concepts.folds import stratified_parts
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.quality import index_groups
from captum_concepts.tcav import clip_means

if TYPE_CHECKING:
    from captum_concepts.activations import Extraction, Progress
    from captum_concepts.explanation import Explanation

FOLDS = 5
RIDGES = tuple(10.0**power for power in range(-5, 3))  # of the mean variance of the layer's features
MOST_EXACT = 4096  # coalitions, beyond which orders are drawn
ORDERS = 500
BLOCK_VALUES = 2**22
JITTER = 1e-10  # of the mean diagonal, so that CAVs that depend on others linearly can be factored
SHARE_COLUMNS = ("layer", "target", "concept", "share", "branch", "error", "branch_error", "completeness", "explained")
TEXTS = 3  # the first columns
Along = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Union:
    """A node of the coalition structure: its players, the parts that enter one after the other, and whose branch it is.

    ``head`` is a node of the hierarchy; None for what only holds several roots together.
    """

    players: tuple[int, ...]
    parts: tuple[Union, ...] = ()
    head: str | None = None


def coalitions(hierarchy: ConceptHierarchy, names: Sequence[str]) -> Union:
    """The mined tree as nested coalitions of players: a concept with others below it is one of its branch's parts.

    A node with several parents belongs under its strongest one. Nodes that are no players (groups that a miner made up)
    only hold together what lies below them.

    Args:
        hierarchy: whose nodes include all of ``names``.
        names: the players.

    Raises:
        InputError: a player is not in the hierarchy.
    """
    index = {name: i for i, name in enumerate(names)}
    absent = [name for name in names if name not in hierarchy]
    if absent or not names:
        raise InputError(f"hierarchy: {shown(absent)} is not in it; share out among the concepts that were mined")
    below: dict[str, list[str]] = {name: [] for name in hierarchy.names}
    for name in hierarchy.names:
        parents = hierarchy.parents(name)
        if parents:
            below[parents[0]].append(name)
    built: dict[str, Union] = {}
    depths = hierarchy.depths
    for name in sorted(hierarchy.names, key=lambda n: -depths[n]):
        own = [Union((index[name],), head=name)] if name in index else []
        parts = own + [built[child] for child in below[name] if child in built]
        if own and len(parts) == 1:
            built[name] = own[0]
        elif parts:
            built[name] = Union(tuple(p for part in parts for p in part.players), tuple(parts), name)
    roots = tuple(built[name] for name in hierarchy.roots if name in built)
    return Union(tuple(p for root in roots for p in root.players), roots)


def owen_values(
    along: Along, structure: Union, *, orders: int = ORDERS, most_exact: int = MOST_EXACT, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Owen values of a game with nested coalitions.

    Args:
        along: (B, K) int64 orders of all players -> (B, K + 1, ...) float64, the worth of the first 0, 1, ..., K.
        structure: of the players 0 to K - 1. Without inner parts these are Shapley values.
        orders: orders to draw, two by two reversed, where there are too many coalitions to go through.
        most_exact: coalitions that are gone through.
        seed: of the orders.

    Returns:
        draws (R, K, ...) and weights (R,): the values are the weighted sum of the draws. Exact values come as one draw;
        otherwise each draw is the mean over an order and its reverse, so that sums over branches have error bars too.
    """
    if _coalition_count(structure) <= most_exact:
        exact = _exact(along, structure)
        return exact[None], torch.ones(1, dtype=torch.float64)
    generator = np.random.default_rng(seed)
    drawn = np.array([_order(structure, generator) for _ in range(max(2, orders // 2))])
    found = [_marginals(along, torch.from_numpy(each)) for each in (drawn, _reversed(drawn))]
    return (found[0] + found[1]) / 2, torch.full((len(drawn),), 1 / len(drawn), dtype=torch.float64)


def _reversed(orders: np.ndarray) -> np.ndarray:
    """The reverse of an order in which branches stay together is another such order."""
    return np.ascontiguousarray(orders[:, ::-1])


def _order(union: Union, generator: np.random.Generator) -> list[int]:
    """A random order in which every branch stays together."""
    if not union.parts:
        return list(union.players)
    return [p for i in generator.permutation(len(union.parts)) for p in _order(union.parts[i], generator)]


def _marginals(along: Along, orders: Tensor) -> Tensor:
    """(B, K, ...): what each player adds in each order."""
    worth = along(orders)
    added = worth[:, 1:] - worth[:, :-1]
    index = orders.reshape(*orders.shape, *[1] * (added.dim() - 2)).expand_as(added)
    return torch.empty_like(added).scatter_(1, index, added)


def _coalition_count(structure: Union) -> int:
    """Coalitions that exact values need, at most."""

    def count(union: Union, above: int) -> int:
        if not union.parts:
            return above
        here = above * 2 ** (len(union.parts) - 1)
        return sum(count(part, here) for part in union.parts) if here <= MOST_EXACT else here

    return 2 * count(structure, 1)


def _exact(along: Along, structure: Union) -> Tensor:
    """(K, ...) by the definition: at every level, each subset of the other parts with Shapley's weight."""
    terms: dict[int, list[tuple[frozenset[int], float]]] = {}

    def walk(union: Union, before: list[tuple[frozenset[int], float]]) -> None:
        if not union.parts:
            terms[union.players[0]] = before
            return
        m = len(union.parts)
        for i, part in enumerate(union.parts):
            others = [other for j, other in enumerate(union.parts) if j != i]
            chosen = [
                (frozenset(p for one in subset for p in one.players), 1 / (m * comb(m - 1, s)))
                for s in range(m)
                for subset in combinations(others, s)
            ]
            walk(part, [(a | b, u * v) for (a, u), (b, v) in product(before, chosen)])

    walk(structure, [(frozenset(), 1.0)])
    k = len(structure.players)
    wanted = {s for player, found in terms.items() for subset, _ in found for s in (subset, subset | {player})}
    worth = _worths(along, sorted(wanted, key=sorted), k)
    values = []
    for player in range(k):
        added = [weight * (worth[subset | {player}] - worth[subset]) for subset, weight in terms[player]]
        values.append(torch.stack(added).sum(0))
    return torch.stack(values)


def _worths(along: Along, subsets: Sequence[frozenset[int]], k: int) -> dict[frozenset[int], Tensor]:
    """Each coalition's worth, read along an order that begins with it."""
    worth: dict[frozenset[int], Tensor] = {}
    todo = [(sorted(subset) + sorted(set(range(k)) - subset), subset) for subset in subsets]
    for start in range(0, len(todo), 1024):
        part = todo[start : start + 1024]
        found = along(torch.tensor([order for order, _ in part], dtype=torch.int64))
        for row, (_, subset) in enumerate(part):
            worth[subset] = found[row, len(subset)]
    return worth


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
        # One penalty for each class, the best for all of the layer: completeness is held against the strongest rival.
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
                alike = [t for t, other in enumerate(self._ridges) if other == ridge]
                found = [part.along(block, alike, ridge, self._span) for part in self._parts]
                loss[:, :, alike] = torch.stack(found).sum(0)
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


def empty_shares() -> pd.DataFrame:
    """A table of shares without rows."""
    return _table([])


def _table(rows: Sequence[tuple[str | float, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(SHARE_COLUMNS)
    types = [object] * TEXTS + [np.float64] * (len(SHARE_COLUMNS) - TEXTS)
    given = zip(SHARE_COLUMNS, columns, types, strict=True)
    return pd.DataFrame({name: pd.Series(list(values), dtype=kind) for name, values, kind in given})


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
    branches = _branches(structure)
    index = {name: i for i, name in enumerate(names)}
    rows = []
    for t, target in enumerate(targets):
        explained = float(game.explained[t])
        for name in (name for name in hierarchy.names if name in branches):
            own = draws[:, index[name], t] if name in index else torch.full((len(draws),), torch.nan)
            numbers = [*_mean_and_error(own, weights), *_mean_and_error(draws[:, branches[name], t].sum(1), weights)]
            share, error, branch, branch_error = numbers if explained > 0 else [float("nan")] * 4
            complete = float(whole[t]) if explained > 0 else float("nan")
            rows.append((layer, target, name, share, branch, error, branch_error, complete, explained))
    return _table(rows)


def _mean_and_error(draws: Tensor, weights: Tensor) -> tuple[float, float]:
    """(R,) draws -> mean and its standard error."""
    mean = float((weights * draws.double()).sum())
    return mean, 0.0 * mean if len(draws) == 1 else float(draws.std()) / len(draws) ** 0.5


def _branches(structure: Union) -> dict[str, list[int]]:
    """Node -> the players of its branch."""
    found: dict[str, list[int]] = {}

    def walk(union: Union) -> None:
        if union.head is not None:
            found.setdefault(union.head, list(union.players))
        for part in union.parts:
            walk(part)

    walk(structure)
    return found


def share_out(
    explanation: Explanation,
    explained: Extraction,
    targets: Sequence[int],
    *,
    orders: int = ORDERS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """The table of shares of an explanation, from what was heard when the clips were explained.

    Args:
        explanation: with banks and hierarchies.
        explained: the pass over the explained clips.
        targets: T class numbers, those of ``explanation.targets``.
        orders, seed: see ``owen_values``.
        progress: called with (stage, layers done, layers in all).

    Returns:
        the table (columns ``SHARE_COLUMNS``) and warnings: classes that a layer does not tell on held-out groups.

    Raises:
        InputError: too few groups of explained clips.
    """
    counts = torch.from_numpy(explained.counts)
    logits = clip_means(cast(Tensor, explained.logits), counts)[:, list(targets)]
    groups = [clip.group for clip in explained.clips]
    tables, warnings = [empty_shares()], []
    for number, (layer, hierarchy) in enumerate(explanation.hierarchies.items(), 1):
        bank = explanation.banks[layer]
        fitted = torch.isfinite(bank.directions).all(1).tolist()
        names = [name for name, fine in zip(bank.names, fitted, strict=True) if fine and name in hierarchy]
        if names:
            rows = clip_means(explained.activations[layer], counts)
            game = Completeness(rows, logits, bank.subset(names).directions, groups, seed)
            tables.append(branch_shares(layer, explanation.targets, names, game, hierarchy, orders=orders, seed=seed))
            lost = [t for t, r in zip(explanation.targets, game.explained.tolist(), strict=True) if r <= 0]
            if lost:
                warnings.append(
                    f"{shown(layer)}: no shares for {len(lost)} classes ({', '.join(shown(t, 30) for t in lost[:5])}): "
                    "on held-out groups the layer does not tell their logit linearly"
                )
        if progress is not None:
            progress("sharing out along the hierarchy", number, len(explanation.hierarchies))
    # Not together with the empty one, whose columns would decide the types.
    return (pd.concat(tables[1:], ignore_index=True) if tables[1:] else tables[0]), warnings
