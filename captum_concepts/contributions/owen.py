"""Owen values: Shapley values in which the branches of a tree enter as one (Owen 1977; nested: Winter 1989)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.text import short_repr

MAX_EXACT = 4096  # coalitions, beyond which orders are drawn
ORDERS = 500
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
        raise InputError(f"hierarchy: {short_repr(absent)} is not in it; share out among the concepts that were mined")
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
    along: Along, structure: Union, *, orders: int = ORDERS, most_exact: int = MAX_EXACT, seed: int = 0
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
        return sum(count(part, here) for part in union.parts) if here <= MAX_EXACT else here

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


def branches_of(structure: Union) -> dict[str, list[int]]:
    """Node of the hierarchy -> the players of its branch."""
    found: dict[str, list[int]] = {}

    def walk(union: Union) -> None:
        if union.head is not None:
            found.setdefault(union.head, list(union.players))
        for part in union.parts:
            walk(part)

    walk(structure)
    return found
