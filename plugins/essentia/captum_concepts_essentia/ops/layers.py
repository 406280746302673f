"""Torch modules for the nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.functions import FlatNode
from captum_concepts_essentia.ops import table
from captum_concepts_essentia.ops.values import FAILURES, BadGraph, Result, Value, first_line


class Operation(nn.Module):
    """One node that computes something from its inputs.

    Attributes:
        name: the node's name in the graph.
        op: its type.
        attributes: its settings.
    """

    def __init__(self, node: FlatNode) -> None:
        super().__init__()
        self.name = node.name
        self.op = node.op
        self.attributes = node.attributes

    def forward(self, *inputs: Any, computed: Result | None = None) -> Any:
        """The node's output or outputs; ``computed`` where a `Chain` has found them already."""
        if computed is not None:
            return computed
        try:
            return table.OPERATIONS[self.op](self.attributes, *inputs)
        except BadGraph as reason:
            raise InputError(f"node {short_repr(self.name)} ({self.op}): {reason} is not supported") from None
        except torch.cuda.OutOfMemoryError:
            raise
        except FAILURES as error:
            sizes = short_repr([tuple(getattr(value, "shape", ())) for value in inputs], 200)
            raise InputError(
                f"node {short_repr(self.name)} ({self.op}) cannot take inputs of shape {sizes}: {first_line(error)}"
            ) from error

    def extra_repr(self) -> str:
        return self.op


class Constant(nn.Module):
    """A node that is a constant: weights are a parameter, whole numbers an array on the CPU (see `ops`)."""

    def __init__(self, name: str, value: np.ndarray) -> None:
        super().__init__()
        self.name = name
        self.array: np.ndarray | None = None
        if value.dtype.kind == "f":
            # One parameter keeps one number type: half precision is computed in single, as on most CPUs.
            kind = np.float64 if value.dtype == np.float64 else np.float32
            self.value = nn.Parameter(torch.from_numpy(value.astype(kind)), requires_grad=False)
        else:
            self.array = np.array(value)

    def forward(self) -> Value:
        return self.value if self.array is None else self.array

    def extra_repr(self) -> str:
        return f"Const, {tuple(self.value.shape) if self.array is None else self.array.shape}"


class Placeholder(nn.Module):
    """The node that the input goes into; its output is the input."""

    def forward(self, value: Tensor) -> Tensor:
        return value
