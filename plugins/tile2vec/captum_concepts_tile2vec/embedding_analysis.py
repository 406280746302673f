"""Descriptions of an embedding: silhouette, centroids, clusters, neighbours, projector, map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

MapMethod = Literal["umap", "tsne", "pca"]

SILHOUETTE_ROWS = 10_000  # its time grows with the square of their number

_PROJECTOR = """embeddings {
  tensor_name: "tile2vec"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
}
"""


@dataclass(frozen=True)
class Clusters:
    """A partition by k-means.

    Attributes:
        assigned: int64 (N,), the cluster of each row, numbered by size, the largest 0.
        centres: float (k, D), in the same order.
        purity: share of labelled rows that are of their cluster's most frequent label; NaN below two labels.
        adjusted_rand: adjusted Rand index against the labels; NaN below two labels.
    """

    assigned: np.ndarray
    centres: np.ndarray
    purity: float
    adjusted_rand: float


def cluster_name(number: int) -> str:
    """What a cluster is called wherever it is shown: "cluster 1" is the largest, number 0."""
    return f"cluster {number + 1}"


def cluster(embeddings: np.ndarray, labels: np.ndarray, k: int | None = None, seed: int = 0) -> Clusters:
    """k-means (10 starts) and how well it finds the labels again.

    Args:
        embeddings: float (N, D).
        labels: (N,), "" where there is none; those rows are clustered but not judged.
        k: clusters; by default as many as there are labels, or 8 where there are fewer than two.
        seed: of the starts.

    Raises:
        InputError: k is out of range.
    """
    known = labels != ""
    distinct = len(set(labels[known]))
    if k is None:
        k = min(distinct if distinct > 1 else 8, len(embeddings))
    if not 1 <= k <= len(embeddings):
        raise InputError(f"k={short_repr(k)}: give a number between 1 and {len(embeddings)}, the number of tiles")
    fitted = KMeans(k, n_init=10, random_state=seed % 2**32).fit(embeddings)
    order = np.argsort(-np.bincount(fitted.labels_, minlength=k), kind="stable")
    assigned = np.argsort(order)[fitted.labels_].astype(np.int64)
    purity = rand = float("nan")
    if distinct > 1:
        counts = pd.crosstab(assigned[known], labels[known].astype(str)).to_numpy()
        purity = float(counts.max(axis=1).sum() / counts.sum())
        rand = float(adjusted_rand_score(labels[known].astype(str), assigned[known]))
    return Clusters(assigned, fitted.cluster_centers_[order], purity, rand)


def silhouette(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Euclidean) of the labelled rows, of 10,000 of them drawn at random where there are more.

    NaN unless there are 2 labels and fewer labels than rows.
    """
    known = labels != ""
    names = labels[known].astype(str)
    if not 2 <= len(set(names)) < len(names):
        return float("nan")
    most = SILHOUETTE_ROWS if len(names) > SILHOUETTE_ROWS else None
    return float(silhouette_score(embeddings[known], names, sample_size=most, random_state=0))


def centroid_distances(embeddings: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Euclidean distances between the means of the labels' rows, a square table with the labels on both sides."""
    names = sorted(set(labels[labels != ""].astype(str)))
    if not names:
        return pd.DataFrame()
    means = np.stack([embeddings[labels == name].mean(0) for name in names])
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)
    return pd.DataFrame(distances, index=names, columns=names)


def nearest(embeddings: np.ndarray, recordings: np.ndarray, queries: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """The nearest rows of *other* recordings to each query row.

    Args:
        embeddings: float (N, D).
        recordings: (N,), the recording of each row.
        queries: int64 (Q,), rows.
        count: neighbours, each of another recording.

    Returns:
        For each query int64 (count,) rows, nearest first; fewer where there are not as many recordings.
    """
    search = NearestNeighbors(n_neighbors=len(embeddings)).fit(embeddings)
    found = []
    for query in queries:
        order = search.kneighbors(embeddings[[query]], return_distance=False)[0]
        foreign = order[recordings[order] != recordings[query]]
        _, first = np.unique(recordings[foreign].astype(str), return_index=True)
        found.append(foreign[np.sort(first)][:count])
    return found


def export_projector(
    folder: str | Path, embeddings: np.ndarray, labels: np.ndarray, names: np.ndarray, clusters: np.ndarray
) -> None:
    """Write tensors.tsv, metadata.tsv and projector_config.pbtxt: `tensorboard --logdir FOLDER` shows them.

    Labels and names may hold anything; what would break a row or a column is written as an escape.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = ("\t".join(f"{value:.7g}" for value in row) for row in embeddings)
        (folder / "tensors.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        table = ["label\tname\tcluster"]
        table += [
            f"{_cell(label)}\t{_cell(name)}\t{cluster_name(number)}"
            for label, name, number in zip(labels, names, clusters, strict=True)
        ]
        (folder / "metadata.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
        (folder / "projector_config.pbtxt").write_text(_PROJECTOR, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{short_repr(str(folder), 200)}: cannot be written to ({error.strerror}); give another folder"
        ) from None


def _cell(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def plane(embeddings: np.ndarray, method: MapMethod = "tsne", seed: int = 0) -> np.ndarray:
    """Rows on a plane, float64 (N, 2), for a picture; distances in it mean little.

    Args:
        embeddings: float (N, D).
        method: "tsne", "umap" (needs umap-learn, which takes a while to compile when it is first used), or "pca";
            fewer than 5 rows are always drawn by "pca", and rows that are all the same on one point.
        seed: of the first two.

    Raises:
        InputError: unknown method, or umap-learn is missing.
    """
    if method not in ("umap", "tsne", "pca"):
        raise InputError(f"map={short_repr(method)}: give tsne, umap or pca")
    count = len(embeddings)
    components = _components(embeddings)
    spread = components[:, 0].std()
    if count < 5 or method == "pca" or not spread:  # the others need neighbours, and t-SNE crashes without a spread
        return components
    if method == "tsne":
        start = (1e-4 / spread * components).astype(np.float32)  # as init="pca" has it, for embeddings of any size
        tsne = TSNE(2, perplexity=min(30.0, (count - 1) / 3), init=start, random_state=seed % 2**32)
        return np.asarray(tsne.fit_transform(embeddings), dtype=np.float64)
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise InputError(
            f"method='umap': needs {error.name}, which is not installed; pip install "
            "'captum-concepts-tile2vec[umap]', or give tsne"
        ) from None
    start = "spectral" if count > 15 else "random"  # too few rows have too few eigenvectors
    umap = UMAP(n_neighbors=min(15, count - 1), init=start, random_state=seed % 2**32, n_jobs=1)
    return np.asarray(umap.fit_transform(embeddings), dtype=np.float64)


def _components(rows: np.ndarray) -> np.ndarray:
    """The first two principal components, float64 (N, 2); zeros where there are fewer."""
    if not np.ptp(rows, axis=0).any():
        return np.zeros((len(rows), 2))
    found = PCA(min(2, *rows.shape)).fit_transform(rows.astype(np.float64))
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
