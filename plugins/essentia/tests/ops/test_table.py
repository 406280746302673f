"""Operations compared with numpy or, for windows, with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.graphdef.functions import flatten
from captum_concepts_essentia.graphdef.protobuf import parse_graph
from captum_concepts_essentia.importer.graph_module import GraphModule

from captum_concepts.errors import InputError

INT = np.dtype("int32")
RANDOM = np.random.default_rng(0)
MAP = RANDOM.normal(size=(2, 7, 10, 3)).astype(np.float32)


def built(make) -> GraphModule:
    graph = GraphBuilder()
    make(graph)
    return GraphModule(flatten(parse_graph(graph.content), "test.pb"))


def run(op: str, x: np.ndarray, *constants: np.ndarray, **settings) -> np.ndarray:
    """``op`` of the input and constants."""

    def make(graph: GraphBuilder) -> None:
        names = [graph.constant(f"c{i}", value) for i, value in enumerate(constants)]
        graph.add(op, "y", graph.placeholder("x", (None, *x.shape[1:])), *names, **settings)

    return built(make)(torch.from_numpy(x), output="y").numpy()


def windows(x: np.ndarray, size, strides, padding: str, filler: float, dilations=(1, 1)):
    """For each place of the output, the (B, h, w, C) it reads; as in TensorFlow's documentation of padding."""
    spans = [(length - 1) * by + 1 for length, by in zip(size, dilations, strict=True)]
    if padding == "SAME":
        out = [math.ceil(n / s) for n, s in zip(x.shape[1:3], strides, strict=True)]
        total = [max((o - 1) * s + k - n, 0) for o, s, k, n in zip(out, strides, spans, x.shape[1:3], strict=True)]
        margins = [(t // 2, t - t // 2) for t in total]
        x = np.pad(x, [(0, 0), *margins, (0, 0)], constant_values=filler)
    else:
        out = [(n - k) // s + 1 for n, s, k in zip(x.shape[1:3], strides, spans, strict=True)]
    for i in range(out[0]):
        for j in range(out[1]):
            top, left = i * strides[0], j * strides[1]
            yield out, i, j, x[:, top : top + spans[0] : dilations[0], left : left + spans[1] : dilations[1]]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("kernel", "strides"), [((3, 3), (1, 1)), ((4, 2), (2, 3)), ((1, 5), (1, 2))])
@pytest.mark.parametrize("op", ["Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool"])
def test_windows(op, padding, kernel, strides):
    settings = {"strides": [1, *strides, 1], "padding": padding}
    weight = RANDOM.normal(size=(*kernel, 3, 2)).astype(np.float32)
    if op in ("Conv2D", "DepthwiseConv2dNative"):
        found = run(op, MAP, weight, **settings)
    else:
        found = run(op, MAP, ksize=[1, *kernel, 1], **settings)
    filler = {"MaxPool": -np.inf, "AvgPool": np.nan}.get(op, 0.0)
    for out, i, j, part in windows(MAP, kernel, strides, padding, filler):
        expected = {
            "Conv2D": lambda part=part: np.einsum("bhwc,hwcd->bd", part, weight),
            "DepthwiseConv2dNative": lambda part=part: np.einsum("bhwc,hwcd->bcd", part, weight).reshape(2, 6),
            "MaxPool": lambda part=part: part.max((1, 2)),
            "AvgPool": lambda part=part: np.nanmean(part, (1, 2)),
        }[op]()
        assert found.shape[1:3] == tuple(out)
        np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-4, atol=1e-5)


def test_dilated_and_explicitly_padded_convolution():
    weight = RANDOM.normal(size=(3, 2, 3, 4)).astype(np.float32)
    found = run("Conv2D", MAP, weight, strides=[1, 1, 1, 1], dilations=[1, 2, 3, 1], padding="SAME")
    for _, i, j, part in windows(MAP, (3, 2), (1, 1), "SAME", 0.0, (2, 3)):
        np.testing.assert_allclose(found[:, i, j], np.einsum("bhwc,hwcd->bd", part, weight), rtol=1e-4, atol=1e-5)
    margins = [0, 0, 1, 0, 2, 3, 0, 0]
    found = run("Conv2D", MAP, weight, strides=[1, 1, 1, 1], padding="EXPLICIT", explicit_paddings=margins)
    padded = np.pad(MAP, [(0, 0), (1, 0), (2, 3), (0, 0)])
    np.testing.assert_allclose(found, run("Conv2D", padded, weight, strides=[1, 1, 1, 1], padding="VALID"), atol=1e-5)


@pytest.mark.parametrize("op", ["Conv2D", "MaxPool", "AvgPool", "BiasAdd", "FusedBatchNormV3"])
def test_channels_first(op):
    turned = np.ascontiguousarray(MAP.transpose(0, 3, 1, 2))
    bias = RANDOM.normal(size=3).astype(np.float32)
    weight = RANDOM.normal(size=(2, 3, 3, 4)).astype(np.float32)
    cases = {
        "Conv2D": ([weight], {"strides": [1, 2, 1, 1]}),
        "MaxPool": ([], {"strides": [1, 2, 1, 1], "ksize": [1, 3, 2, 1]}),
        "AvgPool": ([], {"strides": [1, 2, 1, 1], "ksize": [1, 3, 2, 1]}),
        "BiasAdd": ([bias], {}),
        "FusedBatchNormV3": ([bias, bias, bias, bias**2 + 0.5], {"is_training": False, "epsilon": 1e-3}),
    }
    constants, settings = cases[op]
    settings |= {"padding": "SAME"} if "strides" in settings else {}
    last = run(op, MAP, *constants, **settings)
    for key in ("strides", "ksize"):
        if key in settings:
            settings[key] = [settings[key][i] for i in (0, 3, 1, 2)]
    first = run(op, turned, *constants, data_format="NCHW", **settings)
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), last, rtol=1e-4, atol=1e-5)


