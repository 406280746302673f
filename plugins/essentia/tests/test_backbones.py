from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_essentia.backbones import FACTORIES
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.importer.graph_module import import_graph

import captum_concepts as cc
from captum_concepts.audio import Clip, frontend
from captum_concepts.backbones import Backbone
from captum_concepts.errors import InputError

LAYER = "model/dense/BiasAdd"


@pytest.fixture
def tone(tmp_path):
    time = np.arange(16000 * 7) / 16000
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time * (1 + 0.1 * time)), 16000)
    return Clip(str(path))


def make(models, name="tiny-tagger-1", kind="essentia-musicnn", **options):
    return FACTORIES[kind](str(models / f"{name}.pb"), "cpu", **options)


def test_it_is_registered():
    registered = {"essentia", "essentia-musicnn", "essentia-vggish", "essentia-effnet-discogs", "essentia-maest"}
    assert set(FACTORIES) == registered
    from captum_concepts_essentia import plugin

    assert set(plugin.captum_concepts_backbones()) == registered


def test_importing_the_plugin_imports_neither_torch_nor_essentia():
    code = (
        "import sys, captum_concepts_essentia, captum_concepts_essentia.plugin as p;"
        "assert not {'torch', 'essentia', 'numpy'} & set(sys.modules), 'at import';"
        "p.captum_concepts_backbones(); assert 'essentia' not in sys.modules, 'at the hook'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_backbone_from_a_card(models, tone):
    backbone = make(models)
    assert isinstance(backbone, Backbone)
    assert (backbone.name, tuple(backbone.layers)) == ("essentia-musicnn", (LAYER,))
    assert tuple(backbone.classes) == ("rock", "jazz", "sad")
    inputs = next(iter(backbone.read(tone))).inputs
    logmel = frontend("musicnn")(inputs)
    module = import_graph(models / "tiny-tagger-1.pb")
    found = backbone.gradients(inputs, [LAYER, "model/Squeeze", "model/norm"], [1])
    torch.testing.assert_close(found.logits, module(logmel, output="model/dense_1/BiasAdd"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.activations[LAYER], module(logmel, output=LAYER), rtol=1e-4, atol=1e-4)
    # (B, 183, 6) and (B, 183, 88, 6), averaged over time.
    assert found.gradients["model/Squeeze"].shape == (len(inputs), 1, 6)
    norm = module(logmel, output="model/norm").mean(1).flatten(1)
    torch.testing.assert_close(found.activations["model/norm"], norm, rtol=1e-4, atol=1e-4)
    assert backbone.fingerprint() == make(models).fingerprint()


def test_patches_are_as_far_apart_as_in_essentia(models, tone):
    assert make(models).hop_samples == 93 * 256
    backbone = make(models, hop_seconds=3.0)
    starts = next(iter(backbone.read(tone))).starts
    assert backbone.hop_samples == 48000 and starts[1] == 3.0 - 256 / 16000  # the first frame is centred on 0


def test_a_head_is_explained_at_a_layer_of_its_backbone(models, tone):
    by_head = make(models, "tiny-moods-1", "essentia")
    by_option = make(models, head=str(models / "tiny-moods-1.pb"))
    inputs = next(iter(by_head.read(tone))).inputs
    logmel = by_head.frontend(inputs)
    tagger, head = (import_graph(models / f"{name}.pb") for name in ("tiny-tagger-1", "tiny-moods-1"))
    embedding = tagger(logmel, output=LAYER).requires_grad_(True)
    logits = head(embedding, output="PartitionedCall/PartitionedCall/model/add")
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), embedding)
    for backbone in (by_head, by_option):
        assert tuple(backbone.classes) == ("happy", "sad") and tuple(backbone.layers) == (LAYER,)
        found = backbone.gradients(inputs, [LAYER], [1])
        torch.testing.assert_close(found.logits, logits.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.gradients[LAYER][:, 0], gradient, rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_said(models, tmp_path):
    files = {
        "essentia": "any of Essentia's models",
        "essentia-musicnn": "msd-musicnn-1.pb",
        "essentia-vggish": "audioset-vggish-3.pb",
        "essentia-effnet-discogs": "discogs-effnet-bs64-1.pb",
        "essentia-maest": "discogs-maest-30s-pw-1.pb",
    }
    assert set(files) == set(FACTORIES)
    for kind, file in files.items():
        pattern = rf"{kind} needs .*{file}.*card.* at https://essentia\.upf\.edu/models.* under CC BY-NC-SA 4\.0"
        with pytest.raises(InputError, match=pattern):
            FACTORIES[kind](None)
    with pytest.raises(InputError, match="no such file"):
        FACTORIES["essentia"](str(tmp_path / "none.pb"))
    with pytest.raises(InputError, match="for TensorflowPredictMusiCNN, and essentia-maest for"):
        make(models, kind="essentia-maest")
    with pytest.raises(InputError, match="'weight': is not one of"):
        make(models, weight=1)
    with pytest.raises(InputError, match="gradients='some'"):
        make(models, gradients="some")
    for suffix in ("pb", "json"):
        (models / f"tiny-tagger-1.{suffix}").rename(models / f"elsewhere.{suffix}")
    with pytest.raises(InputError, match=r"tiny-moods-1\.pb is a head on tiny-tagger-1.*put tiny-tagger-1\.pb beside"):
        make(models, "tiny-moods-1", "essentia")
    assert make(models, "tiny-moods-1", "essentia", embedding_weights=str(models / "elsewhere.pb"), card=None)


def test_a_card_cannot_point_out_of_its_folder(models):
    card = json.loads((models / "tiny-moods-1.json").read_text())
    card["inference"]["embedding_model"]["model_name"] = "../../secret/tiny-tagger-1"
    (models / "tiny-moods-1.json").write_text(json.dumps(card))
    assert make(models, "tiny-moods-1", "essentia").classes  # tiny-tagger-1.pb beside it


def test_a_head_of_another_algorithm(models, tiny):
    card = json.loads((models / "tiny-moods-1.json").read_text())
    card["inference"]["embedding_model"] = {"algorithm": "TensorflowPredictMAEST", "model_name": "m"}
    (models / "tiny-moods-1.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="takes embeddings of m, not of tiny-tagger"):
        make(models, head=str(models / "tiny-moods-1.pb"))


def test_a_card_with_another_rate(models):
    card = json.loads((models / "tiny-tagger-1.json").read_text())
    card["inference"]["sample_rate"] = 44100
    (models / "tiny-tagger-1.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="44100 Hz, and TensorflowPredictMusiCNN takes 16000"):
        make(models)


def test_without_a_card(models, tone):
    (models / "tiny-tagger-1.json").unlink()
    with pytest.raises(InputError, match=r"card=, or algorithm="):
        make(models, kind="essentia")
    backbone = make(models, kind="essentia", algorithm="TensorflowPredictMusiCNN", classes="a, b, c", embedding=LAYER)
    assert tuple(backbone.classes) == ("a", "b", "c") and backbone.layers == (LAYER,)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("classes", 5), ("classes", ["a", 1, "c"]), ("layers", 3), ("hop_seconds", "slow"), ("hop_seconds", True)),
        *(("head", 5), ("card", True), ("output", ["a"]), ("algorithm", 1), ("gradients", 7), ("short", 2)),
    ],
)
def test_options_of_another_type(models, option, value):
    with pytest.raises(InputError, match=f"^{option}=") as error:
        make(models, **{option: value})
    assert "\n" not in str(error.value)


