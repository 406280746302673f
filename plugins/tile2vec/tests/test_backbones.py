from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_tile2vec.backbones import ENCODER_LAYERS, Tile2VecBackbone, tile2vec
from captum_concepts_tile2vec.checkpoints import Settings, Tile2Vec, save_tile2vec, untrained, weights_digest
from captum_concepts_tile2vec.data import folder_recordings
from captum_concepts_tile2vec.embedding import embed_tiles
from captum_concepts_tile2vec.embedding_analysis import cluster
from captum_concepts_tile2vec.heads import cluster_head, load_head, save_clusters
from captum_concepts_tile2vec.models import BUILDERS
from captum_concepts_tile2vec.tiles import find_tiles
from safetensors.torch import save_file
from scipy.special import softmax
from scipy.stats import multivariate_normal

import captum_concepts as cc
from captum_concepts.audio import Clip
from captum_concepts.cli import main
from captum_concepts.errors import InputError

SMALL = Settings("ConvNet1D", size=6, features="mfcc", seconds=0.5)


@pytest.fixture
def model() -> Tile2Vec:
    return untrained(SMALL, seed=3)


@pytest.fixture
def weights(model, tmp_path) -> Path:
    save_tile2vec(tmp_path / "model.safetensors", model)
    return tmp_path / "model.safetensors"


@pytest.fixture
def clustered(model, weights, write_folder) -> tuple[Path, np.ndarray]:
    """Recordings, and their embeddings, whose clusters lie beside the weights."""
    root = write_folder(per_class=4)
    tiles = find_tiles(folder_recordings(root), 0.5)
    rows = embed_tiles(model, tiles)
    head = cluster_head(cluster(rows, tiles.labels, 3), rows)
    save_clusters(weights.parent / "clusters.safetensors", head, weights_digest(model))
    return root, rows


def extracted(backbone: cc.Backbone, path: Path) -> torch.Tensor:
    return torch.cat([patches.inputs for patches in backbone.read(Clip(str(path)))])


def test_patches_and_embedding_are_those_of_the_training(model, weights, write_folder):
    root = write_folder(per_class=1, rate=22_050)
    backbone = cc.load_backbone("tile2vec", weights=str(weights))
    assert list(backbone.classes) == [] and backbone.fingerprint()
    for recording in folder_recordings(root):
        found = backbone.activations(extracted(backbone, recording.path), ["embedding"], "time")["embedding"]
        tiles = find_tiles([recording], 0.5)
        # Tiles are resampled one by one, a clip's patches together: only their rims differ.
        assert np.allclose(found, embed_tiles(model, tiles), atol=2e-3)
        assert np.allclose(found.norm(dim=1), 1, atol=1e-6)


def test_the_layers_of_every_architecture_are_stated():
    assert set(ENCODER_LAYERS) == set(BUILDERS)


# The deeper ResNets have the stages of these two.
@pytest.mark.parametrize(
    "architecture", [name for name in BUILDERS if name not in ("ResNet34", "ResNet101", "ResNet152")]
)
def test_every_architecture_has_its_layers(architecture):
    backbone = Tile2VecBackbone(untrained(Settings(architecture, size=4, seconds=0.7), 0), device="cpu")
    found = backbone.activations(torch.randn(2, 11_200) / 10, backbone.layers, "time")
    assert len(found) == len(ENCODER_LAYERS[architecture]) + 1
    assert found["embedding"].shape == (2, 4)
    assert all(value.ndim == 2 and value.isfinite().all() and value.std() > 0 for value in found.values())


def test_memberships_are_those_of_equal_gaussians():
    random = np.random.default_rng(0)
    rows = np.concatenate([centre + 0.3 * random.standard_normal((40, 3)) for centre in np.eye(3)]).astype(np.float32)
    clusters = cluster(rows, np.full(120, "", dtype=object), 3)
    head = cluster_head(clusters, rows)
    logits = head.module(torch.from_numpy(rows)).numpy()
    variance = np.mean((rows - clusters.centres[clusters.assigned]) ** 2)
    likely = np.stack([multivariate_normal(centre, variance).pdf(rows) for centre in clusters.centres], 1)
    assert np.allclose(softmax(logits, 1), likely / likely.sum(1, keepdims=True), atol=1e-5)
    assert np.array_equal(logits.argmax(1), clusters.assigned)
    assert head.classes == ("cluster 1", "cluster 2", "cluster 3")


def test_gradients_of_a_cluster_are_its_finite_differences(weights, clustered):
    root, _ = clustered
    backbone = cc.load_backbone("tile2vec", weights=str(weights), head="clusters", device="cpu")
    assert list(backbone.classes) == ["cluster 1", "cluster 2", "cluster 3"]
    inputs = extracted(backbone, root / "cooking" / "0.wav")
    found = backbone.gradients(inputs, ["embedding"], [0, 2], "time")
    head, at = backbone.model.head.double(), found.activations["embedding"].double()
    assert torch.allclose(found.logits.double(), head(at), atol=1e-4)
    for dimension in range(6):
        step = 1e-5 * torch.eye(6, dtype=torch.float64)[dimension]
        slope = (head(at + step) - head(at - step))[:, [0, 2]] / 2e-5
        assert torch.allclose(found.gradients["embedding"][..., dimension].double(), slope, rtol=1e-3, atol=1e-3)


