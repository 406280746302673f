"""Which axis of each layer is time, frequency and channels, found by following the input's axes through the graph."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.importer.graph_module import GraphModule
from captum_concepts_essentia.ops.values import BadGraph, Value, bounded, ints

_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "Sum")
_WINDOWED = ("Conv2D", "DepthwiseConv2dNative")


class Observed(NamedTuple):
    """What one pass over a patch of zeros shows.

    Attributes:
        output: the shape of the graph's output.
        shapes: node -> shape of its (first) output, where that is a tensor.
        arrays: node -> its value, where that is computed from sizes.
    """

    output: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, Value]


def observed(module: GraphModule) -> Observed | None:
    """None where the graph does not state the size of its input.

    Raises:
        InputError: the graph cannot be run, or asks for an input of very many numbers.
    """
    sizes = [size for size in (module.input_shape or (None, None))[1:] if size is not None]
    if module.input_shape is None or len(sizes) < len(module.input_shape) - 1:
        return None
    try:
        bounded(math.prod(sizes))
    except BadGraph as reason:
        raise InputError(f"input={short_repr(module.input_name)}: {reason} is not supported") from None
    seen: dict[str, tuple[int, ...]] = {}
    arrays: dict[str, Value] = {}
    handles = []
    for name, layer in module.layers.items():
        hook = _recorder(name, seen, arrays)
        handles.append(module.get_submodule(layer).register_forward_hook(hook))
    try:
        first = next(module.parameters(), torch.zeros(0))
        with torch.no_grad():
            output = module(first.new_zeros(1, *sizes))
    finally:
        for handle in handles:
            handle.remove()
    return Observed(tuple(output.shape), seen, arrays)


def layer_axes(module: GraphModule, letters: str, found: Observed | None) -> dict[str, str]:
    """Layer -> letters, B batch, T time, F frequency and C channels, for layers of three and four axes.

    Layers whose axes cannot be followed (through a reshape, say) are left out.

    Args:
        module: a graph with an output.
        letters: the axes of its input, e.g. "BTF".
        found: what `observed` says of it.
    """
    if found is None or len(module.input_shape or ()) != len(letters):
        return {}
    _, seen, arrays = found
    axes: dict[str, str] = {}
    for name in module.order:
        own = letters if name == module.input_name else _followed(module, name, axes, seen, arrays)
        if name in seen and own and len(own) == len(seen[name]) and len(set(own)) == len(own):
            axes[name] = own
    return {module.layers[name]: own for name, own in axes.items() if len(own) > 2}


def _recorder(name: str, seen: dict[str, tuple[int, ...]], arrays: dict[str, Value]):  # type: ignore[no-untyped-def]
    def hook(_module: object, _inputs: object, output: object) -> None:
        value = output if not isinstance(output, tuple) else next(iter(output), np.zeros(0))
        if isinstance(value, torch.Tensor):
            seen[name] = tuple(value.shape)
        else:
            arrays[name] = np.asarray(value)

    return hook


def _followed(
    module: GraphModule,
    name: str,
    axes: dict[str, str],
    seen: dict[str, tuple[int, ...]],
    arrays: dict[str, Value],
) -> str | None:
    node = module.nodes[name]
    sources = [source for source, _ in node.inputs]
    letters = next((axes[source] for source in sources if source in axes), None)
    if letters is None or name not in seen:
        return None
    op, rank = node.op, len(letters)
    numbers = ints(arrays[sources[-1]]) if sources[-1] in arrays else ()
    if op == "ExpandDims" and numbers:
        place = numbers[0] % (rank + 1)
        return letters[:place] + next((letter for letter in "CFT" if letter not in letters), "") + letters[place:]
    if op == "Squeeze":
        gone = {axis % rank for axis in node.attributes.lists.get("squeeze_dims", ())}
        return "".join(letter for axis, letter in enumerate(letters) if axis not in gone)
    if op == "Transpose" and numbers:
        return "".join(letters[axis] for axis in numbers)
    if op in _REDUCTIONS and not node.attributes.ints.get("keep_dims"):
        return "".join(letter for axis, letter in enumerate(letters) if axis not in {place % rank for place in numbers})
    if op in _WINDOWED and rank == 4:
        # What a kernel makes is channels; an axis of the input's channels is then one that it slides along.
        last = 1 if node.attributes.texts.get("data_format") == "NCHW" else 3
        moved = letters[:last] + letters[last + 1 :]
        moved = moved.replace("C", letters[last])
        return moved[:last] + "C" + moved[last:]
    if op == "Reshape" and seen[name] != seen.get(sources[0]):
        return None
    return letters
