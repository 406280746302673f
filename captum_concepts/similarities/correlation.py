"""Correlation of projections on CAVs."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.similarities.measure import Bank, mirrored, row_blocks
from captum_concepts.text import short_repr


def correlation(bank: Bank, activations: Tensor, labels: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Weighted correlation, over all rows, of the projections on two concepts' directions."""
    total, mean = 0.0, bank.directions.new_zeros(bank.directions.shape[1])
    for rows, _, weight in row_blocks(bank, activations, None, weights):
        total += float(weight.sum())
        mean += (rows * weight).sum(0)
    mean /= total
    k = len(bank.names)
    covariance, scale = bank.directions.new_zeros(k, k), bank.directions.new_zeros(k)
    for rows, _, weight in row_blocks(bank, activations, None, weights):
        projected = (rows - mean) @ bank.directions.T
        covariance += (projected * weight).T @ projected
        scale = torch.maximum(scale, (rows @ bank.directions.T).abs().amax(0))
    std = covariance.diagonal().sqrt()
    # below rounding error of the projections a spread is not a spread
    flat = (std <= total**0.5 * scale * 10 * torch.finfo(std.dtype).eps).nonzero()
    if len(flat):
        name = bank.names[int(flat[0])]
        raise InputError(f"correlation: {short_repr(name)} has the same projection on every row; leave the concept out")
    return mirrored(covariance / std[:, None] / std[None, :])
