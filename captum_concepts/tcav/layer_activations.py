"""Rows that Captum's concept methods work on: a layer's flattened outputs (or inputs) and their gradients.

Unlike ``backbones``, nothing is pooled and inputs are whatever the model takes: one tensor or several, with additional
arguments. All layers come from one forward pass, and from one backward pass per target.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum._utils.common import _format_additional_forward_args, _format_tensor_into_tuples, _select_targets
from torch import Tensor, nn

from captum_concepts.backbones.layers import find_layer, frozen, output_index, tensors_of
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the CPU for a model without any."""
    return next(model.parameters(), next(model.buffers(), torch.zeros(0))).device


def as_inputs(batch: Any, device: torch.device) -> tuple[Any, ...]:
    """What a data loader gives (a tensor, or a list or tuple of one tensor per argument of the model), on the device.

    Raises:
        InputError: no tensor.
    """
    parts = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise InputError(f"inputs: {short_repr(type(batch).__name__)} where a tensor or a tuple of tensors is needed")
    return tuple(part.to(device) for part in parts)


def layer_rows(model: nn.Module, inputs: Any, layers: Sequence[str], *, of_input: bool = False) -> dict[str, Tensor]:
    """Outputs of every layer from one forward pass, without gradients.

    Args:
        model: is run in the mode it is in.
        inputs: a tensor (B, ...) or a tuple of such, one per argument of the model.
        layers: names; ``"gru:1"`` picks the second tensor of a tuple output, ``"gru"`` the first.
        of_input: take what goes into the layers instead of what comes out.

    Returns:
        layer -> (B, F) on the model's device, flattened as ``reshape(B, -1)`` does.

    Raises:
        InputError: unknown layer (the valid ones are listed), a layer without a tensor or one that does not run.
    """
    given = as_inputs(inputs, device_of(model))
    with torch.no_grad(), _watched(model, layers, of_input, differentiable=False) as found:
        model(*given)
    _check_all_ran(layers, found)
    return {layer: _flat(model, layer, found[layer], len(given[0]), of_input) for layer in layers}


def layer_gradients(
    model: nn.Module,
    inputs: Any,
    layers: Sequence[str],
    targets: Sequence[Any],
    additional_forward_args: Any = None,
    *,
    of_input: bool = False,
) -> dict[str, list[Tensor]]:
    """Gradients of the targets' outputs at every layer: one forward pass, then one backward pass per target.

    Args:
        model, inputs, layers, of_input: as in ``layer_rows``.
        targets: as Captum takes them, each an int, a tuple, a list or a tensor (one per row), or None.
        additional_forward_args: passed to the model after the inputs.

    Returns:
        layer -> [(B, F) for every target] on the model's device.

    Raises:
        InputError: a target that the output lacks or that does not depend on a layer, or a layer whose values have no
            gradient.
    """
    device = device_of(model)
    given = as_inputs(inputs, device)
    more = _format_additional_forward_args(additional_forward_args) or ()
    more = tuple(part.to(device) if isinstance(part, Tensor) else part for part in more)
    # cuDNN's recurrent kernels have no backward in evaluation mode.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with (
        torch.enable_grad(),
        _without_parameter_gradients(model),
        torch.backends.cudnn.flags(enabled=not recurrent),
        _watched(model, layers, of_input, differentiable=True) as found,
    ):
        output = model(*(part.detach() for part in given), *more)
        _check_all_ran(layers, found)
        watched = [found[layer] for layer in layers]
        result: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for number, target in enumerate(targets):
            chosen = _chosen(output, target)
            if not chosen.requires_grad:
                raise InputError(f"layers {', '.join(layers)}: target {short_repr(target)} does not depend on them")
            keep = number < len(targets) - 1
            parts = torch.autograd.grad(chosen.sum(), watched, retain_graph=keep, allow_unused=True)
            for layer, part in zip(layers, parts, strict=True):
                if part is None:
                    raise InputError(f"layer {short_repr(layer)}: target {short_repr(target)} does not depend on it")
                result[layer].append(_flat(model, layer, part, len(given[0]), of_input))
    return result


@dataclass(frozen=True)
class InputBatch:
    """Some of the inputs, with what goes with them.

    Attributes:
        rows: which of the inputs.
        inputs: one tensor per argument of the model.
        targets: those of the rows.
        more: additional arguments, or None.
        options: of the attribution method.
    """

    rows: slice
    inputs: tuple[Tensor, ...]
    targets: list[Any]
    more: tuple[Any, ...] | None
    options: dict[str, Any]


