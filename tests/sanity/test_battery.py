"""The sanity battery passes a sound explanation and fails planted faults."""

from __future__ import annotations

import copy
import html
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import captum_concepts as cc
from captum_concepts.activations.extraction import extract
from captum_concepts.backbones.protocol import Gradients
from captum_concepts.backbones.randomize import copy_of_model, head_of, randomise
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cli.app import main
from captum_concepts.demo.instruments import MELODIC
from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import MusicGenerator
from captum_concepts.errors import InputError
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager
from captum_concepts.report.sanity_page import check_html, check_markdown
from captum_concepts.sanity import battery as sanity
from captum_concepts.sanity.added_sound import AddedSoundEffects, SignificantPair, _verdict, mix
from captum_concepts.sanity.battery import SanityReport
from captum_concepts.sanity.checks import FALSE_ALARM, Check, impossible
from captum_concepts.sanity.checks import _uniformity as uniformity

RATE, SAMPLES = 8000, 2000
PITCHES = {"a": 375.0, "b": 875.0, "c": 1375.0, "d": 1875.0, "e": 2375.0, "f": 2875.0, "g": 3375.0}
CHECKS = ("randomised weights", "randomised head", "permuted labels", "added sound", "second negative pool")


class Ear(nn.Module):
    """Sixteen bands of 250 Hz; "deep" is raised by tone a and lowered by b, "shrill" raised by f and lowered by g."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.mixed, self.head = nn.Identity(), nn.Linear(16, 24), nn.Linear(24, 2)
        with torch.no_grad():
            self.mixed.weight.copy_(torch.randn(24, 16, generator=torch.Generator().manual_seed(0)) / 4)
            wanted = torch.zeros(2, 16)
            for row, (up, down) in enumerate(((1, 3), (11, 13))):
                wanted[row, up], wanted[row, down] = 1.0, -1.0
            self.head.weight.copy_(wanted @ torch.linalg.pinv(self.mixed.weight))
            self.mixed.bias.zero_()
            self.head.bias.zero_()

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(waveform).abs()[:, :992]
        # A soft front-end: what is added to loud sound still counts.
        bands = self.bands(torch.log1p(spectrum.unflatten(1, (16, 62)).square().mean(2).sqrt()))
        return self.head(self.mixed(bands))


def backbone_of(model: nn.Module, kind: type = cc.TorchBackbone, layer: str = "mixed") -> cc.TorchBackbone:
    return kind(model.eval(), [layer], classes=["deep", "shrill"], sample_rate=RATE, patch_seconds=SAMPLES / RATE)


def sound(tones: list[str], rng: np.random.Generator) -> np.ndarray:
    t = np.arange(SAMPLES) / RATE
    wave = 0.05 * rng.normal(size=SAMPLES)
    for tone in tones:
        wave += rng.uniform(0.1, 0.2) * np.sin(
            2 * np.pi * (PITCHES[tone] + rng.uniform(-60, 60)) * t + rng.uniform(0, 6)
        )
    return wave


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, cc.ConceptSet, list[cc.Clip]]:
    """A folder with concepts/<tone>/, concepts/random/ and clips/; the concepts; the clips to explain."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)

    def write(name: str, tones: list[str]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, sound(tones, rng), RATE)

    def others(count: int) -> list[str]:
        return list(rng.choice(list(PITCHES), count, replace=False))

    for tone in PITCHES:
        for number in range(12):
            write(f"concepts/{tone}/{number}.wav", [tone, *others(1)])
    for number in range(60):
        write(f"concepts/random/{number}.wav", others(2))
    for number in range(24):
        write(f"clips/{number}.wav", others(2))
    concepts = cc.ConceptSet.from_spec(folder / "concepts")
    return folder, concepts, [cc.Clip(str(path)) for path in sorted((folder / "clips").iterdir())]


def run(data, backbone, **options) -> SanityReport:
    _, concepts, clips = data
    return cc.sanity_check(
        backbone, clips, concepts, **{"n_nulls": 199, "permutations": 200, "randomisations": 3, **options}
    )


def verdicts(report: SanityReport) -> dict[str, str]:
    return {check.check: check.verdict for check in report.checks}


