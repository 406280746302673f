"""Sensitivities along CAVs and the scores made of them (Kim et al., ICML 2018), as pure tensor functions."""

from __future__ import annotations

import torch
from torch import Tensor


def sensitivities(gradients: Tensor, directions: Tensor) -> Tensor:
    """Directional derivatives of the targets' logits along the CAVs.

    Args:
        gradients: (N, T, D), gradient of each target's logit with respect to the pooled activation.
        directions: (K, D), unit length.

    Returns:
        (N, T, K), logits per activation unit.

    Example:
        >>> sensitivities(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[0.0, 1.0]])).tolist()
        [[[4.0]]]
    """
    return gradients @ directions.T


def clip_means(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over the patches of each clip.

    Args:
        values: (sum of counts, ...), the clips' patches one after the other.
        counts: (clips,) int, patches of each clip, at least 1.

    Returns:
        (clips, ...).

    Example:
        >>> clip_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 1])).tolist()
        [2.0, 5.0]
    """
    index = torch.repeat_interleave(torch.arange(len(counts), device=values.device), counts.to(values.device))
    sums = values.new_zeros(len(counts), *values.shape[1:]).index_add_(0, index, values)
    return sums / counts.to(values).reshape(-1, *[1] * (values.dim() - 1))


def tcav_score(clip_sensitivities: Tensor) -> Tensor:
    """Share of clips whose sensitivity is positive; an exact zero is not, as in Captum.

    Args:
        clip_sensitivities: (clips, ...).

    Returns:
        (...).

    Example:
        >>> tcav_score(torch.tensor([1.0, -2.0, 0.0, 3.0])).item()
        0.5
    """
    return (clip_sensitivities > 0).to(clip_sensitivities.dtype).mean(0)


def magnitude(clip_sensitivities: Tensor) -> Tensor:
    """Mean sensitivity along the unit CAV.

    Args:
        clip_sensitivities: (clips, ...).

    Returns:
        (...), logits per activation unit.

    Example:
        >>> magnitude(torch.tensor([1.0, -2.0, 4.0])).item()
        1.0
    """
    return clip_sensitivities.mean(0)


def temperatures(clip_gradients: Tensor) -> Tensor:
    """(clips, T, D) -> (T,): root mean square of each target's sensitivity along a direction drawn at random.

    A unit for smooth scores that knows the target and no concept: sqrt(mean over clips of |gradient|² / D).
    """
    return clip_gradients.double().square().mean((0, 2)).sqrt()


def smooth_values(clip_sensitivities: Tensor, temperature: Tensor) -> Tensor:
    """(clips, T, K), (T,) -> (clips, T, K): sigmoid(sensitivity / temperature), one half where both are zero."""
    tiny = torch.finfo(torch.float64).tiny
    return torch.sigmoid(clip_sensitivities.double() / temperature[:, None].clamp_min(tiny))


def smooth_score(clip_sensitivities: Tensor, temperature: Tensor) -> Tensor:
    """(clips, T, K), (T,) -> (T, K): the TCAV score with a sigmoid in place of the step.

    Clips near the boundary count in part, so that it varies less than the share; it becomes the share as the
    temperature falls (alpha-TCAV, arXiv 2605.15688). ``BatchedTCAV(temperature=)`` gives the same.
    """
    return smooth_values(clip_sensitivities, temperature).mean(0)
