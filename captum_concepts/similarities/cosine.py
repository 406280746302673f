"""Cosine of the CAVs."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.similarities.measure import Bank, mirrored


def cosine(
    bank: Bank, activations: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cosine of the directions."""
    unit = torch.nn.functional.normalize(bank.directions, dim=1)
    return mirrored(unit @ unit.T)
