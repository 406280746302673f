"""Completeness and its shares along the hierarchy, held against scikit-learn and against planted causes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner
from helpers.models import band_energies
from sklearn.linear_model import Ridge
from torch import Tensor, nn

import captum_concepts as cc
from captum_concepts.cli.app import main
from captum_concepts.contributions.completeness import FOLDS, Completeness, branch_shares, share_warnings
from captum_concepts.contributions.owen import Union, coalitions, owen_values
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager
from captum_concepts.report.data import page_data
from captum_concepts.results.tables import SHARE_COLUMNS


def flat(k: int) -> Union:
    """No branches: Shapley values."""
    names = tuple(str(i) for i in range(k))
    return coalitions(ConceptHierarchy.from_parents(dict.fromkeys(names)), names)


def planted(clips: int = 120, seed: int = 0):
    """Activations (clips, 10), logits of two classes made of features 0 to 3, groups of two clips each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(clips, 10))
    y = np.stack([2 * x[:, 0] + x[:, 1], x[:, 2] - 3 * x[:, 3]], 1) + 0.3 * rng.normal(size=(clips, 2))
    groups = [f"g{i // 2}" for i in range(clips)]
    return torch.from_numpy(x), torch.from_numpy(y), groups


def test_worths_equal_those_of_scikit_learn():
    x, y, groups = planted()
    v = torch.nn.functional.normalize(
        torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    found = Completeness(x, y, v, groups)
    order = [2, 0, 3, 1]
    worths = found.along(torch.tensor([order]))[0]
    for target in range(2):
        ridge = found._ridges[target]

        def explained(features, target=target, ridge=ridge):
            lost = total = 0.0
            for number in range(FOLDS):
                out, inside = np.flatnonzero(found.folds == number), np.flatnonzero(found.folds != number)
                model = Ridge(alpha=ridge * len(inside)).fit(features[inside], y[inside, target].numpy())
                lost += ((y[out, target].numpy() - model.predict(features[out])) ** 2).sum() / 2
                total += float(((y[out, target] - y[inside, target].mean()) ** 2).sum()) / 2
            return 1 - lost / total

        full = explained(x.numpy())
        assert float(found.explained[target]) == pytest.approx(float(full), abs=1e-8)
        for size in range(1, 5):
            basis = np.linalg.qr(v[order[:size]].numpy().T)[0]
            assert float(worths[size, target]) == pytest.approx(float(explained(x.numpy() @ basis) / full), abs=1e-6)
        assert float(worths[0, target]) == pytest.approx(0, abs=1e-12)


def test_all_directions_together_are_complete():
    x, y, groups = planted()
    whole = Completeness(x, y, torch.eye(10, dtype=torch.float64), groups)
    assert (whole.explained > 0.95).all()
    np.testing.assert_allclose(whole.along(torch.arange(10)[None])[0, -1].numpy(), 1, atol=1e-6)


def test_causes_get_their_share_and_what_is_orthogonal_nothing():
    x, y, groups = planted()
    x[:, 9] = 0
    v = torch.eye(10, dtype=torch.float64)[[0, 1, 2, 3, 9]]
    parents = {"first": None, "second": "first", "third": None, "fourth": "third", "nothing": "third"}
    hierarchy = ConceptHierarchy.from_parents(parents)
    table = branch_shares("l", ["one", "two"], tuple(parents), Completeness(x, y, v, groups), hierarchy)
    assert tuple(table.columns) == SHARE_COLUMNS
    shares = table.set_index(["target", "concept"])
    # Variances 4 and 1, then 1 and 9, of sums 5 and 10; 120 clips leave some noise.
    for target, concept, true in (
        ("one", "first", 0.8), ("one", "second", 0.2), ("one", "third", 0.0), ("two", "third", 0.1),
        ("two", "fourth", 0.9), ("two", "second", 0.0),
    ):  # fmt: skip
        assert shares.loc[(target, concept), "share"] == pytest.approx(true, abs=0.06)
    assert shares.xs("nothing", level="concept")["share"].to_numpy() == pytest.approx([0, 0], abs=1e-9)
    for target, rows in table.groupby("target"):
        assert rows["share"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)
        own = shares.loc[target]
        assert own.loc["first", "branch"] == pytest.approx(own.loc[["first", "second"], "share"].sum(), abs=1e-9)
        assert own.loc["fourth", "branch"] == own.loc["fourth", "share"]
        assert own.loc[["first", "third"], "branch"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)
    assert (table[["error", "branch_error"]] == 0).all().all()


def test_groups_that_a_miner_made_up_hold_together_what_is_below_them():
    parents = {"a": "pair", "b": "pair", "pair": "all", "c": "all", "all": None, "nobody": "all"}
    hierarchy = ConceptHierarchy.from_parents(parents)
    union = coalitions(hierarchy, ("a", "b", "c"))
    assert [sorted(part.players) for part in union.parts[0].parts] == [[0, 1], [2]]
    x, y, groups = planted()
    found = Completeness(x, y, torch.eye(10, dtype=torch.float64)[:3], groups)
    table = branch_shares("l", ["one", "two"], ("a", "b", "c"), found, hierarchy).set_index(["target", "concept"])
    assert set(table.index.get_level_values("concept")) == {"a", "b", "c", "pair", "all"}
    for target in ("one", "two"):
        rows = table.loc[target]
        assert np.isnan(rows.loc["pair", "share"])
        assert rows.loc["pair", "branch"] == pytest.approx(rows.loc[["a", "b"], "share"].sum())
        assert rows.loc["all", "branch"] == pytest.approx(rows.loc["a", "completeness"])


def test_duplicates_share_and_change_nothing_for_the_others():
    x, y, groups = planted()
    v = torch.eye(10, dtype=torch.float64)[[0, 1, 0]]
    found = Completeness(x, y, v, groups)
    draws, _ = owen_values(found.along, flat(3))
    exact = draws[0, :, 0].numpy()
    assert exact[0] == pytest.approx(exact[2], abs=1e-9)
    single, _ = owen_values(Completeness(x, y, v[:2], groups).along, flat(2))
    assert exact.sum() == pytest.approx(float(single[0, :, 0].sum()), abs=1e-6)


def test_more_concepts_than_dimensions_are_sampled_and_still_add_up():
    x, y, groups = planted()
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(40, 10, dtype=torch.float64, generator=generator)
    names = tuple(str(i) for i in range(40))
    hierarchy = ConceptHierarchy.from_parents({name: None if i < 20 else names[i - 20] for i, name in enumerate(names)})
    table = branch_shares("l", ["one", "two"], names, Completeness(x, y, v, groups), hierarchy, orders=100)
    assert (table["error"] > 0).all()
    for _, rows in table.groupby("target"):
        assert rows["completeness"].iloc[0] == pytest.approx(1, abs=1e-4)
        assert rows["share"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)


def test_order_of_clips_and_of_concepts_does_not_matter():
    x, y, groups = planted()
    v = torch.nn.functional.normalize(
        torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    )
    draws, _ = owen_values(Completeness(x, y, v, groups).along, flat(5))
    mixed, turned = torch.randperm(len(x), generator=torch.Generator().manual_seed(4)), torch.tensor([3, 1, 4, 0, 2])
    other = Completeness(x[mixed], y[mixed], v[turned], [groups[i] for i in mixed])
    torch.testing.assert_close(owen_values(other.along, flat(5))[0], draws[:, turned], rtol=0, atol=1e-9)


def test_a_class_that_the_layer_does_not_tell_has_no_shares():
    x, y, groups = planted()
    y = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    game_of_noise = Completeness(x, y, torch.eye(10, dtype=torch.float64)[:2], groups)
    assert (game_of_noise.explained < 0.1).all()
    table = branch_shares("l", ["one", "two"], ("a", "b"), game_of_noise, ConceptHierarchy.from_parents({"b": "a"}))
    for target, explained in zip(("one", "two"), game_of_noise.explained.tolist(), strict=True):
        assert table[table["target"] == target]["share"].isna().all() == (explained <= 0)


def test_a_class_that_the_concepts_do_not_tell_is_named():
    tree, useless = ConceptHierarchy.from_parents({"b": "a"}), set()
    for seed in range(6):
        x, y, groups = planted(seed=seed)
        game = Completeness(x, y, torch.eye(10, dtype=torch.float64)[8:], groups)
        table = branch_shares("l", ["one", "two"], ("a", "b"), game, tree)
        below = [target for target, rows in table.groupby("target") if rows["completeness"].iloc[0] <= 0]
        useless.update(below)
        lines = share_warnings(table)
        assert len(lines) == bool(below)
        assert all(repr(target) in lines[0] for target in below)
    assert useless  # otherwise nothing was tested
    x, y, groups = planted()
    assert (
        share_warnings(
            branch_shares(
                "l",
                ["one", "two"],
                ("a", "b"),
                Completeness(x, y, torch.eye(10, dtype=torch.float64)[[0, 3]], groups),
                tree,
            )
        )
        == []
    )


def test_too_few_groups_are_refused():
    x, y, _ = planted(18)
    with pytest.raises(InputError, match=f"9 groups of explained clips; give at least {2 * FOLDS}"):
        Completeness(x, y, torch.eye(10, dtype=torch.float64)[:2], [f"g{i // 2}" for i in range(18)])


# ------------------------------------------------------------------ in an explanation

RATE, SAMPLES = 8000, 2000


class Bands(nn.Module):
    """Sixteen bands; "deep" hears the second band, "shrill" the twelfth."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.head = nn.Identity(), nn.Linear(16, 2, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, 1] = self.head.weight[1, 11] = 1.0

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.bands(band_energies(waveform, 16)[:, 0]))


def load_bands(weights: str | None = None, device: str = "cpu") -> cc.TorchBackbone:
    return cc.TorchBackbone(
        Bands().eval(), ["bands"], classes=["deep", "shrill"], sample_rate=RATE, patch_seconds=SAMPLES / RATE
    )


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """concepts/<tone>/, concepts/random/ and clips/ of tones in noise."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    pitches = {"low": 375.0, "middle": 1375.0, "high": 2875.0}
    t = np.arange(SAMPLES) / RATE
    for kind, count in {**{f"concepts/{tone}": 8 for tone in pitches}, "concepts/random": 24, "clips": 24}.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            tones = [Path(kind).name] if Path(kind).name in pitches else rng.choice(list(pitches), rng.integers(3))
            wave = 0.05 * rng.normal(size=SAMPLES)
            for tone in tones:
                wave += rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * (pitches[tone] + rng.uniform(-60, 60)) * t)
            soundfile.write(folder / kind / f"{number}.wav", wave, RATE)
    return folder


