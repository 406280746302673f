from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from captum_concepts_essentia import import_graph
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.graphdef.functions import FlatNode, flatten, free_batch, join
from captum_concepts_essentia.graphdef.protobuf import parse_graph
from captum_concepts_essentia.importer.graph_module import GraphModule, UnsupportedOperation
from scipy.special import expit, softmax

from captum_concepts.errors import InputError


def nodes_of(graph: GraphBuilder) -> dict[str, FlatNode]:
    return flatten(parse_graph(graph.content), "test.pb")


def module_of(graph: GraphBuilder, **names: str) -> GraphModule:
    return GraphModule(nodes_of(graph), where="test.pb", **names)


def reference(x: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tagger in float64 numpy."""
    w = {name: value.astype(np.float64) for name, value in arrays.items()}
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), w["conv"].shape[:2], (1, 2))
    conv = np.einsum("btfij,ijc->btfc", windows, w["conv"][:, :, 0])
    relu = np.maximum(conv + w["bias"], 0)
    norm = (relu - w["mean"]) / np.sqrt(w["var"] + 1e-3) * w["gain"] + w["offset"]
    pooled = norm.max(2)
    dense = pooled.mean(1) @ w["dense"] + w["dense_bias"]
    logits = np.maximum(dense, 0) @ w["out"] + w["out_bias"]
    found = {"model/conv/Relu": relu, "model/norm": norm, "model/Squeeze": pooled, "model/dense/BiasAdd": dense}
    return found | {"model/dense_1/BiasAdd": logits, "model/Sigmoid": expit(logits)}


@pytest.fixture(scope="module")
def arrays(tiny) -> dict[str, np.ndarray]:
    found = tiny.weights()
    assert (found["gain"] < 0).any() and (found["gain"] > 0).any()  # both branches of the fused pooling
    return found


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).uniform(0, 4, (5, 187, 96)).astype(np.float32))


def test_every_node_has_tensorflows_value(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    expected = reference(x.numpy(), arrays)
    for node, values in expected.items():
        np.testing.assert_allclose(module(x, output=node).numpy(), values, rtol=2e-5, atol=2e-5)
    assert torch.equal(module(x), module(x, output="model/Sigmoid"))


def test_waiting_for_the_pooling_changes_no_bit_of_it(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    fused = {node: module(x, output=node) for node in ("model/pool", "model/Sigmoid")}
    seen = []
    handle = module.get_submodule("model/conv/Relu").register_forward_hook(lambda *given: seen.append(given[2]))
    assert torch.equal(module(x, output="model/pool"), fused["model/pool"])
    # What follows adds up numbers that lie in another order in memory.
    torch.testing.assert_close(module(x), fused["model/Sigmoid"], rtol=1e-5, atol=0)
    assert len(seen) == 2 and seen[0].shape == (5, 183, 88, 6)
    handle.remove()
    assert torch.equal(module(x), fused["model/Sigmoid"]) and len(seen) == 2


def test_the_pooling_itself_can_be_watched(tiny, arrays, x):
    module, seen = module_of(tiny.tagger(arrays)), []
    module.get_submodule("model/pool").register_forward_hook(lambda *given: seen.append(given[2]))
    module(x)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][:, :, 0], module(x, output="model/Squeeze"))


def test_gradients_against_differences_in_double(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays)).double()
    point = x[:1].double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(point, output="model/dense_1/BiasAdd")[0, 1], point)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        ends = [module(point + sign * step * direction, output="model/dense_1/BiasAdd")[0, 1] for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    assert abs((gradient * direction).sum() - difference) < 1e-6 * abs(difference)


def test_start_inside_the_graph(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    embedding = module(x, output="model/dense/BiasAdd")
    torch.testing.assert_close(module(embedding, input="model/dense/BiasAdd"), module(x), rtol=0, atol=1e-7)


def test_functions_are_inlined_and_hookable(tiny):
    module = module_of(tiny.head())
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    nodes = parse_graph(tiny.head().content).nodes
    kernel, bias = (nodes[name].attributes.tensors["value"] for name in ("Const", "Const_1"))
    logits = np.maximum(x, 0) @ kernel + bias
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), softmax(logits, 1), rtol=1e-5)
    inner = "PartitionedCall/PartitionedCall/model/add"
    np.testing.assert_allclose(module(torch.from_numpy(x), output=inner).numpy(), logits, rtol=1e-5, atol=1e-6)
    assert module.find_logits() == inner
    assert inner in dict(module.named_modules())


def test_functions_that_do_not_end():
    body = GraphBuilder()
    body.call("again", "f", "x")
    body.call("twice", "f", "x")
    graph = GraphBuilder()
    graph.function("f", ["x"], {"y": "again:output:0"}, body)
    graph.call("call", "f", graph.placeholder("x", (None, 2)))
    with pytest.raises(InputError, match="call each other"):
        module_of(graph)
    # Functions that each call the next one twice: few bytes, and a number of nodes that doubles each time.
    graph = GraphBuilder()
    for level in range(40):
        body = GraphBuilder()
        if level < 39:
            body.call("a", f"f{level + 1}", "x")
            body.call("b", f"f{level + 1}", "x")
        body.add("Identity", "y", "x")
        graph.function(f"f{level}", ["x"], {"y": "y:output:0"}, body)
    graph.call("call", "f0", graph.placeholder("x", (None, 2)))
    with pytest.raises(InputError, match="once functions are inlined"):
        module_of(graph)


def test_a_cycle_is_named():
    graph = GraphBuilder()
    graph.placeholder("x", (None, 2))
    graph.add("AddV2", "a", "x", "b")
    graph.add("Relu", "b", "a")
    graph.add("Relu", "c", "x")
    assert module_of(graph, output="c")(torch.ones(1, 2)).tolist() == [[1, 1]]
    with pytest.raises(InputError, match="cycle around 'a'"):
        module_of(graph, output="b")


def test_an_unsupported_operation_counts_only_where_it_is_needed():
    graph = GraphBuilder()
    x = graph.placeholder("x", (None, 2))
    graph.add("Relu", "good", x)
    graph.add("RestoreV2", "saver", x)
    graph.add("Relu", "after", "saver")
    module = module_of(graph, output="good")
    assert module(torch.ones(1, 2)).shape == (1, 2)
    for call in (lambda: module(torch.ones(1, 2), output="after"), lambda: module_of(graph, output="after")):
        with pytest.raises(UnsupportedOperation, match=r"'RestoreV2' of node 'saver' is not supported; .*Conv2D.*Relu"):
            call()


def test_what_is_missing_is_said(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    with pytest.raises(InputError, match=r"no node 'model/Sigmoide'.*model/Sigmoid"):
        module(x, output="model/Sigmoide")
    with pytest.raises(InputError, match=r"\(5, 100, 96\).*\(B, 187, 96\)"):
        module(x[:, :100])
    with pytest.raises(InputError, match="one output"):
        module(x, output="model/Sigmoid:1")
    with pytest.raises(InputError, match="not a Placeholder"):
        module_of(tiny.tagger(arrays), input="model/Mean")
    graph = GraphBuilder()
    graph.add("Relu", "y", "nowhere")
    with pytest.raises(InputError, match="reads 'nowhere'"):
        module_of(graph, output="y")
    graph = GraphBuilder()
    graph.add("AddV2", "y", graph.placeholder("a", (2,)), graph.placeholder("b", (2,)))
    with pytest.raises(InputError, match="2 inputs"):
        module_of(graph)


def test_several_ends_need_a_name():
    graph = GraphBuilder()
    graph.add(
        "Split", "s", graph.constant("axis", np.array(1, np.int32)), graph.placeholder("x", (None, 4)), num_split=2
    )
    graph.add("Relu", "a", "s:1")
    graph.add("Neg", "b", "s")
    module = module_of(graph)
    x = torch.tensor([[1.0, 2, -3, 4]])
    with pytest.raises(InputError, match="several outputs"):
        module(x)
    assert module(x, output="a").tolist() == [[0, 4]] and module(x, output="b").tolist() == [[-1, -2]]
    assert module(x, output="s:1").tolist() == [[-3, 4]]
    with pytest.raises(InputError, match="2 outputs"):
        module(x, output="s:2")


def test_names_that_torch_has_taken():
    graph = GraphBuilder()
    x = graph.placeholder("x.y", (None, 2))
    graph.add("Relu", "forward", x)
    graph.add("Neg", "training", "forward")
    module = module_of(graph)
    assert module(torch.ones(1, 2)).tolist() == [[-1, -1]]
    assert module.layer_name("forward") == "forward_" and module.layer_name("x.y") == "x_y"
    assert {"forward_", "training_", "x_y"} == set(dict(module.named_children()))


def test_parameters_follow_the_module(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    assert {name for name, _ in module.named_parameters()} == {f"weights/{name}.value" for name in arrays}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module.double()(x.double()).dtype == torch.float64


def test_a_head_on_a_backbone_is_one_graph(tiny, arrays, x):
    below, above = nodes_of(tiny.tagger(arrays)), nodes_of(tiny.head())
    nodes = join(below, ("model/dense/BiasAdd", 0), above, "serving_default_model_Placeholder")
    both = GraphModule(nodes, output="head/PartitionedCall", where="test.pb")
    embedding = module_of(tiny.tagger(arrays))(x, output="model/dense/BiasAdd")
    torch.testing.assert_close(both(x), module_of(tiny.head())(embedding))
    assert both.input_name == "model/Placeholder" and both.find_logits().startswith("head/PartitionedCall/")
    torch.testing.assert_close(both(x, output="model/Sigmoid"), module_of(tiny.tagger(arrays))(x))


def test_a_graph_frozen_for_one_size_of_batch_takes_any():
    graph = GraphBuilder()
    shape = graph.constant("shape", np.array([64, 6], np.int32))
    graph.add("Reshape", "flat", graph.placeholder("x", (64, 2, 3)), shape)
    nodes = free_batch(nodes_of(graph), 64)
    assert GraphModule(nodes)(torch.ones(5, 2, 3)).shape == (5, 6)
    assert nodes_of(graph)["shape"].attributes.tensors["value"].tolist() == [64, 6]


def test_a_graph_that_asks_for_too_much_memory():
    graph = GraphBuilder()
    limits = [graph.constant(f"c{i}", np.array(value, np.int64)) for i, value in enumerate((0, 2**60, 1))]
    graph.add("Range", "huge", *limits, Tidx=np.dtype("int64"))
    graph.add("AddV2", "y", graph.placeholder("x", (None, 2)), "huge")
    with pytest.raises(InputError, match="node 'huge'") as error:
        module_of(graph)(torch.ones(1, 2))
    assert "\n" not in str(error.value)


def test_a_copy_is_independent(tiny, arrays, x):
    module = module_of(tiny.tagger(arrays))
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.get_parameter("weights/out_bias.value").add_(1)
    assert not torch.equal(module(x), other(x))
    torch.testing.assert_close(module(x, output="model/pool"), other(x, output="model/pool"))


@pytest.mark.gpu
def test_cuda_agrees(tiny, arrays, x):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    module = module_of(tiny.tagger(arrays))
    expected = module(x)
    torch.testing.assert_close(module.cuda()(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)


def test_import_reads_the_card_beside_the_graph(models, x):
    path = models / "tiny-tagger-1.pb"
    assert import_graph(path).output_name == "model/Sigmoid"
    assert import_graph(path, output="model/dense/BiasAdd")(x).shape == (5, 4)
    (models / "tiny-tagger-1.json").unlink()
    assert import_graph(path).output_name == "model/Sigmoid"  # the only node that no other reads
    with pytest.raises(
        InputError, match=r"tiny-moods-1\.json'.*'PartitionedCall'.*tiny-tagger-1.*another graph.*card="
    ):
        import_graph(path, models / "tiny-moods-1.json", input="model/Placeholder")
    module = import_graph(path, models / "tiny-moods-1.json", input="model/Placeholder", output="model/Sigmoid")
    assert module(x).shape == (5, 3)  # what is said outright goes before the card
