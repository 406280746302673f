"""The similarity of the paper: how strongly one concept's rows activate another's CAV."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from captum_concepts.similarities.measure import Bank, nonempty, row_blocks


def activation(bank: Bank, activations: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The paper's S (Afchar, Hennequin & Guigue, ISMIR 2022): how strongly i's rows speak for j's CAV.

    ``S[i, j]`` is the weighted mean over the rows of concept i of ``sigmoid(scales[j] (directions[j] f + biases[j]))``.
    Not symmetric; the diagonal stays as it is.
    """
    sums = bank.directions.new_zeros(len(bank.names), len(bank.names))
    counts = bank.directions.new_zeros(len(bank.names), 1)
    for rows, shows, weight in row_blocks(bank, activations, labels, weights):
        present = torch.sigmoid(bank.scales * (rows @ bank.directions.T + bank.biases))
        weighted = (cast(Tensor, shows) * weight).T
        sums += weighted @ present
        counts += weighted.sum(1, keepdim=True)
    return sums / nonempty(bank, counts)
