"""CAV methods by name, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from captum_concepts.cavs.directions import Fit
from captum_concepts.errors import InputError
from captum_concepts.plugins.registry import lookup
from captum_concepts.text import short_repr

FitFunction = Callable[..., Fit]


@dataclass(frozen=True)
class CavMethod:
    """A CAV method with its options.

    Attributes:
        fit: the method's function, like ``cavs.fit_pattern``.
        options: passed to it.

    Example:
        >>> import torch
        >>> from captum_concepts.cavs import fit_pattern
        >>> method = CavMethod(fit_pattern)
        >>> rows, labels = torch.eye(4), torch.tensor([[True], [True], [False], [False]])
        >>> directions, biases, scales = method(rows, labels, ~labels, torch.ones(4))
        >>> directions
        tensor([[ 0.5000,  0.5000, -0.5000, -0.5000]])
    """

    fit: FitFunction
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor) -> Fit:
        """Unit directions (K, D), biases (K,) and scales (K,); see :func:`run_fit`."""
        return run_fit(self.fit, activations, positives, negatives, weights, dict(self.options))


def resolve_method(method: str | FitFunction) -> FitFunction:
    """Find the fit function of a CAV method.

    Args:
        method: a registered name, or a fit function, which is returned as it is.

    Returns:
        the fit function.

    Raises:
        InputError: no method has this name.

    Example:
        >>> resolve_method("pattern").__name__
        'fit_pattern'
    """
    if callable(method):
        return method
    return lookup("cav_methods", method).factory


def run_fit(
    fit: FitFunction,
    activations: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    options: dict[str, Any],
) -> Fit:
    """Call a fit function and bring what it returns to unit directions with biases and scales.

    A plugin may return (directions, biases) of any length, meaning the logit ``f @ directions[k] + biases[k]``.

    Raises:
        InputError: unknown options, or results of the wrong shape.
    """
    try:
        inspect.signature(fit).bind(activations, positives, negatives, weights, **options)
    except TypeError as error:
        raise InputError(f"cav_options={short_repr(options)}: {error}; give options of this method") from None
    parts = tuple(fit(activations, positives, negatives, weights, **options))
    if len(parts) not in (2, 3):
        raise InputError(f"CAV method {getattr(fit, '__name__', 'custom')}: must give (directions, biases)")
    directions, biases = parts[:2]
    k = positives.shape[1]
    if tuple(directions.shape) != (k, activations.shape[1]) or tuple(biases.shape) != (k,):
        raise InputError(
            f"CAV method {getattr(fit, '__name__', 'custom')}: gave shapes {tuple(directions.shape)} and "
            f"{tuple(biases.shape)}; it must give ({k}, {activations.shape[1]}) and ({k},)"
        )
    if len(parts) == 3:
        return directions, biases, parts[2]
    lengths = directions.norm(dim=1)
    return directions / lengths[:, None], biases / lengths, lengths
