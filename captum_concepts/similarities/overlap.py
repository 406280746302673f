"""Share of rows that two concepts have in common."""

from __future__ import annotations

from torch import Tensor

from captum_concepts.similarities.measure import Bank, nonempty, row_blocks


def overlap(bank: Bank, activations: Tensor | None, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """``S[i, j]``: weighted share of concept j's rows that show concept i too; 1 where j lies within i.

    Not symmetric. It looks at the labels alone, not at the model.
    """
    both = bank.directions.new_zeros(len(bank.names), len(bank.names))
    counts = bank.directions.new_zeros(len(bank.names), 1)
    for shows, _, weight in row_blocks(bank, labels, None, weights):
        both += (shows * weight).T @ shows
        counts += (shows * weight).sum(0)[:, None]
    return both / nonempty(bank, counts).T
