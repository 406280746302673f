from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
from captum_concepts_tile2vec.embedding_analysis import (
    centroid_distances,
    cluster,
    export_projector,
    nearest,
    plane,
    silhouette,
)

from captum_concepts.errors import InputError

ROWS = np.array([[0.0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [5, 5]])
LABELS = np.array(["x", "x", "y", "y", "y", ""], dtype=object)


def test_clusters_by_hand():
    found = cluster(ROWS[:5], LABELS[:5], 2)
    assert found.assigned.tolist() == [0, 0, 0, 1, 1]  # the larger one first
    np.testing.assert_allclose(found.centres, [[0, 1], [9, 0.5]])
    assert found.purity == pytest.approx(4 / 5)  # x x of (x x y), y y of (y y)
    # Pairs together in both: xx, yy = 2; in clusters 3 + 1, in labels 1 + 3, of 10: (2 - 1.6) / (4 - 1.6).
    assert found.adjusted_rand == pytest.approx(0.4 / 2.4)


def test_clusters_without_labels():
    found = cluster(ROWS, np.full(6, "", dtype=object))
    assert len(found.centres) == 6
    assert np.isnan(found.purity) and np.isnan(found.adjusted_rand)
    assert len(cluster(ROWS, LABELS).centres) == 2
    with pytest.raises(InputError, match="k=7: give a number between 1 and 6"):
        cluster(ROWS, LABELS, 7)


def test_clusters_are_not_judged_by_a_single_label():
    one = np.array(["x"] * 5 + [""], dtype=object)
    found = cluster(ROWS, one)
    assert len(found.centres) == 6  # not one cluster, which would be "right" whatever the embedding is
    assert np.isnan(found.purity) and np.isnan(found.adjusted_rand)
    assert np.isnan(cluster(ROWS, one, 1).adjusted_rand)


def test_silhouette_by_hand():
    rows, labels = np.array([[0.0], [1], [10]]), np.array(["x", "x", "y"], dtype=object)
    assert silhouette(rows, labels) == pytest.approx((0.9 + 8 / 9 + 0) / 3)  # a lone row counts 0
    assert np.isnan(silhouette(rows, np.array(["x", "x", ""], dtype=object)))
    assert np.isnan(silhouette(rows, np.array(["x", "y", "z"], dtype=object)))


def test_centroid_distances_by_hand():
    table = centroid_distances(ROWS, LABELS)
    assert table.index.tolist() == table.columns.tolist() == ["x", "y"]
    np.testing.assert_allclose(table.to_numpy(), [[0, np.hypot(6, 0.5)], [np.hypot(6, 0.5), 0]])
    assert centroid_distances(ROWS, np.full(6, "", dtype=object)).empty


def test_nearest_are_of_other_recordings_and_each_of_another():
    rows = np.array([[0.0], [1], [2], [3], [4], [50]])
    recordings = np.array(["a", "a", "b", "b", "c", "d"], dtype=object)
    found = nearest(rows, recordings, np.array([0, 4]), count=2)
    assert [row.tolist() for row in found] == [[2, 4], [3, 1]]
    assert [row.tolist() for row in nearest(rows, recordings, np.array([0]), count=9)] == [[2, 4, 5]]


def test_projector_files(tmp_path):
    labels = np.array(["x\ty", "<b>", "é\n"], dtype=object)
    names = np.array(["one\r", "two", "\x1b[31m"], dtype=object)
    export_projector(tmp_path / "p", np.array([[1.5, -2], [0, 1e-9], [3, 4]]), labels, names, np.array([0, 1, 0]))
    tensors = np.loadtxt(tmp_path / "p" / "tensors.tsv", delimiter="\t")
    np.testing.assert_allclose(tensors, [[1.5, -2], [0, 1e-9], [3, 4]])
    with open(tmp_path / "p" / "metadata.tsv", encoding="utf-8", newline="") as file:
        table = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert table == [
        ["label", "name", "cluster"],
        ["x\\ty", "one\\r", "cluster 1"],
        ["<b>", "two", "cluster 2"],
        ["é\\n", "\\x1b[31m", "cluster 1"],
    ]
    config = (tmp_path / "p" / "projector_config.pbtxt").read_text()
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    read = text_format.Parse(config, ProjectorConfig())
    assert [(e.tensor_path, e.metadata_path) for e in read.embeddings] == [("tensors.tsv", "metadata.tsv")]


def test_projector_cannot_be_written(tmp_path):
    (tmp_path / "p").write_text("a file")
    with pytest.raises(InputError, match="cannot be written to"):
        export_projector(tmp_path / "p", ROWS, LABELS, LABELS, np.zeros(6, int))


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 40])
def test_maps_of_any_size(method, count):
    rows = np.random.default_rng(0).standard_normal((count, 4))
    places = plane(rows, method)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    np.testing.assert_array_equal(places, plane(rows, method))


@pytest.mark.parametrize("method", ["tsne", "umap", "pca"])
def test_equal_embeddings_are_one_point(method):
    # t-SNE would end the whole process.
    np.testing.assert_array_equal(plane(np.full((20, 4), 0.5, np.float32), method), np.zeros((20, 2)))


def test_maps_of_a_single_number():
    rows = np.random.default_rng(0).standard_normal((20, 1)).astype(np.float32)
    assert plane(rows, "tsne").shape == plane(rows, "pca").shape == (20, 2)


@pytest.mark.slow  # umap-learn compiles itself
def test_umap_keeps_what_is_near_near():
    pytest.importorskip("umap")
    random = np.random.default_rng(0)
    rows = np.concatenate([random.standard_normal((40, 4)), 30 + random.standard_normal((40, 4))])
    places = plane(rows, "umap")
    assert silhouette(places, np.repeat(["a", "b"], 40).astype(object)) > 0.7
    np.testing.assert_array_equal(places, plane(rows, "umap"))
    assert np.isfinite(plane(rows[:6], "umap")).all()


def test_without_umap(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(
        InputError, match=r"method='umap': needs umap, which is not installed; pip install '.*\[umap\]'"
    ):
        plane(ROWS, "umap")


def test_unknown_map():
    with pytest.raises(InputError, match="map='isomap'"):
        plane(ROWS, "isomap")
