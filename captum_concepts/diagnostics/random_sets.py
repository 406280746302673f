"""Null concepts: random sets of groups put through the procedure of the concepts, for comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.groups import group_weights, index_groups
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.seeding import random_key, without_common_folder

MAX_KINDS = 16
REPLICATES = 1024  # pairs of null concepts over all size classes, at least 32 of each
FIT_VALUES = 2**25


def fit_directions(
    method: CavMethod, rows: Tensor, positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray
) -> Tensor:
    """(K, D) unit directions; NaN where a column lacks positives or negatives.

    Args:
        method: CAV method with its options.
        rows: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,).
    """
    found = rows.new_full((positives.shape[1], rows.shape[1]), torch.nan)
    complete = np.flatnonzero(positives.any(axis=0) & negatives.any(axis=0))
    weight = torch.from_numpy(weights).to(rows)
    size = max(1, FIT_VALUES // max(rows.shape))
    for start in range(0, len(complete), size):
        columns = complete[start : start + size]
        positive, negative = (torch.from_numpy(mask[:, columns]).to(rows.device) for mask in (positives, negatives))
        found[torch.from_numpy(columns)] = method(rows, positive, negative, weight)[0]
    return found


class GroupSampler:
    """Random orders of groups that depend on a seed and the set of group names only.

    Args:
        groups: (N,) of str.

    Attributes:
        index: int (N,), the group of each row.
        count: how many groups.
    """

    def __init__(self, groups: np.ndarray):
        names, self.index = index_groups(groups)
        keys = [random_key(0, name) for name in without_common_folder(names)] if names else []
        self.count = len(names)
        self._order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        self._digest = hashlib.sha256(b"".join(sorted(keys))).digest()

    def generator(self, seed: int, purpose: str) -> np.random.Generator:
        """Random numbers for these groups."""
        state = hashlib.sha256(f"{seed} {purpose} ".encode() + self._digest).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(state[:16], "big")))

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """int (count,): the groups in random order."""
        return np.asarray(self._order[generator.permutation(self.count)])

    def marked(self, mask: np.ndarray) -> np.ndarray:
        """bool (N, K) -> bool (count, K): whether any row of the group is marked."""
        result = np.zeros((self.count, mask.shape[1]), dtype=bool)
        rows, columns = np.nonzero(mask)
        result[self.index[rows], columns] = True
        return result

    def halves(self, positives: np.ndarray, negatives: np.ndarray, seed: int) -> np.ndarray:
        """Split the groups of each concept's positives, and of its negatives, into two halves, equal or off by one.

        Args:
            positives, negatives: bool (N, K).
            seed: of the split; it does not depend on the order of rows, nor on the other concepts.

        Returns:
            bool (N, K), True in the first half; undefined for rows that are neither.
        """
        order = self.order(self.generator(seed, "halves"))
        shows = self.marked(positives)[order]
        against = self.marked(negatives)[order]
        rank = np.where(shows, np.cumsum(shows, axis=0, dtype=np.int32), np.cumsum(against, axis=0, dtype=np.int32))
        first = np.empty(shows.shape, dtype=bool)
        first[order] = rank % 2 == 1
        return np.asarray(first[self.index])


@dataclass(frozen=True)
class Replicates:
    """Null concepts of R replicates, two for every size class each.

    Attributes:
        positives, negatives: bool (rows, R, 2, C).
    """

    positives: np.ndarray
    negatives: np.ndarray


class RandomSets:
    """Draws null concepts of the sizes of the concepts.

    Where concepts are each other's negatives ("rest", named or in-domain), each set is drawn from all groups,
    independently of labels. With one pool of negatives, the pool is split in three: two parts to draw sets from, and
    one as the negatives of all sets, since shared negatives alone make CAVs similar; sets are then smaller in
    proportion to the negatives, so that the share of noise that they have in common stays the same.

    Args:
        positives, negatives: bool (N, K).
        groups: (N,) of str.
        columns: the concepts to match; at most ``MAX_KINDS`` of them, evenly by size, give the size classes.
        seed: with the set of group names it determines all null concepts.

    Attributes:
        rows: int (M,), the rows to draw from.
        kinds: int (C,), the concepts that give the size classes.
        kind_of: int (len(columns),), the size class nearest to each concept.
        count: replicates to draw; 0 where there are too few groups.
    """

    def __init__(
        self, positives: np.ndarray, negatives: np.ndarray, groups: np.ndarray, columns: Sequence[int], seed: int
    ):
        in_pool = not (positives.any(axis=1) & negatives.any(axis=1)).any()
        eligible = negatives.any(axis=1) if in_pool else (positives | negatives).any(axis=1)
        self.rows = np.flatnonzero(eligible)
        self.weights = group_weights(groups[self.rows]) if len(self.rows) else np.zeros(0)
        self.shuffles = GroupSampler(groups[self.rows])
        self._seed = seed
        everything = GroupSampler(groups)
        sizes = [everything.marked(mask[:, list(columns)]).sum(axis=0) for mask in (positives, negatives)]
        order = np.lexsort((sizes[1], sizes[0]))
        picked = order[np.unique(np.linspace(0, len(order) - 1, min(MAX_KINDS, len(order))).round().astype(int))]
        self.kinds = np.asarray(columns, dtype=np.int64)[picked]
        ladder = np.stack([np.log(size[picked].clip(1)) for size in sizes], 1)
        points = np.stack([np.log(size.clip(1)) for size in sizes], 1)
        self.kind_of = np.abs(points[:, None] - ladder[None]).sum(2).argmin(1)
        self._plan(sizes[0][picked], sizes[1][picked], self.shuffles.count, in_pool)

    def _plan(self, marked: np.ndarray, against: np.ndarray, total: int, in_pool: bool) -> None:
        """How many groups each null concept gets as positives and as negatives."""
        self._parts: tuple[int, int] | None = None
        if in_pool:
            ratio = (marked / against.clip(1)).clip(max=1.0)
            held = int(total / (1 + 2 * ratio.max()))
            part = (total - held) // 2
            self._parts = (part, held)
            self._shown = np.round(ratio * held).astype(int).clip(2, max(part, 2))
            self._against = np.full(len(marked), held)
            enough = part >= 2 and held >= 4
        else:
            self._shown = marked.clip(max=max(total - 2, 1))
            self._against = np.minimum(against, total - self._shown)
            enough = total >= 6
        self.count = min(256, max(32, REPLICATES // len(marked))) if enough else 0

    def batches(self, most: int | None = None) -> Iterator[Replicates]:
        """The first ``most`` replicates, or all ``count``, in batches of bounded memory; the same at every pass."""
        generator = self.shuffles.generator(self._seed, "random sets")
        total, kinds = self.shuffles.count, len(self.kinds)
        wanted = self.count if most is None else min(self.count, most)
        size = max(1, FIT_VALUES // (2 * kinds * max(len(self.rows), 1)))
        for start in range(0, wanted, size):
            shape = (min(size, wanted - start), 2, kinds, total)
            positives, negatives = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
            for own, against in zip(positives, negatives, strict=True):
                self._draw(generator, own, against)
            index = self.shuffles.index
            yield Replicates(*(np.moveaxis(mask, 3, 0)[index] for mask in (positives, negatives)))

    def _draw(self, generator: np.random.Generator, positives: np.ndarray, negatives: np.ndarray) -> None:
        """Fill (2, C, groups) masks of one replicate."""
        mixed = self.shuffles.order(generator)
        if self._parts is not None:
            part, _ = self._parts
            negatives[:, :, mixed[2 * part :]] = True
        for version in range(2):
            for kind, (marked, against) in enumerate(zip(self._shown, self._against, strict=True)):
                if self._parts is not None:
                    drawn = generator.permutation(mixed[version * part : (version + 1) * part])
                else:
                    drawn = self.shuffles.order(generator)
                    negatives[version, kind, drawn[marked : marked + against]] = True
                positives[version, kind, drawn[:marked]] = True