X = RANDOM.normal(size=(4, 6)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("Abs", X, np.abs(X)),
        ("Elu", X, np.where(X > 0, X, np.expm1(X))),
        ("Erf", X, np.vectorize(math.erf)(X)),
        ("Exp", X, np.exp(X)),
        ("Floor", X, np.floor(X)),
        ("Log", POSITIVE, np.log(POSITIVE)),
        ("Log1p", POSITIVE, np.log1p(POSITIVE)),
        ("LogSoftmax", X, X - np.log(np.exp(X).sum(1, keepdims=True))),
        ("Neg", X, -X),
        ("Reciprocal", POSITIVE, 1 / POSITIVE),
        ("Relu6", 5 * X, np.clip(5 * X, 0, 6)),
        ("Rsqrt", POSITIVE, POSITIVE**-0.5),
        ("Selu", X, 1.05070098 * np.where(X > 0, X, 1.67326324 * np.expm1(X))),
        ("Sigmoid", X, 1 / (1 + np.exp(-X))),
        ("Softmax", X, np.exp(X) / np.exp(X).sum(1, keepdims=True)),
        ("Softplus", X, np.log1p(np.exp(X))),
        ("Softsign", X, X / (1 + np.abs(X))),
        ("Sqrt", POSITIVE, np.sqrt(POSITIVE)),
        ("Square", X, X**2),
        ("Tanh", X, np.tanh(X)),
    ],
)
def test_functions_of_one_number(op, x, expected):
    np.testing.assert_allclose(run(op, x), expected, rtol=1e-5, atol=1e-6)


