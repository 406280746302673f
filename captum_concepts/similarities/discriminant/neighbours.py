"""Where concepts lie to each other: whose clips are neighbours, counted on clips held out.

Means alone (``discriminant.means``) let what lies far off decide, and see little of a concept whose clips
form several clouds. Neighbours see the clouds: a parent's clips lie among those of its children, be they left, right or
scattered. So (1) the observations of a fold are put into the discriminant space that the other folds span, (2) each
finds its nearest neighbours among these, by cosine, and (3) counts how often they show a concept, relative to chance.

The mean of that ratio over the clips of concept i is an estimate of ``sum_x p_i(x) p_j(x) / p(x)``, p the density of
all clips: the inner product of the two densities in the chi-square geometry. Less 1 it is seen from p, the origin, and
the density of a parent is the mean of those of its children, as ``miners.spanning_tree`` wants it.
No clip is its own neighbour, nor has it bent the space that it is looked up in: there is no noise to be taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.similarities.discriminant.means import (
    SHRINKAGE,
    MeanSpace,
    Observations,
    mean_space,
    scaled_products,
)

NEIGHBOURS = 8
WEIGHT = 0.5  # of the neighbourhoods beside the means: more finds more in recordings, less in heavy noise
FOLDS = 10
REPEATS = 2  # other folds, another space: the mean of both is less noisy
# Beyond so many candidates a neighbour is no longer found much nearer, but found more slowly.
CANDIDATES = 32_768
ROWS = 2048
_TINY = 1e-100


@dataclass(frozen=True)
class Neighbours:
    """The nearest observations of other folds, for one way of folding.

    Attributes:
        observed: what was folded.
        nearest: int64 (M, 2 NEIGHBOURS or fewer), nearest first; -1 where there are no more. Twice as many as count,
            for samples in which some are missing.
        fold: int64 (M,).
        candidate: bool (M,), which observations could be found.
    """

    observed: Observations
    nearest: Tensor
    fold: Tensor
    candidate: Tensor

    def inner_products(self, counts: Tensor | None = None) -> Tensor:
        """(K, K): how much more often than by chance clips of the one concept are neighbours of clips of the other.

        0 at chance, -1 for never; symmetric.

        Args:
            counts: (M,) how often each observation counts (a bootstrap sample); default: once.
        """
        observed, k = self.observed, self.observed.shows.shape[1]
        counts = torch.ones_like(observed.weights) if counts is None else counts.to(observed.weights)
        votes = self._votes(counts)
        asks = observed.weights * counts * (votes.sum(1) > 0)
        votes = votes / votes.sum(1, keepdim=True).clamp_min(_TINY)
        ratios = votes.new_zeros(k, k)
        for fold, share in enumerate(self._shares(observed.weights * counts * self.candidate)):
            rows = (self.fold == fold).nonzero()[:, 0]
            # where no candidate shows a concept it is not found for want of clips: that tells as little as chance does
            ratio = torch.where(share > 0, self._found(votes[rows], rows) / share.clamp_min(_TINY), 1.0)
            ratios += torch.sparse.mm(observed.shows[rows].T.to_sparse(), ratio * asks[rows, None])
        total = (asks @ observed.shows)[:, None]
        ratios = torch.where(total > 0, ratios / total.clamp_min(_TINY), 1.0)
        return (ratios + ratios.T) / 2 - 1

    def _votes(self, counts: Tensor) -> Tensor:
        """(M, neighbours): what each neighbour weighs; the nearest until as many as count are reached."""
        drawn = counts[self.nearest] * (self.nearest >= 0)
        before = drawn.cumsum(1) - drawn
        return torch.minimum(drawn, (NEIGHBOURS - before).clamp_min(0)) * self.observed.weights[self.nearest]

    def _shares(self, weights: Tensor) -> Tensor:
        """(folds, K): the share of each concept among the candidates outside a fold."""
        folds = int(self.fold.max()) + 1
        marked = weights.new_zeros(folds, self.observed.shows.shape[1])
        marked.index_add_(0, self.fold, self.observed.shows * weights[:, None])
        total = weights.new_zeros(folds).index_add_(0, self.fold, weights)
        # differences of sums that are equal up to rounding are 0
        outside = torch.where(marked < (1 - 1e-9) * marked.sum(0), marked.sum(0) - marked, 0.0)
        return outside / (total.sum() - total).clamp_min(_TINY)[:, None]

    def _found(self, votes: Tensor, rows: Tensor) -> Tensor:
        """(len(rows), K): the share of the votes of each row's neighbours that show a concept."""
        near = self.nearest[rows].clamp_min(0)  # what is not there has no vote
        return torch.nn.functional.embedding_bag(near, self.observed.shows, mode="sum", per_sample_weights=votes)


