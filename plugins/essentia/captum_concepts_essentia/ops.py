"""What each TensorFlow operation computes, in torch.

A value is a tensor, or, for shapes and everything reckoned from them, a numpy array that stays on the CPU: so a graph's
shape arithmetic costs no transfers and any batch size goes through. Maps keep TensorFlow's own axes, (B, H, W, C)
unless ``data_format`` says otherwise; these are views, and convolutions choose the order in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_concepts_essentia.protobuf import Attributes

Value = Tensor | np.ndarray
Result = Value | tuple[Value, ...]
_FLOAT_TYPES = {1: np.float32, 2: np.float64, 19: np.float32}
_INTEGER_TYPES = {3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 10: np.bool_}


class BadGraph(ValueError):
    """What a node asks for that cannot be; the graph says which node."""


def ints(value: Value) -> tuple[int, ...]:
    """Sizes, axes or indices as numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return tuple(int(number) for number in np.asarray(value).ravel())


def tensor(value: Value, like: Tensor) -> Tensor:
    """A value as a tensor on the device of another, of its type if it is no whole number."""
    if isinstance(value, Tensor):
        return value
    converted = torch.as_tensor(np.ascontiguousarray(value)).to(like.device)
    return converted.to(like.dtype) if converted.is_floating_point() or like.is_floating_point() else converted


def together(*values: Value) -> list[Value]:
    """All as tensors if one of them is one."""
    first = next((value for value in values if isinstance(value, Tensor)), None)
    return list(values) if first is None else [tensor(value, first) for value in values]


def pick(values: Mapping[str, Result], reference: tuple[str, int]) -> Value:
    """The output that a reference (node, number) means."""
    name, number = reference
    found = values[name]
    if not isinstance(found, tuple):
        return found
    if number >= len(found):
        raise BadGraph(f"output {number} of {name}, which has {len(found)},")
    return found[number]


def _unary(on_tensor: Callable[[Tensor], Tensor], on_array: Callable[[Any], Any]) -> Callable[..., Result]:
    def compute(_: Attributes, value: Value) -> Result:
        return on_tensor(value) if isinstance(value, Tensor) else np.asarray(on_array(value))

    return compute


def _activation(function: Callable[[Tensor], Tensor]) -> Callable[..., Result]:
    def compute(_: Attributes, value: Tensor) -> Result:
        return function(value)

    return compute


def _binary(on_tensor: Callable[..., Any], on_array: Callable[..., Any]) -> Callable[..., Result]:
    def compute(_: Attributes, left: Value, right: Value) -> Result:
        left, right = together(left, right)
        return on_tensor(left, right) if isinstance(left, Tensor) else np.asarray(on_array(left, right))

    return compute


def _reduction(on_tensor: Callable[..., Tensor], on_array: Callable[..., Any]) -> Callable[..., Result]:
    def compute(attributes: Attributes, value: Value, axes: Value) -> Result:
        chosen = ints(axes)
        keep = bool(attributes.ints.get("keep_dims", 0))
        if not isinstance(value, Tensor):
            return np.asarray(on_array(value, axis=chosen, keepdims=keep))
        return on_tensor(value, chosen, keep) if chosen else value

    return compute


def _product(value: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % value.dim() for axis in axes), reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


# Shapes


def shape(_: Attributes, value: Value) -> Result:
    return np.array(value.shape, np.int64)


def reshape(_: Attributes, value: Value, sizes: Value) -> Result:
    return value.reshape(ints(sizes))


def expand_dims(_: Attributes, value: Value, axis: Value) -> Result:
    (place,) = ints(axis)
    return value.unsqueeze(place) if isinstance(value, Tensor) else np.expand_dims(value, place)


def squeeze(attributes: Attributes, value: Value) -> Result:
    axes = attributes.lists.get("squeeze_dims") or attributes.lists.get("axis") or ()
    chosen = axes or tuple(axis for axis, size in enumerate(value.shape) if size == 1)
    wrong = [axis for axis in chosen if value.shape[axis] != 1]
    if wrong:
        raise BadGraph(f"axis {wrong[0]} of shape {tuple(value.shape)} has not size 1")
    sizes = [size for axis, size in enumerate(value.shape) if axis not in {place % value.ndim for place in chosen}]
    return value.reshape(sizes)


