"""Unusual and hostile graphs: the right numbers or one line, never other numbers, a raw error or endless work."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from captum_concepts_essentia.graphdef.builder import GraphBuilder, field, shape_message
from captum_concepts_essentia.graphdef.functions import flatten, split_reference
from captum_concepts_essentia.graphdef.protobuf import MAX_NAME_BYTES, parse_graph
from captum_concepts_essentia.importer.axes import layer_axes, observed
from captum_concepts_essentia.importer.graph_module import GraphModule, UnsupportedOperation
from captum_concepts_essentia.ops.table import OPERATIONS

from captum_concepts.errors import InputError

INT, FLOAT = np.dtype("int32"), np.dtype("float32")
X = torch.tensor([[1.0, 2, -3, 4], [0, 5, 6, -7]])


def module_of(graph: GraphBuilder, **names: str) -> GraphModule:
    return GraphModule(flatten(parse_graph(graph.content), "odd.pb"), where="odd.pb", **names)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def with_input(shape=(None, 4)) -> GraphBuilder:
    graph = GraphBuilder()
    graph.placeholder("x", shape)
    return graph


def refused(make, match: str, error: type[InputError] = InputError) -> None:
    with pytest.raises(error, match=match) as raised:
        make()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 2000


# Outputs


def test_an_end_that_cannot_be_computed_is_an_end_all_the_same():
    graph = with_input()
    graph.add("Relu", "features", "x")
    graph.add("Sinh", "predictions", "x")
    module = module_of(graph)
    refused(lambda: module(X), r"several outputs \(features, predictions\); name one with output=, or .* card=")
    assert module(X, output="features").shape == (2, 4)


def test_the_only_end_cannot_be_computed():
    graph = with_input()
    graph.add("Sigmoid", "predictions", graph.add("Sinh", "odd", "x"))
    refused(lambda: module_of(graph), "operation 'Sinh' of node 'odd' is not supported", UnsupportedOperation)


def test_one_node_with_several_values_is_several_ends():
    graph = with_input()
    graph.add("IdentityN", "PartitionedCall", graph.add("Relu", "a", "x"), graph.add("Neg", "b", "x"))
    refused(lambda: module_of(graph)(X), r"several outputs \(PartitionedCall:0, PartitionedCall:1\)")
    assert module_of(graph, output="PartitionedCall:1")(X).tolist() == (-X).tolist()


def test_what_saves_files_is_no_output():
    graph = with_input()
    graph.add("Relu", "y", "x")
    graph._append("file", "Placeholder", (), {"dtype": field(6, 7), "shape": field(7, shape_message(()))})
    graph.add("SaveV2", "saver", "file")
    assert module_of(graph).output_name == "y"


def test_nothing_depends_on_the_input():
    graph = with_input()
    graph.constant("c", np.ones(2, np.float32))
    refused(lambda: module_of(graph)(X), "nothing in the graph depends on an input; name a node with output=")


def test_constants_that_hold_no_numbers():
    graph = with_input()
    tensor = field(1, 14) + field(2, shape_message((4,))) + field(4, bytes(8))
    graph._append("half", "Const", (), {"dtype": field(6, 14), "value": field(8, tensor)})
    graph.add("AddV2", "y", "x", "half")
    refused(lambda: module_of(graph), "constant 'half' holds values of type 14, which are not", UnsupportedOperation)


def test_a_value_of_two_inputs():
    graph = with_input()
    graph.placeholder("w", (None, 4))
    graph.add("AddV2", "y", "x", "w")
    refused(lambda: module_of(graph), "has 2 inputs")
    refused(lambda: module_of(graph, input="x", output="y")(X), "'y' also depends on 'w', which has no value")


# References


@pytest.mark.parametrize("op", ["Neg", "MaxPool"])
def test_an_output_that_a_node_does_not_have(op):
    graph = with_input((None, 4, 4, 1))
    graph.add("Relu", "relu", "x")
    graph.add(op, "y", "relu:3", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1])
    refused(lambda: module_of(graph)(torch.ones(1, 4, 4, 1)), "'y' reads output 3 of 'relu', which has 1")


def test_an_output_beyond_the_last():
    graph = with_input()
    graph.add("Split", "split", graph.constant("axis", np.array(1, np.int32)), "x", num_split=2)
    graph.add("Relu", "y", "split:5")
    refused(lambda: module_of(graph, output="y")(X), "'y' reads output 5 of 'split', which has 2")
    refused(lambda: module_of(graph, output="y")(X, input="split:1", output="y"), "start from a node's first output")


def test_digits_that_are_no_numbers():
    assert split_reference("x:²") == ("x:²", 0) and split_reference("x:٣") == ("x:٣", 0)
    graph = with_input()
    graph.add("Relu", "y", "x:²")
    refused(lambda: module_of(graph, output="y"), "input 'x:²' is no output of a node")
    graph = with_input()
    graph.add("Relu", "y", "x")
    refused(lambda: module_of(graph)(X, output="y:²"), "no node 'y:²'; its nodes: y")


def test_a_named_output_that_there_is_not():
    body = GraphBuilder()
    body.add("FusedBatchNormV3", "norm", "x", "w", "w", "w", "w", is_training=False)
    body.add("Identity", "y", "norm:no_such:0")
    graph = with_input((None, 2, 2, 1))
    graph.function("f", ["x", "w"], {"y": "y:output:0"}, body)
    graph.call("call", "f", "x", graph.constant("w", np.ones(1, np.float32)))
    refused(lambda: module_of(graph), "'norm:no_such:0' is no output of 'norm'; it has y, batch_mean")


@pytest.mark.parametrize(
    "name", ["output_name", "input_name", "input_shape", "_chains", "layers", "nodes", "ends", "_where", "order"]
)
def test_nodes_called_like_attributes(name):
    graph = with_input()
    graph.add("Neg", name, "x")
    module = module_of(graph)
    assert module(X).tolist() == (-X).tolist() and module.layer_name(name) == f"{name}_"


# Numbers


def value_of(graph: GraphBuilder, node: str, x: torch.Tensor = X) -> np.ndarray:
    return np.asarray(module_of(graph, input="x", output=node)(x))


def test_select_takes_its_type_from_the_values():
    graph = with_input()
    graph.add("Greater", "positive", "x", graph.constant("zero", np.array(0, np.float32)))
    half, third = (graph.constant(name, np.array(v, np.float32)) for name, v in (("h", 0.5), ("t", 0.25)))
    graph.add("Shape", "shape", "x", out_type=INT)
    floats = graph.add("Cast", "floats", "shape", SrcT=INT, DstT=FLOAT)  # an array, as all that comes of shapes
    quarter = graph.add("RealDiv", "quarter", floats, graph.add("Cast", "again", "shape", SrcT=INT, DstT=FLOAT))
    graph.add("SelectV2", "y", "positive", half, third)
    rows = graph.add("Greater", "rows", "x", graph.constant("one", np.array(1, np.float32)))
    scaled = graph.add("Mul", "scaled", graph.add("Slice", "last", quarter, graph.constant("b", ints(1)),
                       graph.constant("n", ints(1))), graph.add("Slice", "w", floats, "b", "n"))  # fmt: skip
    graph.add("SelectV2", "z", rows, scaled, graph.add("Sqrt", "root", scaled))
    np.testing.assert_array_equal(value_of(graph, "y"), np.where(X > 0, 0.5, 0.25))
    np.testing.assert_array_equal(value_of(graph, "z"), np.where(X > 1, 4.0, 2.0))


def test_the_first_select_chooses_rows():
    graph = with_input((None, 2))
    graph.add("Sum", "sum", "x", graph.constant("axis", ints(1)))
    graph.add("Greater", "rows", "sum", graph.constant("zero", np.array(0, np.float32)))
    graph.add("Select", "y", "rows", "x", graph.add("Neg", "minus", "x"))
    x = torch.tensor([[1.0, 2], [-3, 1]])
    assert value_of(graph, "y", x).tolist() == [[1, 2], [3, -1]]
    graph.add("Select", "bad", graph.add("Greater", "all", "x", "zero"), "sum", "sum")
    refused(lambda: value_of(graph, "bad", x), r"condition of shape \(2, 2\) for values of shape \(2,\)")


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("Div", [7, -7, 7], [2, 2, -2], [3, -3, -3]),
        ("FloorDiv", [7, -7, 7], [2, 2, -2], [3, -4, -4]),
        ("FloorMod", [7, -7, 7], [2, 2, -2], [1, 1, -1]),
    ],
)
def test_whole_numbers_stay_whole(op, left, right, expected):
    graph = with_input()
    graph.add(op, "y", graph.constant("l", ints(*left)), graph.constant("r", ints(*right)), T=INT)
    graph.add("Cast", "z", "y", SrcT=INT, DstT=FLOAT)
    graph.add("AddV2", "out", graph.add("Sum", "none", "x", graph.constant("all", ints(0, 1)), keep_dims=False), "z")
    assert value_of(graph, "y").dtype.kind == "i"
    assert value_of(graph, "out", torch.zeros(1, 4)).tolist() == expected


def test_means_and_quotients_of_whole_numbers():
    graph = with_input()
    graph.add("Mean", "mean", graph.constant("c", ints(1, 2, 5, -1)), graph.constant("axis", ints(0)), T=INT)
    found = value_of(graph, "mean")
    assert found.dtype.kind == "i" and found == 1
    graph.add("Cast", "whole", "x", SrcT=FLOAT, DstT=INT)
    graph.add("Mean", "mean_x", "whole", graph.constant("one", ints(1)), T=INT)
    graph.add("Div", "half", "whole", graph.constant("two", np.array(2, np.int32)), T=INT)
    assert value_of(graph, "mean_x").tolist() == [1, 1]  # 4 / 4 and 4 / 4
    assert value_of(graph, "half").tolist() == [[0, 1, -1, 2], [0, 2, 3, -3]]
    graph.add("Div", "by_zero", "c", graph.constant("zero", np.array(0, np.int32)), T=INT)
    refused(lambda: value_of(graph, "by_zero"), "division by zero")


def test_ranges_of_fractions():
    graph = with_input()
    parts = [graph.constant(f"c{i}", np.array(v, np.float32)) for i, v in enumerate((0.5, 2.0, 0.5))]
    graph.add("Range", "y", *parts, Tidx=FLOAT)
    np.testing.assert_allclose(value_of(graph, "y"), [0.5, 1.0, 1.5])
    down = [graph.constant(f"d{i}", np.array(v, np.int32)) for i, v in enumerate((5, 0, -2))]
    graph.add("Range", "down", *down, Tidx=INT)
    assert value_of(graph, "down").tolist() == [5, 3, 1]
    graph.add("Range", "still", "c0", "c1", graph.constant("none", np.array(0, np.float32)), Tidx=FLOAT)
    refused(lambda: value_of(graph, "still"), "in steps of 0")
    graph.add("Range", "several", "c0", "c1", graph.constant("two", np.ones(2, np.float32)), Tidx=FLOAT)
    refused(lambda: value_of(graph, "several"), r"shape \(2,\) where one number belongs")


def test_ranges_count_in_their_own_precision():
    """TensorFlow's counts: 0.3 / 0.1 is 3 in single precision and more than 3 of its numbers in double."""
    for name, limit, step, count in (("a", 0.3, 0.1, 3), ("b", 7, 0.7, 10), ("c", 1, 0.1, 10)):
        graph = with_input()
        parts = [graph.constant(f"c{i}", np.array(v, np.float32)) for i, v in enumerate((0, limit, step))]
        graph.add("Range", name, *parts, Tidx=FLOAT)
        found = value_of(graph, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.arange(count) * step, rtol=1e-6)


