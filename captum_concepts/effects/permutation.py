"""Permutation test of one number per group, for all concepts and classes at once, without refits."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.seeding import generator
from captum_concepts.text import short_repr

VALUES = 8_000_000  # numbers held at once
TOLERANCE = 1e-9  # sums of the same values in another order count as equal


def permutation_test(
    values: Tensor, positives: Tensor, negatives: Tensor | None = None, n_permutations: int = 9999, seed: int = 0
) -> Tensor:
    """Two-sided p-values of the difference of means between a concept's groups and its negatives.

    Which groups have the concept is permuted among positives and negatives. The total stays the same, so the sum over
    the concept's groups tells the difference of means; one permutation of the groups and its cumulative sums give a
    null sum for every number of groups. p is twice the smaller of the two one-sided shares, (1 + #) / (1 + B). It is
    exact where groups are exchangeable, for any number of groups: P(p <= a) <= a.

    Args:
        values: (G, C), one number for each group and class, such as mean gradient times activation.
        positives: bool (G, K), the groups of each concept.
        negatives: bool (G, K), the groups it is compared with; None: all other groups.
        n_permutations: B; no p-value is below 2 / (1 + B).
        seed: of the permutations.

    Returns:
        (K, C) float64; NaN for a concept without groups or without negatives.

    Raises:
        InputError: values that are not finite, shapes that do not fit, or no permutation.

    Example:
        >>> values = torch.tensor([[9.0], [8.0], [7.0], [0.3], [0.2], [0.1], [0.0], [-0.1]])
        >>> positives = torch.tensor([[True]] * 3 + [[False]] * 5)
        >>> round(float(permutation_test(values, positives, n_permutations=9999)), 2)  # 2 of 56 subsets are as extreme
        0.04
    """
    negatives = ~positives if negatives is None else negatives
    _check(values, positives, negatives, n_permutations)
    used = positives | negatives
    result = torch.full((positives.shape[1], values.shape[1]), torch.nan, dtype=torch.float64)
    # Concepts that are compared within the same groups share their permutations.
    masks, kind = torch.unique(used, dim=1, return_inverse=True)
    testable = positives.any(0) & negatives.any(0)
    for number in range(masks.shape[1]):
        columns = ((kind == number) & testable).nonzero()[:, 0]
        if len(columns):
            rows = masks[:, number].nonzero()[:, 0]
            result[columns] = _test(values[rows].double(), positives[rows][:, columns], n_permutations, seed)
    return result


def blocked_permutation_test(
    values: Tensor, block: Tensor, concept: Tensor, n_permutations: int = 9999, seed: int = 0
) -> Tensor:
    """Two-sided p-values of each concept's mean where every block has one value of each concept.

    Concepts are permuted within blocks, so that what blocks (hosts) differ in does not matter. A concept's null is one
    value drawn from each block, the same for all concepts. It is exact where the values of a block are exchangeable.

    Args:
        values: (P, C).
        block: int (P,), such as the slots of a plan.
        concept: int (P,), from 0 to K - 1.
        n_permutations, seed: as in `permutation_test`.

    Returns:
        (K, C) float64.

    Raises:
        InputError: a block without one value of each concept, values that are not finite, or no permutation.

    Example:
        >>> values = torch.tensor([[1.0], [0.0]] * 8)  # the first concept is larger in each of 8 blocks
        >>> block, concept = torch.arange(16) // 2, torch.arange(16) % 2
        >>> bool((blocked_permutation_test(values, block, concept) < 0.02).all())
        True
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations={short_repr(n_permutations)}: no null; give a positive whole number")
    if values.dim() != 2 or not bool(torch.isfinite(values).all()):
        raise InputError(f"values={tuple(values.shape)}: not a finite table; give (pairs, classes) without NaN")
    n_concepts = int(concept.max()) + 1
    blocks, number = torch.unique(block, return_inverse=True)
    place = number * n_concepts + concept
    if len(place) != len(blocks) * n_concepts or len(place.unique()) != len(place):
        raise InputError(f"block={len(blocks)} blocks: some lack a concept or have it twice; give one value of each")
    table = torch.empty(len(place), values.shape[1], dtype=torch.float64)
    table[place] = values.double()
    table = table.reshape(len(blocks), n_concepts, -1)
    table = table - table.mean(1, keepdim=True)
    table = table / table.abs().amax((0, 1)).clamp_min(torch.finfo(table.dtype).tiny)
    observed, flat = table.sum(0), table.flatten(0, 1)
    slack = TOLERANCE * len(blocks)
    above, below = torch.ones_like(observed), torch.ones_like(observed)
    rng = generator(seed, "blocked permutation", n_concepts)
    chunk = max(1, VALUES // (len(flat) + observed.numel()))
    for first in range(0, n_permutations, chunk):
        count = min(chunk, n_permutations - first)
        drawn = torch.randint(n_concepts, (count, len(blocks)), generator=rng)
        chosen = torch.zeros(count, len(flat), dtype=torch.float64)
        chosen.scatter_(1, drawn + n_concepts * torch.arange(len(blocks)), 1.0)
        null = (chosen @ flat)[:, None]
        above += (null >= observed - slack).sum(0)
        below += (null <= observed + slack).sum(0)
    return (2 * torch.minimum(above, below) / (1 + n_permutations)).clamp_max(1)


def _test(values: Tensor, positives: Tensor, n_permutations: int, seed: int) -> Tensor:
    """p-values (K, C) where all groups are positives or negatives of every concept."""
    values = values - values.mean(0)
    values = values / values.abs().amax(0).clamp_min(torch.finfo(values.dtype).tiny)
    sizes, size = torch.unique(positives.sum(0), return_inverse=True)
    observed = positives.double().T @ values
    slack = TOLERANCE * positives.sum(0)
    orders = _orders(len(values), int(sizes[-1]), n_permutations, seed)
    result = torch.empty_like(observed)
    for c in range(values.shape[1]):
        null = torch.cat([values[rows, c].cumsum(1)[:, sizes - 1].T for rows in orders], 1).sort(1).values
        for s in range(len(sizes)):
            own = size == s
            sums = observed[own, c].contiguous()
            above = n_permutations - torch.searchsorted(null[s], sums - slack[own])
            below = torch.searchsorted(null[s], sums + slack[own], right=True)
            result[own, c] = 2 * (1 + torch.minimum(above, below)).double() / (1 + n_permutations)
    return result.clamp_max(1)


def _orders(n_groups: int, most: int, n_permutations: int, seed: int) -> list[Tensor]:
    """The first groups of each permutation: int (B, most), in blocks of bounded size."""
    rng = generator(seed, "permutation", n_groups)
    chunk = max(1, VALUES // n_groups)
    counts = [min(chunk, n_permutations - first) for first in range(0, n_permutations, chunk)]
    return [
        torch.rand(count, n_groups, generator=rng, dtype=torch.float64).argsort(1)[:, :most].clone() for count in counts
    ]


def _check(values: Tensor, positives: Tensor, negatives: Tensor, n_permutations: int) -> None:
    if n_permutations < 1:
        raise InputError(f"n_permutations={short_repr(n_permutations)}: no null; give a positive whole number")
    if values.dim() != 2 or not bool(torch.isfinite(values).all()):
        raise InputError(f"values={tuple(values.shape)}: not a finite table; give (groups, classes) without NaN")
    for name, mask in (("positives", positives), ("negatives", negatives)):
        if mask.dtype != torch.bool or mask.dim() != 2 or len(mask) != len(values) or mask.shape != positives.shape:
            raise InputError(f"{name}={tuple(mask.shape)}: not a mask of the groups; give bool ({len(values)}, K)")
    if bool((positives & negatives).any()):
        raise InputError("negatives=a group that is a positive too: it cannot be permuted; leave it out of one of them")
