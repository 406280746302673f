"""Similarity of concepts: K x K matrices, computed in blocks of rows on the concept bank's device.

A bank is anything with ``names`` (K), ``directions`` (K, D), ``biases`` (K,) and ``scales`` (K,). ``activations`` are
(N, D) rows of its layer, ``labels`` (N, K) says which rows are positives of which concept, ``weights`` (N,) how much a
row counts (e.g. 1 / patches of its clip, so that clips count equally).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.plugins.registry import lookup
from captum_concepts.similarities.measure import ROWS, Bank, Measure
from captum_concepts.text import short_repr

EXTREME = 1e15  # of weights: their squares and sums are still numbers in float32


def similarity(
    bank: Bank,
    measure: str | Measure | Callable[..., Tensor] = "cosine",
    *,
    activations: Tensor | np.ndarray | None = None,
    labels: Tensor | np.ndarray | None = None,
    weights: Tensor | np.ndarray | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
    gradients: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Similarity of all concepts of a bank, (K, K).

    Args:
        bank: the CAVs of a layer.
        measure: a name in :data:`SIMILARITIES`, a :class:`Measure`, or a function
            ``(bank, activations, labels, weights) -> (K, K)``.
        activations: (N, D).
        labels: (N, K) bool.
        weights: (N,), not negative; default: all rows count the same.
        groups: (N,), the track or recording of each row; default: every row its own, but for equal ones.
        gradients: (clips, targets, D), of the explained clips' logits at the layer of the bank.

    Returns:
        (K, K); row i, column j speaks for the link i -> j.

    Raises:
        InputError: an unknown measure, something needed is missing or has another shape or NaN, a concept without
            rows, or a measure that does not return a finite (K, K).

    Example:
        >>> from captum_concepts.cavs import ConceptBank
        >>> bank = ConceptBank(("a", "b"), "", torch.eye(2), torch.zeros(2), torch.ones(2))
        >>> similarity(bank, "cosine").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    chosen = find_measure(measure)
    given = {"activations": activations, "labels": labels, "gradients": gradients}
    for need in sorted(chosen.needs):
        if given[need] is None:
            raise InputError(f"similarity {short_repr(measure)}: needs {need}; give {need}=")
    activations = None if activations is None else torch.as_tensor(activations).detach()
    labels = None if labels is None else torch.as_tensor(labels)
    weights = None if weights is None else torch.as_tensor(weights)
    gradients = None if gradients is None else torch.as_tensor(gradients).detach()
    _check_rows(bank, activations, labels, weights)
    _check_gradients(bank, gradients)
    result = chosen(bank, activations, labels, weights, groups, gradients)
    k = len(bank.names)
    if not isinstance(result, Tensor) or result.shape != (k, k):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"similarity {short_repr(measure)}: must return a ({k}, {k}) tensor, got {got}")
    bad = (~torch.isfinite(result)).nonzero()
    if len(bad):
        a, b = (short_repr(bank.names[i]) for i in bad[0].tolist())
        raise InputError(f"similarity {short_repr(measure)}: not finite between {a} and {b}; leave such concepts out")
    return result


def find_measure(measure: str | Measure | Callable[..., Tensor]) -> Measure:
    """The measure of a name or function; raises InputError for an unknown name."""
    if isinstance(measure, Measure):
        return measure
    if callable(measure):
        return Measure(measure, symmetric=False)
    factory = lookup("similarities", measure).factory
    if isinstance(factory, Measure):
        return factory
    return Measure(factory, symmetric=bool(getattr(factory, "symmetric", False)))


def _check_rows(bank: Bank, activations: Tensor | None, labels: Tensor | None, weights: Tensor | None) -> None:
    k, d = bank.directions.shape
    if activations is not None and (activations.ndim != 2 or activations.shape[1] != d or not activations.numel()):
        raise InputError(f"activations: shape {tuple(activations.shape)}; give (rows, {d}), the layer of the bank")
    for start in range(0, 0 if activations is None else len(activations), ROWS):
        bad = (~torch.isfinite(cast(Tensor, activations)[start : start + ROWS]).all(1)).nonzero()
        if len(bad):
            raise InputError(f"activations: not finite in row {start + int(bad[0])}; drop the clips it comes from")
    rows = len(activations) if activations is not None else len(labels) if labels is not None else None
    if labels is not None and labels.shape != (rows, k):
        raise InputError(f"labels: shape {tuple(labels.shape)}; give ({rows}, {k}), one column for each concept")
    if weights is not None:
        if weights.shape != (rows,):
            raise InputError(f"weights: shape {tuple(weights.shape)}; give one number for each of the {rows} rows")
        if not bool((weights >= 0).all()) or not bool(torch.isfinite(weights).all()):
            raise InputError("weights: negative, infinite or NaN; give numbers of at least 0")
        if not float(weights.sum()) > 0:
            raise InputError("weights: no weight is above 0; give at least one row some")
        if not 1 / EXTREME < float(weights.max()) < EXTREME:
            raise InputError(f"weights: the largest is {float(weights.max()):.3g}; divide them by it")


def _check_gradients(bank: Bank, gradients: Tensor | None) -> None:
    d = bank.directions.shape[1]
    if gradients is not None and (gradients.ndim != 3 or gradients.shape[2] != d or not gradients.numel()):
        raise InputError(
            f"gradients: shape {tuple(gradients.shape)}; give (clips, targets, {d}), of the layer of the bank"
        )