def test_axes_and_places_that_there_are_not():
    graph = with_input()
    for name, axes in (("far", ints(7)), ("twice", ints(1, 1)), ("last", ints(-1))):
        graph.add("Prod", name, "x", graph.constant(f"{name}/axes", axes), Tidx=INT)
    refused(lambda: value_of(graph, "far"), r"'far' \(Prod\) cannot take inputs")
    refused(lambda: value_of(graph, "twice"), r"an axis twice in \(1, 1\) is not supported")
    assert value_of(graph, "last").tolist() == [-24, 0]
    graph.add("Gather", "before", graph.constant("c", ints(1, 2)), graph.constant("i", ints(0, -1)))
    refused(lambda: value_of(graph, "before"), "index -1 is not supported")


def test_normalisation_that_adds_nothing_to_the_variance():
    graph = with_input((None, 1, 1, 2))
    numbers = [
        graph.constant(f"c{i}", np.array(v, np.float32)) for i, v in enumerate(([1, 2], [0, 1], [1, -1], [4, 1e-8]))
    ]
    graph.add("FusedBatchNormV3", "y", "x", *numbers, is_training=False, epsilon=0.0)
    x = torch.tensor([[[[3.0, -0.5]]]])
    torch.testing.assert_close(module_of(graph)(x).ravel(), torch.tensor([1.0, 1 + 2 * 0.5 * 1e4]))


