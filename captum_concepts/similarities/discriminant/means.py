"""Where concepts lie to each other: inner products of their mean activations, freed of noise.

The mean of a few clips is a noisy thing, and in a thousand dimensions the noise of two means is larger than what keeps
two related concepts apart. So (1) the rows of a group become one observation, (2) principal components keep a quarter
as many dimensions as there are observations, (3) these are whitened by the shrunk covariance within concepts (Fisher's
discriminant space), and (4) the inner products of the means lose what noise alone gives. How large the noise is, is
measured on groups held out from the whitening: inside, it looks several times smaller than it is.

Related: the cross-validated Mahalanobis distance (Walther et al., NeuroImage 2016).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError

ROWS = 8192
OBSERVATIONS_PER_COMPONENT = 4
SHRINKAGE = 0.1
FOLDS = 5
# A whitening that has seen a fifth less overfits more: the noise held out is larger than the noise of the whole.
HELD_OUT = 1 - 1 / FOLDS
ROUNDING = 1e-12  # of the largest value: what differs by less is equal
_TINY = 1e-100  # where a division by 0 threatens; its square root and square are numbers too
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observations:
    """One row for each group and set of concepts that its rows show.

    Attributes:
        values: float64 (M, D), weighted means of the rows.
        shows: float64 (M, K), 1 where an observation shows a concept.
        weights: float64 (M,), summed weights of the rows.
        fold: int64 (M,), the fold of its group.
        group: int64 (M,), the number of its group.
    """

    values: Tensor
    shows: Tensor
    weights: Tensor
    fold: Tensor
    group: Tensor

    @cached_property
    def components(self) -> Tensor:
        """(M, R): principal components of the values seen from their mean, on a scale whose squares are numbers."""
        centred = self.values - self.weights @ self.values / self.weights.sum()
        # what is left of numbers that are all the same is rounding, and its direction means nothing
        centred *= centred.abs().amax(0) > ROUNDING * self.values.abs().amax(0)
        # a power of two, so that no digit changes
        largest = max(float(centred.abs().max()), torch.finfo(centred.dtype).tiny)
        return principal(centred * 2.0 ** -math.frexp(largest)[1], self.weights)


def observations(
    activations: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
) -> Observations:
    """Join the rows of a group that show the same concepts.

    Args:
        activations: (N, D). labels: (N, K). weights: (N,), default 1.
        groups: (N,) group of each row; default: every row its own, but for equal ones, which count as one.

    Raises:
        InputError: groups of another length.
    """
    n = len(activations)
    if groups is not None and len(groups) != n:
        raise InputError(f"groups: {len(groups)} entries for {n} rows of activations")
    named = _marks(activations) if groups is None else np.asarray(groups)
    number = np.unique(named, return_inverse=True)[1].ravel()
    packed = np.packbits(labels.cpu().numpy().astype(bool), axis=1)
    key = np.concatenate([number[:, None].astype(">u4").view(np.uint8).reshape(n, 4), packed], axis=1)
    _, first, owner = np.unique(key, axis=0, return_index=True, return_inverse=True)
    owner_of = torch.as_tensor(owner.ravel(), device=activations.device)
    weight = (
        activations.new_ones(n, dtype=torch.float64) if weights is None else weights.to(activations.device).double()
    )
    total = weight.new_zeros(len(first)).index_add_(0, owner_of, weight)
    values = weight.new_zeros(len(first), activations.shape[1])
    for start in range(0, n, ROWS):
        part = slice(start, start + ROWS)
        values.index_add_(0, owner_of[part], activations[part].double() * weight[part, None])
    kept = total > 0
    fold = np.random.default_rng(0).permutation(int(number.max()) + 1)[number[first]] % FOLDS
    return Observations(
        (values / total.clamp_min(_TINY)[:, None])[kept],
        labels.to(activations.device)[torch.as_tensor(first, device=activations.device)].double()[kept],
        total[kept],
        torch.as_tensor(fold, device=activations.device)[kept],
        torch.as_tensor(number[first].astype(np.int64), device=activations.device)[kept],
    )


def _marks(rows: Tensor) -> np.ndarray:
    """(N,) numbers that are equal for equal rows only, and do not depend on where in the order a row stands."""
    axis = 1 + torch.rand(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    axis = axis.to(rows.device)
    return torch.cat([(part.double() * axis).sum(1) for part in rows.split(ROWS)]).cpu().numpy()


@dataclass(frozen=True)
class MeanSpace:
    """The discriminant space of a set of concepts.

    Attributes:
        observed: what it was fitted to.
        values: (M, R) the observations along the axes that the concepts' means span, whitened.
        noise: (K,) variance of a single observation of each concept, summed over all dimensions.
    """

    observed: Observations
    values: Tensor
    noise: Tensor

    def inner_products(self, counts: Tensor | None = None) -> Tensor:
        """(K, K): inner products of the concepts' means as seen from the mean of all observations, less the noise.

        The diagonal is a concept's squared distance from that mean; ``G[i, i] + G[j, j] - 2 G[i, j]`` is the squared
        distance of two concepts. Either may come out below 0, where noise alone lies farther.

        Args:
            counts: (M,) how often each observation counts (a bootstrap sample); default: once.
        """
        weights = self.observed.weights if counts is None else self.observed.weights * counts
        shows = self.observed.shows * weights[:, None]
        total = shows.sum(0).clamp_min(_TINY)
        means = shows.T @ self.values / total[:, None] - weights @ self.values / weights.sum()
        means = means * (shows.sum(0) > 0)[:, None]  # a concept that a sample misses lies nowhere
        # clips show few of the concepts: for thousands of concepts the dense product takes twenty times as long
        shared = torch.sparse.mm(shows.T.to_sparse(), shows) / (total[:, None] * total[None, :])
        return means @ means.T - shared * (self.noise[:, None] + self.noise[None, :]) / 2


def mean_space(observed: Observations) -> MeanSpace:
    """Fit the space, and the noise in it."""
    reduced = observed.components
    whitening, means = _whitening(reduced, observed.shows, observed.weights)
    _, _, turned = torch.linalg.svd(means @ whitening, full_matrices=False)
    return MeanSpace(observed, reduced @ whitening @ turned.T, HELD_OUT * _held_out_noise(reduced, observed))


def principal(centred: Tensor, weights: Tensor) -> Tensor:
    """(M, R): the leading principal components of the rows, a quarter as many as there are rows.

    Directions without variance are left out.

    Args:
        centred: (M, D), less their weighted mean. weights: (M,).
    """
    components = max(2, len(centred) // OBSERVATIONS_PER_COMPONENT)
    root = (weights / weights.sum()).sqrt()[:, None]
    scaled = centred * root
    wide = scaled.shape[1] > len(scaled)
    gram = scaled @ scaled.T if wide else scaled.T @ scaled
    variance, vectors = torch.linalg.eigh(gram)
    variance, vectors = variance.flip(0)[:components], vectors.flip(1)[:, :components]
    kept = variance > 1e-10 * variance[0].clamp_min(_TINY)
    kept[0] = True
    if wide:
        return centred @ (scaled.T @ vectors[:, kept] / variance[kept].clamp_min(_TINY).sqrt())
    return centred @ vectors[:, kept]


def _whitening(x: Tensor, shows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(D, D) that makes the shrunk covariance within concepts the identity, and the concepts' means (K, D)."""
    shows = shows * weights[:, None]
    total = shows.sum(0)
    means = shows.T @ x / total.clamp_min(_TINY)[:, None]
    within = (x * shows.sum(1)[:, None]).T @ x - (means * total[:, None]).T @ means
    within = (within + within.T) / (2 * total.sum())
    overall = (x * weights[:, None]).T @ x / weights.sum()
    level = within.diagonal().mean().clamp_min(1e-6 * overall.diagonal().mean()).clamp_min(_TINY)
    identity = torch.eye(len(within)).to(within)
    variance, vectors = torch.linalg.eigh((1 - SHRINKAGE) * within + SHRINKAGE * level * identity)
    return vectors / variance.clamp_min(SHRINKAGE * level / 2).sqrt(), means


