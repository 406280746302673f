"""One similarity for several layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def combine(matrices: Mapping[str, Tensor | np.ndarray]) -> Tensor:
    """Mean of the similarities of several layers, each divided by its mean diagonal: one hierarchy for all of them.

    Args:
        matrices: layer -> (K, K) over the same concepts, of the same measure.

    Raises:
        InputError: no matrix, shapes that differ, numbers that are not finite, or a mean diagonal that is not above 0.

    Returns:
        (K, K).

    Example:
        >>> combine({"low": torch.eye(2), "high": 4 * torch.ones(2, 2)}).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    parts = {layer: torch.as_tensor(matrix) for layer, matrix in matrices.items()}
    if not parts:
        raise InputError("combine: no layers; give at least one similarity")
    shape = next(iter(parts.values())).shape
    for layer, matrix in parts.items():
        if matrix.shape != shape or len(shape) != 2 or shape[0] != shape[1]:
            raise InputError(
                f"combine: shape {tuple(matrix.shape)} at {short_repr(layer)}; give (K, K) of the same concepts"
            )
        if not bool(torch.isfinite(matrix).all()):
            raise InputError(f"combine: not finite at {short_repr(layer)}; leave out concepts without a usable vector")
        if not float(matrix.diagonal().mean()) > 0:
            raise InputError(f"combine: {short_repr(layer)} tells no concept from the others; leave the layer out")
    total = sum(matrix / matrix.diagonal().mean() for matrix in parts.values())
    return torch.as_tensor(total) / len(parts)
