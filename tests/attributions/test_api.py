"""Captum's methods on a model's input, against laws and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from helpers.models import band_energies
from safetensors.numpy import load_file
from torch import nn

import captum_concepts as cc
from captum_concepts.attributions.api import attribute, input_parts
from captum_concepts.attributions.builtin import METHODS
from captum_concepts.cli.app import main
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager, registered

RATE, PATCH = 2000, 0.5


class Net(nn.Module):
    """(B, 1, 8, 5) to 3 logits, or to their softmax."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4 * 6 * 3, 3)
        self.last = nn.Softmax(1) if softmax else nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.head(self.relu(self.conv(inputs)).flatten(1)))


class Bands(nn.Module):
    """Waveforms (B, 1000) to (B, 1, 8, 5) log energies."""

    sample_rate, layout = RATE, "BCFT"

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return band_energies(waves, 8, frames=5).transpose(1, 2)[:, None]


def make_backbone(softmax: bool = False) -> cc.TorchBackbone:
    torch.manual_seed(0)
    return cc.TorchBackbone(Net(softmax), ["relu"], Bands(), ["a", "b", "c"], RATE, patch_seconds=PATCH, name="net")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[cc.Clip]:
    root, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for i in range(4):
        t = np.arange(3 * RATE // 2) / RATE
        sound = 0.3 * np.sin(2 * np.pi * 150 * (i + 1) * t) + 0.05 * rng.normal(size=len(t))
        soundfile.write(root / f"{i}.wav", sound, RATE)
    return [cc.Clip(str(root / f"{i}.wav")) for i in range(4)]


def logits(backbone: cc.TorchBackbone, clip: cc.Clip) -> torch.Tensor:
    module, prepare, _ = input_parts(backbone)
    with torch.no_grad():
        return module(prepare(torch.cat([block.inputs for block in backbone.read(clip)])))


def test_the_methods_come_through_the_hook() -> None:
    found = registered("explainers")
    assert {name for name, entry in found.items() if entry.plugin == "builtin"} == set(METHODS)


@pytest.mark.parametrize("softmax", [False, True])
def test_values_sum_to_the_change_of_the_logit_from_the_real_baselines(clips, softmax: bool) -> None:
    backbone = make_backbone(softmax)
    methods = ["integrated_gradients", "deep_lift_shap", "gradient_shap"]
    found = attribute(backbone, clips[0], clips[1:], "b", methods, steps=300, samples=4000)
    middle = torch.stack([next(iter(backbone.read(clip))).inputs[1] for clip in clips[1:]])
    module, prepare, _ = input_parts(backbone)
    with torch.no_grad():
        base = module(prepare(middle))[:, 1].double().numpy()
    np.testing.assert_allclose(found.baseline_logits, base, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, logits(backbone, clips[0])[:, 1].double().numpy(), rtol=1e-5, atol=1e-6)
    change = found.logits - base.mean()
    for method, tolerance in (("deep_lift_shap", 1e-5), ("integrated_gradients", 5e-3), ("gradient_shap", 0.05)):
        sums = found.values[method].reshape(len(change), -1).sum(1)
        np.testing.assert_allclose(sums, change, atol=tolerance * np.abs(change).max())
        assert found.gap(method) < tolerance * 2


def test_for_a_linear_model_every_method_is_known() -> None:
    torch.manual_seed(1)
    model, inputs, baselines = nn.Linear(6, 2), torch.randn(3, 6), torch.randn(4, 6)
    targets = torch.tensor([0, 1, 1])
    weight = model.weight.detach()[targets]
    wanted = (weight * (inputs - baselines.mean(0))).numpy()
    for method in ("integrated_gradients", "deep_lift_shap"):
        np.testing.assert_allclose(METHODS[method](model, inputs, targets, baselines=baselines), wanted, atol=1e-5)
    np.testing.assert_allclose(METHODS["saliency"](model, inputs, targets), weight.numpy(), atol=1e-7)


def test_gradient_shap_has_a_seed_of_its_own_and_leaves_the_global_ones_alone() -> None:
    torch.manual_seed(2)
    model, inputs, baselines = Net(), torch.randn(2, 1, 8, 5), torch.randn(5, 1, 8, 5)
    targets = torch.tensor([0, 1])

    def values(seed: int) -> bytes:
        return METHODS["gradient_shap"](model, inputs, targets, baselines=baselines, samples=5, seed=seed).tobytes()

    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    first = values(0)
    assert (np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()) == before
    assert values(0) == first != values(1)


def test_the_class_is_explained_by_name_and_by_default_is_what_the_model_says(clips) -> None:
    backbone = make_backbone()
    for clip in clips:
        wanted = "abc"[int(logits(backbone, clip).mean(0).argmax())]
        assert attribute(backbone, clip, clips, methods=["saliency"]).target == wanted


def test_another_clip_has_other_values_and_another_class_too(clips) -> None:
    backbone = make_backbone()
    one, other = (attribute(backbone, clip, clips[2:], "a", ["integrated_gradients"]) for clip in clips[:2])
    again = attribute(backbone, clips[0], clips[2:], "b", ["integrated_gradients"])
    values = [found.values["integrated_gradients"] for found in (one, other, again)]
    assert not np.allclose(values[0], values[1]) and not np.allclose(values[0], values[2])


def test_what_is_saved_says_class_and_baselines(clips, tmp_path: Path) -> None:
    found = attribute(make_backbone(), clips[0], clips[1:], "c", ["saliency", "deep_lift_shap"])
    folder = found.save(tmp_path / "out")
    content = json.loads((folder / "attributions.json").read_text())
    assert content["target"] == "c" and content["baselines"] == [clip.path for clip in clips[1:]]
    assert content["gaps"].keys() == {"deep_lift_shap"}
    arrays = load_file(folder / "attributions.safetensors")
    np.testing.assert_allclose(arrays["values.saliency"], found.values["saliency"], rtol=1e-6)


def test_the_picture_shows_every_method(clips) -> None:
    pytest.importorskip("matplotlib")
    from captum_concepts.report.figures import attribution_figure

    found = attribute(make_backbone(), clips[0], clips[1:], "c", ["saliency", "deep_lift_shap"])
    figure = attribution_figure(found)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert titles == ["model input", "saliency", "deep lift shap"]
    drawn = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(drawn, np.concatenate(list(found.values["deep_lift_shap"][:, 0]), axis=1))


class Twice(nn.Module):
    """One ReLU module used twice, which DeepLIFT cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.one, self.two, self.head = nn.Linear(40, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.two(self.relu(self.one(inputs.flatten(1))))))


def test_failing_method_is_one_line_without_replacement(clips, tmp_path: Path) -> None:
    twice = cc.TorchBackbone(Twice(), ["one"], Bands(), ["a", "b"], RATE, patch_seconds=PATCH)
    black = cc.EmbeddingBackbone(
        lambda waves: waves[:, :4], RATE, PATCH, head=nn.Linear(4, 2), classes=["a", "b"], name="box"
    )
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(2 * RATE), RATE)
    backbone = make_backbone()
    broken = make_backbone()
    with torch.no_grad():
        broken.model.head.weight.fill_(float("nan"))
    cases = [
        (
            lambda: attribute(twice, clips[0], clips, "a", ["deep_lift_shap"]),
            "deep_lift_shap: does not support this model",
        ),
        (lambda: attribute(black, clips[0], clips, "a"), "backbone=box: a black box"),
        (lambda: attribute(backbone, clips[0], clips, "jazz"), "jazz"),
        (lambda: attribute(backbone, clips[0], clips, "a", ["heatmap"]), "heatmap"),
        (lambda: attribute(backbone, clips[0], clips[:1], "a"), "baselines=1 clips: only 1 can be used"),
        (lambda: attribute(backbone, clips[0], [cc.Clip(str(silent))] * 3, "a"), "silent"),
        (lambda: attribute(backbone, silent, clips, "a"), "silent"),
        (lambda: attribute(backbone, clips[0], clips, "a", ["saliency"], sample=3), "options='sample'"),
        (lambda: attribute(broken, clips[0], clips, "a", ["saliency"]), "NaN"),
    ]
    for action, text in cases:
        with pytest.raises(cc.InputError, match=text) as caught:
            action()
        assert "\n" not in str(caught.value)
    with pytest.raises(cc.InputError, match="baselines=none"):
        METHODS["integrated_gradients"](Net(), torch.zeros(1, 1, 8, 5), torch.tensor([0]))


class Plugin:
    @hookimpl
    def captum_concepts_backbones(self):
        return {"net": lambda weights, device: make_backbone()}


@pytest.fixture
def net():
    manager, provider = get_plugin_manager(), Plugin()
    manager.register(provider, name="net-by-hand")
    yield
    manager.unregister(provider)


def run(*given: object) -> object:
    return CliRunner().invoke(main, [str(part) for part in given])


def test_command_writes_values_and_plot_and_names_the_class(clips, net, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    base = ("attribute", clips[0].path, "--backbone", "net", "--baselines", Path(clips[0].path).parent, "--out", out)
    result = run(*base, "--target", "b")
    assert result.exit_code == 0, result.output
    assert "class explained: b; baselines: 4 clips" in result.output
    names = {"attributions.json", "attributions.safetensors", "attributions.png"}
    assert {path.name for path in out.iterdir()} == names


def test_command_names_bad_input_in_one_line(clips, net, tmp_path: Path) -> None:
    base = ("attribute", clips[0].path, "--backbone", "net", "--out", tmp_path / "out", "--no-plot")
    folder = Path(clips[0].path).parent
    for more, text in (
        (("--baselines", tmp_path / "none"), "--baselines"),
        (("--baselines", folder, "--method", "heatmap"), "heatmap"),
        (("--baselines", folder, "--target", "jazz"), "jazz"),
    ):
        result = run(*base, *more)
        assert result.exit_code == 2 and text in result.output and "Traceback" not in result.output
