"""The values that pass between nodes: tensors, and arrays for shapes.

Shapes, and everything reckoned from them, are numpy arrays that stay on the CPU: so a graph's shape arithmetic costs no
transfers, and any batch size goes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Value = Tensor | np.ndarray
Result = Value | tuple[Value, ...]


class BadGraph(ValueError):
    """What a node asks for that cannot be; the graph says which node."""


def ints(value: Value) -> tuple[int, ...]:
    """Sizes, axes or indices as numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return tuple(int(number) for number in np.asarray(value).ravel())


def tensor(value: Value, like: Tensor) -> Tensor:
    """A value as a tensor on the device of another, of its type if it is no whole number."""
    if isinstance(value, Tensor):
        return value
    converted = torch.as_tensor(np.ascontiguousarray(value)).to(like.device)
    return converted.to(like.dtype) if converted.is_floating_point() or like.is_floating_point() else converted


def together(*values: Value) -> list[Any]:
    """All as tensors if one of them is one."""
    first = next((value for value in values if isinstance(value, Tensor)), None)
    return list(values) if first is None else [tensor(value, first) for value in values]


def pick(values: Mapping[str, Result], reference: tuple[str, int]) -> Value:
    """The output that a reference (node, number) means."""
    name, number = reference
    found = values[name]
    if not isinstance(found, tuple):
        return found
    if number >= len(found):
        raise BadGraph(f"output {number} of {name}, which has {len(found)},")
    return found[number]
