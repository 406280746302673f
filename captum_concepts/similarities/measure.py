"""What a similarity is, and rows in blocks for those that need activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

ROWS = 8192


class Bank(Protocol):
    """What the similarities need of a :class:`captum_concepts.cavs.bank.ConceptBank`."""

    names: tuple[str, ...]
    directions: Tensor
    biases: Tensor
    scales: Tensor


@dataclass(frozen=True)
class Measure:
    """A kind of similarity.

    Attributes:
        function: ``(bank, activations, labels, weights) -> (K, K)``; what is not needed may be None.
        symmetric: whether the matrix equals its transpose; otherwise row p, column c speaks for the link p -> c.
        needs: which of "activations", "labels" and "gradients" must be given; the function takes ``gradients=`` only
            if it needs them.
        grouped: whether the function also takes ``groups=``.
    """

    function: Callable[..., Tensor]
    symmetric: bool
    needs: frozenset[str] = frozenset()
    grouped: bool = False

    def __call__(
        self,
        bank: Bank,
        activations: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        groups: Sequence[str] | np.ndarray | None = None,
        gradients: Tensor | None = None,
    ) -> Tensor:
        more: dict[str, object] = {}
        if self.grouped:
            more["groups"] = groups
        if "gradients" in self.needs:
            more["gradients"] = gradients
        return self.function(bank, activations, labels, weights, **more)


def row_blocks(
    bank: Bank, activations: Tensor, labels: Tensor | None, weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Rows, their labels and their weights (n, 1) in the bank's device and dtype, a bounded number at a time."""
    like = bank.directions
    for start in range(0, len(activations), ROWS):
        part = slice(start, start + ROWS)
        rows = activations[part].to(like)
        weight = rows.new_ones(len(rows), 1) if weights is None else weights[part].to(like)[:, None]
        yield rows, None if labels is None else labels[part].to(like), weight


def nonempty(bank: Bank, counts: Tensor) -> Tensor:
    empty = (counts <= 0).flatten().nonzero()
    if len(empty):
        name = bank.names[int(empty[0])]
        raise InputError(
            f"labels: no row of positive weight shows {short_repr(name)}; leave the concept out or add clips"
        )
    return counts


def mirrored(symmetric: Tensor) -> Tensor:
    """Rounding differs between the triangles; make them equal, within [-1, 1], with a diagonal of 1."""
    result = ((symmetric + symmetric.T) / 2).clamp_(-1.0, 1.0)
    return result.fill_diagonal_(1.0)
