"""Divide groups of clips into parts with similar shares of every label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captum_concepts.seeding import random_key, without_common_folder


def stratified_parts(
    groups: Sequence[str], labels: np.ndarray, names: Sequence[str], shares: Sequence[float], seed: int
) -> np.ndarray:
    """Assign every group to a part, so that each label is spread over the parts as the shares say.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, "On the stratification of multi-label data",
    algorithm 1): the label with the fewest groups left is assigned first, each of its groups to the part that
    lacks that label most, then to the part that lacks groups most. Ties are broken by a random key of seed and
    group, so that neither the order of the groups nor that of the labels matters.

    Args:
        groups: G distinct names.
        labels: bool (G, L), which group has which label.
        names: L distinct label names; decide between labels equally rare.
        shares: F positive numbers that sum to 1.
        seed: of the random keys.

    Returns:
        int64 (G,), the part of each group.

    Example:
        >>> parts = stratified_parts(["a", "b", "c", "d"], np.array([[1], [1], [0], [0]]), ["x"], [0.5, 0.5], seed=0)
        >>> sorted(parts[:2].tolist()), sorted(parts[2:].tolist())
        ([0, 1], [0, 1])
    """
    count = len(groups)
    keys = [random_key(seed, name) for name in without_common_folder(groups)]
    order = sorted(range(count), key=keys.__getitem__)
    name_rank = np.empty(len(names), dtype=np.int64)
    name_rank[sorted(range(len(names)), key=lambda index: names[index])] = np.arange(len(names))
    labels_of = [np.flatnonzero(row) for row in labels]
    groups_of: list[list[int]] = [[] for _ in names]
    for group in order:
        for marked in labels_of[group]:
            groups_of[marked].append(group)

    left = labels.sum(axis=0).astype(np.int64)
    share = np.asarray(shares, dtype=np.float64)
    wanted = share[:, None] * left[None, :]
    given = np.zeros((len(shares), len(names)))
    sizes = np.zeros(len(shares))
    parts = np.full(count, -1, dtype=np.int64)

    def assign(group: int, label: int | None) -> None:
        lacking_groups = share * count - sizes
        lacking_label = wanted[:, label] - given[:, label] if label is not None else lacking_groups
        best = np.flatnonzero(lacking_label > lacking_label.max() - 1e-9)
        best = best[lacking_groups[best] > lacking_groups[best].max() - 1e-9]
        part = int(best[int.from_bytes(keys[group][:8], "big") % len(best)])
        parts[group] = part
        sizes[part] += 1
        given[part, labels_of[group]] += 1
        left[labels_of[group]] -= 1

    while (left > 0).any():
        rarest = np.flatnonzero(left == left[left > 0].min())
        label = int(rarest[np.argmin(name_rank[rarest])])
        for group in groups_of[label]:
            if parts[group] < 0:
                assign(group, label)
    for group in order:
        if parts[group] < 0:
            assign(group, None)
    return parts
