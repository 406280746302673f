"""Explanations on disk: what is saved comes back equal, whatever the names, and damage is said in one line."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import fields

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from captum_concepts.audio.clips import Clip
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.plugins.hookspecs import hookimpl
from captum_concepts.plugins.registry import get_plugin_manager
from captum_concepts.results.files import layer_files
from captum_concepts.results.tables import SCORE_COLUMNS, empty_scores
from captum_concepts.results.timeline import Timeline

HOSTILE = (
    "</script><script>alert(1)</script>",
    "new\nline",
    "carriage\rreturn",
    "quotes \" and ' and , commas; \t tabs",
    "NA",
    "nan",
    "10" * 5000,
    "🥁 \u202eright to left\u202c العود",
    "lone \ud800 surrogate",
    "\x00\x01\x0b\x1f\x7f controls",
    " spaces ",
    "../../etc/passwd",
    "1.0",
    "=1+1",
)


def example(concepts=HOSTILE, layers=("a/b", "A:b", "x\ny"), targets=("", "t\r\n", "NA"), seed=0) -> Explanation:
    """An explanation full of random numbers and NaN."""
    rng = np.random.default_rng(seed)
    k = len(concepts)
    rows = [(layer, target, concept) for layer in layers for target in targets for concept in concepts]
    scores = pd.DataFrame(rows, columns=["layer", "target", "concept"], dtype=object)
    for name in SCORE_COLUMNS[3:-1]:
        scores[name] = rng.normal(size=len(rows)) * 10.0 ** rng.integers(-300, 300, len(rows))
    scores.loc[::3, ["score", "p_value", "q_value"]] = np.nan
    scores["n_groups"] = scores["n_nulls"] = np.arange(len(rows))
    scores["status"] = pd.Series(["ok", "not testable", "too few groups"] * len(rows), dtype=object)[: len(rows)]
    quality = pd.DataFrame({"concept": pd.Series(concepts, dtype=object)})
    for name in ("auc", "low", "high", "accuracy", "p_value"):
        quality[name] = rng.random(k)
    quality.loc[1, "auc"] = np.nan
    quality["n_positive_groups"] = quality["n_negative_groups"] = np.arange(k)
    quality["status"] = pd.Series(["ok"] * k, dtype=object)
    clips = (Clip("/music/a b.wav"), Clip("x\ud800.wav", 1.25, 3.5, "group\n"))
    directions = torch.from_numpy(rng.normal(size=(k, 5)).astype(np.float32))
    directions[1] = torch.nan
    banks = {
        layer: ConceptBank(tuple(concepts), layer, directions, directions[:, 0], directions[:, 1], quality, "pattern")
        for layer in layers
    }
    edges = [(concepts[0], name, 0.1 + i / 7) for i, name in enumerate(concepts[1:-1])]
    hierarchies = {layer: ConceptHierarchy.from_edges(concepts, edges) for layer in layers[:-1]}
    above, stability = rng.integers(0, 8, (k, k)) / 7, {name: i % 8 / 7 for i, name in enumerate(concepts)}
    return Explanation(
        backbone="model\n",
        layers=tuple(layers),
        targets=tuple(targets),
        concepts=tuple(concepts),
        scores=scores[list(SCORE_COLUMNS)],
        hierarchies=hierarchies,
        supports={layer: Support(hierarchies[layer], above, stability, 7) for layer in list(hierarchies)[:1]},
        banks=banks,
        similarities={layer: rng.normal(size=(k, k)).astype(np.float32) for layer in layers},
        sensitivities={layer: rng.normal(size=(2, len(targets), k)).astype(np.float32) for layer in layers},
        clips=clips,
        examples={layer: {concepts[0]: [clips[1]], concepts[2]: []} for layer in layers},
        timelines=[Timeline(layers[0], targets[0], clips[1], np.arange(3.0), np.arange(3.0) + 1, rng.random((3, k)))],
        warnings=["one", "two \ud800"],
        provenance={"seed": 1, "x": [None, True, 1e-300], "clips": {"x\ud800.wav": "ab"}},
    )


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(found: Explanation, wanted: Explanation) -> None:
    assert found.scores.equals(wanted.scores)
    assert (found.scores.dtypes == wanted.scores.dtypes).all()
    for part in fields(Explanation):
        one, other = getattr(found, part.name), getattr(wanted, part.name)
        if part.name in ("similarities", "sensitivities"):
            assert one.keys() == other.keys()
            assert all(one[layer].tobytes() == other[layer].tobytes() for layer in one)
            assert all(one[layer].dtype == other[layer].dtype for layer in one)
        elif part.name == "banks":
            assert list(one) == list(other)
            for layer, bank in one.items():
                assert (bank.names, bank.layer, bank.method) == (other[layer].names, layer, other[layer].method)
                assert bank.directions.numpy().tobytes() == other[layer].directions.numpy().tobytes()
                assert torch.equal(bank.biases.nan_to_num(7), other[layer].biases.nan_to_num(7))
                assert torch.equal(bank.scales.nan_to_num(7), other[layer].scales.nan_to_num(7))
                assert bank.quality.equals(other[layer].quality)
        elif part.name == "timelines":
            assert len(one) == len(other)
            for line, wanted_line in zip(one, other, strict=True):
                assert (line.layer, line.target, line.clip) == (wanted_line.layer, wanted_line.target, wanted_line.clip)
                for array in ("starts", "ends", "sensitivity"):
                    np.testing.assert_array_equal(getattr(line, array), getattr(wanted_line, array))
        elif part.name == "supports":
            assert list(one) == list(other)
            for layer, support in one.items():
                wanted_support = other[layer]
                assert support.hierarchy == wanted_support.hierarchy and support.samples == wanted_support.samples
                assert support.stability == wanted_support.stability
                np.testing.assert_array_equal(support.above, wanted_support.above)  # to the last bit: shares decide
        elif part.name == "shares":
            assert one.equals(other)
        elif part.name != "scores":
            assert one == other


def test_what_is_saved_comes_back_equal_and_saves_to_the_same_bytes(tmp_path):
    wanted = example()
    assert wanted.save(tmp_path / "one") == tmp_path / "one"
    found = Explanation.load(tmp_path / "one")
    same(found, wanted)
    found.save(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    wanted.save(tmp_path / "one")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_consensus_of_a_layer():
    given = example()
    layer = given.layers[0]
    assert given.consensus(least=3 / 7) == given.consensus(layer, 3 / 7) == given.supports[layer].consensus(3 / 7)
    with pytest.raises(InputError, match=f"has no support; choose from {layer}$"):
        given.consensus(given.layers[1])
    given.supports = {}
    with pytest.raises(InputError, match="has no support; explain with support=200"):
        given.consensus()


def test_an_explanation_of_before_there_was_support_is_read(tmp_path):
    wanted = example()
    wanted.supports = {}
    wanted.save(tmp_path)
    content = json.loads((tmp_path / "explanation.json").read_text())
    del content["supports"]
    (tmp_path / "explanation.json").write_text(json.dumps(content))
    same(Explanation.load(tmp_path), wanted)


def test_without_scores(tmp_path):
    wanted = example()
    wanted.targets, wanted.clips = (), ()
    wanted.scores, wanted.timelines, wanted.sensitivities = empty_scores(), [], {}
    wanted.save(tmp_path)
    found = Explanation.load(tmp_path)
    same(found, wanted)
    assert len(found.top()) == 0


def test_the_files(tmp_path):
    example().save(tmp_path)
    assert sorted(files(tmp_path)) == [
        "arrays.safetensors", "explanation.json",
        "hierarchy-A_b-2.gexf", "hierarchy-A_b-2.graphml", "hierarchy-a_b.gexf", "hierarchy-a_b.graphml",
        "scores.csv",
    ]  # fmt: skip
    plain = tmp_path / "plain"
    plain.write_text("")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}
    for content in files(tmp_path).values():
        assert b"\x80\x04" not in content[:2]  # no pickle
    about = json.loads((tmp_path / "explanation.json").read_text("ascii"))
    assert about["schema"] == 2
    for name in ("hierarchy-a_b", "hierarchy-A_b-2"):
        graphml = nx.read_graphml(tmp_path / f"{name}.graphml")
        gexf = nx.read_gexf(tmp_path / f"{name}.gexf")
        for graph in (graphml, gexf):
            assert graph.number_of_nodes() == len(HOSTILE)
            assert graph.number_of_edges() == len(HOSTILE) - 2
            assert all(isinstance(weight, float) for _, _, weight in graph.edges(data="weight"))
        assert graphml.nodes["n0"]["label"] == HOSTILE[0]


def test_file_names_of_layers_are_plain_and_different():
    layers = ("a/b", "a:b", "A_B", "..", "", "x" * 200, "x" * 199 + "y", "ü")
    stems = layer_files(layers)
    assert len({stem.casefold() for stem in stems.values()}) == len(layers)
    assert all(stem and len(stem) < 90 and not stem.startswith(".") for stem in stems.values())
    assert all(
        character.isascii() and (character.isalnum() or character in "._-") for s in stems.values() for character in s
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    example(concepts=("a", "b", "c"), layers=("l",), targets=("t",)).save(folder)
    return folder


@pytest.mark.parametrize("name", ["explanation.json", "scores.csv", "arrays.safetensors"])
def test_a_missing_file_is_named(saved, tmp_path, name):
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        Explanation.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["explanation.json", "scores.csv", "arrays.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "folder"])
def test_a_damaged_file_is_said_in_one_line(saved, tmp_path, name, damage):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\xff\x00" * 50, "empty": b""}[damage])
    if name == "scores.csv" and damage == "cut":
        path.write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))  # a whole row is gone
    with pytest.raises(InputError) as caught:
        Explanation.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_flipped_bit_in_the_arrays_is_noticed(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Explanation.load(tmp_path / "copy")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"schema": None},
        {"layers": 3},
        {"layers": ["other"]},
        {"banks": {"l": {}}},
        {"clips": [["a"] * 9]},
        {"hierarchies": {"l": {"schema": 1, "names": ["a"], "edges": [[0, 5, 1, None]]}}},
        {"timelines": [{}]},
        {"examples": []},
        {"warnings": None},
    ],
)
def test_other_content_is_refused_in_one_line(saved, tmp_path, change):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / "explanation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        Explanation.load(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_a_list_instead_of_an_object_is_refused(saved, tmp_path):
    (tmp_path / "explanation.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        Explanation.load(tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        example().save(tmp_path / "file" / "below")


def test_top_keeps_the_order_of_targets_and_ranks_by_magnitude():
    explanation = example(concepts=("a", "b", "c", "d"), layers=("l", "m"), targets=("z", "a"))
    explanation.scores["status"] = "ok"
    explanation.scores.loc[0, "status"] = "not testable"
    top = explanation.top("l", n=2)
    assert top["target"].tolist() == ["z", "z", "a", "a"]
    rows = explanation.scores[explanation.scores["layer"] == "l"]
    for target, skip in (("z", 1), ("a", 0)):
        wanted = rows[rows["target"] == target].iloc[skip:].sort_values("magnitude", ascending=False)["concept"][:2]
        assert top.loc[top["target"] == target, "concept"].tolist() == wanted.tolist()
    assert (explanation.top()["layer"] == "m").all()
    with pytest.raises(InputError, match="layer 'x' was not explained; choose one of l, m"):
        explanation.top("x")


def test_export_hands_the_explanation_to_the_format_that_is_named(tmp_path):
    seen = []

    class Plugin:
        @hookimpl
        def captum_concepts_exporters(self):
            return {"seen": lambda explanation, path, **options: seen.append((explanation, path, options))}

    explanation, plugin = example(), Plugin()
    explanation.save(tmp_path / "saved")
    assert explanation.export("folder", str(tmp_path / "folder")) == tmp_path / "folder"
    assert files(tmp_path / "folder") == files(tmp_path / "saved")
    get_plugin_manager().register(plugin)
    try:
        assert explanation.export("seen", tmp_path / "x", a=1) == tmp_path / "x"
    finally:
        get_plugin_manager().unregister(plugin)
    assert seen == [(explanation, tmp_path / "x", {"a": 1})]
    with pytest.raises(InputError, match=r"unknown exporter 'seen'; known: .*folder.*html"):
        explanation.export("seen", tmp_path / "x")


def test_saving_into_a_used_folder_leaves_nothing_of_what_lay_there(tmp_path):
    explanation = example()
    explanation.save(tmp_path)
    (tmp_path / "report.html").write_text("of the first")
    (tmp_path / "hierarchy-gone.graphml").write_text("of the first")
    (tmp_path / "notes.txt").write_text("a user's own")
    explanation.save(tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert not (tmp_path / "hierarchy-gone.graphml").exists()
    assert (tmp_path / "notes.txt").read_text() == "a user's own"
    assert not list(tmp_path.glob(".saving-*"))


def test_a_save_that_fails_leaves_what_lay_there(tmp_path, monkeypatch):
    explanation = example()
    explanation.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captum_concepts.results.files.write_scores", full)
    with pytest.raises(InputError, match="No space left on device"):
        explanation.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_layers_are_combined_only_with_their_similarities():
    given = example()
    given.similarities = {}
    with pytest.raises(InputError, match="its similarities are not in the explanation; explain again"):
        given.combined()