@pytest.fixture(scope="module")
def sane(data) -> SanityReport:
    return run(data, backbone_of(Ear()))


def test_a_sound_explanation_passes_every_check(sane):
    assert verdicts(sane) == dict.fromkeys(CHECKS, "passed")
    assert sane.passed
    assert sane.provenance["patches through the model"] > 0
    assert set(sane.seconds) == {"extraction", *CHECKS}


def test_the_same_seed_gives_the_same_figures(data, sane):
    again = run(data, backbone_of(Ear()))
    assert again.table().equals(sane.table())
    assert not run(data, backbone_of(Ear()), seed=1).table().equals(sane.table())


def test_the_model_of_the_user_is_left_as_it_was(data):
    model = Ear().train()
    before = copy.deepcopy(model.state_dict())
    backbone = cc.TorchBackbone(
        model, ["mixed"], classes=["deep", "shrill"], sample_rate=RATE, patch_seconds=SAMPLES / RATE
    )
    run(data, backbone)
    assert model.training
    assert backbone.model is model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Deaf(cc.TorchBackbone):
    """Answers from the model it was first given, whatever becomes of ``model``: its scores ignore the weights."""

    def activations(self, inputs, layers, pool="time"):
        return self._first().activations(inputs, layers, pool)

    def gradients(self, inputs, layers, targets, pool="time"):
        return self._first().gradients(inputs, layers, targets, pool)

    def _first(self) -> cc.TorchBackbone:
        return backbone_of(Ear())


class StaleGradients(cc.TorchBackbone):
    """Logits and activations of the model, gradients of another."""

    def gradients(self, inputs, layers, targets, pool="time"):
        found = super().gradients(inputs, layers, targets, pool)
        return found._replace(gradients=backbone_of(Ear()).gradients(inputs, layers, targets, pool).gradients)


class OfTheLoss(cc.TorchBackbone):
    """Gradients of the loss, which falls as the logit rises."""

    def gradients(self, inputs, layers, targets, pool="time"):
        logits, activations, gradients = super().gradients(inputs, layers, targets, pool)
        return Gradients(logits, activations, {layer: -values for layer, values in gradients.items()})


class Bypass(Ear):
    """The head hears the sound past the layer."""

    def forward(self, waveform: Tensor) -> Tensor:
        bands = torch.log1p(torch.fft.rfft(waveform).abs()[:, :992].unflatten(1, (16, 62)).square().mean(2).sqrt())
        return bands[:, [1, 11]] - bands[:, [3, 13]] + 0 * self.head(self.mixed(bands))


def test_scores_that_ignore_the_model_fail(data):
    report = run(data, backbone_of(Ear(), Deaf))
    assert verdicts(report)["randomised weights"] == "failed"
    assert not report.passed
    (check,) = (c for c in report.checks if c.check == "randomised weights")
    assert check.value == pytest.approx(1.0)


def test_gradients_of_another_model_fail(data):
    found = verdicts(run(data, backbone_of(Ear(), StaleGradients)))
    # The layer itself is another with random weights; only the head's weights alone tell.
    assert found["randomised head"] == "failed"


def test_a_head_that_ignores_the_layer_fails(data):
    report = run(data, backbone_of(Bypass()))
    assert verdicts(report)["randomised weights"] == "failed"
    assert verdicts(report)["added sound"] == "not possible"
    assert "do not depend on layer mixed" in report.checks[0].sentence


def test_gradients_of_the_loss_fail(data):
    found = verdicts(run(data, backbone_of(Ear(), OfTheLoss)))
    assert found["added sound"] == "failed"


def test_a_method_that_treats_random_concepts_otherwise_fails(data):
    def company(activations, positives, negatives, weights):
        """Differences of means for what it was made for; anything at all for the 199 sets of the null."""
        directions, biases, scales = fit_pattern(activations, positives, negatives, weights)
        if positives.shape[1] == 199:
            noise = torch.randn(directions.shape, generator=torch.Generator().manual_seed(0))
            directions = torch.nn.functional.normalize(noise.to(directions))
        return directions, biases, scales

    found = verdicts(run(data, backbone_of(Ear()), cav=company))
    assert found["permuted labels"] == "failed"