def neighbours(observed: Observations, seed: int = 0) -> Neighbours:
    """Fold the groups, and find the neighbours of every observation in the space that the other folds span."""
    device, x = observed.values.device, observed.components
    rank = np.random.default_rng(seed).permutation(int(observed.group.max()) + 1)
    place = torch.as_tensor(rank, device=device)[observed.group]
    fold = place % FOLDS
    candidate = torch.ones_like(fold, dtype=torch.bool)
    if len(x) > CANDIDATES:
        candidate = place < place.sort().values[CANDIDATES]
    nearest = torch.full((len(x), 2 * NEIGHBOURS), -1, dtype=torch.int64, device=device)
    for number, space in enumerate(_spaces(x, observed, fold)):
        out, others = (fold == number).nonzero()[:, 0], (candidate & (fold != number)).nonzero()[:, 0]
        if space is None or not len(others):
            continue
        near = torch.nn.functional.normalize((x[others] - space[0]) @ space[1], dim=1)
        if not bool(near.any()):  # all in one place: any of them would be as near as any other
            continue
        for some in out.split(ROWS):
            cosines = torch.nn.functional.normalize((x[some] - space[0]) @ space[1], dim=1) @ near.T
            best = cosines.topk(min(2 * NEIGHBOURS, len(others)), dim=1).indices
            nearest[some, : best.shape[1]] = others[best]
    return Neighbours(observed, nearest, fold, candidate)


def _spaces(x: Tensor, observed: Observations, fold: Tensor) -> Iterator[tuple[Tensor, Tensor] | None]:
    """For each fold in turn: the mean of the others, and the whitened axes (D, R) that their concepts' means span."""
    weights, folds = observed.weights, int(fold.max()) + 1
    shows = observed.shows * weights[:, None]
    times = x * shows.sum(1)[:, None]
    scatter, sums, counts = times.T @ x, shows.T @ x, shows.sum(0)
    for number in range(folds):
        out = fold == number
        inside = shows[out]
        # what is left of a concept all of whose clips are in the fold is rounding
        there = inside.sum(0) < (1 - 1e-9) * counts
        if not bool(there.any()):
            yield None
            continue
        total = torch.where(there, counts - inside.sum(0), 0.0)
        centre = weights[~out] @ x[~out] / weights[~out].sum()
        means = there[:, None] * (sums - inside.T @ x[out]) / total.clamp_min(_TINY)[:, None]
        within = (scatter - times[out].T @ x[out] - (means * total[:, None]).T @ means) / total.sum()
        yield centre, _axes(within, (means - centre) * there[:, None], x)


def _axes(within: Tensor, means: Tensor, x: Tensor) -> Tensor:
    """(D, R): whitens the shrunk covariance within concepts, and keeps the axes that the means span."""
    overall = (x**2).mean().clamp_min(_TINY)
    level = within.diagonal().mean().clamp_min(1e-6 * overall)
    identity = torch.eye(len(within)).to(within)
    factor = torch.linalg.cholesky((1 - SHRINKAGE) * (within + within.T) / 2 + SHRINKAGE * level * identity)
    whitening = torch.linalg.solve_triangular(factor, identity, upper=False).T
    if len(means) > len(within):
        return whitening
    inside = means @ whitening
    size, vectors = torch.linalg.eigh(inside @ inside.T)
    # a direction of rounding is no axis: the weighted means of all concepts cancel, where no clip shows two of them
    kept = size > 1e-9 * size[-1].clamp_min(_TINY)
    return whitening @ (inside.T @ vectors[:, kept] / size[kept].sqrt())


@dataclass(frozen=True)
class DiscriminantSpace:
    """Means and neighbours of a set of concepts in Fisher's discriminant space.

    Attributes:
        means: the means, freed of noise.
        neighbours: the neighbours, folded in several ways.
    """

    means: MeanSpace
    neighbours: tuple[Neighbours, ...]

    @property
    def observed(self) -> Observations:
        return self.means.observed

    def inner_products(self, counts: Tensor | None = None) -> Tensor:
        """(K, K): the products of the means plus half of those of the neighbourhoods.

        Both are scaled to a diagonal of 1 on average before.

        Args:
            counts: (M,) how often each observation counts (a bootstrap sample); default: once.
        """
        near = sum(part.inner_products(counts) for part in self.neighbours) / len(self.neighbours)
        return scaled_products(self.means.inner_products(counts)) + WEIGHT * scaled_products(torch.as_tensor(near))


def discriminant_space(observed: Observations) -> DiscriminantSpace:
    """Fit means and neighbours."""
    return DiscriminantSpace(mean_space(observed), tuple(neighbours(observed, seed) for seed in range(REPEATS)))