def test_casts_wrap_around_as_they_do_in_tensorflow():
    graph = with_input()
    graph.add("Cast", "bytes", "x", SrcT=FLOAT, DstT=np.dtype("uint8"))
    graph.add("Cast", "y", "bytes", SrcT=np.dtype("uint8"), DstT=FLOAT)
    graph.add("Cast", "c", graph.constant("numbers", ints(300, -1)), SrcT=INT, DstT=np.dtype("uint8"))
    x = torch.tensor([[300.0, 255.5, -1, 3]])
    assert value_of(graph, "y", x).tolist() == [[44, 255, 255, 3]]
    assert value_of(graph, "c").tolist() == [44, 255]


@pytest.mark.parametrize("op", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize(("ksize", "layout"), [([1, 2, 2, 3], "NHWC"), ([2, 1, 1, 1], "NHWC"), ([1, 3, 2, 2], "NCHW")])
def test_pooling_over_channels_or_rows(op, ksize, layout):
    graph = with_input((None, 6, 6, 6))
    graph.add(op, "y", "x", ksize=ksize, strides=[1, 1, 1, 1], padding="VALID", data_format=layout)
    refused(lambda: module_of(graph)(torch.ones(2, 6, 6, 6)), "ksize")


@pytest.mark.parametrize(
    ("op", "settings", "reason"),
    [
        ("Conv2D", {"strides": [1, 1, 1, 2]}, "strides"),
        ("Conv2D", {"strides": [1, 1, 1, 1], "padding": "FULL"}, "padding 'FULL'"),
        ("Conv2D", {"strides": [1, 1, 1, 1], "data_format": "NCHW_VECT_C"}, "data_format 'NCHW_VECT_C'"),
        ("DepthwiseConv2dNative", {"strides": [1, 1, 1, 1], "dilations": [1, 2, 2, 1]}, "dilations"),
    ],
)
def test_settings_that_would_be_passed_over(op, settings, reason):
    graph = with_input((None, 6, 6, 2))
    graph.add(op, "y", "x", graph.constant("k", np.ones((2, 2, 2, 2), np.float32)), **settings)
    refused(lambda: module_of(graph)(torch.ones(1, 6, 6, 2)), reason)


def test_pieces_that_do_not_add_up():
    graph = with_input()
    c = graph.constant("c", ints(1, 2, 3, 4))
    axis = graph.constant("axis", np.array(0, np.int32))
    graph.add("SplitV", "s", c, graph.constant("sizes", ints(1, 1)), axis, num_split=2)
    refused(lambda: value_of(graph, "s:1"), r"an axis of 4 in parts of \[1, 1\]")
    graph.add("Slice", "p", c, graph.constant("begin", ints(2)), graph.constant("size", ints(9)))
    refused(lambda: value_of(graph, "p"), "a slice from 2 to 11 of 4")
    graph.add("GatherV2", "g", axis, axis, axis)
    refused(lambda: value_of(graph, "g"), "node 'g'")
    graph.add("Mean", "scalar", "x", graph.constant("all", ints(0, 1)), keep_dims=False)
    graph.add("GatherV2", "h", "scalar", axis, axis)
    refused(lambda: value_of(graph, "h"), "axis 0 of a value of 0 axes")


def test_chains_need_one_layout():
    """A normalisation that leaves out its layout means channels last, also in front of a pooling that does not."""
    graph = with_input((None, 3, 3, 3))
    numbers = [graph.constant(f"c{i}", np.array(v, np.float32)) for i, v in enumerate(([1, -1, 2], [0, 0, 0]))]
    ones = graph.constant("ones", np.ones(3, np.float32))
    graph.add("FusedBatchNormV3", "norm", "x", *numbers, "c1", ones, is_training=False, epsilon=1e-7)
    graph.add("MaxPool", "y", "norm", ksize=[1, 1, 3, 3], strides=[1, 1, 1, 1], padding="VALID", data_format="NCHW")
    x = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = (x * torch.tensor([1.0, -1, 2])).amax((2, 3), keepdim=True)
    torch.testing.assert_close(module_of(graph)(x), expected)


def test_what_a_chain_reads_is_kept_until_it_is_computed():
    """A map that is read once more, by a node in between the chain's first node and its pooling."""
    graph = with_input((None, 4, 4, 2))
    graph.add("Neg", "turned", "x")
    bias = graph.constant("bias", np.array([1, -1], np.float32))
    graph.add("BiasAdd", "biased", "turned", bias)
    graph.add("Mean", "mean", "turned", graph.constant("axes", ints(1, 2)), Tidx=INT)
    graph.add("BiasAdd", "shifted", "mean", bias)
    graph.add("MaxPool", "pool", "biased", ksize=[1, 4, 4, 1], strides=[1, 4, 4, 1], padding="VALID")
    graph.add("AddV2", "y", "pool", "shifted")
    module = module_of(graph)
    assert module._chains["pool"].inside == ("biased",)
    x = torch.randn(3, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([1.0, -1])
    expected = ((-x).amax((1, 2)) + shift)[:, None, None] + (-x).mean((1, 2)) + shift
    torch.testing.assert_close(module(x), expected)


# Inputs and kernels that do not fit


def convolution(kernel: np.ndarray, gain: np.ndarray | None = None, *, with_kernel: bool = True) -> GraphBuilder:
    graph = with_input((None, 8, 8, 2))
    graph.constant("k", kernel)
    graph.add("Conv2D", "conv", "x", *(["k"] if with_kernel else []), strides=[1, 1, 1, 1], padding="SAME")
    graph.constant("w", np.ones(3, np.float32) if gain is None else gain)
    graph.constant("v", np.ones(3, np.float32))
    graph.add("FusedBatchNormV3", "norm", "conv", "w", "v", "v", "v", is_training=False)
    graph.add("MaxPool", "y", "norm", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID")
    return graph


def test_no_rows():
    module = module_of(convolution(np.ones((3, 3, 2, 3), np.float32)))
    assert module(torch.ones(0, 8, 8, 2)).shape == (0, 4, 4, 3)


@pytest.mark.parametrize(
    "graph",
    [
        convolution(np.ones((3, 3), np.float32)),
        convolution(np.ones((3, 3, 5, 3), np.float32)),
        convolution(np.ones((3, 3, 0, 3), np.float32)),
        convolution(np.ones((3, 3, 2, 4), np.float32)),
        convolution(np.ones((3, 3, 2, 3), np.int32)),
        convolution(np.ones((3, 3, 2, 3), np.float32), np.ones(3, np.int32)),
        convolution(np.ones((3, 3, 2, 3), np.float32), np.ones((2, 5), np.float32)),
        convolution(np.ones((3, 3, 2, 3), np.float32), with_kernel=False),
    ],
)
def test_kernels_that_do_not_fit(graph):
    refused(lambda: module_of(graph)(torch.ones(2, 8, 8, 2)), "conv|norm|y")


def test_an_input_that_is_no_tensor():
    graph = with_input()
    graph.add("Relu", "y", "x")
    refused(lambda: module_of(graph)(X.numpy()), "give a torch.Tensor")


def random_graph(random: np.random.Generator) -> GraphBuilder:
    """Operations of every kind, with inputs and settings that mostly do not fit."""
    graph = with_input((None, 6, 6, 3))
    names, ops = ["x"], sorted(OPERATIONS)
    settings = {
        **{"strides": [[1, 1, 1, 1], [1, 2]], "ksize": [[1, 2, 2, 1], [1, 1, 3, 3]], "padding": ["SAME", "EXPLICIT"]},
        **{
            "data_format": ["NCHW", "NHWC"],
            "axis": [0, -1, 5],
            "num_split": [2, 0],
            "num": [2],
            "is_training": [False],
        },
        **{"equation": ["ab,bc->ac", "x"], "squeeze_dims": [[1], [-9]], "DstT": [INT, FLOAT], "mode": ["REFLECT"]},
    }
    for i in range(random.integers(1, 8)):
        values = random.normal(size=[(), (1,), (3,), (2, 2), (2, 2, 3, 3), (0,)][random.integers(6)]) * 3
        names.append(graph.constant(f"c{i}", np.asarray(values, [np.float32, np.int32, np.int64][random.integers(3)])))
        inputs = [str(random.choice([*names[-4:], "x", "x:1"])) for _ in range(random.integers(5))]
        chosen = {key: some[random.integers(len(some))] for key, some in settings.items() if random.random() < 0.5}
        names.append(graph.add(str(random.choice(ops)), f"n{i}", *inputs, **chosen))
    return graph


@pytest.mark.filterwarnings("ignore")
def test_random_graphs_give_values_or_one_line():
    """Any other exception is a failure."""
    random, computed, messages = np.random.default_rng(0), 0, []
    for _ in range(100):
        graph = random_graph(random)
        for node in [name for name in parse_graph(graph.content).nodes if name.startswith("n")]:
            try:
                module = module_of(graph, input="x", output=node)
                module(torch.ones(2, 6, 6, 3))
                layer_axes(module, "BTFC", observed(module))
                module(torch.ones(0, 6, 6, 3))
                computed += 1
            except InputError as error:
                messages.append(str(error))
    assert computed > 20 and not any("\n" in message for message in messages)


def test_a_node_with_no_values():
    graph = with_input()
    graph.add("IdentityN", "none")
    graph.add("Relu", "y", "x")
    module = module_of(graph, output="y")
    assert layer_axes(module, "BC", observed(module)) == {}
    refused(lambda: module(X, output="none", input="x"), "the node has 0 outputs")


# Files that ask for much


def seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_constants_of_functions_called_often():
    body = GraphBuilder()
    body.constant("c", np.ones(2**16, np.float32))
    body.add("AddV2", "y", "x", "c")
    graph = with_input((None, 2**16))
    graph.function("f", ["x"], {"y": "y:z:0"}, body)
    for i in range(400):
        graph.call(f"call{i}", "f", "x")
    refused(lambda: module_of(graph), "too many constants once functions are inlined")


def test_long_names_of_functions_called_often():
    body = GraphBuilder()
    for i in range(300):
        body.add("Relu", f"n{i}", "x" if i == 0 else f"n{i - 1}:activations:0")
    graph = with_input()
    graph.function("f", ["x"], {"y": "n0:activations:0"}, body)
    for i in range(400):
        graph.call(f"{i}" + "a" * 4000, "f", "x")
    refused(lambda: module_of(graph), "too many names once functions are inlined")


def test_many_inputs_of_functions_called_often():
    body = GraphBuilder()
    body.add("AddN", "y", *["x"] * 20_000)
    graph = with_input()
    graph.function("f", ["x"], {"y": "y:sum:0"}, body)
    for i in range(400):
        graph.call(f"call{i}", "f", "x")
    refused(lambda: module_of(graph), "too many names once functions are inlined")


def test_a_name_that_is_a_book():
    graph = with_input()
    graph.add("Relu", "y" * (MAX_NAME_BYTES + 1), "x")
    refused(lambda: module_of(graph), f"a name of {MAX_NAME_BYTES + 1} bytes")


def test_two_functions_of_one_name():
    body = GraphBuilder()
    body.add("Identity", "y", "x")
    graph = with_input()
    for _ in range(2):
        graph.function("f", ["x"], {"y": "y:output:0"}, body)
    graph.call("call", "f", "x")
    refused(lambda: module_of(graph), "two functions are called 'f'")


def collisions(count: int) -> GraphBuilder:
    """Nodes whose names are one and the same with "." as "_"."""
    graph = with_input()
    for i in range(count):
        graph.add("Relu", "".join("._"[i >> bit & 1] for bit in range(14)), "x")
    return graph


def pooled(count: int) -> GraphBuilder:
    """A line of ReLUs with a pooling behind each, and as many poolings behind the first."""
    graph = with_input((None, 2, 2, 1))
    for i in range(count):
        graph.add("Relu", f"r{i}", f"r{i - 1}" if i else "x")
        for name, source in ((f"p{i}", f"r{i}"), (f"q{i}", "r0")):
            graph.add("MaxPool", name, source, ksize=[1, 1, 1, 1], strides=[1, 1, 1, 1], padding="VALID")
    return graph


@pytest.mark.parametrize("make", [collisions, pooled])
def test_work_grows_with_the_file_and_not_with_its_square(make):
    few, many = (flatten(parse_graph(make(count).content), "odd.pb") for count in (200, 1600))
    times = [min(seconds(lambda nodes=nodes: GraphModule(nodes)) for _ in range(2)) for nodes in (few, many)]
    assert times[1] < 24 * times[0]  # 8 times the nodes; their square would be 64


def test_layers_of_nearly_the_same_name():
    module = module_of(collisions(50))
    assert len(set(module.layers.values())) == 51


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("Range", [np.array(v, np.int64) for v in (0, 2**33, 1)]),
        ("Tile", [np.ones(2**10, np.float32), np.array([2**20], np.int32)]),
        ("Fill", [np.array([2**16, 2**16], np.int32), np.array(1, np.float32)]),
        ("GatherV2", [np.ones((1, 2**16), np.float32), np.zeros(2**13, np.int32), np.array(0, np.int32)]),
    ],
)
def test_values_of_very_many_numbers(op, constants):
    graph = with_input()
    graph.add(op, "y", *[graph.constant(f"c{i}", value) for i, value in enumerate(constants)])
    refused(lambda: value_of(graph, "y"), "a value of [0-9]+ numbers")


def test_messages_name_the_nearest_nodes_and_no_constants(tiny):
    graph = tiny.tagger(tiny.weights())
    with pytest.raises(InputError, match=r"no node 'model/dense/Bias'; its nodes: model/dense/BiasAdd") as error:
        module_of(graph)(X, output="model/dense/Bias")
    assert "weights/" not in str(error.value)
