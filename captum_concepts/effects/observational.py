"""Observational effects: gradients times the difference of the means of examples and negatives, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.effects.in_context import gradient_variance
from captum_concepts.effects.intervals import Estimate, with_error
from captum_concepts.errors import InputError


def observational_effects(activations: Tensor, positives: Tensor, negatives: Tensor, gradients: Tensor) -> Estimate:
    """Effects in logits, with 95 % intervals over examples, negatives and explained clips.

    The effect is a difference of means of one number per group, ḡ · a. Its variance is s² of that number over the
    concept's groups / n₁, plus s² over the negative groups / n₀, plus s² of gradient · difference over the explained
    groups / H; Student's t has n₁ - 1 degrees of freedom,
    so that intervals err on the wide side where the concept's own groups are not the main part of the variance.

    Args:
        activations: (G, D), mean of each group of examples.
        positives, negatives: bool (G, K), groups of each concept and those it is compared with.
        gradients: (H, C, D), mean of each group of explained clips.

    Returns:
        (K, C) each; the interval is NaN for a concept with a single group.

    Raises:
        InputError: shapes that do not fit, a concept without groups or negatives, or a group that is both.

    Example:
        >>> activations = torch.tensor([[1.0], [3.0], [0.0], [0.0]])
        >>> positives = torch.tensor([[True], [True], [False], [False]])
        >>> gradients = torch.full((2, 1, 1), 2.0)
        >>> [round(float(end), 2) for end in observational_effects(activations, positives, ~positives, gradients)]
        [4.0, -21.41, 29.41]
    """
    _check(activations, positives, negatives, gradients)
    mean_gradient = gradients.mean(0)
    values = (activations @ mean_gradient.T.to(activations)).double()
    positive, error_1 = _mean_and_error(values, positives)
    negative, error_0 = _mean_and_error(values, negatives)
    weights = positives.double() / positives.sum(0) - negatives.double() / negatives.sum(0)
    difference = weights.T.to(activations) @ activations
    n_negatives = negatives.sum(0)[:, None]
    # A single negative group says nothing of its spread: then that of the positives stands for it.
    error_0 = torch.where(n_negatives > 1, error_0, error_1 * positives.sum(0)[:, None])
    variance = error_1 + error_0 + gradient_variance(gradients, difference).nan_to_num(torch.nan)
    return with_error(positive - negative, variance, positives.sum(0) - 1)


def _mean_and_error(values: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each concept's groups and its variance, (K, C) each, of (G, C) values and bool (G, K)."""
    centre = values.mean(0)  # differences of large squares drown
    weights, count = members.double().T, members.sum(0).double()[:, None]
    mean = weights @ (values - centre) / count
    squares = weights @ (values - centre) ** 2 - count * mean**2
    return mean + centre, squares.clamp_min(0) / (count - 1).clamp_min(1) / count


def _check(activations: Tensor, positives: Tensor, negatives: Tensor, gradients: Tensor) -> None:
    if activations.dim() != 2 or gradients.dim() != 3 or gradients.shape[2] != activations.shape[1]:
        raise InputError(
            f"gradients={tuple(gradients.shape)}: do not fit activations {tuple(activations.shape)}; "
            "give (explained groups, classes, D) and (groups, D)"
        )
    for name, mask in (("positives", positives), ("negatives", negatives)):
        if mask.dtype != torch.bool or mask.dim() != 2 or len(mask) != len(activations):
            raise InputError(f"{name}={tuple(mask.shape)}: not a mask of the groups; give bool ({len(activations)}, K)")
    if positives.shape != negatives.shape:
        raise InputError(f"negatives={tuple(negatives.shape)}: not as positives; give {tuple(positives.shape)}")
    if bool((positives & negatives).any()):
        raise InputError("negatives=a group that is a positive too: its part cancels; leave it out of one of them")
    for name, mask in (("positives", positives), ("negatives", negatives)):
        if not bool(mask.any(0).all()):
            column = int((~mask.any(0)).nonzero()[0])
            raise InputError(f"{name}[:, {column}]=none: no mean without groups; give at least one")
