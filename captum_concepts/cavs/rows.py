"""Labelled rows: activations of one layer with the concepts that they are positives and negatives of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledRows:
    """Rows of activations of one layer, which concepts they are positives and negatives of, and their groups.

    Attributes:
        activations: (N, D).
        positives, negatives: bool (N, K).
        groups: (N,) str.
        order: (N,) what the rows of a group are sorted by, so that they follow each other in time whatever the order of
            rows (see ``Extraction.order``); None: they lie in that order.
    """

    activations: Tensor
    positives: np.ndarray
    negatives: np.ndarray
    groups: np.ndarray
    order: np.ndarray | None = None

    def part(self, rows: np.ndarray) -> LabelledRows:
        """Some of the rows, bool (N,)."""
        chosen = torch.from_numpy(np.flatnonzero(rows)).to(self.activations.device)
        order = None if self.order is None else self.order[rows]
        labels = self.positives[rows], self.negatives[rows]
        return LabelledRows(self.activations[chosen], *labels, self.groups[rows], order)
