"""The classifiers as backbones: reached by name, with layers to watch, and the gradients they really have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_gtzan.checkpoints import save_checkpoint
from captum_concepts_gtzan.concepts import genre_concepts
from captum_concepts_gtzan.dataset import GENRES
from captum_concepts_gtzan.evaluation import load_classifier
from captum_concepts_gtzan.features import COLUMNS, FEATURES, FeatureTable, track_features
from captum_concepts_gtzan.models import build_model
from captum_concepts_gtzan.svm import train_svm

import captum_concepts as cc
from captum_concepts.attributions import input_parts
from captum_concepts.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import reference_networks as reference


def chunks(backbone: Any, count: int = 3) -> torch.Tensor:
    return 0.1 * torch.randn(count, backbone.patch_samples, generator=torch.Generator().manual_seed(2))


def test_the_untrained_cnn_is_reached_by_name() -> None:
    backbone: Any = cc.load_backbone("gtzan-cnn", weights=None, device="cpu")
    assert sum(p.numel() for p in backbone.model.parameters()) == 40124
    assert backbone.classes == GENRES and backbone.layers == ("block4", "block5")
    assert backbone.patch_samples == 641655 and backbone.sample_rate == 22050 and backbone.hop_samples == 641655
    again: Any = cc.load_backbone("gtzan-cnn", device="cpu")
    assert backbone.fingerprint() is not None and backbone.fingerprint() == again.fingerprint()
    assert backbone.fingerprint() != cc.load_backbone("gtzan-cnn", device="cpu", seed=1).fingerprint()


@pytest.mark.parametrize(
    ("name", "layer", "width"),
    [("gtzan-cnn", "block4", 96), ("gtzan-cnn", "dense_relu", 64), ("gtzan-cnn2", "block3", 2048)],
)
def test_layers_are_pooled_over_time(name: str, layer: str, width: int) -> None:
    backbone: Any = cc.load_backbone(name, device="cpu", seconds=3.96)
    found = backbone.activations(chunks(backbone), [layer], "time")[layer]
    maps: list[torch.Tensor] = []
    hook = backbone.model.get_submodule(layer).register_forward_hook(lambda *a: maps.append(a[2]))
    with torch.no_grad():
        backbone.model(chunks(backbone))
    hook.remove()
    expected = maps[0].mean(-1).flatten(1) if maps[0].dim() == 4 else maps[0]
    rows = expected.reshape(3, -1).sort(1).values  # the order of bands and channels is the core's affair
    torch.testing.assert_close(found.sort(1).values, rows)
    assert found.shape == (3, width)


def test_gradients_are_those_of_autograd() -> None:
    backbone: Any = cc.load_backbone("gtzan-cnn", device="cpu", seconds=3.96)
    reference.lively(backbone.model)
    inputs = chunks(backbone)
    found = backbone.gradients(inputs, ["dense_relu"], [0, 7])
    model = backbone.model
    hidden: list[torch.Tensor] = []
    hook = model.dense_relu.register_forward_hook(lambda *a: hidden.append(a[2]))
    logits = model(inputs)
    hook.remove()
    torch.testing.assert_close(found.logits, logits.detach())
    torch.testing.assert_close(found.gradients["dense_relu"][0], model.output.weight[[0, 7]].detach())
    torch.testing.assert_close(found.activations["dense_relu"], hidden[0].detach())


def test_a_weights_file_gives_a_backbone_with_its_classes(tmp_path: Path) -> None:
    model = reference.lively(build_model("gtzan-cnn", seconds=2.0, n_classes=3, channels=2))
    save_checkpoint(tmp_path / "m.safetensors", model, ["a", "b", "c"])
    backbone: Any = cc.load_backbone("gtzan-cnn", weights=str(tmp_path / "m.safetensors"), device="cpu", hop_seconds=1)
    assert backbone.classes == ("a", "b", "c") and backbone.hop_samples == 22050 and backbone.patch_samples == 44100
    assert torch.equal(backbone.gradients(chunks(backbone), ["block5"], [0]).logits, model(chunks(backbone)).detach())
    with pytest.raises(InputError, match="seed=3"):
        cc.load_backbone("gtzan-cnn", weights=str(tmp_path / "m.safetensors"), device="cpu", seed=3)


def test_other_classes_and_options_are_taken_or_refused() -> None:
    backbone: Any = cc.load_backbone("gtzan-cnn2", device="cpu", classes=["polka", "waltz"])
    assert backbone.classes == ("polka", "waltz") and backbone.model.options["n_classes"] == 2
    with pytest.raises(InputError, match="colour"):
        cc.load_backbone("gtzan-cnn", device="cpu", colour="red")
    with pytest.raises(InputError, match="block1"):
        cc.load_backbone("gtzan-cnn", device="cpu", layers=["nowhere"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    for name in ("gtzan-cnn", "gtzan-cnn2"):
        on: dict[str, Any] = {device: cc.load_backbone(name, device=device) for device in ("cpu", "cuda")}
        inputs = chunks(on["cpu"])
        logits = {device: b.gradients(inputs, b.layers, [0]).logits.cpu() for device, b in on.items()}
        torch.testing.assert_close(logits["cuda"], logits["cpu"], atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine on made-up features of three genres, of tracks of 2 s."""
    random = np.random.default_rng(0)
    base = random.uniform(0.5, 2.0, len(COLUMNS))
    values = np.repeat(np.arange(3), 10)[:, None] * 0.3 * np.abs(base) + base * (1 + 0.1 * random.random((30, 58)))
    values[:, 0] *= 2 * 22050 / np.median(values[:, 0])
    labels = tuple(f"genre {place // 10}" for place in range(30))
    table = FeatureTable(tuple(map(str, range(30))), COLUMNS, values, labels)
    path = tmp_path_factory.mktemp("svm") / "svm.safetensors"
    train_svm(table, FEATURES, ({"C": [5], "kernel": ["rbf"], "gamma": [0.01]},), threshold=1.0).model.save(path)
    return path