def transpose(_: Attributes, value: Value, order: Value) -> Result:
    return value.permute(ints(order)) if isinstance(value, Tensor) else value.transpose(ints(order))


def strided_slice(attributes: Attributes, value: Value, begin: Value, end: Value, strides: Value) -> Result:
    masks = {name: attributes.ints.get(f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis")}
    shrink = attributes.ints.get("shrink_axis_mask", 0)
    index: list[Any] = []
    for place, (start, stop, step) in enumerate(zip(ints(begin), ints(end), ints(strides), strict=True)):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis"] & bit:
            index.append(None)
        elif shrink & bit:
            index.append(start)
        else:
            index.append(slice(None if masks["begin"] & bit else start, None if masks["end"] & bit else stop, step))
    if isinstance(value, Tensor) and any(isinstance(part, slice) and part.step < 0 for part in index):
        raise BadGraph("a slice that runs backwards")
    return value[tuple(index)] if isinstance(value, Tensor) else np.asarray(value[tuple(index)])


def slice_(_: Attributes, value: Value, begin: Value, size: Value) -> Result:
    spans = zip(ints(begin), ints(size), strict=True)
    return value[tuple(slice(start, None if length < 0 else start + length) for start, length in spans)]


def pack(attributes: Attributes, *values: Value) -> Result:
    axis = attributes.ints.get("axis", 0)
    parts = together(*values)
    return torch.stack(parts, axis) if isinstance(parts[0], Tensor) else np.stack(parts, axis)


def unpack(attributes: Attributes, value: Value) -> Result:
    axis = attributes.ints.get("axis", 0)
    return value.unbind(axis) if isinstance(value, Tensor) else tuple(np.moveaxis(value, axis, 0))


def concat(_: Attributes, *values: Value) -> Result:
    *parts, axis = values
    return _concatenated(parts, ints(axis)[0])


def concat_first(_: Attributes, axis: Value, *parts: Value) -> Result:
    return _concatenated(parts, ints(axis)[0])


def _concatenated(parts: Sequence[Value], axis: int) -> Value:
    parts = together(*parts)
    return torch.cat(parts, axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)


def split(attributes: Attributes, axis: Value, value: Value) -> Result:
    count, place = attributes.ints.get("num_split", 1), ints(axis)[0]
    size = value.shape[place]
    if count < 1 or size % count:
        raise BadGraph(f"an axis of {size} in {count} equal parts")
    return _split(value, [size // count] * count, place)


def split_v(_: Attributes, value: Value, sizes: Value, axis: Value) -> Result:
    place, given = ints(axis)[0], list(ints(sizes))
    if -1 in given:
        given[given.index(-1)] = value.shape[place] - sum(given) - 1
    return _split(value, given, place)


def _split(value: Value, sizes: list[int], axis: int) -> tuple[Value, ...]:
    if isinstance(value, Tensor):
        return tuple(value.split(sizes, axis))
    return tuple(np.split(value, np.cumsum(sizes)[:-1], axis))


def tile(_: Attributes, value: Value, times: Value) -> Result:
    return value.tile(ints(times)) if isinstance(value, Tensor) else np.tile(value, ints(times))


def fill(_: Attributes, sizes: Value, value: Value) -> Result:
    return value.expand(ints(sizes)) if isinstance(value, Tensor) else np.broadcast_to(value, ints(sizes))


def range_(_: Attributes, start: Value, limit: Value, delta: Value) -> Result:
    return np.arange(*(ints(part)[0] for part in (start, limit, delta)))


def gather(attributes: Attributes, value: Value, indices: Value, axis: Value | None = None) -> Result:
    if attributes.ints.get("batch_dims", 0):
        raise BadGraph("batch_dims")
    place = 0 if axis is None else ints(axis)[0]
    if not isinstance(value, Tensor) and not isinstance(indices, Tensor):
        return np.take(value, indices, place)
    found = indices if isinstance(indices, Tensor) else torch.as_tensor(np.asarray(indices, np.int64))
    source = value if isinstance(value, Tensor) else torch.as_tensor(value)
    place %= source.dim()
    rows = source.index_select(place, found.flatten().long().to(source.device))
    return rows.reshape(*source.shape[:place], *found.shape, *source.shape[place + 1 :])


def cast(attributes: Attributes, value: Value) -> Result:
    to = attributes.ints.get("DstT", 1)
    if to not in _FLOAT_TYPES and to not in _INTEGER_TYPES:
        raise BadGraph(f"a cast to type {to}")
    if not isinstance(value, Tensor):
        return value.astype(_FLOAT_TYPES.get(to) or _INTEGER_TYPES[to])
    if to in _FLOAT_TYPES:  # the module's own precision, so that .double() is double throughout
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return value.bool() if to == 10 else value.long()


def pad(_: Attributes, value: Tensor, margins: Value, filler: Value | None = None) -> Result:
    return F.pad(value, _margins(margins), value=0.0 if filler is None else float(filler))


def mirror_pad(attributes: Attributes, value: Tensor, margins: Value) -> Result:
    pairs = np.asarray(ints(margins)).reshape(-1, 2)
    outside = 1 if attributes.texts.get("mode") == "REFLECT" else 0
    for axis, (before, after) in enumerate(pairs):
        size = value.shape[axis]
        if max(before, after) > size - outside:
            raise BadGraph(f"{max(before, after)} mirrored values of {size}")
        places = np.pad(np.arange(size), (before, after), mode="reflect" if outside else "symmetric")
        value = value.index_select(axis, torch.as_tensor(places, device=value.device))
    return value


def _margins(margins: Value) -> list[int]:
    """TensorFlow's (dims, 2) from the first axis, as torch's list from the last one."""
    pairs = np.asarray(ints(margins)).reshape(-1, 2)
    return [int(number) for pair in pairs[::-1] for number in pair]


# Maps


def to_nchw(value: Tensor, attributes: Attributes) -> Tensor:
    return value if attributes.texts.get("data_format", "NHWC") == "NCHW" else value.permute(0, 3, 1, 2)


def from_nchw(value: Tensor, attributes: Attributes) -> Tensor:
    return value if attributes.texts.get("data_format", "NHWC") == "NCHW" else value.permute(0, 2, 3, 1)


def _spatial(attributes: Attributes, name: str) -> tuple[int, int]:
    given = attributes.lists.get(name) or (1, 1, 1, 1)
    if len(given) != 4:
        raise BadGraph(f"{name} of {len(given)} numbers")
    height, width = given[2:] if attributes.texts.get("data_format", "NHWC") == "NCHW" else given[1:3]
    if min(height, width) < 1:
        raise BadGraph(f"{name} {given}")
    return height, width


def _same_margins(sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """What SAME puts before and after each axis: the odd one out goes behind."""
    margins = []
    for size, length, stride in zip(sizes, window, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + length - size, 0)
        margins.append((total // 2, total - total // 2))
    return margins


def _padding(
    attributes: Attributes, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    kind = attributes.texts.get("padding", "VALID")
    if kind == "SAME":
        return _same_margins(sizes, window, strides)
    if kind == "EXPLICIT":
        given = attributes.lists.get("explicit_paddings", ())
        if len(given) != 8:
            raise BadGraph(f"explicit_paddings {given}")
        first = 4 if attributes.texts.get("data_format", "NHWC") == "NCHW" else 2
        return [(given[first], given[first + 1]), (given[first + 2], given[first + 3])]
    return [(0, 0), (0, 0)]


def _convolved(attributes: Attributes, value: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Map in TensorFlow's axes, kernel (out, in / groups, height, width)."""
    x = to_nchw(value, attributes)
    strides, dilations = _spatial(attributes, "strides"), _spatial(attributes, "dilations")
    window = [(size - 1) * by + 1 for size, by in zip(kernel.shape[2:], dilations, strict=True)]
    (top, bottom), (left, right) = _padding(attributes, x.shape[2:], window, strides)
    if top == bottom and left == right:
        found = F.conv2d(x, kernel, None, strides, (top, left), dilations, groups)
    else:
        found = F.conv2d(F.pad(x, (left, right, top, bottom)), kernel, None, strides, 0, dilations, groups)
    return from_nchw(found, attributes)


def conv2d(attributes: Attributes, value: Tensor, kernel: Tensor) -> Result:
    weight = kernel.permute(3, 2, 0, 1)
    channels = value.shape[1 if attributes.texts.get("data_format", "NHWC") == "NCHW" else 3]
    return _convolved(attributes, value, weight.contiguous(), channels // kernel.shape[2])


def depthwise_conv2d(attributes: Attributes, value: Tensor, kernel: Tensor) -> Result:
    height, width, channels, each = kernel.shape
    weight = kernel.permute(2, 3, 0, 1).reshape(channels * each, 1, height, width)
    return _convolved(attributes, value, weight, channels)


def bias_add(attributes: Attributes, value: Tensor, bias: Tensor) -> Result:
    if attributes.texts.get("data_format", "NHWC") == "NCHW":
        bias = bias.reshape(-1, *[1] * (value.dim() - 2))
    return value + bias


def batch_norm(
    attributes: Attributes, value: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, var: Tensor
) -> Result:
    if attributes.ints.get("is_training", 1):
        raise BadGraph("batch statistics (is_training); freeze the graph for inference")
    eps = attributes.floats.get("epsilon", 1e-4)
    found = F.batch_norm(to_nchw(value, attributes), mean, var, gain, offset, False, 0.0, eps)
    return from_nchw(found, attributes), mean, var, mean, var


def max_pool(attributes: Attributes, value: Tensor) -> Result:
    x = to_nchw(value, attributes)
    window, strides = _spatial(attributes, "ksize"), _spatial(attributes, "strides")
    margins = _padding(attributes, x.shape[2:], window, strides)
    whole = [axis + 2 for axis in (0, 1) if window[axis] > 1]
    full = all(x.shape[axis] == window[axis - 2] for axis in whole) and whole
    if full and margins == [(0, 0), (0, 0)] and all(strides[a] == 1 for a in (0, 1) if a + 2 not in whole):
        return from_nchw(x.amax(whole, keepdim=True), attributes)
    if any(pair != (0, 0) for pair in margins):
        (top, bottom), (left, right) = margins
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
    return from_nchw(F.max_pool2d(x, window, strides), attributes)


def avg_pool(attributes: Attributes, value: Tensor) -> Result:
    x = to_nchw(value, attributes)
    window, strides = _spatial(attributes, "ksize"), _spatial(attributes, "strides")
    margins = _padding(attributes, x.shape[2:], window, strides)
    if all(pair == (0, 0) for pair in margins):
        return from_nchw(F.avg_pool2d(x, window, strides), attributes)
    (top, bottom), (left, right) = margins
    around = (left, right, top, bottom)
    inside = F.avg_pool2d(F.pad(x.new_ones(1, 1, *x.shape[2:]), around), window, strides)  # margins do not count
    return from_nchw(F.avg_pool2d(F.pad(x, around), window, strides) / inside, attributes)


def matmul(attributes: Attributes, left: Tensor, right: Tensor) -> Result:
    names = ("transpose_a", "transpose_b") if "transpose_a" in attributes.ints else ("adj_x", "adj_y")
    left = left.mT if attributes.ints.get(names[0]) else left
    right = right.mT if attributes.ints.get(names[1]) else right
    return left @ right


def einsum(attributes: Attributes, *values: Tensor) -> Result:
    return torch.einsum(attributes.texts.get("equation", ""), *values)


def leaky_relu(attributes: Attributes, value: Tensor) -> Result:
    return F.leaky_relu(value, attributes.floats.get("alpha", 0.2))


def select(_: Attributes, condition: Value, yes: Value, no: Value) -> Result:
    condition, yes, no = together(condition, yes, no)
    if not isinstance(yes, Tensor):
        return np.where(condition, yes, no)
    return torch.where(condition.bool(), yes, no)


def arg_max(_: Attributes, value: Tensor, axis: Value) -> Result:
    return value.argmax(ints(axis)[0])


def add_n(_: Attributes, *values: Value) -> Result:
    return sum(together(*values))


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


OPERATIONS: dict[str, Callable[..., Result]] = {
    **dict.fromkeys(("Identity", "CheckNumerics", "PreventGradient", "Snapshot", "PlaceholderWithDefault"), same),
    **dict.fromkeys(("Conv2D",), conv2d),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), batch_norm),
    **dict.fromkeys(("Gather", "GatherV2"), gather),
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), matmul),
    **dict.fromkeys(("Add", "AddV2"), _binary(torch.add, np.add)),
    **dict.fromkeys(("Div", "RealDiv"), _binary(torch.div, np.divide)),
    **dict.fromkeys(("Select", "SelectV2"), select),
    **dict.fromkeys(("Pad", "PadV2"), pad),
    "Abs": _unary(torch.abs, np.abs),
    "AddN": add_n,
    "ArgMax": arg_max,
    "AvgPool": avg_pool,
    "BiasAdd": bias_add,
    "Cast": cast,
    "Concat": concat_first,
    "ConcatV2": concat,
    "DepthwiseConv2dNative": depthwise_conv2d,
    "Einsum": einsum,
    "Elu": _activation(F.elu),
    "Equal": _binary(torch.eq, np.equal),
    "Erf": _activation(torch.erf),
    "Exp": _activation(torch.exp),
    "ExpandDims": expand_dims,
    "Fill": fill,
    "Floor": _unary(torch.floor, np.floor),
    "FloorDiv": _binary(torch.floor_divide, np.floor_divide),
    "FloorMod": _binary(torch.remainder, np.mod),
    "Greater": _binary(torch.gt, np.greater),
    "GreaterEqual": _binary(torch.ge, np.greater_equal),
    "IdentityN": same_all,
    "LeakyRelu": leaky_relu,
    "Less": _binary(torch.lt, np.less),
    "LessEqual": _binary(torch.le, np.less_equal),
    "Log": _activation(torch.log),
    "Log1p": _activation(torch.log1p),
    "LogSoftmax": log_softmax,
    "Max": _reduction(torch.amax, np.max),
    "MaxPool": max_pool,
    "Maximum": _binary(torch.maximum, np.maximum),
    "Mean": _reduction(torch.mean, np.mean),
    "Min": _reduction(torch.amin, np.min),
    "Minimum": _binary(torch.minimum, np.minimum),
    "MirrorPad": mirror_pad,
    "Mul": _binary(torch.mul, np.multiply),
    "Neg": _unary(torch.neg, np.negative),
    "NotEqual": _binary(torch.ne, np.not_equal),
    "OnesLike": _unary(torch.ones_like, np.ones_like),
    "Pack": pack,
    "Pow": _binary(torch.pow, np.power),
    "Prod": _reduction(_product, np.prod),
    "Range": range_,
    "Rank": lambda _, value: np.array(value.ndim),
    "Reciprocal": _activation(torch.reciprocal),
    "Relu": _activation(F.relu),
    "Relu6": _activation(F.relu6),
    "Reshape": reshape,
    "Round": _unary(torch.round, np.round),
    "Rsqrt": _activation(torch.rsqrt),
    "Selu": _activation(F.selu),
    "Shape": shape,
    "Sigmoid": _activation(torch.sigmoid),
    "Size": lambda _, value: np.array(math.prod(value.shape)),
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": _activation(F.softplus),
    "Softsign": _activation(F.softsign),
    "Split": split,
    "SplitV": split_v,
    "Sqrt": _activation(torch.sqrt),
    "Square": _unary(torch.square, np.square),
    "SquaredDifference": _binary(lambda a, b: (a - b).square(), lambda a, b: (a - b) ** 2),
    "Squeeze": squeeze,
    "StopGradient": stop_gradient,
    "StridedSlice": strided_slice,
    "Sub": _binary(torch.sub, np.subtract),
    "Sum": _reduction(torch.sum, np.sum),
    "Tanh": _activation(torch.tanh),
    "Tile": tile,
    "Transpose": transpose,
    "Unpack": unpack,
    "ZerosLike": _unary(torch.zeros_like, np.zeros_like),
}
#: Everything that the importer knows, sources of values included.
SUPPORTED: tuple[str, ...] = tuple(
    sorted({*OPERATIONS, "Const", "Placeholder", "PartitionedCall", "StatefulPartitionedCall"})
)
