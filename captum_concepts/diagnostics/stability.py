"""Reproducibility of CAVs under resampling of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.methods import CavMethod
from captum_concepts.diagnostics.random_sets import GroupSampler, RandomSets, fit_directions

SPLITS = 4
NULLS = 512  # null concepts over all size classes, at least 24 of each


@dataclass(frozen=True)
class Halves:
    """CAVs of two halves of the groups, fitted separately.

    Attributes:
        first: bool (N, K), see ``GroupSampler.halves``.
        directions: (2, K, D), of the first half and of the second.
    """

    first: np.ndarray
    directions: Tensor


@dataclass(frozen=True)
class Resampler:
    """Fits concepts on halves of their groups.

    Attributes:
        method: the CAV method.
        shuffles: of the groups of the rows.
        weights: (N,) of the rows.
    """

    method: CavMethod
    shuffles: GroupSampler
    weights: np.ndarray

    def halves(self, activations: Tensor, positives: np.ndarray, negatives: np.ndarray, seed: int) -> Halves:
        """Fit every concept twice.

        Args:
            activations: (N, D).
            positives, negatives: bool (N, K).
            seed: of the split.
        """
        first = self.shuffles.halves(positives, negatives, seed)
        parts = [
            fit_directions(self.method, activations, positives & chosen, negatives & chosen, self.weights)
            for chosen in (first, ~first)
        ]
        return Halves(first, torch.stack(parts))

    def cosines(
        self, activations: Tensor, positives: np.ndarray, negatives: np.ndarray, seed: int = 0, splits: int = SPLITS
    ) -> Tensor:
        """Mean cosine between the CAVs of two disjoint halves of the groups; null concepts give about 0.

        The halves are disjoint, since refits that share examples are similar for any set of clips.

        Args:
            activations, positives, negatives, seed: as in ``halves``. Same seed, same bytes.
            splits: how many splits.

        Returns:
            (K,); NaN where half the groups are too few for a CAV.
        """
        return self.split_cosines(activations, positives, negatives, seed, splits).mean(0)

    def split_cosines(
        self, activations: Tensor, positives: np.ndarray, negatives: np.ndarray, seed: int, splits: int
    ) -> Tensor:
        """(splits, K): as ``cosines``, one row for each split."""
        found = [self.halves(activations, positives, negatives, seed + split).directions for split in range(splits)]
        return torch.stack([(pair[0] * pair[1]).sum(1) for pair in found])


def random_cosines(method: CavMethod, activations: Tensor, sets: RandomSets, seed: int = 0) -> np.ndarray:
    """``Resampler.cosines`` of null concepts.

    Returns:
        float64 (R, C), one row per replicate, one column per size class of ``sets``.
    """
    rows = activations[torch.from_numpy(sets.rows).to(activations.device)]
    resampler = Resampler(method, sets.shuffles, sets.weights)
    found = []
    for batch in sets.batches(max(24, NULLS // len(sets.kinds))):
        count = batch.positives.shape[1]
        positives, negatives = (mask[:, :, 0].reshape(len(rows), -1) for mask in (batch.positives, batch.negatives))
        found.append(resampler.cosines(rows, positives, negatives, seed).reshape(count, -1))
    return torch.cat(found).double().cpu().numpy()
