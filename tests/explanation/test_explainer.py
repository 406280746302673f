"""The whole way on a model whose reasons are known, and the shape and values of Captum's own TCAV."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from captum.concept import TCAV, Classifier, Concept, ConceptInterpreter
from helpers.models import band_energies
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_concepts as cc
from captum_concepts.audio.clips import Clip
from captum_concepts.miners.api import mine
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager

RATE, SECONDS = 8000, 0.25
NAMES = ("low", "high", "noise", "click")


class Ear(nn.Module):
    """Sixteen bands of 250 Hz, ten frames a patch; "deep" hears the band at 500 Hz, "shrill" the one at 2,500 Hz."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.mixed, self.head = nn.Identity(), nn.Linear(16, 12), nn.Linear(12, 2)
        with torch.no_grad():
            self.mixed.weight.copy_(
                torch.linalg.qr(torch.randn(16, 12, generator=torch.Generator().manual_seed(0)))[0].T
            )
            for row, band in enumerate((2, 10)):
                self.head.weight[row] = self.mixed.weight[:, band]
            self.mixed.bias.zero_()
            self.head.bias.zero_()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(self.bands(band_energies(waveform, 16, frames=10))).mean(1))


def tone(kind: str, rng: np.random.Generator, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    sound = 0.02 * rng.normal(size=len(t))
    if kind in ("low", "high"):
        # the middle of band 2 (480 to 720 Hz) or band 10 (2,400 to 2,640 Hz)
        sound += 0.4 * np.sin(2 * np.pi * ((600 if kind == "low" else 2520) + rng.uniform(-40, 40)) * t)
    if kind == "noise":
        sound += 0.2 * rng.normal(size=len(t))
    if kind == "click":
        sound[:: int(rng.integers(500, 900))] = 0.9
    return sound


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder with concepts/<name>/*.wav, concepts/random/*.wav and explain/*.wav."""
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for name, count in (*((name, 10) for name in NAMES), ("random", 16)):
        (root / "concepts" / name).mkdir(parents=True)
        for i in range(count):
            sound = tone(name, rng) * rng.uniform(0.5, 1)
            soundfile.write(root / "concepts" / name / f"{i}.wav", sound, RATE, subtype="PCM_16")
    (root / "explain").mkdir()
    for i in range(6):
        soundfile.write(root / "explain" / f"{i}.wav", tone(NAMES[i % 4], rng), RATE, subtype="PCM_16")
    return root


@pytest.fixture(scope="module")
def backbone():
    layers = ["bands", "mixed"]
    return cc.TorchBackbone(Ear(), layers, classes=["deep", "shrill"], sample_rate=RATE, patch_seconds=SECONDS)


@pytest.fixture(scope="module")
def concepts(sounds):
    return cc.ConceptSet.from_folders(sounds / "concepts")


def explainer(backbone, **options):
    return cc.ConceptHierarchyExplainer(backbone, **{"n_nulls": 199, "bootstrap": 100, **options})


@pytest.fixture(scope="module")
def explanation(backbone, concepts, sounds):
    return explainer(backbone).explain(sounds / "explain", concepts)


def saved(explanation, folder) -> dict[str, bytes]:
    explanation.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("layer", ["bands", "mixed"])
def test_the_planted_concept_comes_first_and_the_distractor_does_not(explanation, layer):
    table = explanation.scores[explanation.scores["layer"] == layer].set_index(["target", "concept"])
    assert (table["status"] == "ok").all()
    for target, cause, other in (("deep", "low", "high"), ("shrill", "high", "low")):
        magnitudes = table.loc[target]["magnitude"]
        assert magnitudes.idxmax() == cause
        assert magnitudes[cause] > 2 * magnitudes[["click", other]].abs().max()
        assert table.loc[(target, cause), "score"] == 1.0
        assert explanation.top(layer, 1).set_index("target").loc[target, "concept"] == cause
    assert table.loc[("deep", "low"), "q_value"] < 0.1


def test_the_hierarchical_correction_tests_one_half_and_mines_the_other(backbone, concepts, sounds):
    found = explainer(backbone, correction="hierarchical", n_nulls=None, min_groups=3).explain(
        sounds / "explain", concepts, targets="deep"
    )
    assert found.provenance["options"]["correction"] == "hierarchical"
    assert "Yekutieli" in found.provenance["tests"]["correction"]
    half = concepts.split(0.5, 0)
    tested = len(set(concepts.groups[~half & concepts.labels[:, concepts.names.index("low")]]))
    for layer in found.layers:
        quality = found.banks[layer].quality.set_index("concept")
        assert quality.loc["low", "n_positive_groups"] == tested
        rows = found.scores[(found.scores["layer"] == layer) & (found.scores["status"] == "ok")]
        assert (rows["q_value"] >= rows["p_unconditional"]).all()
        assert found.provenance["tests"]["smallest p_value"][layer] == 1 / 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": "fdr"}, "correction='fdr': unknown; choose one of bh"),
        ({"n_nulls": 50}, "n_nulls=50: .* cannot reject one of 4 concepts .* give at least 79"),
    ],
)
def test_significance_that_cannot_be_is_refused_before_anything_is_heard(backbone, concepts, sounds, options, message):
    extracted = []
    with pytest.raises(cc.InputError, match=message):
        explainer(backbone, progress=lambda *step: extracted.append(step), **options).explain(
            sounds / "explain", concepts
        )
    assert not extracted


@pytest.mark.parametrize("targets", [np.int64(1), "shrill", np.array([1]), ["shrill", np.int32(1)]])
def test_targets_are_names_or_whole_numbers_of_any_kind(backbone, concepts, sounds, targets):
    found = explainer(backbone, bootstrap=100).explain(sounds / "explain", concepts, targets=targets)
    assert found.targets == ("shrill",)


def test_everything_has_its_shape(explanation):
    assert explanation.layers == ("bands", "mixed")
    assert explanation.targets == ("deep", "shrill")
    assert set(explanation.concepts) == set(NAMES)
    assert len(explanation.scores) == 2 * 2 * 4
    for layer, width in (("bands", 16), ("mixed", 12)):
        assert explanation.banks[layer].directions.shape == (4, width)
        assert explanation.similarities[layer].shape == (4, 4)
        assert explanation.sensitivities[layer].shape == (6, 2, 4)
        assert set(explanation.hierarchies[layer].names) == set(NAMES)
        for name in NAMES:
            found = explanation.examples[layer][name]
            assert len({clip.group for clip in found}) == 3
            assert all(f"/{name}/" in clip.path.replace("\\", "/") for clip in found)
            assert all(clip.end - clip.start == pytest.approx(SECONDS) for clip in found)
    assert len(explanation.timelines) == 2 * 2 * 3
    for line in explanation.timelines:
        assert line.sensitivity.shape == (len(line.starts), 4)
        place = explanation.clips.index(line.clip)
        clip = explanation.sensitivities[line.layer][place, explanation.targets.index(line.target)]
        np.testing.assert_allclose(line.sensitivity.mean(0), clip, rtol=1e-4, atol=1e-6)


def test_provenance_says_all_that_is_needed_to_run_it_again(explanation, concepts, backbone, sounds):
    about = json.loads(json.dumps(explanation.provenance, allow_nan=False))
    assert about["backbone"]["fingerprint"] == backbone.fingerprint()
    options = about["options"]
    assert options["n_nulls"] == 199
    assert {"layers", "cav", "cav_options", "similarity", "miner", "miner_options", "pool", "bootstrap"} <= set(options)
    assert {"min_groups", "on_error", "negatives", "batch_size"} <= set(options)
    assert about["seed"] == 0
    assert len(about["clips"]) == 56 + 6
    assert about["patches"] == {"concepts": 112, "explained": 12}
    rows = about["concepts"]["clips"]
    again = cc.ConceptSet(
        explanation.concepts,
        [Clip(*row[:4]) for row in rows],
        np.array([[k in row[4] for k in range(4)] for row in rows]),
        np.array([row[5] for row in rows]),
        about["concepts"]["negatives"],
    )
    assert (again.clips, again.negatives) == (concepts.clips, concepts.negatives)
    assert (again.labels == concepts.labels).all()
    assert (again.pool == concepts.pool).all()


@pytest.mark.parametrize("cav", ["pattern", "lda", "logistic"])
def test_same_seed_same_bytes_with_a_fresh_and_a_warm_store(backbone, concepts, sounds, tmp_path, cav):
    found = [
        saved(explainer(backbone, cav=cav, store=store).explain(sounds / "explain", concepts), tmp_path / str(i))
        for i, store in enumerate((None, tmp_path / "store", tmp_path / "store"))
    ]
    assert found[0] == found[1] == found[2]


def test_the_order_of_concepts_orders_the_rows_and_changes_nothing_else(explanation, backbone, concepts, sounds):
    order = [2, 0, 3, 1]
    names = tuple(concepts.names[k] for k in order)
    turned = cc.ConceptSet(names, concepts.clips, concepts.labels[:, order], concepts.pool, concepts.negatives)
    found = explainer(backbone).explain(sounds / "explain", turned)
    assert found.concepts == names
    key = ["layer", "target", "concept"]
    one, other = (e.scores.set_index(key).sort_index() for e in (found, explanation))
    assert one["status"].equals(other["status"])
    numbers = one.columns.drop("status")
    np.testing.assert_allclose(one[numbers].to_numpy(float), other[numbers].to_numpy(float), rtol=1e-4, atol=1e-6)


def test_hooks_are_called_and_a_callback_hears_of_both_passes(backbone, concepts, sounds):
    class Watcher:
        def __init__(self):
            self.seen = []

        @hookimpl
        def captum_concepts_hierarchy_mined(self, hierarchy):
            self.seen.append(hierarchy)

        @hookimpl
        def captum_concepts_explanation_ready(self, explanation):
            self.seen.append(explanation)

    watcher, stages = Watcher(), []
    get_plugin_manager().register(watcher)
    try:
        made = explainer(backbone, progress=lambda *step: stages.append(step)).explain(
            sounds / "explain", concepts, "deep"
        )
    finally:
        get_plugin_manager().unregister(watcher)
    assert watcher.seen == [made.hierarchies["bands"], made.hierarchies["mixed"], made]
    assert {stage for stage, _, _ in stages} == {"listening to concepts", "explaining clips"}
    assert ("explaining clips", 6, 6) in stages
    assert made.targets == ("deep",)


def test_without_a_head_there_is_a_hierarchy_but_no_scores(concepts, sounds, tmp_path):
    def embed(waveforms):
        spectrum = np.abs(np.fft.rfft(waveforms.reshape(len(waveforms), 10, 200)))[:, :, :96]
        return np.log1p(spectrum.reshape(len(waveforms), 10, 16, 6).mean((1, 3)))

    found = explainer(cc.EmbeddingBackbone(embed, RATE, SECONDS)).explain(sounds / "explain", concepts)
    assert len(found.scores) == 0
    assert found.targets == found.clips == ()
    assert set(found.hierarchies["embedding"].names) == set(NAMES)
    assert any("no classes, so there are no scores" in line for line in found.warnings)
    found.save(tmp_path)
    assert cc.Explanation.load(tmp_path).scores.equals(found.scores)


def test_links_carry_their_support(backbone, concepts, sounds, explanation):
    found = explainer(backbone, support=20).explain(sounds / "explain", concepts)
    for layer, hierarchy in found.hierarchies.items():
        assert set(hierarchy.graph.edges) == set(explanation.hierarchies[layer].graph.edges)
        assert all(support * 20 == round(support * 20) for *_, support in hierarchy.edges)


def test_support_of_a_similarity_that_needs_the_cavs(backbone, concepts, sounds):
    found = explainer(backbone, support=10, similarity="cosine", miner="branching", miner_options={"min_sim": -2.0})
    hierarchy = found.explain(sounds / "explain", concepts).hierarchies["bands"]
    assert len(hierarchy.edges) == len(NAMES) - 1
    assert all(support * 10 == round(support * 10) for *_, support in hierarchy.edges)


def test_concepts_are_alike_that_push_the_classes_alike(backbone, concepts, sounds):
    found = explainer(backbone, similarity="sensitivity").explain(sounds / "explain", concepts)
    bank, pushed = found.banks["bands"], found.sensitivities["bands"]
    for i, j in itertools.combinations(range(len(bank)), 2):
        a, b = pushed[..., i].ravel().astype(float), pushed[..., j].ravel().astype(float)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found.similarities["bands"][i, j] == pytest.approx(cosine, abs=1e-4)


def test_a_similarity_of_sensitivities_needs_classes(concepts, sounds):
    black_box = cc.EmbeddingBackbone(lambda waveforms: waveforms[:, :32], RATE, SECONDS)
    with pytest.raises(cc.InputError, match="similarity 'sensitivity': needs classes"):
        explainer(black_box, similarity="sensitivity").explain(sounds / "explain", concepts)


def test_layers_combine_into_one_hierarchy(explanation):
    at = {layer: explanation.similarities[layer] for layer in explanation.hierarchies}
    names = explanation.banks[explanation.layers[0]].names
    expected = mine(sum(m / np.diagonal(m).mean() for m in at.values()) / len(at), names)
    found = explanation.combined()
    assert found.names == names
    assert set(found.graph.edges) == set(expected.graph.edges)
    assert explanation.combined(explanation.layers[:1]) == explanation.hierarchies[explanation.layers[0]]
    with pytest.raises(cc.InputError, match="layer 'x' has no hierarchy"):
        explanation.combined(["x"])


def test_why_a_concept_sits_where_it_sits(explanation):
    layer = explanation.layers[-1]
    for name in explanation.hierarchies[layer].names:
        words = explanation.why(name)
        clip = explanation.examples[layer][name][0]
        assert f"{Path(clip.path).name} from {clip.start:.1f} s" in words
        assert f"of {len(NAMES)} in generality" in words
        for parent in explanation.hierarchies[layer].parents(name):
            assert f"{name} is under {parent}" in words
    with pytest.raises(cc.InputError, match="no concept 'x'"):
        explanation.why("x")
    with pytest.raises(cc.InputError, match="layer 'x' has no hierarchy"):
        explanation.why(NAMES[0], "x")


def test_clips_that_cannot_be_used_are_counted_or_refused(backbone, concepts, sounds, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    clips = [tmp_path / "broken.wav", *sorted((sounds / "explain").iterdir())]
    found = explainer(backbone).explain(clips, concepts)
    assert len(found.clips) == 6
    assert [problem["path"] for problem in found.provenance["left_out"]] == [str(tmp_path / "broken.wav")]
    assert any(line.startswith("1 of the explained clips left out") for line in found.warnings)
    with pytest.raises(cc.InputError, match=r"broken\.wav"):
        explainer(backbone, on_error="refuse").explain(clips, concepts)


def test_warnings_are_lines(explanation, backbone, concepts, sounds):
    assert not any("share group or file" in line for line in explanation.warnings)
    found = explainer(backbone).explain(sounds / "concepts" / "low", concepts)
    assert any(line.startswith("10 of 10 explained clips share group or file") for line in found.warnings)
    assert all("\n" not in line for line in found.warnings)
    assert len(found.warnings) < 8


def test_a_layer_that_tells_nothing_apart_is_said_and_the_other_explained(concepts, sounds):
    class Deaf(Ear):
        def __init__(self):
            super().__init__()
            self.flat = nn.Identity()

        def forward(self, waveform):
            return super().forward(waveform) + self.flat(0 * waveform[:, :3]).sum(1, keepdim=True)

    deaf = cc.TorchBackbone(Deaf(), ["bands", "flat"], classes=["a", "b"], sample_rate=RATE, patch_seconds=SECONDS)
    found = explainer(deaf).explain(sounds / "explain", concepts)
    assert list(found.hierarchies) == ["bands"]
    assert (found.scores.loc[found.scores["layer"] == "flat", "status"] == "not testable").all()
    assert any(line.startswith("'flat': no concept can be told apart") for line in found.warnings)
    with pytest.raises(cc.InputError, match="none of 4 can be told apart"):
        explainer(deaf, layers="flat").explain(sounds / "explain", concepts)


def test_cheap_faults_are_found_before_audio_is_heard(backbone, concepts, sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "captum_concepts.activations.extraction.extract", lambda *_, **__: pytest.fail("audio was heard")
    )
    made, clips = explainer(backbone), sounds / "explain"
    with pytest.raises(cc.InputError, match="target='jazz': is not a class"):
        made.explain(clips, concepts, ["deep", "jazz"])
    with pytest.raises(cc.InputError, match="target=2: is out of range"):
        made.explain(clips, concepts, 2)
    with pytest.raises(cc.InputError, match=r"target=1\.0: is no class; give a class's name or number"):
        explainer(backbone).explain(sounds / "explain", concepts, targets=1.0)
    rest = cc.ConceptSet(["a"], concepts.clips, np.ones((56, 1), bool), negatives="rest")
    with pytest.raises(cc.InputError, match="1 of 1 concepts have none"):
        made.explain(clips, rest)
    with pytest.raises(cc.InputError, match="none of 4 has enough groups"):
        explainer(backbone, min_groups=30).explain(clips, concepts)
    with pytest.raises(cc.InputError, match="no audio file in"):
        made.explain(tmp_path, concepts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "bnds"}, "layer='bnds': is not in Ear; did you mean 'bands'? layers: bands"),
        ({"cav": "x"}, "unknown CAV method 'x'"),
        ({"miner": "x"}, "unknown miner 'x'"),
        ({"similarity": "x"}, "unknown similarity 'x'"),
        ({"pool": "x"}, "pool='x'"),
        ({"cav_options": {"depth": 3}}, "cav_options="),
        ({"miner_options": {"depth": 3}}, "miner_options="),
        ({"bootstrap": 3}, "bootstrap=3: too few; give at least 100"),
        ({"support": -1}, "support=-1"),
        ({"max_parents": 0}, "max_parents=0"),
        ({"n_nulls": 3}, "n_nulls=3: too few; give at least 19"),
        ({"min_groups": 1}, "min_groups=1: too few; give at least 2"),
    ],
)
def test_bad_options_are_refused_at_once(backbone, options, message):
    with pytest.raises(cc.InputError) as caught:
        cc.ConceptHierarchyExplainer(backbone, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_backbone_is_refused():
    with pytest.raises(cc.InputError, match=r"^backbone="):
        cc.ConceptHierarchyExplainer(Ear())


# Captum ------------------------------------------------------------------------------------------------------------


class MeanDifference(Classifier):
    """One-against-the-rest differences of means, for Captum."""

    def __init__(self):
        pass

    def train_and_eval(self, dataloader, **_):
        rows, labels = zip(*dataloader, strict=True)
        x, y = torch.cat(rows), torch.cat(labels)
        self.kinds = sorted(set(y.tolist()))
        self.found = torch.stack([x[y == kind].mean(0) - x[y != kind].mean(0) for kind in self.kinds])
        return {"accs": torch.tensor(1.0)}

    def weights(self):
        return self.found

    def classes(self):
        return self.kinds


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5)
    )


@pytest.mark.parametrize("target", [0, 3])
def test_interpret_agrees_with_captums_tcav(tmp_path, target):
    net, generator = small_net(), torch.Generator().manual_seed(1)

    def loader(shift, whole):
        data = torch.randn(14, 1, 8, 8, generator=generator)
        data[:, :, :, shift : shift + 2] += 2
        return DataLoader(data, batch_size=5) if whole else DataLoader(TensorDataset(data), batch_size=5)

    ours = [Concept(i, f"c{i}", loader(2 * i, i % 2 == 0)) for i in range(3)]
    sets = [[ours[0], ours[1]], [ours[2], ours[0], ours[1]], [ours[1], ours[2]]]
    inputs = torch.randn(9, 1, 8, 8, generator=generator)
    stock = TCAV(net, ["0", "2"], classifier=MeanDifference(), save_path=str(tmp_path))
    wanted = stock.interpret(inputs, sets, target=target)
    backbone = cc.TorchBackbone(net, ["0", "2"], sample_rate=1, patch_seconds=1)
    interpreter = cc.ConceptHierarchyExplainer(backbone, pool="none", batch_size=4)
    assert isinstance(interpreter, ConceptInterpreter)
    assert interpreter.model is net
    found = interpreter.interpret(inputs, sets, target=target)
    assert list(found) == ["0-1", "2-0-1", "1-2"]
    for key, members in zip(found, sets, strict=True):
        assert list(found[key]) == ["0", "2"]
        for layer in ("0", "2"):
            stats = stock.cavs[key][layer].stats
            norm = stats["weights"].norm(dim=1)[[list(stats["classes"]).index(c.id) for c in members]]
            mine, theirs = found[key][layer], wanted[key][layer]
            assert torch.equal(mine["sign_count"], theirs["sign_count"])
            torch.testing.assert_close(mine["magnitude"] * norm, theirs["magnitude"], rtol=1e-3, atol=1e-6)


def test_interpret_complains_in_one_line(backbone):
    data = torch.randn(6, 2000)
    a, b = Concept(0, "a", DataLoader(data)), Concept(1, "b", DataLoader(data + 1))
    made = cc.ConceptHierarchyExplainer(backbone)
    for sets, target, message in (
        ([], 0, "empty"),
        ([[a]], 0, "at least two"),
        ([[a, a]], 0, "at least two"),
        ([[a, b], [a, Concept(1, "c", None)]], 0, "same id"),
        ([[a, Concept(2, "d", None)]], 0, "no data_iter"),
        ([[a, Concept(2, "d", [])]], 0, "no examples"),
        ([[a, b]], None, "2 outputs"),
        ([[a, b]], "jazz", "not a class"),
    ):
        with pytest.raises(cc.InputError, match=message):
            made.interpret(data, sets, target)
    assert made.interpret(data, [[a, b]], "deep")["0-1"]["bands"]["magnitude"].shape == (2,)
    single = cc.TorchBackbone(nn.Sequential(nn.Linear(20, 4), nn.Linear(4, 1)), ["0"], sample_rate=1, patch_seconds=1)
    rows = torch.randn(6, 20)
    pair = [Concept(0, "a", DataLoader(rows, batch_size=3)), Concept(1, "b", DataLoader(rows + 1, batch_size=3))]
    assert list(cc.ConceptHierarchyExplainer(single).interpret(rows, [pair])) == ["0-1"]


_BY_HASH_SEED = """
import hashlib, sys
import numpy as np
import captum_concepts as cc

backbone = cc.EmbeddingBackbone(
    lambda waves: waves.reshape(len(waves), 8, -1).std(2), 8000, 0.1, lambda rows: rows[:, :2] * 3, classes=["x", "y"]
)
concepts = cc.ConceptSet.from_folders(sys.argv[1])
found = cc.ConceptHierarchyExplainer(backbone, n_nulls=99, bootstrap=100).explain(concepts.clips, concepts)
print(hashlib.sha256(found.scores.to_csv(index=False).encode()).hexdigest(), concepts.folds(5).tolist())
"""


@pytest.mark.slow
def test_the_hash_seed_of_the_interpreter_changes_nothing(tmp_path):
    """Negatives, folds and random sets are drawn by hashes of names of our own, and no set is iterated."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("one", "two", "random")):
        (tmp_path / name).mkdir()
        for i in range(10):
            loud = np.repeat(0.1 + 0.4 * rng.random(8) + 0.3 * (np.arange(8) == place), 100)
            soundfile.write(tmp_path / name / f"{i}.wav", 0.3 * loud * rng.standard_normal(800), 8000)
    printed = [
        subprocess.run(
            [sys.executable, "-c", _BY_HASH_SEED, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] and len(printed[0]) > 64
