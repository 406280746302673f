"""Evaluate an embedding: figures, page, clusters and projector files."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_tile2vec.checkpoints import Tile2Vec, weights_digest
from captum_concepts_tile2vec.embedding import embed_tiles, pooled_tiles
from captum_concepts_tile2vec.embedding_analysis import (
    Clusters,
    MapMethod,
    centroid_distances,
    cluster,
    export_projector,
    nearest,
    plane,
    silhouette,
)
from captum_concepts_tile2vec.features import TileFeatures
from captum_concepts_tile2vec.heads import CLUSTERS_FILE, cluster_head, save_clusters
from captum_concepts_tile2vec.page import render_page
from captum_concepts_tile2vec.tiles import Tiles
from captum_concepts_tile2vec.triplets import TripletSampler, count_triplets

logger = logging.getLogger(__name__)

TRIPLETS = 10_000  # counted at most
MAX_DOTS = 4000  # on the map, drawn at random where there are more tiles
MAX_CLUSTERS = 30  # whose neighbours are on the page


def evaluate_embedding(
    model: Tile2Vec,
    tiles: Tiles,
    out: str | os.PathLike[str],
    *,
    k: int | None = None,
    method: MapMethod = "tsne",
    sound: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write embedding.html, figures.json, centroid_distances.csv, clusters.safetensors and projector/ into a folder.

    Args:
        model: the embedding.
        tiles: to evaluate; labels where there are any.
        out: folder.
        k: clusters, see `cluster`.
        method: of the map.
        sound: put the audio of neighbours into the page.
        seed: of triplets, clusters and map.
        progress: told of the tiles.

    Returns:
        The figures: tiles, recordings, silhouette, clusters, purity, adjusted_rand, and how many triplets are trivial,
        within the margin, hard, or share a label; NaN or None where there is nothing to say.

    Raises:
        InputError: see `embed_tiles`, `cluster`; the folder cannot be written to.
    """
    embeddings = embed_tiles(model, tiles, progress=progress)
    if len(tiles) > 1 and not np.ptp(embeddings, axis=0).any():
        logger.warning("all %d tiles have the same embedding: it separates nothing; train another", len(tiles))
    labels = tiles.labels
    clusters = cluster(embeddings, labels, k, seed)
    distances = centroid_distances(embeddings, labels)
    figures: dict[str, Any] = {
        "tiles": len(tiles),
        "recordings": len(tiles.recordings),
        "silhouette": silhouette(embeddings, labels),
        "clusters": len(clusters.centres),
        "purity": clusters.purity,
        "adjusted_rand": clusters.adjusted_rand,
        **_triplets(model, embeddings, tiles, seed),
    }
    neighbours = _neighbours(embeddings, tiles, clusters)
    drawn = np.arange(len(tiles))
    if len(drawn) > MAX_DOTS:
        drawn = np.sort(np.random.default_rng(seed).choice(drawn, MAX_DOTS, replace=False))
    page = render_page(
        tiles,
        plane(embeddings[drawn], method, seed),
        drawn,
        clusters,
        neighbours,
        distances,
        [(name.replace("_", " "), _said(value)) for name, value in figures.items()],
        method=method,
        title=f"{model.settings.architecture} on {model.settings.features}, tiles of {tiles.seconds:g} s",
        sound=sound,
    )
    folder = Path(out)
    names = np.array([tiles.name(index) for index in range(len(tiles))], dtype=object)
    export_projector(folder / "projector", embeddings, labels, names, clusters.assigned)
    try:
        save_clusters(folder / CLUSTERS_FILE, cluster_head(clusters, embeddings), weights_digest(model))
        (folder / "embedding.html").write_text(page, encoding="utf-8")
        distances.to_csv(folder / "centroid_distances.csv", index_label="label")
        text = json.dumps({name: _plain(value) for name, value in figures.items()}, indent=1, allow_nan=False)
        (folder / "figures.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{short_repr(str(out), 200)}: cannot be written to ({error.strerror}); give another folder"
        ) from None
    return figures


def check_triplets(
    tiles: Tiles,
    neighbourhood: float = 5.0,
    margin: float = 1.0,
    seed: int = 1234,
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How hard triplets are on the input of the network: pooled log-mel, standardised, of length one.

    Returns:
        triplets, triplets_trivial, triplets_within_margin, triplets_hard and triplets_sharing_a_label (None without
        labels), of the first 10,000 anchors.

    Raises:
        InputError: see `TripletSampler`.
    """
    sampler = TripletSampler(tiles, neighbourhood, seed=seed)
    rows = pooled_tiles(TileFeatures("logmel", tiles.seconds).to(device), tiles, progress=progress)
    rows = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), 1.0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return _judged(rows, tiles, sampler, margin)


def _triplets(model: Tile2Vec, embeddings: np.ndarray, tiles: Tiles, seed: int) -> dict[str, Any]:
    """How hard triplets are; nothing where the tiles allow none, as those of one recording."""
    neighbourhood, margin = trained_with(model)
    try:
        sampler = TripletSampler(tiles, neighbourhood, seed=seed)
    except InputError:
        return {}
    return _judged(embeddings, tiles, sampler, margin)


def trained_with(model: Tile2Vec) -> tuple[float, float]:
    """Neighbourhood in seconds and margin that an embedding was trained with; untrained the length of a tile and 1."""
    try:
        options = json.loads(model.metadata["training"])["options"]
        told = float(options["neighbourhood"]), float(options["margin"])
    except (KeyError, TypeError, ValueError, RecursionError):
        told = model.settings.seconds, 1.0
    return told


def _judged(rows: np.ndarray, tiles: Tiles, sampler: TripletSampler, margin: float) -> dict[str, Any]:
    drawn = np.array([sampler.triplet(0, index) for index in range(min(len(sampler), TRIPLETS))])
    judged = count_triplets(torch.from_numpy(rows), drawn, margin, tiles.labels)
    return {
        "triplets": judged.total,
        "triplets_trivial": judged.trivial,
        "triplets_within_margin": judged.within_margin,
        "triplets_hard": judged.hard,
        "triplets_sharing_a_label": judged.share_label,
    }


def _neighbours(embeddings: np.ndarray, tiles: Tiles, clusters: Clusters) -> list[tuple[int, np.ndarray]]:
    """The tile nearest to the centre of each cluster, with its nearest tiles of other recordings."""
    centres = clusters.centres[:MAX_CLUSTERS]
    queries = np.array([np.linalg.norm(embeddings - centre, axis=1).argmin() for centre in centres])
    recordings = np.array([recording.path for recording in tiles.recordings], dtype=object)[tiles.owner]
    return list(zip(queries.tolist(), nearest(embeddings, recordings, queries), strict=True))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _said(value: Any) -> str:
    if _plain(value) is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