def test_a_method_that_depends_on_chance_alone_fails(data):
    def dice(activations, positives, negatives, weights):
        seed = int((negatives.long() * torch.arange(len(negatives))[:, None]).sum())
        found = torch.randn(positives.shape[1], activations.shape[1], generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.normalize(found), torch.zeros(len(found)), torch.ones(len(found))

    assert verdicts(run(data, backbone_of(Ear()), cav=dice))["second negative pool"] == "failed"


def test_what_cannot_be_checked_gets_no_number(data):
    model = Ear()
    box = cc.EmbeddingBackbone(
        lambda waves: model.bands(torch.from_numpy(waves)).abs()[:, 100:108].numpy(),
        RATE,
        SAMPLES / RATE,
        head=lambda rows: rows @ np.linspace(-1, 1, 16).reshape(8, 2),
        classes=["deep", "shrill"],
    )
    report = run(data, box)
    for check in report.checks[:2]:
        assert check.verdict == "not possible"
        assert "black box" in check.sentence
        assert np.isnan([check.value, check.low, check.high]).all()
    assert report.to_dict()["checks"][0]["value"] is None


# ------------------------------------------------------------------ parts


def test_uniform_p_values_rarely_fail_and_others_do():
    rng, level = np.random.default_rng(0), FALSE_ALARM / 2
    wrong = 0
    for _ in range(100):
        null, own = np.sort(rng.normal(size=199)), rng.normal(size=200)
        p_values = (200 - np.searchsorted(null, own)) / 200
        wrong += uniformity("", "", "", p_values, 199, level).verdict == "failed"
    # At most 1 % of 100 false alarms: the 99.9 % point of the binomial is 5.
    assert wrong <= 5
    assert uniformity("", "", "", rng.uniform(size=400) ** 2, 999, level).verdict == "failed"
    assert uniformity("", "", "", 1 - rng.uniform(size=400) ** 2, 999, level).verdict == "failed"


def test_a_mix_is_as_loud_as_the_clip_and_half_of_it_is_added():
    generator = torch.Generator().manual_seed(0)
    host = 3 * torch.randn(2, 8000, generator=generator)
    donor = 0.01 * torch.randn(2, 8000, generator=generator)
    mixed = mix(host, donor)
    for row in range(2):
        of_host, of_donor = (np.corrcoef(mixed[row], part[row])[0, 1] for part in (host, donor))
        assert of_host == pytest.approx(2**-0.5, abs=0.02)
        assert of_donor == pytest.approx(2**-0.5, abs=0.02)
        assert float(mixed[row].std()) == pytest.approx(float(host[row].std()), rel=0.03)


def test_drawn_weights_keep_their_size_and_forget_their_values():
    backbone = backbone_of(Ear())
    twin = copy_of_model(backbone)
    randomise(twin, None, 1)
    for (_, old), (name, new) in zip(backbone.model.named_parameters(), twin.model.named_parameters(), strict=True):
        if old.dim() > 1:
            assert float(new.detach().norm()) == pytest.approx(float(old.detach().norm()), rel=0.4), name
            assert abs(np.corrcoef(old.detach().flatten(), new.detach().flatten())[0, 1]) < 0.4
    other = copy_of_model(backbone)
    randomise(other, "head.weight", 1)
    assert torch.equal(other.model.mixed.weight, backbone.model.mixed.weight)
    assert not torch.equal(other.model.head.weight, backbone.model.head.weight)


def test_the_head_is_the_last_matrix_that_matters(data):
    class Spare(Ear):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(16, 4)

    _, _, clips = data
    assert head_of(backbone_of(Spare()), ["mixed"], clips, "time") == "head.weight"
    with pytest.raises(InputError, match="no weights are between"):
        head_of(backbone_of(Ear()), ["head"], clips, "time")


def test_added_sound_agrees_with_sound_that_was_left_out_of_the_piece(tmp_path):
    """The generator can render a piece again with another instrument: the truth that adding sound stands for."""
    generator, backbone = MusicGenerator(seed=3, duration=3.2), demo_backbone()
    tried = ("violin", "clarinet", "guitar", "bell")
    clips, labels = [], []
    for number in range(8 * len(MELODIC)):
        instrument = MELODIC[number % len(MELODIC)]
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, generator.clip(4 * number, {instrument: True}).waveform, generator.sample_rate)
        clips.append(cc.Clip(str(path)))
        labels.append([instrument == name for name in tried])
    concepts = cc.ConceptSet(tried, tuple(clips), np.array(labels), negatives="rest")
    explained = extract(backbone, clips[::5], ["pool4"], targets=range(8))
    rises = AddedSoundEffects(backbone, concepts, explained, range(8), pool="time", batch_size=32, seed=0)
    added = torch.stack([rises(name).mean(0) for name in tried])

    def logits(index: int, instrument: str) -> Tensor:
        waves = torch.from_numpy(generator.clip(index, {instrument: True}).waveform)[None, : backbone.patch_samples]
        return backbone.model(backbone.frontend(waves)).detach()[0]

    replaced = [name for name in MELODIC if name not in tried]
    changes = []
    for name in tried:
        pieces = range(1_000_000, 1_000_024, 4)
        found = [logits(i, name) - logits(i, replaced[k % len(replaced)]) for k, i in enumerate(pieces)]
        changes.append(torch.stack(found).mean(0))
    agreement = np.corrcoef(added.flatten(), torch.stack(changes).flatten())[0, 1]
    # 32 pairs of instrument and genre; independent figures would reach 0.45 once in 200 times.
    assert agreement > 0.7