def input_batches(
    inputs: Any,
    targets: Sequence[Any],
    additional_forward_args: Any,
    batch_size: int | None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[InputBatch]:
    """Cut inputs, targets, additional arguments and options into batches, where they have one entry per input.

    Yields:
        batches in order; everything at once without a ``batch_size``.

    Raises:
        InputError: inputs of different lengths, none at all, or a batch size below 1.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not all(isinstance(part, Tensor) for part in given):
        raise InputError(f"inputs: {short_repr(type(inputs).__name__)} where a tensor or a tuple of tensors is needed")
    lengths = {len(part) if part.dim() else 0 for part in given}
    if len(lengths) != 1 or lengths == {0}:
        raise InputError(f"inputs: {sorted(lengths)} examples; give tensors of one length, at least 1")
    (total,) = lengths
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    plain = [_plain(target) for target in targets]
    more = _format_additional_forward_args(additional_forward_args)
    for start in range(0, total, batch_size or total):
        rows = slice(start, min(start + (batch_size or total), total))
        yield InputBatch(
            rows,
            tuple(part[rows] for part in given),
            [_cut(target, rows, total) for target in plain],
            None if more is None else tuple(_cut_argument(part, rows, total) for part in more),
            {name: _cut_option(value, rows, total) for name, value in (options or {}).items()},
        )


def _plain(target: Any) -> Any:
    """A target with Python's integers in place of NumPy's, which Captum does not take."""
    if isinstance(target, (np.integer, np.ndarray)):
        return target.tolist()
    return type(target)(_plain(part) for part in target) if isinstance(target, (list, tuple)) else target


def _cut_argument(part: Any, rows: slice, total: int) -> Any:
    """An additional argument's entries for some rows: a tensor as long as the inputs, as in Captum; else all of it."""
    return part[rows] if isinstance(part, Tensor) and part.dim() and len(part) == total else part


def _cut_option(value: Any, rows: slice, total: int) -> Any:
    """An option's entries for some rows; some (``baselines``) have a tensor for each argument of the model."""
    return (
        tuple(_cut_option(part, rows, total) for part in value)
        if isinstance(value, tuple)
        else _cut_argument(value, rows, total)
    )


def _cut(target: Any, rows: slice, total: int) -> Any:
    """A target's entries for some rows, where it has one for each."""
    per_row = isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1)
    if per_row and len(target) != total:
        raise InputError(f"target: {len(target)} entries for {total} inputs; give one for each, or one for all")
    return target[rows] if per_row else target


def _chosen(output: Any, target: Any) -> Tensor:
    """The target's outputs, one for each input."""
    try:
        return _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"target {short_repr(target)} does not fit the model's output {shape}: {why}") from None


def method_gradients(
    method: Any,
    model: nn.Module,
    inputs: Any,
    layer: str,
    target: Any,
    additional_forward_args: Any = None,
    *,
    of_input: bool = False,
    **options: Any,
) -> Tensor:
    """(B, F): what a Captum layer attribution method given by the user attributes to one layer."""
    method.layer = find_layer(model, layer)
    attribute: Callable[..., Any] = method.attribute
    bound = getattr(attribute, "__wrapped__", None)  # past Captum's logging of usage, as Captum calls it
    arguments = {
        "target": target,
        "additional_forward_args": additional_forward_args,
        "attribute_to_layer_input": of_input,
        **options,
    }
    found = bound(method, inputs, **arguments) if bound is not None else attribute(inputs, **arguments)
    parts = _format_tensor_into_tuples(found)
    index = output_index(layer)
    if index >= len(parts):
        raise InputError(f"layer {short_repr(layer)}: {type(method).__name__} attributes to {len(parts)} tensors")
    rows = len(inputs[0]) if isinstance(inputs, (list, tuple)) else len(inputs)
    return _flat(model, layer, parts[index].detach(), rows, of_input)


@contextlib.contextmanager
def _without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def evaluation(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Evaluation mode if ``wanted``, else the mode the model is in; flags are put back."""
    with frozen(model) if wanted else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _watched(
    model: nn.Module, layers: Sequence[str], of_input: bool, *, differentiable: bool
) -> Iterator[dict[str, Tensor]]:
    """Collects one tensor per layer while the model runs; the graph begins at the first of them."""
    modules = {layer: find_layer(model, layer) for layer in layers}
    found: dict[str, Tensor] = {}

    def keep(layer: str, values: Any) -> Any:
        tensors = tensors_of(values)
        index = output_index(layer)
        if index >= len(tensors):
            raise InputError(
                f"layer {short_repr(layer)}: it has {len(tensors)} tensors there; choose :0, :1, ... of them"
            )
        tensor = tensors[index]
        if not differentiable:
            found[layer] = tensor.clone()
            return None
        if not tensor.is_floating_point():
            raise InputError(
                f"layer {short_repr(layer)} has {tensor.dtype} there, which has no gradient; choose another"
            )
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
        found[layer] = tensor
        # Downstream gets a copy, as an in-place operation there would change what was collected.
        return _with_tensor(values, index, tensor.clone())

    handles = []
    try:
        for layer, module in modules.items():
            if of_input:
                handles.append(module.register_forward_pre_hook(lambda _, given, name=layer: keep(name, given)))
            else:
                handles.append(module.register_forward_hook(lambda _, __, output, name=layer: keep(name, output)))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _with_tensor(values: Any, index: int, new: Tensor) -> Any:
    """``values`` with its ``index``-th tensor, depth first, replaced."""
    if isinstance(values, Tensor):
        return new
    items = list(values.values()) if isinstance(values, dict) else list(values)
    for position, item in enumerate(items):
        count = len(tensors_of(item))
        if index < count:
            items[position] = _with_tensor(item, index, new)
            break
        index -= count
    if isinstance(values, dict):
        return type(values)(zip(values, items, strict=True))
    return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)


def _check_all_ran(layers: Sequence[str], found: dict[str, Tensor]) -> None:
    for layer in layers:
        if layer not in found:
            raise InputError(f"layer {short_repr(layer)} does not run in a forward pass; choose another")


def _flat(model: nn.Module, layer: str, values: Tensor, rows: int, of_input: bool) -> Tensor:
    module = find_layer(model, layer)
    if isinstance(module, nn.RNNBase) and (output_index(layer) > 0 or not module.batch_first):
        values = values.transpose(0, 1)  # states are (layers, B, H); sequences (T, B, H) unless batch_first
    if not values.dim() or len(values) != rows:
        raise InputError(
            f"layer {short_repr(layer)}: {'input' if of_input else 'output'} of shape {tuple(values.shape)} for {rows} "
            "examples; its first axis must be the batch"
        )
    return values.reshape(rows, -1).detach()