@pytest.fixture(scope="module")
def explanation(sounds) -> cc.Explanation:
    concepts = cc.ConceptSet.from_spec(sounds / "concepts")
    return cc.ConceptHierarchyExplainer(load_bands(), shares=True, bootstrap=100).explain(sounds / "clips", concepts)


def test_an_explanation_says_what_each_concept_has_in_each_class(explanation):
    shares = explanation.shares.set_index(["target", "concept"])["share"]
    assert shares["deep"].idxmax() == "low"
    assert shares["shrill"].idxmax() == "high"
    assert shares["deep", "low"] > 0.5 > abs(shares["deep", "high"])
    for _, rows in explanation.shares.groupby("target"):
        assert rows["share"].sum() == pytest.approx(rows["completeness"].iloc[0])
    assert explanation.provenance["options"]["shares"] is True


def test_shares_are_saved_and_loaded_and_older_files_have_none(explanation, tmp_path):
    folder = explanation.save(tmp_path / "out")
    pd.testing.assert_frame_equal(cc.Explanation.load(folder).shares, explanation.shares)
    content = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    del content["n_shares"]
    (folder / "explanation.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "shares.csv").unlink()
    assert cc.Explanation.load(folder).shares.empty
    explanation.save(folder)
    (folder / "shares.csv").write_text("layer\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"shares\.csv has other columns"):
        cc.Explanation.load(folder)
    replace(explanation, shares=explanation.shares.iloc[:0]).save(folder)
    assert not (folder / "shares.csv").exists()


def test_the_page_holds_the_shares(explanation):
    content = page_data(explanation).content
    table = content["shares"][0][0]
    found = explanation.hierarchies["bands"].names
    assert all(table["branch"][content["names"].index(name)] is not None for name in found)
    row = explanation.shares.iloc[0]
    place = content["names"].index(row["concept"])
    assert table["share"][place] == pytest.approx(row["share"], rel=1e-3)
    assert table["completeness"] == pytest.approx(row["completeness"], rel=1e-3)
    without = page_data(replace(explanation, shares=explanation.shares.iloc[:0])).content
    assert without["shares"] == [[None, None]]


def test_too_few_clips_are_refused_before_anything_is_heard(sounds):
    backbone = load_bands()
    backbone.read = None  # type: ignore[method-assign,assignment]
    explainer = cc.ConceptHierarchyExplainer(load_bands(), shares=True)
    explainer.backbone = backbone
    with pytest.raises(InputError, match="3 groups of explained clips"):
        explainer.explain(sorted((sounds / "clips").iterdir())[:3], cc.ConceptSet.from_spec(sounds / "concepts"))


def test_the_command_line_writes_them(sounds, tmp_path):
    class Plugin:
        @hookimpl
        def captum_concepts_backbones(self):
            return {"bands": load_bands}

    plugin = Plugin()
    get_plugin_manager().register(plugin, name="completeness-test")
    arguments = ["explain", "--backbone", "bands", "--concepts", str(sounds / "concepts"), "--no-store"]
    arguments += ["--clips", str(sounds / "clips"), "--out", str(tmp_path / "out"), "--shares"]
    try:
        result = CliRunner().invoke(main, arguments)
    finally:
        get_plugin_manager().unregister(plugin)
    assert result.exit_code == 0, result.output
    assert tuple(pd.read_csv(tmp_path / "out" / "shares.csv").columns) == SHARE_COLUMNS