def test_svm_gradients_agree_with_finite_differences(machine: Path) -> None:
    backbone: Any = cc.load_backbone("gtzan-svm", weights=str(machine), device="cpu")
    assert backbone.classes == ("genre 0", "genre 1", "genre 2") and backbone.patch_samples == 2 * 22050
    assert backbone.fingerprint() is not None
    waveforms = 0.1 * torch.randn(2, 44100, generator=torch.Generator().manual_seed(1))
    found = backbone.gradients(waveforms, ["embedding"], [0, 2])
    model = backbone.machine
    extracted = [track_features(waveform.numpy()) for waveform in waveforms]
    rows = model.standardise(np.array([[row[name] for name in model.features] for row in extracted]))
    torch.testing.assert_close(found.activations["embedding"].double(), rows, atol=1e-4, rtol=1e-5)
    assert found.logits.argmax(1).tolist() == model(rows).argmax(1).tolist()
    black_box = cc.EmbeddingBackbone(
        lambda _: rows.numpy(),
        22050,
        2.0,
        head=lambda points: model(torch.as_tensor(points)).numpy(),
        classes=model.classes,
        step=1e-4,
    )
    differences = black_box.gradients(waveforms, ["embedding"], [0, 2]).gradients["embedding"]
    torch.testing.assert_close(found.gradients["embedding"].float(), differences, atol=1e-5, rtol=1e-3)


def test_files_of_any_length_are_cut_into_pieces_for_the_machine(tmp_path: Path, machine: Path) -> None:
    classifier = load_classifier(machine)
    backbone: Any = cc.load_backbone("gtzan-svm", weights=str(machine), device="cpu")
    random = np.random.default_rng(1)
    for seconds, pieces in ((1.0, 1), (5.0, 2)):
        path = str(tmp_path / f"{seconds}.wav")
        soundfile.write(path, 0.1 * random.standard_normal(round(22050 * seconds)), 22050)
        logits, count = classifier.logits(path)
        patches = torch.cat([block.inputs for block in backbone.read(cc.Clip(path))])
        assert count == len(patches) == pieces
        expected = backbone.gradients(patches, ["embedding"], []).logits.mean(0)
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_a_machine_needs_weights_of_its_own(tmp_path: Path, machine: Path) -> None:
    with pytest.raises(InputError, match="no untrained form"):
        cc.load_backbone("gtzan-svm", weights=None)
    save_checkpoint(tmp_path / "cnn.safetensors", build_model("gtzan-cnn"), GENRES)
    with pytest.raises(InputError, match="not a support vector machine"):
        cc.load_backbone("gtzan-svm", weights=str(tmp_path / "cnn.safetensors"))
    with pytest.raises(InputError, match="'layers': is not one of gtzan-svm"):
        cc.load_backbone("gtzan-svm", weights=str(machine), layers=["x"])


def test_a_small_data_set_is_explained_from_end_to_end(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, genres=("blues", "jazz"), numbers=range(8), seconds=0.6)
    concepts = genre_concepts(root)
    backbone = cc.load_backbone("gtzan-cnn", device="cpu", seconds=0.5, channels=4)
    explainer = cc.ConceptHierarchyExplainer(backbone, layers=["block5"], seed=0)
    explanation = explainer.explain(concepts.clips, concepts, targets=["jazz"])
    assert set(explanation.scores["concept"]) == {"blues", "jazz"}
    assert (explanation.scores["layer"] == "block5").all() and (explanation.scores["target"] == "jazz").all()


def test_the_machine_is_explained_by_concepts(tmp_path: Path, gtzan_like: Callable, machine: Path) -> None:
    concepts = genre_concepts(gtzan_like(tmp_path, genres=("blues", "jazz"), numbers=range(5), seconds=1.0))
    backbone = cc.load_backbone("gtzan-svm", weights=str(machine), device="cpu")
    explanation = cc.ConceptHierarchyExplainer(backbone, seed=0).explain(concepts.clips, concepts, targets=["genre 0"])
    assert set(explanation.scores["concept"]) == {"blues", "jazz"}
    assert (explanation.scores["layer"] == "embedding").all()


@pytest.mark.parametrize("name", ["gtzan-cnn", "gtzan-cnn2"])
def test_attributions_follow_the_networks_from_their_log_mel_on(name: str) -> None:
    backbone = cc.load_backbone(name, weights=None, device="cpu", seconds=3.96)
    waves = 0.1 * torch.randn(2, backbone.patch_samples, generator=torch.Generator().manual_seed(0))
    module, prepare, axes = input_parts(backbone)
    with torch.no_grad():
        log_mel = prepare(waves)
        torch.testing.assert_close(module(log_mel), backbone.model(waves))
    assert axes == "BCFT" and log_mel.shape[:3] == (2, 1, 128)
