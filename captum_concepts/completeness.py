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

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs import group_weights
from captum_concepts.errors import InputError
from captum_concepts.folds import stratified_parts
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.quality import index_groups

FOLDS = 5
RIDGES = tuple(10.0**power for power in range(-5, 3))  # of the mean variance of the layer's features
MOST_EXACT = 20_000  # coalitions, beyond which orders are drawn
ORDERS = 500
BLOCK_VALUES = 2**24
JITTER = 1e-10  # of the mean diagonal, so that CAVs that depend on others linearly can be factored
SHARE_COLUMNS = ("layer", "target", "concept", "share", "branch", "error", "branch_error", "completeness", "explained")
Along = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Union:
    """A node of the coalition structure: its players, the parts that enter one after the other, and whose branch it is.

    ``head`` is None for what only holds several roots together.
    """

    players: tuple[int, ...]
    parts: tuple[Union, ...] = ()
    head: int | None = None


def coalitions(hierarchy: ConceptHierarchy, names: Sequence[str]) -> Union:
    """The mined tree as nested coalitions of players: a concept with others below it is one of its branch's parts.

    A concept with several parents belongs under its strongest one.

    Args:
        hierarchy: of the concepts ``names``, perhaps in another order.
        names: the players.

    Raises:
        InputError: the hierarchy is of other concepts.
    """
    if set(hierarchy.names) != set(names):
        raise InputError("hierarchy: its concepts are not those to share out among; mine it from the same bank")
    index = {name: i for i, name in enumerate(names)}
    below: dict[str, list[str]] = {name: [] for name in names}
    for name in hierarchy.names:
        parents = hierarchy.parents(name)
        if parents:
            below[parents[0]].append(name)
    built: dict[str, Union] = {}
    for name in sorted(names, key=lambda n: -hierarchy.depths[n]):
        own = Union((index[name],), head=index[name])
        parts = (own, *(built[child] for child in below[name]))
        built[name] = Union(tuple(p for part in parts for p in part.players), parts, index[name]) if parts[1:] else own
    roots = tuple(built[name] for name in hierarchy.roots)
    return Union(tuple(p for root in roots for p in root.players), roots) if len(roots) > 1 else roots[0]


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
        if len(names) < 2 * FOLDS:
            raise InputError(f"shares: {len(names)} groups of explained clips; give at least {2 * FOLDS}")
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
            columns = []
            for target, ridge in enumerate(self._ridges):
                loss = torch.stack([p.along(block, target, ridge, self._span) for p in self._parts]).sum(0)
                columns.append(1 - loss / self._total[target])
            lines.append(torch.stack(columns, -1))
        return torch.cat(lines) / self.explained

    @property
    def players(self) -> int:
        """How many concepts there are."""
        return len(self._span)


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

    def along(self, orders: Tensor, target: int, ridge: float, span: Tensor) -> Tensor:
        """(B, K + 1): squared error of regressions on the activations projected on the first 0, 1, ..., K CAVs.

        With Z = X V' the coefficients a of the CAVs solve (Z'Z + ridge V V') a = Z'y: the penalty is on the weight
        vector V'a in the layer's space, so that it does not matter how a span is written. The Cholesky factor of the
        ordered matrix holds those of all its beginnings, and every concept adds one orthogonal feature to the fit.
        """
        count, k = orders.shape
        matrix = self.z.T @ self.z + ridge * span
        # A dependent CAV gets a direction of its own along which there is next to nothing.
        matrix = matrix + JITTER * matrix.diagonal().mean() * torch.eye(k, dtype=matrix.dtype)
        ordered = matrix[orders[:, :, None], orders[:, None, :]]
        factor = torch.linalg.cholesky(ordered)
        right = (self.z.T @ self.y[:, target])[orders]
        amount = torch.linalg.solve_triangular(factor, right[..., None], upper=False)
        features = torch.linalg.solve_triangular(factor, self.z_out.T[orders], upper=False)
        fitted = (features * amount).cumsum(1)
        errors = (self.y_out[:, target] - fitted).square().sum(2)
        return torch.cat([self.baseline[target].expand(count, 1), errors], 1)


def empty_shares() -> pd.DataFrame:
    """A table of shares without rows."""
    text = SHARE_COLUMNS[:3]
    return pd.DataFrame({c: pd.Series(dtype=object if c in text else np.float64) for c in SHARE_COLUMNS})


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
    everything = torch.arange(len(names))[None]
    whole = game.along(everything)[0, -1]
    members = _branches(structure, len(names))
    branches = torch.einsum("ij,rjt->rit", members, draws)
    rows = []
    for t, target in enumerate(targets):
        possible = float(game.explained[t]) > 0
        figures = [_mean_and_error(found[:, :, t], weights) for found in (draws, branches)]
        for i, name in enumerate(names):
            numbers = [figures[0][0][i], figures[1][0][i], figures[0][1][i], figures[1][1][i], whole[t]]
            shown = [float(n) if possible else float("nan") for n in numbers]
            rows.append((layer, target, name, *shown, float(game.explained[t])))
    return pd.DataFrame(rows, columns=list(SHARE_COLUMNS))


def _mean_and_error(draws: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(R, K) -> mean and standard error, each (K,)."""
    mean = weights @ draws
    if len(draws) == 1:
        return mean, torch.zeros_like(mean)
    return mean, draws.std(0) / len(draws) ** 0.5


def _branches(structure: Union, k: int) -> Tensor:
    """float64 (K, K): row i marks the concepts of i's branch."""
    members = torch.eye(k, dtype=torch.float64)

    def walk(union: Union) -> None:
        if union.parts and union.head is not None:
            members[union.head, list(union.players)] = 1
        for part in union.parts:
            walk(part)

    walk(structure)
    return members
