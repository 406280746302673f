"""Embeddings and baseline features of all tiles of some recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.types import Progress
from captum_concepts_tile2vec.checkpoints import Tile2Vec
from captum_concepts_tile2vec.features import TileFeatures, pooled
from captum_concepts_tile2vec.tiles import Tiles

BATCH = 64


def embed_tiles(
    model: Tile2Vec, tiles: Tiles, *, batch_size: int = BATCH, progress: Progress | None = None
) -> np.ndarray:
    """Embeddings (N, size) float32 of all tiles, on the model's device.

    Raises:
        InputError: the tiles have another length, rate or number of channels than the model takes.
    """
    require_fit(model, tiles)
    return _rows([model.embed(batch).cpu() for batch in _batches(tiles, batch_size, "embed", progress)])


def embed_side_by_side(
    models: Sequence[Tile2Vec], tiles: Tiles, *, batch_size: int = BATCH, progress: Progress | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """What `embed_tiles` gives for each of several models and `pooled_tiles` for their input, in one pass.

    Args:
        models: of one front-end, on one device.
        tiles: N tiles.
        batch_size: tiles at a time.
        progress: told of the tiles.

    Returns:
        Embeddings (N, size) by each model, and pooled features (N, D), all float32.

    Raises:
        InputError: as `embed_tiles`.
    """
    for model in models:
        require_fit(model, tiles)
    extractor = models[0].features
    device = next(models[0].network.parameters()).device
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for batch in _batches(tiles, batch_size, "embed", progress):
            extracted = extractor(batch.to(device))
            parts.append((*(model.embed(extracted, ready=True).cpu() for model in models), pooled(extracted).cpu()))
    *embeddings, features = (_rows(rows) for rows in zip(*parts, strict=True))
    return embeddings, features


def pooled_tiles(
    features: TileFeatures, tiles: Tiles, *, batch_size: int = BATCH, progress: Progress | None = None
) -> np.ndarray:
    """Input features pooled over time, without a network: means and standard deviations, (N, D) float32.

    The features' device is used.
    """
    device = next(features.buffers(), torch.empty(0)).device
    batches = _batches(tiles, batch_size, "pool features", progress)
    with torch.no_grad():
        return _rows([pooled(features(batch.to(device))).cpu() for batch in batches])


def require_fit(model: Tile2Vec, tiles: Tiles) -> None:
    """Refuse tiles that the model does not take."""
    settings = model.settings
    for what, has, takes, remedy in (
        ("channels", tiles.channels, settings.channels, "give recordings with as many"),
        ("seconds", tiles.seconds, settings.seconds, "cut them as in training"),
        ("Hz", tiles.sample_rate, model.features.sample_rate, "read them as in training"),
    ):
        if has != takes:
            raise InputError(f"tiles have {has} {what} where the model takes {takes}; {remedy}")


def _batches(tiles: Tiles, size: int, stage: str, progress: Progress | None) -> Iterator[Tensor]:
    if progress is not None:
        progress(stage, 0, len(tiles))
    for first in range(0, len(tiles), size):
        indices = range(first, min(first + size, len(tiles)))
        yield torch.stack([tiles.read(index) for index in indices])
        if progress is not None:
            progress(stage, indices.stop, len(tiles))


def _rows(parts: Sequence[Tensor]) -> np.ndarray:
    return np.asarray(torch.cat(list(parts)).numpy())
