"""Checks and views of the similarity matrix that miners share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

MAX_SIMILARITY = 1e100
ROUNDING = 1e-12  # relative; between concepts of equal betweenness sums leave about 1e-15


def check_symmetric(similarity: Tensor, miner: str) -> None:
    scale = float(similarity.abs().max())
    if float((similarity - similarity.T).abs().max()) > 1e-5 * scale:
        raise InputError(
            f"miner {short_repr(miner)}: needs a symmetric similarity; give (S + S.T) / 2 or another miner"
        )


def as_float64(similarity: Tensor, transposed: bool = False) -> np.ndarray:
    """A float64 copy on the CPU, of the matrix or of its transpose."""
    matrix = similarity.detach()
    copy = torch.empty(matrix.shape, dtype=torch.float64)
    return copy.copy_(matrix.T if transposed else matrix).numpy()


def incoming(similarity: Tensor) -> np.ndarray:
    """``[c, p]`` = ``similarity[p, c]``; the diagonal is the paper's, 0.1 below the smallest entry of the matrix."""
    incoming = as_float64(similarity, transposed=True)
    np.fill_diagonal(incoming, incoming.min() - 0.1)
    return incoming


def per_concept(what: str, values: Tensor | np.ndarray | Sequence[float], k: int) -> np.ndarray:
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: {short_repr(values)}; give one finite number for each of {k} concepts") from None
    if array.shape != (k,) or not np.isfinite(array).all():
        raise InputError(f"{what}: shape {array.shape} for {k} concepts; give one finite number for each")
    return array


def largest_positions(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest, falling; equal values: the earlier first."""
    if count == 1:
        return np.array([values.argmax()]) if len(values) else np.zeros(0, dtype=np.int64)
    return np.argsort(-values, kind="stable")[:count]


def off_diagonal(similarity: Tensor) -> np.ndarray:
    """(K * (K - 1),) float64, a copy, row by row."""
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    k = len(sim)
    # without its first entry the matrix has the diagonal at the end of every K + 1 entries
    return np.ascontiguousarray(sim).reshape(-1)[1:].reshape(k - 1, k + 1)[:, :-1].flatten()
