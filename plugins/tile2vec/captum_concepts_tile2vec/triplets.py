"""Triplets of anchor, neighbour and opposite: training examples without labels.

A neighbour is near the anchor in the same recording, an opposite in a recording of another group (Jean et al. 2019,
"Tile2Vec: Unsupervised representation learning for spatially distributed data", with time in place of space).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_tile2vec.features import TileSource
from captum_concepts_tile2vec.tiles import Tiles


class TripletSampler:
    """Which three tiles make a triplet.

    Every random choice depends on (seed, epoch, index) alone, neither on the number of workers nor on earlier choices.

    Args:
        tiles: of at least two groups.
        neighbourhood: seconds; a neighbour begins at most this long before or after the anchor.
        opposite_buffer: opposites of all anchors of a recording come from this many other recordings, drawn with
            replacement once per epoch, so that a machine with slow disks touches few files; None draws from all.
        seed: of all draws.

    Attributes:
        anchors: int64 (A,), the tiles that have a neighbour.
        skipped: one line for each recording none of whose tiles has one.

    Raises:
        InputError: fewer than two groups, no tile with a neighbour, or an argument out of range.
    """

    def __init__(
        self, tiles: Tiles, neighbourhood: float = 5.0, opposite_buffer: int | None = None, seed: int = 1234
    ) -> None:
        if not 0 < neighbourhood < float("inf"):
            raise InputError(f"neighbourhood={short_repr(neighbourhood)}: give a positive number of seconds")
        if opposite_buffer is not None and opposite_buffer < 1:
            raise InputError(
                f"opposite_buffer={short_repr(opposite_buffer)}: give 1 or more recordings, or none for all"
            )
        self.tiles = tiles
        self.neighbourhood = neighbourhood
        self.opposite_buffer = opposite_buffer
        self.seed = seed
        count = len(tiles.recordings)
        self._bounds = np.searchsorted(tiles.owner, np.arange(count + 1))
        _, self._group = np.unique([recording.group for recording in tiles.recordings], return_inverse=True)
        self._by_group = np.argsort(self._group, kind="stable")
        if self._group.max(initial=0) < 1:
            only = tiles.recordings[0]
            raise InputError(
                f"only one recording or session ({short_repr(only.name)}) has usable tiles: opposites come from "
                "another one; add recordings"
            )
        self._low, self._high = self._reach()
        others = self._high - self._low - 1
        self.anchors = np.flatnonzero(others > 0)
        with_anchor = np.zeros(count, dtype=bool)
        with_anchor[tiles.owner[self.anchors]] = True
        self.skipped = tuple(
            f"{short_repr(tiles.recordings[index].path, 200)}: no tile has a neighbour within {neighbourhood:g} s; "
            "give longer recordings or a wider neighbourhood"
            for index in np.flatnonzero(~with_anchor)
        )
        if not len(self.anchors):
            raise InputError(f"no recording can be used: {self.skipped[0]}")

    def __len__(self) -> int:
        return len(self.anchors)

    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """For each tile the first and one past the last tile of its recording within the neighbourhood."""
        starts, owner = self.tiles.starts, self.tiles.owner
        # One axis for all recordings, spaced so far apart that no neighbourhood reaches across.
        gap = float(starts.max()) + 2 * self.neighbourhood + 1.0
        axis = owner * gap + starts
        slack = 1e-6 + 1e-9 * gap
        low = np.searchsorted(axis, axis - self.neighbourhood - slack)
        high = np.searchsorted(axis, axis + self.neighbourhood + slack, "right")
        return low, high

    def triplet(self, epoch: int, index: int) -> tuple[int, int, int]:
        """Tiles of anchor, neighbour and opposite; ``index`` counts the anchors."""
        anchor = int(self.anchors[index])
        random = np.random.default_rng([self.seed, epoch, index])
        low, high = int(self._low[anchor]), int(self._high[anchor])
        neighbour = low + int(random.integers(high - low - 1))
        neighbour += neighbour >= anchor
        recording = self._opposite(int(self.tiles.owner[anchor]), epoch, random)
        return anchor, neighbour, int(random.integers(self._bounds[recording], self._bounds[recording + 1]))

    def group_numbers(self, tiles: np.ndarray) -> np.ndarray:
        """Numbers of the groups that tiles are of, int64 in the shape of ``tiles``."""
        return np.asarray(self._group[self.tiles.owner[tiles]], dtype=np.int64)

    def _opposite(self, recording: int, epoch: int, random: np.random.Generator) -> int:
        """A recording of another group; each is as likely as any other."""
        first, last = np.searchsorted(self._group[self._by_group], [self._group[recording], self._group[recording] + 1])
        others = len(self._group) - int(last - first)
        if self.opposite_buffer is None:
            drawn = int(random.integers(others))
        else:
            # The fourth number keeps these draws apart from those of the triplets.
            buffer = np.random.default_rng([self.seed, epoch, recording, 1]).integers(others, size=self.opposite_buffer)
            drawn = int(random.choice(buffer))
        return int(self._by_group[drawn if drawn < first else drawn + int(last - first)])


class TripletDataset(Dataset[tuple[Tensor, Tensor]]):
    """Triplets of one epoch, read in batches; set ``epoch`` before each.

    An item is the three tiles (3, channels, ...) and int64 (2,), the numbers of the groups of anchor and opposite.
    """

    def __init__(self, sampler: TripletSampler, source: TileSource, epoch: int = 0) -> None:
        self.sampler = sampler
        self.source = source
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Read the tiles of a batch in one go."""
        triplets = np.array([self.sampler.triplet(self.epoch, int(index)) for index in indices])
        tiles = self.source.read(triplets.reshape(-1).tolist()).unflatten(0, (-1, 3))
        groups = torch.from_numpy(self.sampler.group_numbers(triplets[:, [0, 2]]))
        return list(zip(tiles, groups, strict=True))


@dataclass(frozen=True)
class TripletReport:
    """How hard triplets are for an embedding.

    Attributes:
        total: triplets counted.
        trivial: the opposite is further away than the neighbour by more than the margin: nothing to learn.
        within_margin: the opposite is further away, but by less than the margin ("semi-hard").
        hard: the opposite is as near as the neighbour or nearer.
        share_label: anchor and opposite have the same label; None where there are no labels.
    """

    total: int
    trivial: int
    within_margin: int
    hard: int
    share_label: int | None


def count_triplets(
    embeddings: Tensor, triplets: np.ndarray, margin: float = 1.0, labels: np.ndarray | None = None
) -> TripletReport:
    """Count trivial and hard triplets, and those whose opposite has the anchor's label.

    Args:
        embeddings: (N, D), of the tiles; squared Euclidean distances are judged, as in the loss.
        triplets: int64 (T, 3), rows of ``embeddings``: anchor, neighbour, opposite.
        margin: of the loss.
        labels: (N,), "" where there is none.
    """
    a, n, o = (embeddings[torch.from_numpy(triplets[:, column])] for column in range(3))
    near, far = (a - n).square().sum(1), (a - o).square().sum(1)
    hard, trivial = far <= near, far > near + margin
    shared: int | None = None
    if labels is not None and any(labels):
        mine, others = labels[triplets[:, 0]], labels[triplets[:, 2]]
        shared = int(((mine == others) & (mine != "")).sum())
    counts = int(trivial.sum()), int((~trivial & ~hard).sum()), int(hard.sum())
    return TripletReport(len(triplets), *counts, shared)
