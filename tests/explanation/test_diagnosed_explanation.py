"""The diagnostics as a part of an explanation: made before the hierarchy, kept on disk, said on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from helpers.models import band_energies
from torch import nn

import captum_concepts as cc
from captum_concepts.errors import InputError
from captum_concepts.explanation import layer as layer_module
from captum_concepts.results.diagnostics import Diagnostics

RATE = 4000
BANDS = {"low": (300,), "high": (1500,), "alike": (1500,)}


class Ear(nn.Module):
    """Eight bands of 250 Hz, five frames a patch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bands, self.mixed, self.head = nn.Identity(), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(self.bands(band_energies(waveform, 8, frames=5))).mean(1))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """concepts/<name>/*.wav, of which "high" and "alike" are the same band, a random pool, and clips to explain."""
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    for name, count in (
        ("concepts/low", 12),
        ("concepts/high", 12),
        ("concepts/alike", 12),
        ("concepts/random", 30),
        ("explain", 5),
    ):
        (root / name).mkdir(parents=True)
        for i in range(count):
            sound = 0.1 * rng.normal(size=len(time))
            for hertz in BANDS.get(name.rpartition("/")[2], ()):
                sound += 0.4 * np.sin(2 * np.pi * (hertz + rng.uniform(-30, 30)) * time)
            soundfile.write(root / name / f"{name.rpartition('/')[2]}{i}.wav", sound, RATE, subtype="FLOAT")
    return root


def explain(sounds, clips=None, **options):
    backbone = cc.TorchBackbone(Ear(), ["bands", "mixed"], classes=["a", "b"], sample_rate=RATE, patch_seconds=0.25)
    concepts = cc.ConceptSet.from_folders(sounds / "concepts")
    options = {"n_nulls": 399, "bootstrap": 100, **options}
    return cc.ConceptHierarchyExplainer(backbone, **options).explain(clips or sounds / "explain", concepts)


@pytest.fixture(scope="module")
def explanation(sounds):
    return explain(sounds)


def test_the_entangled_pair_is_named_in_table_warning_and_summary(explanation):
    found = explanation.diagnostics
    assert set(found.stability["layer"]) == {"bands", "mixed"} and len(found.stability) == 6
    assert (found.stability["cosine"] > 0.9).all()
    strongest = found.pairs.groupby("layer", sort=False).first()
    assert [set(pair) for pair in strongest[["first", "second"]].to_numpy()] == [{"high", "alike"}] * 2
    named = [line for line in explanation.warnings if "correlated beyond chance" in line]
    assert len(named) == 2 and all("'high'" in line and "'alike'" in line for line in named)
    assert any("correlated pair" in line for line in found.summary())
    assert len(found.domain) == 2 and len(found.positions) == len(found.shared) == len(found.push_forward) == 0


def test_warnings_come_before_the_hierarchy_is_mined(sounds, monkeypatch):
    order = []

    def recorded(name):
        real = getattr(layer_module, name)
        return lambda *args, **options: order.append(name) or real(*args, **options)

    for name in ("diagnose_layer", "mine_layer"):
        monkeypatch.setattr(layer_module, name, recorded(name))
    explain(sounds, layers=["bands"])
    assert order == ["diagnose_layer", "mine_layer"]


def test_unpooled_layers_say_how_cavs_lie_along_time(sounds):
    found = explain(sounds, layers=["bands"], pool="none").diagnostics
    assert found.positions["axis"].tolist() == ["time"] * 3
    assert (found.positions["unevenness"] <= found.positions["chance"]).all(), "tones last all through a patch"


def test_explained_clips_of_concepts_are_listed_and_named(sounds):
    found = explain(sounds, clips=sounds / "concepts" / "low", layers=["bands"])
    assert len(found.diagnostics.shared) == 12
    assert set(found.diagnostics.shared["concepts"]) == {"low"}
    assert any(line.startswith("12 of 12 explained clips share") and "low0.wav" in line for line in found.warnings)


def test_a_push_forward_that_was_asked_for_is_kept_with_the_rest(explanation, sounds, tmp_path):
    backbone = cc.TorchBackbone(Ear(), ["bands", "mixed"], classes=["a", "b"], sample_rate=RATE, patch_seconds=0.25)
    table = cc.push_forward(backbone, explanation.banks, explanation.clips[:3])
    assert table["concept"].tolist() == list(explanation.concepts)
    diagnostics = Diagnostics(**dict(explanation.diagnostics.tables()))
    diagnostics.append("push_forward", table)
    assert (table["cosine"] > 0.9).all(), "one linear layer, and CAVs that are differences of means, which it keeps"


def test_saved_and_loaded_they_are_equal_and_older_explanations_have_none(explanation, tmp_path):
    explanation.save(tmp_path)
    loaded = cc.Explanation.load(tmp_path)
    assert loaded.diagnostics == explanation.diagnostics
    path = tmp_path / "explanation.json"
    content = json.loads(path.read_text())
    before = content.pop("diagnostics")
    path.write_text(json.dumps(content))
    assert cc.Explanation.load(tmp_path).diagnostics == Diagnostics()
    path.write_text(json.dumps({**content, "diagnostics": {"pairs": before["pairs"]}}))
    assert cc.Explanation.load(tmp_path).diagnostics.pairs.equals(explanation.diagnostics.pairs)


@pytest.mark.parametrize("damage", [{"pairs": {}}, {"pairs": None}, {"stability": {"layer": [1]}}])
def test_damaged_diagnostics_are_one_line(explanation, tmp_path, damage):
    explanation.save(tmp_path)
    path = tmp_path / "explanation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "diagnostics": damage}))
    with pytest.raises(InputError, match="damaged"):
        cc.Explanation.load(tmp_path)


def test_the_same_seed_gives_the_same_diagnostics(explanation, sounds):
    assert explain(sounds).diagnostics == explanation.diagnostics


def test_a_concept_whose_clips_are_silent_is_named(sounds, tmp_path):
    """Its clips are left out when they are heard, long after its groups were counted."""
    (tmp_path / "explain").symlink_to(sounds / "explain")
    for name in ("low", "high", "random"):
        (tmp_path / "concepts" / name).mkdir(parents=True)
        for file in (sounds / "concepts" / name).iterdir():
            (tmp_path / "concepts" / name / file.name).symlink_to(file)
    (tmp_path / "concepts" / "silence").mkdir()
    for i in range(6):
        soundfile.write(tmp_path / "concepts" / "silence" / f"silence{i}.wav", np.zeros(RATE // 2 + i), RATE)
    found = explain(tmp_path)
    (line,) = [line for line in found.warnings if "groups left" in line]
    assert line == "1 concept has too few groups left, as clips could not be used: 'silence' 0 of 6 groups, 5 needed"
    status = found.scores.set_index("concept")["status"]
    assert set(status["silence"]) == {"too few groups"} and "too few groups" not in set(status["low"])