def test_class_names_with_commas(models):
    options = {"output": "model/Sigmoid", "embedding": LAYER, "card": None}
    backbone = make(models, classes='rock, "sad, slow", jazz', **options)
    assert tuple(backbone.classes) == ("rock", "sad, slow", "jazz")
    assert tuple(make(models, classes=["a, b", "c", "d"], **options).classes) == ("a, b", "c", "d")
    with pytest.raises(InputError, match="put quotes around whole names"):
        make(models, classes='rock, "sad, slow', **options)
    with pytest.raises(InputError, match="'a' is given 2 times"):
        make(models, classes="a, b, a", **options)


@pytest.mark.parametrize(("classes", "count"), [("a", 1), ("a, b, c, d", 4)])
def test_the_number_of_classes_is_checked_at_once(models, classes, count):
    with pytest.raises(InputError, match=rf"{count} names for the output of tiny-tagger-1\.pb, of shape \(B, 3\)"):
        make(models, classes=classes)
    with pytest.raises(InputError, match=rf"{count} names for the output of the head on tiny-.*\(B, 2\)"):
        make(models, "tiny-moods-1", "essentia", classes=classes)


def test_the_card_of_another_graph_is_named(models):
    cards = {name: json.loads((models / f"{name}.json").read_text()) for name in ("tiny-tagger-1", "tiny-moods-1")}
    (models / "wrong.json").write_text(json.dumps(cards["tiny-tagger-1"] | {"schema": cards["tiny-moods-1"]["schema"]}))
    with pytest.raises(InputError, match=r"wrong\.json'.*'serving.*tiny-tagger-1\.pb does not have.*another.*card="):
        make(models, card=str(models / "wrong.json"))
    (models / "wrong.json").write_text(json.dumps(cards["tiny-moods-1"] | {"schema": cards["tiny-tagger-1"]["schema"]}))
    with pytest.raises(InputError, match=r"wrong\.json'.*'model/Placeholder'.*tiny-moods-1\.pb does not have.*card="):
        make(models, "tiny-moods-1", "essentia", card=str(models / "wrong.json"))


