"""One track heard closely, against the model asked patch by patch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from torch import nn

import captum_concepts as cc
from captum_concepts.backbones.inference import predicted_class
from captum_concepts.cli.app import main
from captum_concepts.explanation.timeline import add_timelines, check_model, extract_timelines
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager

RATE, PATCH = 4000, 0.5
HERTZ = {"low": 600, "high": 1500}


class Ear(nn.Module):
    """Mean energies of 16 bands; "deep" listens to the low ones, "shrill" to the high ones, both a little curved."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.Identity()
        self.head = nn.Linear(16, 2)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, 2:7] = 1.0
            self.head.weight[1, 9:14] = 1.0
            self.head.bias.zero_()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(waveform.unflatten(1, (10, 200))).abs()[:, :, :96]
        bands = self.bands(torch.log1p(spectrum.unflatten(2, (16, 6)).mean((1, 3))))
        return self.head(bands).square() / 4 + self.head(bands)


def tone(kind: str | None, rng: np.random.Generator, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    sound = 0.02 * rng.normal(size=len(t))
    return sound if kind is None else sound + 0.4 * np.sin(2 * np.pi * HERTZ[kind] * rng.uniform(0.95, 1.05) * t)


def make_backbone(**options: object) -> cc.TorchBackbone:
    return cc.TorchBackbone(
        Ear(), ["bands"], classes=["deep", "shrill"], sample_rate=RATE, patch_seconds=PATCH, name="ear", **options
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Concepts low and high, clips, and a track that is noise, low (2 to 3 s), noise, high (5 to 6.2 s), noise."""
    root, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for name in (*HERTZ, "random"):
        (root / "concepts" / name).mkdir(parents=True)
        for i in range(10):
            sound = tone(None if name == "random" else name, rng, PATCH)
            soundfile.write(root / "concepts" / name / f"{i}.wav", sound, RATE)
    (root / "clips").mkdir()
    for i in range(4):
        soundfile.write(root / "clips" / f"{i}.wav", tone(("low", "high")[i % 2], rng, 1.0), RATE)
    parts = [(None, 2.0), ("low", 1.0), (None, 2.0), ("high", 1.2), (None, 1.0)]
    soundfile.write(root / "track.wav", np.concatenate([tone(kind, rng, seconds) for kind, seconds in parts]), RATE)
    backbone = make_backbone()
    explainer = cc.ConceptHierarchyExplainer(backbone, n_nulls=199, bootstrap=100)
    explanation = explainer.explain(root / "clips", cc.ConceptSet.from_folders(root / "concepts"))
    return SimpleNamespace(root=root, backbone=backbone, explanation=explanation, track=root / "track.wav")


def test_values_are_those_of_the_model_asked_patch_by_patch(world) -> None:
    found = extract_timelines(world.explanation, world.backbone, world.track, ["deep", "shrill"], hop=0.1)
    assert [(line.layer, line.target) for line in found] == [("bands", "deep"), ("bands", "shrill")]
    samples, _ = soundfile.read(world.track, dtype="float32")
    starts = np.arange(0, len(samples) - 2000 + 1, 400)
    bank, model = world.explanation.banks["bands"], world.backbone.model
    waves = torch.from_numpy(np.stack([samples[s : s + 2000] for s in starts]))
    spectrum = torch.fft.rfft(waves.unflatten(1, (10, 200))).abs()[:, :, :96]
    f = torch.log1p(spectrum.unflatten(2, (16, 6)).mean((1, 3))).requires_grad_(True)
    logits = model.head(f).square() / 4 + model.head(f)
    for target, line in enumerate(found):
        (gradient,) = torch.autograd.grad(logits[:, target].sum(), f, retain_graph=True)
        np.testing.assert_allclose(line.starts, starts / RATE, atol=1e-9)
        np.testing.assert_allclose(line.ends, starts / RATE + PATCH, atol=1e-9)
        np.testing.assert_allclose(line.sensitivity, (gradient @ bank.directions.T).numpy(), rtol=1e-4, atol=1e-5)
        logit = bank.scales * (f.detach() @ bank.directions.T + bank.biases)
        np.testing.assert_allclose(line.presence, (1 / (1 + np.exp(-logit.numpy()))), rtol=1e-3, atol=1e-5)


def test_presence_is_high_where_the_concept_sounds_and_low_elsewhere(world) -> None:
    line = extract_timelines(world.explanation, world.backbone, world.track, "deep", hop=0.1)[0]
    names = list(world.explanation.banks["bands"].names)
    for name, (begin, end) in {"low": (2.0, 3.0), "high": (5.0, 6.2)}.items():
        presence = line.presence[:, names.index(name)]
        inside = (line.starts >= begin) & (line.ends <= end)
        outside = (line.starts >= end) | (line.ends <= begin)
        assert inside.any() and presence[inside].min() > 0.5 > presence[outside].max()


def test_the_default_target_is_what_the_model_says_of_the_track(world, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for kind, wanted in (("low", "deep"), ("high", "shrill")):
        path = tmp_path / f"{kind}.wav"
        soundfile.write(path, tone(kind, rng, 2.0), RATE)
        assert predicted_class(world.backbone, cc.Clip(str(path)), ["bands"]) == wanted
        assert {line.target for line in extract_timelines(world.explanation, world.backbone, path)} == {wanted}


def test_a_hop_of_one_patch_gives_the_patches_of_the_explained_pass(world) -> None:
    clip = world.explanation.timelines[0].clip
    (line,) = extract_timelines(world.explanation, world.backbone, clip, "deep", hop=PATCH)
    same = next(old for old in world.explanation.timelines if old.clip == clip and old.target == "deep")
    np.testing.assert_allclose(line.sensitivity, same.sensitivity, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(line.presence, same.presence, rtol=1e-5, atol=1e-6)
    assert world.backbone.hop_samples == PATCH * RATE  # the one given is left as it was


def test_it_is_kept_saved_and_shown_first(world, tmp_path: Path) -> None:
    world.explanation.save(tmp_path / "out")
    explanation = cc.Explanation.load(tmp_path / "out")
    before = len(explanation.timelines)
    found = extract_timelines(explanation, world.backbone, world.track, "deep", hop=0.1)
    for _ in range(2):  # the second replaces the first
        add_timelines(explanation, found)
        assert len(explanation.timelines) == before + 1
    explanation.save(tmp_path / "out")
    again = cc.Explanation.load(tmp_path / "out").timelines[0]
    np.testing.assert_array_equal(again.sensitivity, found[0].sensitivity)
    np.testing.assert_array_equal(again.presence, found[0].presence)
    assert again.close and again.clip == found[0].clip


@pytest.mark.parametrize("hop", [0.0, -1.0, float("nan"), 0.6, 1e-9])
def test_a_hop_out_of_range_is_refused(world, hop: float) -> None:
    with pytest.raises(cc.InputError, match=r"hop=.*at most the 0\.50 s of a patch"):
        world.backbone.with_hop(hop)


def test_what_cannot_be_heard_is_said_in_one_line(world, tmp_path: Path) -> None:
    explanation, backbone = world.explanation, world.backbone
    other = make_backbone()
    with torch.no_grad():
        other.model.head.weight.add_(0.1)
    silent, short = tmp_path / "silent.wav", tmp_path / "none.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    soundfile.write(short, np.zeros(0), RATE)
    truncated = tmp_path / "cut.wav"
    truncated.write_bytes(world.track.read_bytes()[:3000])
    bad = np.full(RATE, np.nan, dtype=np.float32)
    soundfile.write(tmp_path / "nan.wav", bad, RATE, subtype="FLOAT")
    cases = [
        (lambda: extract_timelines(explanation, other, world.track), "is not the model that was explained"),
        (lambda: extract_timelines(explanation, backbone, world.track, "loud"), "target 'loud' was not explained"),
        (lambda: extract_timelines(explanation, backbone, world.track, layers=["x"]), "layer 'x' was not explained"),
        (lambda: extract_timelines(explanation, backbone, tmp_path / "no.wav", "deep"), "no.wav"),
        (lambda: extract_timelines(explanation, backbone, silent, "deep"), "silent"),
        (lambda: extract_timelines(explanation, backbone, short, "deep"), "none.wav"),
        (lambda: extract_timelines(explanation, backbone, truncated, "deep"), "cut.wav"),
        (lambda: extract_timelines(explanation, backbone, tmp_path / "nan.wav", "deep"), "nan.wav"),
    ]
    for action, text in cases:
        with pytest.raises(cc.InputError, match=text) as caught:
            action()
        assert "\n" not in str(caught.value)
    check_model(explanation, backbone)


class Plugin:
    @hookimpl
    def captum_concepts_backbones(self):
        return {"ear": lambda weights, device: make_backbone(device=device)}


@pytest.fixture
def saved(world, tmp_path: Path):
    manager, provider = get_plugin_manager(), Plugin()
    manager.register(provider, name="ear-by-hand")
    yield world.explanation.save(tmp_path / "out")
    manager.unregister(provider)


def run(*given: object) -> object:
    return CliRunner().invoke(main, [str(part) for part in given])


def test_the_command_writes_table_picture_sounds_and_page(world, saved) -> None:
    pytest.importorskip("matplotlib")
    result = run("timeline", saved, world.track, "--backbone", "ear", "--target", "shrill", "--hop", 0.1)
    assert result.exit_code == 0, result.output
    out = saved / "timeline-track"
    rows = (out / "timeline.csv").read_text().splitlines()
    line = cc.Explanation.load(saved).timelines[0]
    assert rows[0] == "layer,target,concept,start,end,presence,sensitivity"
    assert len(rows) == 1 + line.sensitivity.size
    assert {path.name for path in out.iterdir()} == {"timeline.csv", "timeline-bands-1.png", "segments"}
    assert '"close":true' in (saved / "report.html").read_text()
    index = (out / "segments" / "segments.csv").read_text().splitlines()
    assert len(index) > 1 and len(list((out / "segments").glob("*.wav"))) >= 1


def test_the_command_refuses_in_one_line(world, saved, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ("timeline", saved, world.track, "--backbone", "ear")
    for more, text in (
        (("--target", "loud"), "'loud' was not explained"),
        (("--concept", "loud"), "--concept='loud'"),
        (("--hop", 9), "hop=9.0"),
        (("--pool", "none"), "--pool=none"),
    ):
        result = run(*base, *more)
        assert result.exit_code == 2 and text in result.output and "Traceback" not in result.output
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    result = run(*base)
    assert result.exit_code == 2 and "captum-concepts[plots]" in result.output
    assert run(*base, "--no-plot").exit_code == 0