OTHER = RANDOM.normal(size=6).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("AddV2", X + OTHER),
        ("Sub", X - OTHER),
        ("Mul", X * OTHER),
        ("RealDiv", X / OTHER),
        ("Maximum", np.maximum(X, OTHER)),
        ("Minimum", np.minimum(X, OTHER)),
        ("SquaredDifference", (X - OTHER) ** 2),
        ("FloorMod", np.mod(X, OTHER)),
        ("Greater", X > OTHER),
        ("LessEqual", X <= OTHER),
    ],
)
def test_functions_of_two_numbers(op, expected):
    np.testing.assert_allclose(run(op, X, OTHER), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "function"), [("Max", np.max), ("Mean", np.mean), ("Min", np.min), ("Sum", np.sum), ("Prod", np.prod)]
)
def test_reductions(op, function):
    for axes in ([1], [-1, 1], [0, 2, 3]):
        found = run(op, MAP, np.array(axes, np.int32), keep_dims=False)
        np.testing.assert_allclose(found, function(MAP, tuple(axes)), rtol=1e-4, atol=1e-5)
    kept = run(op, MAP, np.array(2, np.int32), keep_dims=True)
    np.testing.assert_allclose(kept, function(MAP, 2, keepdims=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(op, MAP, np.array([], np.int32)), MAP)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@pytest.mark.parametrize(
    ("op", "constants", "settings", "expected"),
    [
        ("Reshape", [ints(-1, 30)], {}, MAP.reshape(-1, 30)),
        ("Transpose", [ints(0, 3, 1, 2)], {}, MAP.transpose(0, 3, 1, 2)),
        ("Slice", [ints(0, 1, 2, 0), ints(-1, 3, 4, -1)], {}, MAP[:, 1:4, 2:6]),
        ("StridedSlice", [ints(0, 1), ints(0, 6), ints(1, 2)], {"begin_mask": 1, "end_mask": 1}, MAP[:, 1:6:2]),
        ("StridedSlice", [ints(0, 2), ints(0, 3), ints(1, 1)], {"ellipsis_mask": 1, "shrink_axis_mask": 2},
         MAP[..., 2]),
        ("StridedSlice", [ints(0), ints(0), ints(1)], {"new_axis_mask": 1}, MAP[None]),
        ("Tile", [ints(1, 2, 1, 3)], {}, np.tile(MAP, (1, 2, 1, 3))),
        ("GatherV2", [np.array([[2, 0], [1, 1]], np.int32), ints(3)], {}, np.take(MAP, [[2, 0], [1, 1]], 3)),
        ("PadV2", [np.array([[0, 0], [1, 2], [0, 3], [1, 0]], np.int32), np.array(7, np.float32)], {},
         np.pad(MAP, [(0, 0), (1, 2), (0, 3), (1, 0)], constant_values=7)),
        ("MirrorPad", [np.array([[0, 0], [2, 1], [0, 3], [0, 0]], np.int32)], {"mode": "REFLECT"},
         np.pad(MAP, [(0, 0), (2, 1), (0, 3), (0, 0)], mode="reflect")),
        ("MirrorPad", [np.array([[0, 0], [2, 1], [0, 3], [0, 0]], np.int32)], {"mode": "SYMMETRIC"},
         np.pad(MAP, [(0, 0), (2, 1), (0, 3), (0, 0)], mode="symmetric")),
        ("LeakyRelu", [], {"alpha": 0.3}, np.where(MAP > 0, MAP, np.float32(0.3) * MAP)),
        ("ArgMax", [ints(3)], {}, MAP.argmax(3)),
        ("Pow", [np.array(2, np.float32)], {}, MAP**2),
    ],
)  # fmt: skip
def test_shapes_and_the_rest(op, constants, settings, expected):
    np.testing.assert_allclose(run(op, MAP, *constants, **settings), expected, rtol=1e-6)


def test_pieces_and_back():
    def make(graph: GraphBuilder) -> None:
        x = graph.placeholder("x", (None, 7, 10, 3))
        graph.add(
            "SplitV", "s", x, graph.constant("sizes", ints(2, -1, 3)), graph.constant("axis", np.array(2, np.int32))
        )
        graph.add("ConcatV2", "c", "s:2", "s:0", "s:1", graph.constant("axis2", np.array(2, np.int32)), N=3)
        graph.add("Unpack", "u", "c", axis=3, num=3)
        graph.add("Pack", "y", "u:1", "u", "u:2", axis=1, N=3)

    moved = np.concatenate([MAP[:, :, 7:], MAP[:, :, :2], MAP[:, :, 2:7]], 2)
    expected = np.stack([moved[..., 1], moved[..., 0], moved[..., 2]], 1)
    np.testing.assert_array_equal(built(make)(torch.from_numpy(MAP)).numpy(), expected)


def test_shape_arithmetic_takes_any_batch():
    """flatten as Keras freezes it: Shape, StridedSlice, Pack, Reshape; and a broadcast by Fill of a size found so."""

    def make(graph: GraphBuilder) -> None:
        x = graph.placeholder("x", (None, 7, 10, 3))
        shape = graph.add("Shape", "shape", x, out_type=INT)
        spans = [graph.constant(f"span{i}", ints(value)) for i, value in enumerate((0, 1, 1))]
        rows = graph.add("StridedSlice", "rows", shape, *spans, shrink_axis_mask=1)
        product = graph.add(
            "Mul", "product", graph.constant("a", np.array(7, np.int32)), graph.constant("b", ints(30)[0])
        )
        sizes = graph.add("Pack", "sizes", rows, product, axis=0, N=2)
        flat = graph.add("Reshape", "flat", x, sizes)
        half = graph.add("Cast", "cast", rows, SrcT=INT, DstT=np.dtype("float32"))
        graph.add("Mul", "y", flat, half)

    module = built(make)
    for rows in (1, 2):
        np.testing.assert_allclose(module(torch.from_numpy(MAP[:rows])).numpy(), MAP[:rows].reshape(rows, -1) * rows)


def test_products_and_einsum():
    left, right = RANDOM.normal(size=(2, 3, 4)).astype(np.float32), RANDOM.normal(size=(2, 5, 4)).astype(np.float32)
    found = run("BatchMatMulV2", left, right, adj_y=True)
    np.testing.assert_allclose(found, left @ right.swapaxes(1, 2), rtol=1e-5, atol=1e-6)

    def make(graph: GraphBuilder) -> None:
        graph.add(
            "Einsum", "y", graph.placeholder("x", (None, 3, 4)), graph.constant("c", right), equation="bij,bkj->bik"
        )

    np.testing.assert_allclose(built(make)(torch.from_numpy(left)).numpy(), found, rtol=1e-5, atol=1e-6)


def test_what_a_node_cannot_do_is_said_in_one_line():
    for op, constants, settings, reason in (
        ("FusedBatchNormV3", [OTHER[:3]] * 4, {"is_training": True}, "is_training"),
        ("StridedSlice", [ints(5), ints(0), ints(-1)], {}, "backwards"),
        ("Squeeze", [], {"squeeze_dims": [1]}, "not size 1"),
        ("MatMul", [OTHER], {"transpose_a": False}, "cannot take inputs of shape"),
        ("Conv2D", [OTHER.reshape(1, 1, 3, 2)], {"strides": [1, 0, 1, 1]}, "strides"),
        ("Reshape", [ints(-1, 11)], {}, "cannot take inputs"),
        ("Cast", [], {"DstT": 7}, "cast to type 7"),
    ):
        with pytest.raises(InputError, match=f"node 'y' .*{reason}") as error:
            run(op, MAP, *constants, **settings)
        assert "\n" not in str(error.value)