def test_a_head_whose_backbone_has_no_card(models, tone):
    (models / "tiny-tagger-1.json").unlink()
    with pytest.raises(InputError, match=r"nothing names the embedding.*tiny-moods-1.*tiny-tagger-1\.json.*embedding="):
        make(models, "tiny-moods-1", "essentia")
    backbone = make(models, "tiny-moods-1", "essentia", embedding=LAYER)  # the head's card names the algorithm
    assert tuple(backbone.classes) == ("happy", "sad") and backbone.hop_samples == 93 * 256


def test_wrong_layers_list_the_nearest_and_no_constants(models):
    backbone = make(models)
    with pytest.raises(
        InputError, match=r"layer='model/dense/BiasAd': is not one .* are: model/dense/BiasAdd,"
    ) as error:
        backbone.check_layers(["model/dense/BiasAd"])
    assert "weights/" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="'weights/dense': is a constant"):
        backbone.check_layers(["weights/dense"])
    with pytest.raises(InputError, match="'model/dense:²': is not one of its layers"):
        backbone.check_layers(["model/dense:²"])
    with pytest.raises(InputError, match=r"layers=\(\): is empty; choose from: model/Sigmoid"):
        backbone.check_layers([])
    only = make(models, output=LAYER, card=None, classes="a, b, c, d")
    with pytest.raises(InputError, match="'model/Sigmoid': is not before its output"):
        only.check_layers(["model/Sigmoid"])


def test_several_outputs_without_a_card(models, tiny):
    graph = tiny.tagger(tiny.weights())
    graph.add("Sinh", "other", LAYER)
    (models / "two.pb").write_bytes(graph.content)
    with pytest.raises(InputError, match=r"several outputs \(model/Sigmoid, other\); name one with output="):
        make(models, "two")


def test_a_graph_that_asks_for_a_huge_patch(models, tmp_path):
    graph = GraphBuilder()
    graph.add("Relu", "y", graph.placeholder("x", (None, 2**20, 2**20)))
    (tmp_path / "huge.pb").write_bytes(graph.content)
    with pytest.raises(InputError, match="a value of 1099511627776 numbers"):
        make(tmp_path, "huge")


