"""Directional derivatives of a black box by central differences, with an estimate of their error.

For anything that maps rows to outputs and has no gradients: a TensorFlow graph started at an inner node, a
scikit-learn classifier's ``decision_function``, an ONNX session, a remote service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

ROWS_PER_CALL = 1024


class Derivatives(NamedTuple):
    """What `central_differences` finds at N points, for K directions and C outputs.

    Attributes:
        outputs: (N, C), the function at the points themselves.
        values: (N, C, K), derivatives along the directions.
        errors: (N, C, K), how far half the step changes them. Where this exceeds a derivative, its sign is not known.
    """

    outputs: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def central_differences(
    function: Callable[[np.ndarray], np.ndarray], points: np.ndarray, directions: np.ndarray, step: float = 1e-2
) -> Derivatives:
    """(f(x + h v) - f(x - h v)) / 2h, and how much it changes with half the step.

    The error of a central difference falls with the square of the step until rounding takes over, which grows as the
    step falls: a difference between two steps shows both, and the kinks of ReLU besides.

    Args:
        function: (rows, ...) -> (rows, C).
        points: (N, ...).
        directions: (K, ...), of any length; each is broadcast to the shape of a point.
        step: h, relative to the root mean square of each point, where the direction has length one.

    Raises:
        InputError: the step is not positive, there are no directions, or the function gives another number of rows.
    """
    if not step > 0:
        raise InputError(f"step={short_repr(step)}: must be positive")
    if not len(directions):
        raise InputError("directions=(): is empty; give at least one")
    points = np.asarray(points)
    outputs = _called(function, points)
    shape = (len(points), outputs.shape[1], len(directions))
    values, errors = np.empty(shape), np.empty(shape)
    lengths = np.sqrt((directions.reshape(len(directions), -1) ** 2).sum(1))
    lengths[lengths == 0] = 1
    unit = directions / lengths.reshape(-1, *[1] * (directions.ndim - 1))
    for row, point in enumerate(points):
        size = step * np.sqrt(np.mean(np.square(point, dtype=np.float64))) + np.finfo(np.float32).tiny
        whole = _differences(function, point, unit, size)
        halved = _differences(function, point, unit, size / 2)
        values[row] = whole.T * lengths
        errors[row] = np.abs(whole - halved).T * lengths
    return Derivatives(outputs, values, errors)


def _differences(
    function: Callable[[np.ndarray], np.ndarray], point: np.ndarray, directions: np.ndarray, size: float
) -> np.ndarray:
    """(K, C) at one point."""
    rows = max(1, ROWS_PER_CALL * 4096 // max(4096, point.size))
    found = []
    for start in range(0, len(directions), rows):
        moves = size * np.broadcast_to(
            directions[start : start + rows], (len(directions[start : start + rows]), *point.shape)
        )
        ends = _called(function, np.concatenate([point + moves, point - moves]))
        found.append((ends[: len(moves)] - ends[len(moves) :]) / (2 * size))
    return np.concatenate(found)


def _called(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    found = np.asarray(function(rows), np.float64)
    if found.ndim != 2 or len(found) != len(rows):
        raise InputError(f"the function gave shape {found.shape} for {len(rows)} rows; it must give ({len(rows)}, C)")
    return found
