"""Scores of many CAVs of one layer at once: sets of concepts side by side, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class Stack:
    """CAVs of E sets of equally many concepts.

    Attributes:
        numbers: which sets.
        weights: (E, C, F), float32, or float64 where the gradients are.
        columns: (E, C) int64, the row of ``weights`` that belongs to each concept, in the caller's order of concepts.
    """

    numbers: list[int]
    weights: Tensor
    columns: Tensor

    def along(self, gradients: Tensor) -> Tensor:
        """(T, N, F) gradients -> (T, N, E, C) directional derivatives, concepts in the caller's order."""
        sets, concepts, features = self.weights.shape
        if gradients.shape[2] != features:
            raise InputError(f"CAVs of {features} features for a layer of {gradients.shape[2]}; fit them again")
        values = gradients.to(self.weights.dtype) @ self.weights.reshape(-1, features).T
        values = values.reshape(*gradients.shape[:2], sets, concepts)
        return values.gather(3, self.columns.expand_as(values))

    def lengths(self) -> Tensor:
        """(E, C): lengths of the CAVs, in the caller's order."""
        return self.weights.norm(dim=2).gather(1, self.columns)


def stacks(
    stats: Sequence[Mapping[str, Any]], ids: Sequence[Sequence[int]], rows: int, like: Tensor, chunk_bytes: int
) -> Iterator[Stack]:
    """Gather the CAVs of sets into stacks.

    Args:
        stats: of each set's CAV: "weights" (C, F) and "classes", the ids of its rows.
        ids: of each set's concepts, in the order in which they are wanted.
        rows: how many gradients each stack will meet.
        like: gradients; the stacks are on their device, in double precision if these are, else in single.
        chunk_bytes: bound of a stack and of the derivatives along it.

    Raises:
        InputError: a classifier whose classes lack a concept of its set.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    same_shape: dict[tuple[int, ...], list[int]] = {}
    for number, (found, wanted) in enumerate(zip(stats, ids, strict=True)):
        same_shape.setdefault((len(wanted), *found["weights"].shape), []).append(number)
    for (wanted_count, *shape), numbers in same_shape.items():
        each = dtype.itemsize * (shape[0] * shape[1] + 3 * rows * max(shape[0], wanted_count))
        size = max(1, chunk_bytes // each)
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            weights = torch.stack([stats[number]["weights"].detach() for number in part]).to(like.device, dtype)
            columns = torch.tensor([_columns(stats[number]["classes"], ids[number]) for number in part])
            yield Stack(part, weights, columns.to(like.device))


def _columns(classes: Sequence[Any], wanted: Sequence[int]) -> list[int]:
    place = {int(value): position for position, value in enumerate(classes)}
    for identity in wanted:
        if identity not in place:
            raise InputError(f"classes {short_repr(list(classes))} of a classifier lack concept {identity} of its set")
    return [place[identity] for identity in wanted]


class Totals:
    """Sums over inputs that come in blocks, of one layer.

    Args:
        temperature: of the smooth score, in output units per unit of activation; None leaves it out.
    """

    def __init__(self, temperature: float | None):
        self.temperature = temperature
        self._inputs = 0
        self._numbers: dict[int, list[int]] = {}
        self._sums: dict[int, dict[str, Tensor]] = {}
        self._dtype = torch.float32

    def begin(self, inputs: int) -> None:
        """A block of so many inputs comes."""
        self._inputs += inputs

    def add(self, position: int, stack: Stack, values: Tensor) -> None:
        """Add (T, N, E, C) derivatives along the stack at this position in the layer's list."""
        self._dtype = values.dtype
        sums = {"sign_count": (values > 0).sum(1).double(), "magnitude": values.double().sum(1)}
        if self.temperature is not None:
            sums["smooth"] = torch.sigmoid(values / (self.temperature * stack.lengths())).double().sum(1)
        if position in self._sums:
            sums = {name: self._sums[position][name] + value for name, value in sums.items()}
        self._numbers[position], self._sums[position] = stack.numbers, sums

    def means(self) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """(target, set, {score: (C,) of the derivatives' type}) of all."""
        for position, sums in self._sums.items():
            means = {name: (value / self._inputs).to(self._dtype) for name, value in sums.items()}
            for target in range(len(means["magnitude"])):
                parts = {name: value[target].unbind() for name, value in means.items()}
                for place, number in enumerate(self._numbers[position]):
                    yield target, number, {name: value[place] for name, value in parts.items()}