def test_a_model_that_only_embeds(models, tiny, tone):
    card = json.loads((models / "tiny-tagger-1.json").read_text())
    del card["schema"]["outputs"][0]
    (models / "tiny-tagger-1.json").write_text(json.dumps(card))
    backbone = make(models)
    assert tuple(backbone.classes) == ()
    inputs = next(iter(backbone.read(tone))).inputs
    assert backbone.activations(inputs, [LAYER])[LAYER].shape == (len(inputs), 4)
    with pytest.raises(InputError, match="no predictions"):
        backbone.gradients(inputs, [LAYER], [0])


def test_the_other_backbones_by_tiny_graphs(tmp_path, tiny, tone):
    """Patches of the graph's own length, several outputs of one node, and a batch that was frozen at 64."""
    arrays = tiny.weights()
    for kind, algorithm, frames, bands in (
        ("essentia-vggish", "TensorflowPredictVGGish", 96, 64),
        ("essentia-effnet-discogs", "TensorflowPredictEffnetDiscogs", 128, 96),
        ("essentia-maest", "TensorflowPredictMAEST", 316, 96),
    ):
        graph = tiny.tagger(arrays, frames, bands, batch=64 if "effnet" in kind else None)
        graph.add("IdentityN", "PartitionedCall", "model/Sigmoid", LAYER)
        (tmp_path / f"{kind}.pb").write_bytes(graph.content)
        outputs = [
            {"name": "PartitionedCall:0", "output_purpose": "predictions"},
            {"name": "PartitionedCall:1", "output_purpose": "embeddings"},
        ]
        inputs = [{"name": "model/Placeholder"}]
        card = tiny.tagger_card | {"schema": {"inputs": inputs, "outputs": outputs}}
        card = card | {"inference": {"sample_rate": 16000, "algorithm": algorithm}}
        (tmp_path / f"{kind}.json").write_text(json.dumps(card))
        backbone = FACTORIES[kind](str(tmp_path / f"{kind}.pb"), "cpu")
        assert backbone.layers == ("PartitionedCall:1",)
        extracted = next(iter(backbone.read(tone))).inputs
        module = import_graph(tmp_path / f"{kind}.pb")
        expected = module(backbone.frontend(extracted), output=LAYER)
        found = backbone.activations(extracted, backbone.layers)["PartitionedCall:1"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert backbone.logits_layer == "model/dense_1/BiasAdd"


def test_the_whole_way(models, tmp_path):
    """Concepts, CAVs, scores: the explainer takes the backbone."""
    random = np.random.default_rng(0)
    concepts = {}
    for name, noise in (("tone", 0.001), ("noise", 1.0)):
        concepts[name] = []
        for number in range(6):
            time = np.arange(16000 * 4) / 16000
            wave = np.sin(2 * np.pi * (200 + 50 * number) * time) + noise * random.normal(size=len(time))
            path = tmp_path / f"{name}{number}.wav"
            soundfile.write(path, 0.2 * wave, 16000)
            concepts[name].append(str(path))
    chosen = cc.ConceptSet.from_playlists(concepts, negatives="rest")
    clips = [cc.Clip(path) for paths in concepts.values() for path in paths]
    explainer = cc.ConceptHierarchyExplainer(make(models), "model/Squeeze", n_nulls=39, bootstrap=100)
    explanation = explainer.explain(clips, chosen, ["jazz"])
    assert set(explanation.scores.concept) == {"tone", "noise"} and explanation.scores.score.notna().all()


KERNEL = np.random.default_rng(0).normal(size=(96, 3)).astype(np.float32) / 30


@pytest.fixture
def odd(tmp_path, tiny) -> str:
    """sigmoid(sinh(mean over time) @ KERNEL): an operation that is not imported; and an embedding (4) of that."""
    pytest.importorskip("essentia")
    graph = GraphBuilder()
    x = graph.placeholder("model/Placeholder", (None, 187, 96))
    mean = graph.add("Mean", "mean", x, graph.constant("axis", np.array([1], np.int32)), Tidx=np.dtype("int32"))
    odd = graph.add("Sinh", "odd", mean)
    graph.add("MatMul", "embedding", odd, graph.constant("four", np.eye(96, 4, dtype=np.float32)))
    graph.add("Sigmoid", "model/Sigmoid", graph.add("MatMul", "logits", odd, graph.constant("k", KERNEL)))
    (tmp_path / "odd.pb").write_bytes(graph.content)
    (tmp_path / "odd.json").write_text(
        json.dumps(
            tiny.tagger_card
            | {
                "schema": {
                    "inputs": [{"name": "model/Placeholder"}],
                    "outputs": [{"name": "model/Sigmoid", "output_purpose": "predictions"}],
                }
            }
        )
    )
    return str(tmp_path / "odd.pb")


def test_unsupported_graphs_fall_back_with_a_reason(odd, caplog):
    with pytest.raises(InputError, match="'Sinh' of node 'odd'"):
        FACTORIES["essentia-musicnn"](odd, "cpu", gradients="exact")
    backbone = FACTORIES["essentia-musicnn"](odd, "auto", layers="mean")
    assert type(backbone).__name__ == "RuntimeBackbone" and "by differences" in caplog.text
    inputs = torch.randn(2, frontend("musicnn").patch_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    found = backbone.gradients(inputs, ["mean"], [2])
    point = frontend("musicnn")(inputs).mean(1).double()
    torch.testing.assert_close(found.activations["mean"].double(), point, rtol=1e-4, atol=1e-4)
    expected = torch.cosh(point) * torch.from_numpy(KERNEL[:, 2]).double()
    torch.testing.assert_close(found.gradients["mean"][:, 0].double(), expected, rtol=1e-2, atol=1e-3)


def test_without_a_card_essentia_runs_to_the_only_end(odd, tmp_path, caplog):
    (tmp_path / "odd.json").unlink()
    with pytest.raises(InputError, match=r"several outputs \(embedding, model/Sigmoid\); name one"):
        FACTORIES["essentia-musicnn"](odd, "cpu")
    graph = GraphBuilder()
    x = graph.placeholder("x", (None, 187, 96))
    mean = graph.add("Mean", "mean", x, graph.constant("axis", np.array([1], np.int32)), Tidx=np.dtype("int32"))
    graph.add("Sinh", "y", mean)
    (tmp_path / "one.pb").write_bytes(graph.content)
    backbone = FACTORIES["essentia-musicnn"](str(tmp_path / "one.pb"), "cpu", layers="mean")
    assert type(backbone).__name__ == "RuntimeBackbone" and len(backbone.classes) == 96
    assert "operation 'Sinh' of node 'y' is not supported" in caplog.text


def test_a_head_on_a_graph_that_only_essentia_runs(odd, models):
    options = {"embedding": "embedding", "head": str(models / "tiny-moods-1.pb"), "layers": ["mean", "embedding"]}
    backbone = FACTORIES["essentia-musicnn"](odd, "cpu", **options)
    assert type(backbone).__name__ == "RuntimeBackbone" and tuple(backbone.classes) == ("happy", "sad")
    inputs = torch.randn(2, frontend("musicnn").patch_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    found = backbone.gradients(inputs, ["mean", "embedding"], [1])
    point = frontend("musicnn")(inputs).mean(1)[:, :4].requires_grad_(True)
    head = import_graph(models / "tiny-moods-1.pb")
    logits = head(torch.sinh(point), output="PartitionedCall/PartitionedCall/model/add")
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), point)
    torch.testing.assert_close(found.logits, logits.detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.gradients["mean"][:, 0, :4], gradient, rtol=2e-2, atol=1e-2)
    assert found.gradients["mean"][:, 0, 4:].abs().max() < 1e-6