@pytest.mark.parametrize(
    ("concepts", "rise", "verdict"),
    [(2, 0.05, "not possible"), (6, 0.05, "failed"), (2, -0.05, "failed"), (2, 2.0, "passed")],
)
def test_a_small_rise_of_few_concepts_is_no_evidence_against_the_explanation(concepts, rise, verdict):
    cells = [SignificantPair(f"c{i}", 0) for i in range(concepts)]
    drawn = {cell.concept: rise + torch.from_numpy(np.resize([-1.0, 1.0], (24, 1))) for cell in cells}

    class Drawn:
        spread = np.ones(1)

        def __call__(self, concept):
            return drawn[concept]

    found = _verdict(SimpleNamespace(layer="l", targets=("jazz",)), cells, Drawn(), seed=0, level=0.05)
    assert found.verdict == verdict
    if verdict == "not possible":
        assert "2 significant concepts are too few to tell (the class rises by +0.05, p = " in found.sentence


# ------------------------------------------------------------------ the page, the files, the command


def test_the_files_say_the_same(sane, tmp_path):
    page = sane.save(tmp_path / "check")
    content = json.loads((tmp_path / "check" / "check.json").read_text(encoding="utf-8"))
    assert content["passed"] is True
    assert [c["check"] for c in content["checks"]] == list(CHECKS)
    text = html.unescape(page.read_text(encoding="utf-8"))
    markdown = (tmp_path / "check" / "check.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "default-src 'none'" in text
    for check in sane.checks:
        assert check.measured in text and check.measured in markdown
        assert f"{check.value:.3g}" in text and f"{check.value:.3g}" in markdown


@pytest.mark.parametrize("width", [420, 1000, 1400])
def test_every_check_is_seen_at_every_width(sane, tmp_path, width):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    page = sane.save(tmp_path)
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto(page.as_uri())
        assert [tab.get_by_role("heading", name=name.capitalize()).is_visible() for name in CHECKS] == [True] * 5
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        lines = """[...document.querySelectorAll("td:first-child, th:first-child")].map((cell) => {
            const range = document.createRange(); range.selectNodeContents(cell);
            return new Set([...range.getClientRects()].map((r) => r.top)).size; })"""
        assert set(tab.evaluate(lines)) == {1}, "a short layer name was broken"
        browser.close()


def test_hostile_labels_are_only_text():
    hostile = "</style><script>alert(1)</script>|*x*\n# y \ud800"
    nan = float("nan")
    check = Check("added sound", hostile, "failed", "figure", 1.0, nan, nan, "b", hostile, {hostile: {hostile: 1.0}})
    report = SanityReport(hostile, (hostile,), (hostile,), (hostile,), [check, impossible("x", hostile, hostile)])
    assert "<script" not in check_html(report.as_page())
    markdown = check_markdown(report.as_page())
    assert "<script" not in markdown.replace("\\<", "")
    assert "\n# y" not in markdown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"randomisations": 2}, "randomisations=2: too few; give at least 3"),
        ({"permutations": 10}, "permutations=10: too few; give at least 100"),
        ({"n_nulls": 5}, "n_nulls=5: too few; give at least 99"),
        ({"targets": ["nothing"]}, "not a class"),
        ({"layers": ["nowhere"]}, "nowhere"),
        ({"min_groups": 1000}, "concepts=7: none has 1000 groups"),
    ],
)
def test_bad_input_is_refused_before_any_pass_over_audio(data, options, message):
    class NoAudio(cc.TorchBackbone):
        def read(self, clip):
            raise AssertionError("a clip was read")

    with pytest.raises(InputError, match=message):
        run(data, backbone_of(Ear(), NoAudio), **options)