def _held_out_noise(x: Tensor, observed: Observations) -> Tensor:
    """(K,): summed variance of single observations around their concept's mean, whitened without their fold.

    The axes that K means span hold all noise of these means, whatever the number of dimensions it was spread over, so
    this is summed over all dimensions. Concepts with fewer than two observations held out get the mean of the others;
    where no concept has clips of two groups, there is nothing to measure noise by: it stays in, and is warned of.
    """
    k = observed.shows.shape[1]
    squares, counts = x.new_zeros(k), x.new_zeros(k)
    for number in observed.fold.unique().tolist():
        out = observed.fold == number
        if bool(out.all()):
            continue
        weights, shows = observed.weights[~out], observed.shows[~out]
        whitening, means = _whitening(x[~out], shows, weights)
        weighted = shows * weights[:, None]
        total = weighted.sum(0)
        held = observed.shows[out] * (total > 0)
        means, inside = means @ whitening, x[out] @ whitening
        found = held.T @ (inside**2).sum(1) - 2 * (means * (held.T @ inside)).sum(1) + held.sum(0) * (means**2).sum(1)
        inflation = 1 + (weighted**2).sum(0) / total.clamp_min(_TINY) ** 2  # a mean of few is noisy itself
        squares += found.clamp_min(0) / inflation
        counts += held.sum(0)
    if not bool(counts.any()):
        _log.warning("no concept has clips of two groups: the noise in means cannot be measured and stays in them")
    return torch.where(counts >= 2, squares / counts.clamp_min(1), squares.sum() / counts.sum().clamp_min(1))


def scaled_products(products: Tensor) -> Tensor:
    """Inner products whose diagonal is 1 on average; as they are where the diagonal is not above 0 on average."""
    mean = products.diagonal().mean()
    symmetric = (products + products.T) / 2
    return symmetric / mean if float(mean) > 0 else symmetric
