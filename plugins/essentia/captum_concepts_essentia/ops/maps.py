"""TensorFlow's operations on maps, in torch.

Maps keep TensorFlow's own axes, (B, H, W, C) unless ``data_format`` says otherwise; torch's order is a view of them,
and convolutions choose the order in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.protobuf import Attributes
from captum_concepts_essentia.ops.values import BadGraph, Result


def channels_first(attributes: Attributes) -> bool:
    """Whether the axes are (B, C, H, W).

    Raises:
        BadGraph: they are neither that nor (B, H, W, C).
    """
    layout = attributes.texts.get("data_format", "NHWC")
    if layout not in ("NHWC", "NCHW"):
        raise BadGraph(f"data_format {short_repr(layout)}")
    return layout == "NCHW"


def to_nchw(value: Tensor, attributes: Attributes) -> Tensor:
    return value if channels_first(attributes) else value.permute(0, 3, 1, 2)


def from_nchw(value: Tensor, attributes: Attributes) -> Tensor:
    return value if channels_first(attributes) else value.permute(0, 2, 3, 1)


def _spatial(attributes: Attributes, name: str) -> tuple[int, int]:
    given = attributes.lists.get(name) or (1, 1, 1, 1)
    if len(given) != 4:
        raise BadGraph(f"{name} of {len(given)} numbers")
    first = channels_first(attributes)
    height, width = given[2:] if first else given[1:3]
    if min(height, width) < 1 or given[0] != 1 or given[1 if first else 3] != 1:
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
        first = 4 if channels_first(attributes) else 2
        return [(given[first], given[first + 1]), (given[first + 2], given[first + 3])]
    if kind != "VALID":
        raise BadGraph(f"padding {short_repr(kind)}")
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
    channels = value.shape[1 if channels_first(attributes) else 3]
    return _convolved(attributes, value, weight.contiguous(), channels // kernel.shape[2])


def depthwise_conv2d(attributes: Attributes, value: Tensor, kernel: Tensor) -> Result:
    if _spatial(attributes, "dilations") != (1, 1):  # which TensorFlow 2.5, as Essentia has it, passes over in silence
        raise BadGraph(f"dilations {attributes.lists['dilations']}")
    height, width, channels, each = kernel.shape
    weight = kernel.permute(2, 3, 0, 1).reshape(channels * each, 1, height, width)
    return _convolved(attributes, value, weight, channels)


def bias_add(attributes: Attributes, value: Tensor, bias: Tensor) -> Result:
    if channels_first(attributes):
        bias = bias.reshape(-1, *[1] * (value.dim() - 2))
    return value + bias


def batch_norm(
    attributes: Attributes, value: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, var: Tensor
) -> Result:
    if attributes.ints.get("is_training", 1):
        raise BadGraph("batch statistics (is_training); freeze the graph for inference")
    # torch takes no zero; the least number above it leaves variances as they are.
    eps = max(attributes.floats.get("epsilon", 1e-4), torch.finfo(torch.float32).tiny)
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