def test_a_model_without_classes_is_refused(data):
    box = cc.EmbeddingBackbone(lambda waves: waves[:, :4], RATE, SAMPLES / RATE)
    with pytest.raises(InputError, match="no classes"):
        run(data, box)


@pytest.fixture
def registered():
    class Plugin:
        @hookimpl
        def captum_concepts_backbones(self):
            return {
                "ear": lambda weights, device: backbone_of(Ear()),
                "deaf": lambda weights, device: backbone_of(Ear(), Deaf),
            }

    plugin = Plugin()
    get_plugin_manager().register(plugin, name="sanity-test")
    yield
    get_plugin_manager().unregister(plugin)


@pytest.mark.parametrize(("name", "code"), [("ear", 0), ("deaf", 1)])
def test_the_command_ends_with_1_when_a_check_fails(registered, data, tmp_path, name, code):
    folder, _, _ = data
    arguments = ["check", "--backbone", name, "--concepts", str(folder / "concepts"), "--clips", str(folder / "clips")]
    arguments += ["--out", str(tmp_path / "out"), "--no-store", "--nulls", "199", "--permutations", "100"]
    arguments += ["--randomisations", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert ("failed: randomised weights" in result.output) == (code == 1)
    assert (tmp_path / "out" / "check.html").exists()
    assert json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))["passed"] is (code == 0)


def test_the_command_asks_for_what_is_missing(registered, data, tmp_path):
    folder, _, _ = data
    arguments = ["check", "--backbone", "ear", "--concepts", str(folder / "concepts"), "--out", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--clips: missing" in result.output


def test_the_order_of_clips_changes_no_score_that_the_checks_rest_on(tmp_path):
    """Random sets of longer clips are excerpts of them, which follow each other in time and not in the table."""
    rng, rows = np.random.default_rng(2), []
    for group in range(30):
        for part in range(1 if group < 10 else 6):
            soundfile.write(
                tmp_path / f"{group}-{part}.wav",
                sound(["a"] if group < 10 else list(rng.choice(list("bcde"), 1)), rng),
                RATE,
            )
            rows.append((f"{group}-{part}.wav", f"g{group}", "a" if group < 10 else ""))
    soundfile.write(tmp_path / "explain.wav", sound(["a", "c"], rng), RATE)
    found = []
    for order in (np.arange(len(rows)), rng.permutation(len(rows))):
        clips = [cc.Clip(str(tmp_path / rows[i][0]), 0.0, None, rows[i][1]) for i in order]
        labels = np.array([[rows[i][2] == "a"] for i in order])
        concepts = cc.ConceptSet(("a",), tuple(clips), labels, pool=~labels[:, 0])
        battery = sanity._Battery(
            backbone_of(Ear()), [tmp_path / "explain.wav"], concepts, None, None, fit_pattern,
            sanity.Settings("pattern", {}, "time", 199, 5, 3, 100, 0),
            {"pool": "time", "batch_size": 32, "on_error": "skip", "progress": None},
        )  # fmt: skip
        (view,) = battery._views(
            battery._extract_concepts(battery.backbone, "", None), battery._extract_clips(battery.backbone, "", None)
        )
        found.append(view.table)
    assert (found[0]["status"] == "ok").all()
    ranks = ["p_value", "p_unconditional", "cav_p", "n_nulls", "status"]
    pd.testing.assert_frame_equal(*(table[ranks] for table in found), check_exact=True)
