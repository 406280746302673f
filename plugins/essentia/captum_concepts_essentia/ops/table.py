"""The table of supported TensorFlow operations, and the elementwise ones in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_concepts_essentia.graphdef.protobuf import Attributes
from captum_concepts_essentia.ops import maps, shapes
from captum_concepts_essentia.ops.values import BadGraph, Result, Value, ints, together

# numpy's functions are given by name: as objects some of them cannot be fingerprinted, and models would not be cached.


def _unary(on_tensor: Callable[[Tensor], Tensor], on_array: str) -> Callable[..., Result]:
    def compute(_: Attributes, value: Value) -> Result:
        return on_tensor(value) if isinstance(value, Tensor) else np.asarray(getattr(np, on_array)(value))

    return compute


def _activation(function: Callable[[Tensor], Tensor]) -> Callable[..., Result]:
    def compute(_: Attributes, value: Value) -> Result:
        if isinstance(value, Tensor):
            return function(value)
        return function(torch.from_numpy(np.array(value, order="C"))).numpy()

    return compute


def _binary(on_tensor: Callable[..., Any], on_array: str) -> Callable[..., Result]:
    def compute(_: Attributes, left: Value, right: Value) -> Result:
        left, right = together(left, right)
        return on_tensor(left, right) if isinstance(left, Tensor) else np.asarray(getattr(np, on_array)(left, right))

    return compute


def _reduction(on_tensor: Callable[..., Tensor], on_array: str) -> Callable[..., Result]:
    def compute(attributes: Attributes, value: Value, axes: Value) -> Result:
        chosen = ints(axes)
        keep = bool(attributes.ints.get("keep_dims", 0))
        if not isinstance(value, Tensor):
            return np.asarray(getattr(np, on_array)(value, axis=chosen, keepdims=keep))
        return on_tensor(value, chosen, keep) if chosen else value

    return compute


def divide(_: Attributes, left: Value, right: Value) -> Result:
    """Of whole numbers a whole number, toward zero."""
    above, below = together(left, right)
    if isinstance(above, Tensor):
        whole = not (above.is_floating_point() or below.is_floating_point())
        return torch.div(above, below, rounding_mode="trunc" if whole else None)
    if "f" in (above.dtype.kind, below.dtype.kind):
        return np.asarray(above / below)
    if not np.all(below):
        raise BadGraph("a division by zero")
    return np.asarray(np.sign(above) * np.sign(below) * (np.abs(above) // np.abs(below)))


def mean(attributes: Attributes, value: Value, axes: Value) -> Result:
    """Of whole numbers a whole number, toward zero."""
    chosen, keep = ints(axes), bool(attributes.ints.get("keep_dims", 0))
    if isinstance(value, Tensor):
        if not chosen:
            return value
        if value.is_floating_point():
            return value.mean(chosen, keep)
        total: Value = value.sum(chosen, keep)
    else:
        if value.dtype.kind == "f":
            return np.asarray(value.mean(axis=chosen, keepdims=keep))
        total = np.asarray(value.sum(axis=chosen, keepdims=keep))
    return divide(attributes, total, np.array(math.prod(value.shape[axis] for axis in chosen)))


def _product(value: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    places = {range(value.dim())[axis] for axis in axes}
    if len(places) < len(axes):
        raise BadGraph(f"an axis twice in {axes}")
    for axis in sorted(places, reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def matmul(attributes: Attributes, left: Tensor, right: Tensor) -> Result:
    # MatMul says transpose, BatchMatMul adj; an attribute that is not there has its default, false.
    left = left.mT if attributes.ints.get("transpose_a") or attributes.ints.get("adj_x") else left
    right = right.mT if attributes.ints.get("transpose_b") or attributes.ints.get("adj_y") else right
    return left @ right


def einsum(attributes: Attributes, *values: Tensor) -> Result:
    return torch.einsum(attributes.texts.get("equation", ""), *values)


def leaky_relu(attributes: Attributes, value: Tensor) -> Result:
    return F.leaky_relu(value, attributes.floats.get("alpha", 0.2))


def select(_: Attributes, condition: Value, yes: Value, no: Value) -> Result:
    one, other, chosen = together(yes, no, condition)
    return torch.where(chosen != 0, one, other) if isinstance(one, Tensor) else np.where(chosen, one, other)


def select_rows(attributes: Attributes, condition: Value, yes: Value, no: Value) -> Result:
    """The first version: a condition of one axis is about rows, not about the last axis."""
    if yes.ndim > 1 and condition.ndim == 1:
        condition = condition.reshape(-1, *[1] * (yes.ndim - 1))
    elif condition.ndim and tuple(condition.shape) != tuple(yes.shape):
        raise BadGraph(f"a condition of shape {tuple(condition.shape)} for values of shape {tuple(yes.shape)}")
    return select(attributes, condition, yes, no)


def arg_max(_: Attributes, value: Value, axis: Value) -> Result:
    (place,) = ints(axis)
    return value.argmax(place) if isinstance(value, Tensor) else np.asarray(value.argmax(place))


def add_n(_: Attributes, *values: Value) -> Result:
    first, *others = together(*values)
    return sum(others, start=first)


def same(_: Attributes, value: Value) -> Result:
    return value


def same_all(_: Attributes, *values: Value) -> Result:
    return values


def stop_gradient(_: Attributes, value: Value) -> Result:
    return value.detach() if isinstance(value, Tensor) else value


def softmax(_: Attributes, value: Tensor) -> Result:
    return value.softmax(-1)


def log_softmax(_: Attributes, value: Tensor) -> Result:
    return value.log_softmax(-1)


def squared_difference(_: Attributes, left: Value, right: Value) -> Result:
    left, right = together(left, right)
    return (left - right) ** 2


OPERATIONS: dict[str, Callable[..., Result]] = {
    **dict.fromkeys(("Identity", "CheckNumerics", "PreventGradient", "Snapshot", "PlaceholderWithDefault"), same),
    **dict.fromkeys(("Conv2D",), maps.conv2d),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), maps.batch_norm),
    **dict.fromkeys(("Gather", "GatherV2"), shapes.gather),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), matmul),
    **dict.fromkeys(("Add", "AddV2"), _binary(torch.add, "add")),
    **dict.fromkeys(("Div", "RealDiv"), divide),
    **dict.fromkeys(("Pad", "PadV2"), shapes.pad),
    "Abs": _unary(torch.abs, "abs"),
    "AddN": add_n,
    "ArgMax": arg_max,
    "AvgPool": maps.avg_pool,
    "BiasAdd": maps.bias_add,
    "BroadcastTo": shapes.broadcast_to,
    "Cast": shapes.cast,
    "Concat": shapes.concat_first,
    "ConcatV2": shapes.concat,
    "DepthwiseConv2dNative": maps.depthwise_conv2d,
    "Einsum": einsum,
    "Elu": _activation(F.elu),
    "Equal": _binary(torch.eq, "equal"),
    "Erf": _activation(torch.erf),
    "Erfc": _activation(torch.erfc),
    "Exp": _activation(torch.exp),
    "ExpandDims": shapes.expand_dims,
    "Fill": shapes.fill,
    "Floor": _unary(torch.floor, "floor"),
    "FloorDiv": _binary(torch.floor_divide, "floor_divide"),
    "FloorMod": _binary(torch.remainder, "mod"),
    "Greater": _binary(torch.gt, "greater"),
    "GreaterEqual": _binary(torch.ge, "greater_equal"),
    "IdentityN": same_all,
    "LeakyRelu": leaky_relu,
    "Less": _binary(torch.lt, "less"),
    "LessEqual": _binary(torch.le, "less_equal"),
    "Log": _activation(torch.log),
    "Log1p": _activation(torch.log1p),
    "LogicalAnd": _binary(torch.logical_and, "logical_and"),
    "LogicalNot": _unary(torch.logical_not, "logical_not"),
    "LogicalOr": _binary(torch.logical_or, "logical_or"),
    "LogSoftmax": log_softmax,
    "Max": _reduction(torch.amax, "max"),
    "MaxPool": maps.max_pool,
    "Maximum": _binary(torch.maximum, "maximum"),
    "Mean": mean,
    "Min": _reduction(torch.amin, "min"),
    "Minimum": _binary(torch.minimum, "minimum"),
    "MirrorPad": shapes.mirror_pad,
    "Mul": _binary(torch.mul, "multiply"),
    "Neg": _unary(torch.neg, "negative"),
    "NotEqual": _binary(torch.ne, "not_equal"),
    "OnesLike": _unary(torch.ones_like, "ones_like"),
    "Pack": shapes.pack,
    "Pow": _binary(torch.pow, "power"),
    "Prod": _reduction(_product, "prod"),
    "Range": shapes.range_,
    "Rank": lambda _, value: np.array(value.ndim),
    "Reciprocal": _activation(torch.reciprocal),
    "Relu": _activation(F.relu),
    "Relu6": _activation(F.relu6),
    "Reshape": shapes.reshape,
    "Round": _unary(torch.round, "round"),
    "Rsqrt": _activation(torch.rsqrt),
    "Select": select_rows,
    "SelectV2": select,
    "Selu": _activation(F.selu),
    "Shape": shapes.shape,
    "Sigmoid": _activation(torch.sigmoid),
    "Size": lambda _, value: np.array(math.prod(value.shape)),
    "Slice": shapes.slice_,
    "Softmax": softmax,
    "Softplus": _activation(F.softplus),
    "Softsign": _activation(F.softsign),
    "Split": shapes.split,
    "SplitV": shapes.split_v,
    "Sqrt": _activation(torch.sqrt),
    "Square": _unary(torch.square, "square"),
    "SquaredDifference": squared_difference,
    "Squeeze": shapes.squeeze,
    "StopGradient": stop_gradient,
    "StridedSlice": shapes.strided_slice,
    "Sub": _binary(torch.sub, "subtract"),
    "Sum": _reduction(torch.sum, "sum"),
    "Tanh": _activation(torch.tanh),
    "Tile": shapes.tile,
    "Transpose": shapes.transpose,
    "Unpack": shapes.unpack,
    "ZerosLike": _unary(torch.zeros_like, "zeros_like"),
}
#: Everything that the importer knows, sources of values included.
SUPPORTED: tuple[str, ...] = tuple(
    sorted({*OPERATIONS, "Const", "Placeholder", "PartitionedCall", "StatefulPartitionedCall"})
)
