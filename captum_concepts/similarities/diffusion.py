"""Similarity of concepts by random walks among their CAVs.

In hundreds of dimensions the cosine of two CAVs is mostly noise: nearest neighbours are often hubs, near to everything
and related to nothing. Three remedies, each known by itself, are taken one after the other: the first principal
components of the CAVs; the correlation of their similarity *profiles* (similar is what is similar to the same others);
and a random walk with restart on the graph of nearest neighbours, scaled to each concept's surroundings (Tong,
Faloutsos & Pan 2006; Zelnik-Manor & Perona 2004), which counts how well two concepts are connected rather than how
near they happen to be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.similarities.measure import Bank
from captum_concepts.text import short_repr

COMPONENTS = 30
NEIGHBOURS = 10
SCALE_NEIGHBOUR = 7
CONTINUE = 0.95


def diffusion_walks(vectors: Tensor) -> Tensor:
    """Similarity of concepts by their vectors.

    Args:
        vectors: (K, D), finite, seen from their mean; longer ones weigh more in it, which is all that length does.

    Returns:
        (K, K) float64, symmetric, 1 on the diagonal, from 0 for what no walk connects to 1. O(K^3) once.
    """
    k = len(vectors)
    if k < 3:
        return torch.eye(k, dtype=torch.float64, device=vectors.device)
    similar = _profiles(_principal_cosines(vectors.double()))
    return _walks(similar)


def _principal_cosines(vectors: Tensor) -> Tensor:
    unit = _unit(vectors - vectors.mean(0))
    centred = unit - unit.mean(0)
    left, size, _ = torch.linalg.svd(centred, full_matrices=False)
    # what is left of identical vectors is rounding, and its direction means nothing
    kept = size > size[0] * len(vectors) * torch.finfo(size.dtype).eps
    kept[COMPONENTS:] = False
    points = _unit(left[:, kept] * size[kept])
    return points @ points.T


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _profiles(cosines: Tensor) -> Tensor:
    """Mean of the cosines and of the correlations of their rows, each row's own place filled with the row's mean."""
    rows = cosines.clone()
    rows.fill_diagonal_(0.0)
    rows += torch.diag(rows.sum(1) / (len(rows) - 1))
    rows = _unit(rows - rows.mean(1, keepdim=True))
    return (cosines + rows @ rows.T) / 2


def _walks(similar: Tensor) -> Tensor:
    """Cosines of the random walks with restart from each concept."""
    k = len(similar)
    others = similar.clone()
    others.fill_diagonal_(-torch.inf)
    nearest = others.topk(min(NEIGHBOURS, k - 1), dim=1)
    reach = (1 - nearest.values[:, min(SCALE_NEIGHBOUR, k - 1) - 1]).clamp_min(1e-6)
    weights = torch.exp(-((1 - similar) ** 2) / (reach[:, None] * reach[None, :]))
    linked = torch.zeros_like(weights, dtype=torch.bool).scatter_(1, nearest.indices, True)
    weights = torch.where(linked | linked.T, weights, 0.0).fill_diagonal_(0.0)
    strength = weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny).sqrt()
    steps = weights / strength[:, None] / strength[None, :]
    visits = torch.linalg.inv(torch.eye(k, dtype=steps.dtype, device=steps.device) - CONTINUE * steps)
    length = visits.diagonal().sqrt()
    result = visits / length[:, None] / length[None, :]
    return ((result + result.T) / 2).clamp_(0.0, 1.0).fill_diagonal_(1.0)


def diffusion(
    bank: Bank, activations: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """How well the CAVs are connected through their nearest neighbours.

    It takes them as classifiers have them, as long as their scale says, not as unit directions.
    """
    bad = (~torch.isfinite(bank.directions).all(1) | ~torch.isfinite(bank.scales)).nonzero()
    if len(bad):
        raise InputError(f"diffusion: {short_repr(bank.names[int(bad[0])])} has no usable CAV; leave the concept out")
    return diffusion_walks(bank.directions.double() * bank.scales.double()[:, None]).to(bank.directions.dtype)
