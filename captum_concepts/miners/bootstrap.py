"""How sure a mined hierarchy is: what remains of it when the groups are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.methods import CavMethod
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.miners.api import Miner, mine
from captum_concepts.similarities.api import similarity
from captum_concepts.similarities.discriminant.means import observations, scaled_products
from captum_concepts.similarities.discriminant.neighbours import discriminant_space
from captum_concepts.similarities.measure import Measure
from captum_concepts.types import Progress


def bootstrap_support(
    hierarchy: ConceptHierarchy,
    resampled: Iterable[Tensor | np.ndarray],
    miner: str | Miner = "spanning_tree",
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Support:
    """Mine resampled similarities and count what they share with the hierarchy.

    Args:
        hierarchy: mined from all clips.
        resampled: (K, K) matrices over its concepts in their order, e.g. :class:`ResampledDiscriminant`.
        miner: the miner that made the hierarchy, with its ``options``.
        progress: called as ``progress("bootstrap", samples done, samples)`` where ``resampled`` has a length.

    Raises:
        InputError: no sample, or what ``mine`` refuses.
    """
    names = hierarchy.names
    index = {name: i for i, name in enumerate(names)}
    edges = dict.fromkeys(hierarchy.graph.edges, 0)
    same = dict.fromkeys(names, 0)
    above = np.zeros((len(names), len(names)))
    done = 0
    for matrix in resampled:
        again = mine(matrix, names, miner, **options)
        if again.names != names:
            raise InputError("bootstrap_support: nodes that are no concepts cannot be found again; use inner='medoid'")
        for edge in edges:
            edges[edge] += again.graph.has_edge(*edge)
        for name in names:
            same[name] += set(again.graph.pred[name]) == set(hierarchy.graph.pred[name])
        lines: dict[str, set[int]] = {}
        for name in nx.topological_sort(again.graph):
            lines[name] = {a for parent in again.graph.pred[name] for a in (*lines[parent], index[parent])}
            above[list(lines[name]), index[name]] += 1
        done += 1
        if progress and isinstance(resampled, Sized):
            progress("bootstrap", done, len(resampled))
    if not done:
        raise InputError("bootstrap_support: no samples; give at least one resampled similarity")
    supported = [(p, c, w, edges[p, c] / done) for p, c, w, _ in hierarchy.edges]
    return Support(
        ConceptHierarchy.from_edges(names, supported),
        above / done,
        {name: count / done for name, count in same.items()},
        done,
    )


class _Resampled:
    """Similarities of bootstrap samples, one matrix after the other."""

    samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"samples={self.samples}: too few; give at least 1")

    def __len__(self) -> int:
        return self.samples

    def _draws(self, groups: np.ndarray) -> Iterator[np.ndarray]:
        """(N,) int for each sample: how often the group of each row was drawn."""
        unique, number = np.unique(groups, return_inverse=True)
        rng = np.random.default_rng(self.seed)
        for _ in range(self.samples):
            yield np.bincount(rng.integers(len(unique), size=len(unique)), minlength=len(unique))[number]


@dataclass(frozen=True)
class ResampledDiscriminant(_Resampled):
    """The similarity "discriminant" of bootstrap samples of the groups, one matrix after the other.

    The space and the neighbours in it are found once, for all clips; a sample draws as many groups as there are, with
    replacement, and only means and votes are made again. A concept that a sample misses is 0 to all others.

    Args:
        activations: (N, D). labels: (N, K). weights: (N,). groups: (N,), as for ``similarity``.
        samples: how many.
        seed: of the draws. Same seed, same matrices.
    """

    activations: Tensor | np.ndarray
    labels: Tensor | np.ndarray
    weights: Tensor | np.ndarray | None = None
    groups: Sequence[str] | np.ndarray | None = None
    samples: int = 200
    seed: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        activations = torch.as_tensor(self.activations)
        labels = torch.as_tensor(self.labels, device=activations.device)
        weights = None if self.weights is None else torch.as_tensor(self.weights, device=activations.device)
        space = discriminant_space(observations(activations, labels, weights, self.groups))
        for drawn in self._draws(space.observed.group.cpu().numpy()):
            yield scaled_products(space.inner_products(torch.as_tensor(drawn).to(space.observed.values)))


@dataclass
class _Directions:
    """What a similarity needs of a concept bank."""

    names: tuple[str, ...]
    directions: Tensor
    biases: Tensor
    scales: Tensor


@dataclass(frozen=True)
class ResampledSimilarity(_Resampled):
    """Any similarity of bootstrap samples of the groups: every sample's CAVs are fitted again.

    A sample draws as many groups as there are, with replacement; a group drawn twice weighs twice. A concept that a
    sample misses, or that has no negatives left in it, is 0 to all others.

    Args:
        measure: as for ``similarity``.
        method: the CAV method that is fitted to every sample.
        activations: (N, D). positives, negatives: bool (N, K). weights: (N,). groups: (N,).
        gradients: (clips, targets, D) for a measure that needs them; they are not drawn again.
        samples: how many.
        seed: of the draws. Same seed, same matrices.
    """

    measure: str | Measure | Callable[..., Tensor]
    method: CavMethod
    activations: Tensor
    positives: np.ndarray
    negatives: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    gradients: Tensor | None = None
    samples: int = 200
    seed: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        for drawn in self._draws(self.groups):
            yield self._sample(drawn)

    def _sample(self, drawn: np.ndarray) -> Tensor:
        there = drawn > 0
        present: np.ndarray = np.logical_and(self.positives[there].any(0), self.negatives[there].any(0))
        matrix = torch.zeros(len(present), len(present), device=self.activations.device)
        columns = np.flatnonzero(present)
        if not len(columns):
            return matrix
        rows = self.activations[torch.from_numpy(there).to(self.activations.device)]
        positives, negatives = (
            torch.from_numpy(mask[np.ix_(there, columns)]).to(rows.device) for mask in (self.positives, self.negatives)
        )
        weights = torch.from_numpy(self.weights[there] * drawn[there]).to(rows)
        bank = _Directions(
            tuple(str(k) for k in columns),
            *self.method(rows, positives, negatives, weights),
        )
        found = similarity(
            bank,
            self.measure,
            activations=rows,
            labels=positives,
            weights=weights,
            groups=self.groups[there],
            gradients=self.gradients,
        )
        index = torch.from_numpy(columns).to(matrix.device)
        matrix[index[:, None], index[None, :]] = found.to(matrix)
        return matrix
