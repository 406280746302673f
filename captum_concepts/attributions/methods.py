"""Captum's attribution methods on the model's input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from captum.attr import DeepLiftShap, GradientShap, IntegratedGradients, Saliency
from torch import Tensor, nn

from captum_concepts.errors import InputError


def saliency(model: nn.Module, inputs: Tensor, targets: Tensor) -> np.ndarray:
    """Gradient of the target's logit, with its sign (Simonyan et al., arXiv 1312.6034).

    Args:
        model: gives logits (B, C).
        inputs: (B, ...).
        targets: (B,) class numbers.

    Returns:
        An array of the shape of ``inputs``.
    """
    return _array(Saliency(model).attribute(inputs, target=targets, abs=False))


def integrated_gradients(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, baselines: Tensor | None = None, steps: int = 32
) -> np.ndarray:
    """Gradients along the straight line from each baseline, averaged (Sundararajan et al., ICML 2017).

    Arguments as in ``saliency``, and

    Args:
        baselines: (M, ...), real inputs; the result is the mean over them.
        steps: points of each line.

    Raises:
        InputError: no baselines, or of another shape.
    """
    method, found = IntegratedGradients(model), np.zeros(tuple(inputs.shape), dtype=np.float64)
    chosen = _baselines(baselines, inputs, 1)
    for baseline in chosen:
        given = baseline[None].expand_as(inputs)
        found += _array(
            method.attribute(inputs, given, target=targets, n_steps=steps, internal_batch_size=max(len(inputs), 32))
        )
    return found / len(chosen)


def gradient_shap(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    baselines: Tensor | None = None,
    samples: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Gradients at random points between inputs and random baselines (Lundberg & Lee, NIPS 2017), no noise added.

    Arguments as in ``integrated_gradients``, and

    Args:
        samples: points per input.
        seed: of the random points; the random states of torch and NumPy are restored.
    """
    chosen = _baselines(baselines, inputs, 1)
    with _seeded(seed):
        found = GradientShap(model).attribute(inputs, chosen, target=targets, n_samples=samples, stdevs=0.0)
    return _array(found)


def deep_lift_shap(model: nn.Module, inputs: Tensor, targets: Tensor, *, baselines: Tensor | None = None) -> np.ndarray:
    """DeepLIFT from every baseline, averaged (Shrikumar et al., ICML 2017; Lundberg & Lee, NIPS 2017).

    Follows models whose non-linearities are modules, each used once. Arguments as in ``integrated_gradients``; two
    baselines or more.
    """
    return _array(DeepLiftShap(model).attribute(inputs, _baselines(baselines, inputs, 2), target=targets))


def _baselines(baselines: Tensor | None, inputs: Tensor, least: int) -> Tensor:
    if baselines is None or baselines.shape[1:] != inputs.shape[1:] or len(baselines) < least:
        have = "none" if baselines is None else tuple(baselines.shape)
        raise InputError(
            f"baselines={have}: too few, or of another shape; give {least} or more real inputs of "
            f"shape {tuple(inputs.shape[1:])}"
        )
    return baselines.to(inputs)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the global states of NumPy and torch, which Captum's GradientShap uses, and restores them."""
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
