"""The values that pass between nodes: tensors, and arrays for shapes.

Shapes, and everything computed from them, are numpy arrays that stay on the CPU: so a graph's shape arithmetic costs no
transfers, and any batch size goes through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_concepts.text import short_repr

MAX_NUMBERS = 2**28
Value = Tensor | np.ndarray
Result = Value | tuple[Value, ...]


#: What torch, numpy and Python raise where values do not fit an operation.
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)


class BadGraph(ValueError):
    """What a node asks for that cannot be; the graph says which node."""


def ints(value: Value) -> tuple[int, ...]:
    """Sizes, axes or indices as numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return tuple(int(number) for number in np.asarray(value).ravel())


def scalar(value: Value) -> Any:
    """The one number in a value, whole or not.

    Raises:
        BadGraph: it holds none or several.
    """
    if value.ndim and math.prod(value.shape) != 1:
        raise BadGraph(f"a value of shape {tuple(value.shape)} where one number belongs")
    return value.item()


def tensor(value: Value, like: Tensor) -> Tensor:
    """A value as a tensor on the device of another, of its precision if both have fractions."""
    if isinstance(value, Tensor):
        return value
    # Not ascontiguousarray, which makes a row of a single number.
    converted = torch.from_numpy(np.array(value, order="C")).to(like.device)
    if converted.dtype == torch.bool or not (converted.is_floating_point() or like.is_floating_point()):
        return converted
    return converted.to(like.dtype if like.is_floating_point() else torch.get_default_dtype())


def together(*values: Value) -> list[Any]:
    """All as tensors if one of them is one; arrays get the precision of the first tensor that has fractions."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return list(values)
    like = next((value for value in tensors if value.is_floating_point()), tensors[0])
    return [tensor(value, like) for value in values]


def bounded(count: int) -> None:
    """Refuse values of very many numbers, which a few bytes of a graph can ask for.

    Raises:
        BadGraph: there are more than ``MAX_NUMBERS``.
    """
    if count > MAX_NUMBERS:
        raise BadGraph(f"a value of {count} numbers (at most {MAX_NUMBERS})")


def first_line(error: Exception) -> str:
    """What an error says, for a message of one line."""
    return str(error).partition("\n")[0][:300]


def pick(values: Mapping[str, Result], reference: tuple[str, int]) -> Value:
    """The output that a reference (node, number) means."""
    name, number = reference
    found = values[name]
    outputs = found if isinstance(found, tuple) else (found,)
    if number >= len(outputs):
        raise BadGraph(f"output {number} of {short_repr(name)}, which has {len(outputs)},")
    return outputs[number]