def test_all_channels_are_heard(tmp_path, dcase):
    model = untrained(Settings("ConvNet1D", channels=4, size=6, features="mfcc", seconds=0.5), seed=1)
    backbone = Tile2VecBackbone(model, device="cpu")
    path = next(iter(sorted((dcase / "audio").glob("*.wav"))))
    found = backbone.activations(extracted(backbone, path), ["embedding"], "time")["embedding"]
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0].T)
    tiles = samples.unfold(1, 8000, 8000).movedim(1, 0)
    assert torch.allclose(found, model.embed(tiles), atol=1e-5)
    soundfile.write(tmp_path / "two.wav", samples[:2].T.numpy(), 16_000)
    with pytest.raises(InputError, match="has 2 channels where the embedding takes 4"):
        extracted(backbone, tmp_path / "two.wav")


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments], prog_name="captum-concepts")
    return int(ended.value.code or 0)


@pytest.mark.parametrize("head", ["clusters", "classifier.safetensors", None])
def test_explain_on_the_command_line(head, weights, write_folder, tmp_path, capsys):
    root = write_folder(per_class=6, seconds=1.0)
    data = ("--model", weights, "--data", root, "--device", "cpu", "-q")
    options: list[object] = []
    if head == "clusters":
        done = call("tile2vec", "evaluate", *data, "--out", tmp_path, "--part", "all", "--map", "pca", "--no-sound")
        options = ["--option", "head=clusters"]
    elif head:
        done = call("tile2vec", "classify", *data, "--out", tmp_path, "--folds", "3")
        options = ["--option", f"head={tmp_path / head}"]
    if head:
        assert done == 0
        options += ["--clips", root, "--target", "cluster 2" if head == "clusters" else "cooking"]
    out = tmp_path / "explained"
    asked = ("--backbone", "tile2vec", "--weights", weights, "--concepts", root, "--layer", "embedding")
    few = ("--device", "cpu", "--out", out, "--nulls", "99", "--no-report", "--no-store", "-q")
    code = call("explain", *asked, *options, *few)
    assert code == 0, capsys.readouterr().err
    result = cc.Explanation.load(out)
    assert set(result.hierarchies) == {"embedding"}
    if head:
        assert set(result.scores["target"]) == {options[-1]}
    else:
        assert result.scores.empty


def test_what_is_not_an_embedding_or_its_head(model, weights, clustered, tmp_path):
    with pytest.raises(InputError, match="tile2vec needs weights"):
        tile2vec(None)
    with pytest.raises(InputError, match="there is no such file"):
        tile2vec(tmp_path / "nothing.safetensors")
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="metadata does not describe an embedding"):
        tile2vec(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="layer9"):
        tile2vec(weights, layers=["layer9"])
    with pytest.raises(InputError, match=r"there is no such head; give head=FILE, a clusters\.safetensors of"):
        tile2vec(weights, head=tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="neither a classifier nor clusters"):
        tile2vec(weights, head=weights)
    save_tile2vec(tmp_path / "other.safetensors", untrained(SMALL, seed=4))
    with pytest.raises(InputError, match="belongs to another embedding"):
        tile2vec(tmp_path / "other.safetensors", head="clusters")


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"centres": torch.zeros(2, 6)}, {}),
        ({"centres": torch.zeros(0, 6), "temperature": torch.ones(1)}, {}),
        ({"centres": torch.zeros(2, 6), "temperature": torch.zeros(1)}, {}),
        ({"centres": torch.full((2, 6), float("nan")), "temperature": torch.ones(1)}, {}),
        ({"centres": torch.zeros(6), "temperature": torch.ones(1)}, {}),
        ({"0.weight": torch.zeros(2, 6), "0.bias": torch.zeros(2)}, {}),
        ({"0.weight": torch.zeros(2, 6), "0.bias": torch.zeros(2)}, {"classes": '["a", "a"]'}),
        ({"0.weight": torch.zeros(2, 6), "0.bias": torch.zeros(2)}, {"classes": "{not json"}),
        ({"0.weight": torch.zeros(2, 6), "0.bias": torch.zeros(3)}, {"classes": '["a", "b"]'}),
        ({"0.weight": torch.zeros(6), "0.bias": torch.zeros(2)}, {"classes": '["a", "b"]'}),
        ({"0.weight": torch.full((2, 6), float("nan")), "0.bias": torch.zeros(2)}, {"classes": '["a", "b"]'}),
        (
            {
                f"{place}.{kind}": torch.zeros(*size)
                for place, kind, size in (
                    (0, "weight", (5, 6)),
                    (0, "bias", (5,)),
                    (2, "weight", (2, 4)),
                    (2, "bias", (2,)),
                )
            },
            {"classes": '["a", "b"]'},
        ),
    ],
)
def test_hostile_heads_are_refused(model, tensors, metadata, tmp_path):
    metadata = {**metadata, "embedding": weights_digest(model)}
    save_file(tensors, tmp_path / "head.safetensors", metadata=metadata)
    with pytest.raises(InputError, match="holds neither a classifier nor clusters"):
        load_head(tmp_path / "head.safetensors", model)


def test_a_head_keeps_its_names(model, tmp_path):
    tensors = {"0.weight": torch.eye(3, 6), "0.bias": torch.arange(3.0)}
    metadata = {"classes": json.dumps(["a", "b", "c"]), "embedding": weights_digest(model)}
    save_file(tensors, tmp_path / "head.safetensors", metadata=metadata)
    head = load_head(tmp_path / "head.safetensors", model)
    assert head.classes == ("a", "b", "c")
    assert torch.equal(head.module(torch.ones(1, 6)), torch.tensor([[1.0, 2.0, 3.0]]))
