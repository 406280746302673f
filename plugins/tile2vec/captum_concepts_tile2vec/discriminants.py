"""Fisher's discriminants of recordings: an embedding in closed form, from the proximity that triplets learn from."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.seeding import generator, seeded
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_tile2vec.checkpoints import Settings, Tile2Vec
from captum_concepts_tile2vec.features import CachedFeatures
from captum_concepts_tile2vec.tiles import Tiles

_BLOCK = 64  # tiles read at a time


def fit_discriminants(
    tiles: Tiles,
    settings: Settings,
    cache: str | os.PathLike[str],
    *,
    shrinkage: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tile2Vec:
    """The linear embedding that separates recordings best for how much each varies within itself; no labels are used.

    Triplets compare single tiles; linear discriminant analysis (Fisher 1936) compares the scatter of all tiles about
    their recording with the scatter of the recordings, in one step and without random numbers. The directions
    are those of the greatest ratio; each is weighted by the share of its variance that is between recordings. They are
    turned at random, so that who standardises the embedding does not undo the weights.

    Args:
        tiles: of more groups than the embedding has numbers.
        settings: an architecture of statistics, batch normalisation and one layer: StatisticsNet or ContrastNet.
        cache: folder where the statistics are kept.
        shrinkage: added to the diagonal of the scatter within recordings, in units of its mean, as a set of recordings
            says little about most directions.
        seed: of the turn.
        progress: told of the tiles.

    Raises:
        InputError: another architecture, too few recordings, or a shrinkage that is not positive.
    """
    if not 0 < shrinkage < float("inf"):
        raise InputError(f"shrinkage={short_repr(shrinkage)}: give a positive number")
    with seeded(seed, "weights"):  # none of these remain
        network = settings.make_network()
    fixed = network.take_fixed()
    if fixed is None:
        raise InputError(f"architecture={short_repr(settings.architecture)}: give StatisticsNet or ContrastNet")
    names, groups = np.unique(tiles.groups.astype(str), return_inverse=True)
    if len(names) <= settings.size:
        raise InputError(f"{len(names)} recordings or sessions for an embedding of {settings.size} numbers: give more")
    kept = CachedFeatures(tiles, settings.make_features(), cache, progress, fixed)
    blocks = [kept.read(range(first, min(first + _BLOCK, len(tiles)))) for first in range(0, len(tiles), _BLOCK)]
    rows = torch.cat(blocks).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    norm = network.encoder.get_submodule("1")
    norm.load_state_dict({**norm.state_dict(), "running_mean": mean, "running_var": variance})
    with torch.no_grad():
        rows = (rows - mean) / (variance + 1e-5).sqrt()  # as batch normalisation does
        directions = _directions(rows, torch.from_numpy(groups), shrinkage, settings.size)
        turn = torch.linalg.qr(
            torch.randn(settings.size, settings.size, dtype=torch.double, generator=generator(seed, "turn"))
        )[0]
        network.embedding.weight.copy_(turn @ directions)
        network.embedding.bias.zero_()
    network.encoder.set_submodule("0", fixed)
    return Tile2Vec(settings, settings.make_features(), network.eval(), {})


def _directions(rows: Tensor, groups: Tensor, shrinkage: float, size: int) -> Tensor:
    """Weighted discriminants (size, D) of rows (N, D) that are of groups (N,)."""
    counts = torch.bincount(groups)[:, None]
    means = torch.zeros(len(counts), rows.shape[1], dtype=rows.dtype).index_add_(0, groups, rows) / counts
    apart = rows - means[groups]
    within = apart.T @ apart / len(rows)
    within += shrinkage * within.diagonal().mean() * torch.eye(len(within), dtype=rows.dtype)
    root = torch.linalg.cholesky(within)
    between = torch.linalg.solve_triangular(root, (means - means.mean(0)).T, upper=False) / len(counts) ** 0.5
    left, values, _ = torch.linalg.svd(between, full_matrices=False)
    ratios = values[:size].square()
    # Vᵀ with V = root⁻ᵀ left: the rows are uncorrelated within recordings, with variance 1.
    directions = torch.linalg.solve_triangular(root.T, left[:, :size], upper=True).T
    return (ratios / (ratios + 1)).sqrt()[:, None] * directions
