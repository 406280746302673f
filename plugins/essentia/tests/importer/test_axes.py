from __future__ import annotations

from captum_concepts_essentia.importer.axes import layer_axes, observed
from captum_concepts_essentia.importer.graph_module import GraphModule, import_graph


def axes_of(module: GraphModule, letters: str) -> dict[str, str]:
    return layer_axes(module, letters, observed(module))


def test_letters_follow_the_graph(models):
    axes = axes_of(import_graph(models / "tiny-tagger-1.pb"), "BTF")
    assert axes["model/Placeholder"] == "BTF"
    for node in ("ExpandDims", "conv/Conv2D", "conv/Relu", "norm", "pool"):
        assert axes[f"model/{node}"] == "BTFC"
    assert axes["model/Squeeze"] == "BTC"
    assert "model/Mean" not in axes and "model/Sigmoid" not in axes  # two axes need no letters


def test_an_input_of_unknown_size_gives_none(models):
    assert axes_of(import_graph(models / "tiny-tagger-1.pb"), "BTFC") == {}
    assert axes_of(import_graph(models / "tiny-moods-1.pb"), "BC") == {}


def test_musicnn(published):
    """Its back end makes channels into an axis that convolutions slide over, and back."""
    axes = axes_of(import_graph(published("essentia/msd-musicnn-1.pb")), "BTF")
    expected = {"concat": "BTC", "ExpandDims_1": "BTCF", "conv2d_5/Relu": "BTFC", "transpose": "BTCF", "Add_1": "BTCF"}
    assert {name: axes[f"model/{name}"] for name in expected} == expected
