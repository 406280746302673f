"""Correlated CAVs: pairs of concepts with similar CAVs, or with the same examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs.groups import group_means
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.quality import auc_with_interval
from captum_concepts.choices import ALPHA
from captum_concepts.concepts.overlap import Overlap
from captum_concepts.diagnostics.leakage import SHARED
from captum_concepts.diagnostics.random_sets import GroupSampler, RandomSets, fit_directions
from captum_concepts.diagnostics.stability import Halves

MAX_PAIRS = 500
BLOCK_VALUES = 2**24


@dataclass(frozen=True)
class CosineBand:
    """Cosines between CAVs of null concepts, by size class.

    Attributes:
        mean, spread: float64 (C, C), of the cosines between null concepts of two size classes.
        sorted: float64 (n,), all of them in units of their spread from their mean, ascending.
    """

    mean: np.ndarray
    spread: np.ndarray
    sorted: np.ndarray

    @classmethod
    def of(cls, cosines: np.ndarray) -> CosineBand | None:
        """From (R, C, C) cosines, the first of a pair by row, the second by column; None if they do not vary."""
        both = np.concatenate([cosines, cosines.transpose(0, 2, 1)])
        both = both[np.isfinite(both).all(axis=(1, 2))]
        if len(both) < 2 or not (both.std(axis=0) > 0).all():
            return None
        mean, spread = both.mean(axis=0), both.std(axis=0, ddof=1)
        standard = (both[: len(both) // 2] - mean) / spread
        return cls(mean, spread, np.sort(standard.ravel()))

    def exceeded(self, cosines: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How many of the random cosines are at least as high.

        Args:
            cosines: (...).
            first, second: int, broadcastable to it, the kinds of the two concepts.
        """
        standard = (cosines - self.mean[first, second]) / self.spread[first, second]
        return np.asarray(len(self.sorted) - np.searchsorted(self.sorted, standard, side="left"))

    def upper(self, beyond: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The cosine that all but ``beyond`` of the random ones stay below."""
        edge = self.sorted[len(self.sorted) - 1 - max(beyond, 0)]
        return np.minimum(self.mean[first, second] + edge * self.spread[first, second], 1.0)


def random_directions(method: CavMethod, activations: Tensor, sets: RandomSets) -> Iterator[Tensor]:
    """Unit CAVs of null concepts: (R, 2, C, D) for each batch of replicates."""
    rows = activations[torch.from_numpy(sets.rows).to(activations.device)]
    for batch in sets.batches():
        shape = batch.positives.shape[1:]
        positives, negatives = (mask.reshape(len(rows), -1) for mask in (batch.positives, batch.negatives))
        yield fit_directions(method, rows, positives, negatives, sets.weights).reshape(*shape, -1)


def random_pair_cosines(directions: Tensor) -> np.ndarray:
    """float64 (R, C, C): cosines between the first and the second null concepts (R, 2, C, D) of every replicate."""
    exact = directions.double()
    return np.asarray((exact[:, 0] @ exact[:, 1].transpose(1, 2)).cpu().numpy())


def correlated_pairs(directions: Tensor, band: CosineBand | None, kinds: np.ndarray) -> tuple[pd.DataFrame, int]:
    """Pairs of CAVs that are more similar than those of null concepts (Nicolson et al., arXiv 2404.03713).

    The family are all pairs, the correction is Benjamini-Hochberg's at 0.05. Works in blocks of rows, so that memory
    grows only with the number of pairs found.

    Args:
        directions: (K, D), unit length.
        band: of null concepts; None finds nothing.
        kinds: int (K,), the size class of each concept.

    Returns:
        the ``MAX_PAIRS`` strongest (columns first, second: numbers of concepts; cosine; chance, the upper end of the
        band), and how many there are in all.
    """
    if band is None:
        return pd.DataFrame({"first": [], "second": [], "cosine": [], "chance": []}), 0
    k = len(directions)
    total = k * (k - 1) // 2
    nulls = len(band.sorted)
    counts = np.zeros(nulls + 1, dtype=np.int64)
    for rows, cosines, later in _blocks(directions):
        counts += np.bincount(band.exceeded(cosines, kinds[rows][:, None], kinds[None, :])[later], minlength=nulls + 1)
    reached = np.cumsum(counts)
    p = (1 + np.arange(nulls + 1)) / (1 + nulls)
    passing = np.flatnonzero((p * total <= ALPHA * reached) & (counts > 0))
    beyond = int(passing[-1]) if len(passing) else int(ALPHA / max(total, 1) * (1 + nulls)) - 1
    found: list[pd.DataFrame] = []
    for rows, cosines, later in _blocks(directions) if len(passing) else ():
        numbers = band.exceeded(cosines, kinds[rows][:, None], kinds[None, :])
        a, b = np.nonzero(later & (numbers <= beyond))
        part = pd.DataFrame({"first": rows[a], "second": b, "cosine": cosines[a, b]})
        found = [pd.concat([*found, part]).sort_values("cosine", ascending=False, kind="stable").head(MAX_PAIRS)]
    table = found[0].reset_index(drop=True) if found else pd.DataFrame({"first": [], "second": [], "cosine": []})
    table = table.astype({"first": np.int64, "second": np.int64, "cosine": np.float64})
    table["chance"] = band.upper(beyond, kinds[table["first"]], kinds[table["second"]])
    return table, int(reached[passing[-1]]) if len(passing) else 0


def _blocks(directions: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, their cosines with all concepts, which of these pairs come later), in blocks of bounded memory."""
    k = len(directions)
    exact = directions.double()
    for start in range(0, k, max(1, BLOCK_VALUES // max(k, 1))):
        rows = np.arange(start, min(k, start + max(1, BLOCK_VALUES // k)))
        cosines = (exact[torch.from_numpy(rows)] @ exact.T).cpu().numpy()
        yield rows, cosines, np.arange(k)[None, :] > rows[:, None]


def overlapping(overlap: Overlap, share: float = SHARED) -> np.ndarray:
    """int (P, 2): pairs that share at least ``share`` of the groups of either concept, largest share first."""
    jaccard = np.triu(overlap.group_jaccard, 1)
    first, second = np.nonzero(jaccard >= share)
    order = np.argsort(-jaccard[first, second], kind="stable")[:MAX_PAIRS]
    return np.stack([first[order], second[order]], 1)


def cross_auc(
    activations: Tensor,
    positives: np.ndarray,
    negatives: np.ndarray,
    shuffles: GroupSampler,
    split: Halves,
    pairs: np.ndarray,
) -> np.ndarray:
    """AUC of the CAV of one concept for the other concept: 0.5 is chance, 1 is perfect.

    Each CAV is fitted on half the groups and ranks the other half: the other concept's groups without
    those of the first, against the first one's negatives without those of the other. Mean over both halves.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K).
        shuffles: of the rows' groups.
        split: CAVs of the halves.
        pairs: int (P, 2), the concept of the CAV and the concept to find.

    Returns:
        float64 (P,); NaN where no group is left.
    """
    index = torch.from_numpy(shuffles.index).to(activations.device)
    size = max(1, BLOCK_VALUES // len(activations))
    found = []
    shows = shuffles.marked(positives)[shuffles.index]
    for start in range(0, len(pairs), size):
        own, other = pairs[start : start + size].T
        used = positives[:, own] | negatives[:, own]
        theirs = positives[:, other] & ~shows[:, own]
        against = negatives[:, own] & ~shows[:, other]
        aucs = []
        for half, in_half in ((0, split.first[:, own]), (1, ~split.first[:, own])):
            held = ~(used & in_half)
            scores = activations @ split.directions[half][torch.from_numpy(own)].T
            marks = [torch.from_numpy(mask & held).to(activations.device) for mask in (theirs, against)]
            means = [group_means(scores, mark, index, shuffles.count) for mark in marks]
            # A group is on one side only: it has the other concept or it does not.
            value = torch.where(torch.isfinite(means[0]), means[0], means[1])
            one, zero = torch.isfinite(means[0]), torch.isfinite(means[1]) & ~torch.isfinite(means[0])
            aucs.append(auc_with_interval(value, one, zero)[0].cpu())
        found.append(torch.stack(aucs).nanmean(0))
    return torch.cat(found).double().numpy() if found else np.zeros(0)
