"""TensorFlow's operations on shapes, slices and indices, in torch and, for arrays, in numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_concepts_essentia.graphdef.protobuf import Attributes
from captum_concepts_essentia.ops.values import BadGraph, Result, Value, bounded, ints, scalar, together

_FLOAT_TYPES = {1: "float32", 2: "float64", 19: "float32"}
_INTEGER_TYPES = {3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64"}
_BOOL = 10


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
    index = []
    for start, length, whole in zip(ints(begin), ints(size), value.shape, strict=True):
        stop = whole if length < 0 else start + length
        if not 0 <= start <= stop <= whole:
            raise BadGraph(f"a slice from {start} to {stop} of {whole}")
        index.append(slice(start, stop))
    return value[tuple(index)]


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
    same = together(*parts)
    return torch.cat(same, axis) if isinstance(same[0], Tensor) else np.concatenate(same, axis)


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
    if sum(given) != value.shape[place]:
        raise BadGraph(f"an axis of {value.shape[place]} in parts of {given}")
    return _split(value, given, place)


def _split(value: Value, sizes: list[int], axis: int) -> tuple[Value, ...]:
    if isinstance(value, Tensor):
        return tuple(value.split(sizes, axis))
    return tuple(np.split(value, np.cumsum(sizes)[:-1], axis))


def tile(_: Attributes, value: Value, times: Value) -> Result:
    bounded(math.prod((*value.shape, *ints(times))))
    return value.tile(ints(times)) if isinstance(value, Tensor) else np.tile(value, ints(times))


def fill(_: Attributes, sizes: Value, value: Value) -> Result:
    bounded(math.prod(ints(sizes)))
    return value.expand(ints(sizes)) if isinstance(value, Tensor) else np.broadcast_to(value, ints(sizes))


def broadcast_to(attributes: Attributes, value: Value, sizes: Value) -> Result:
    return fill(attributes, sizes, value)


def range_(_: Attributes, start: Value, limit: Value, delta: Value) -> Result:
    first, end, step = map(scalar, (start, limit, delta))
    if step == 0 or not all(map(math.isfinite, (first, end, step))):
        raise BadGraph(f"a range from {first} to {end} in steps of {step}")
    whole = all(isinstance(number, int) for number in (first, end, step))
    if whole:
        count = max(0, -((first - end) // step))
        bounded(count)
        return first + np.arange(count, dtype=np.int64) * step
    # In the numbers' own precision, as TensorFlow counts: in a finer one, a limit may come to lie beyond one more step.
    kind = np.result_type(*(np.dtype(str(value.dtype).removeprefix("torch.")) for value in (start, limit, delta)))
    below, above, by = (kind.type(number) for number in (first, end, step))
    count = max(0, math.ceil((above - below) / by))
    bounded(count)
    return below + np.arange(count, dtype=kind) * by


def gather(attributes: Attributes, value: Value, indices: Value, axis: Value | None = None) -> Result:
    if attributes.ints.get("batch_dims", 0):
        raise BadGraph("batch_dims")
    place = 0 if axis is None else ints(axis)[0]
    if not -value.ndim <= place < value.ndim:
        raise BadGraph(f"axis {place} of a value of {value.ndim} axes")
    if not isinstance(value, Tensor) and not isinstance(indices, Tensor):
        if np.any(np.asarray(indices) < 0):
            raise BadGraph(f"index {np.min(indices)}")
        return np.take(value, indices, place)
    found = indices if isinstance(indices, Tensor) else torch.as_tensor(np.asarray(indices, np.int64))
    source = value if isinstance(value, Tensor) else torch.as_tensor(value)
    place %= source.dim()
    bounded(found.numel() * source.numel() // max(1, source.shape[place]))
    rows = source.index_select(place, found.flatten().long().to(source.device))
    return rows.reshape(*source.shape[:place], *found.shape, *source.shape[place + 1 :])


def cast(attributes: Attributes, value: Value) -> Result:
    to = attributes.ints.get("DstT", 1)
    if to == _BOOL:
        return value != 0
    if to in _INTEGER_TYPES:  # by 64 bits: what does not fit wraps around, as it does there
        name = _INTEGER_TYPES[to]
        return (
            value.long().to(getattr(torch, name)) if isinstance(value, Tensor) else value.astype("int64").astype(name)
        )
    if to not in _FLOAT_TYPES:
        raise BadGraph(f"a cast to type {to}")
    if not isinstance(value, Tensor):
        return value.astype(_FLOAT_TYPES[to])
    # The module's own precision, so that .double() is double throughout.
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


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
