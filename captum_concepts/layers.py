"""Watch and differentiate named layers of any ``nn.Module`` in one pass, and pool what they give.

Axes are letters: B batch, C channels (or features), T time, F frequency. A pooled activation is flattened in the order
time, frequency, channels, whatever order the layer itself uses.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from captum_concepts.errors import InputError, shown

POOLINGS = ("time", "none", "time_freq")
_REDUCED = {"time": "T", "none": "", "time_freq": "TF"}
_SEQUENCE = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.LayerNorm)
_CONVOLUTION_1D = (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.BatchNorm1d)
_SATURATING = (nn.Sigmoid, nn.Softmax, nn.LogSoftmax, nn.LogSigmoid)


def check_pooling(pool: str) -> None:
    """Raise InputError unless ``pool`` is one of ``POOLINGS``."""
    if pool not in POOLINGS:
        raise InputError(f"pool={shown(pool)} is not a pooling; use one of {', '.join(POOLINGS)}")


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module called ``name`` (a suffix ``:k`` picks the k-th tensor of a tuple output and is ignored here).

    Raises:
        InputError: no such layer; the message lists the valid names, nearest first.
    """
    modules = {key: module for key, module in model.named_modules() if key}
    bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() and name not in modules else name
    if bare in modules:
        return modules[bare]
    near = difflib.get_close_matches(bare, modules, n=3, cutoff=0.4)
    ordered = near + [key for key in modules if key not in near]
    listed = ", ".join(ordered[:40]) + (f" and {len(ordered) - 40} more" if len(ordered) > 40 else "")
    raise InputError(f"layer {shown(name)} is not in {type(model).__name__}; its layers are: {listed}")


def pool_map(values: Tensor, axes: str, pool: str, *, reduce: str = "mean") -> Tensor:
    """Pool a layer's map and flatten it.

    Args:
        values: a layer's output (or the gradient with respect to it); its axes are named by ``axes``.
        axes: one letter per dimension of ``values``, each of B, C, T, F at most once, B among them.
        pool: "time" averages over T, "time_freq" over T and F, "none" over nothing.
        reduce: "mean" for activations, "sum" for gradients. Adding e to every frame adds e to the time mean, so the
            derivative with respect to the mean is the *sum* of the frames' derivatives.

    Returns:
        (B, D), flattened in the order T, F, C of the axes that are left.
    """
    order = [axes.index(letter) for letter in "BTFC" if letter in axes]
    values = values.permute(order)
    letters = [letter for letter in "BTFC" if letter in axes]
    gone = [i for i, letter in enumerate(letters) if letter in _REDUCED[pool]]
    if gone:
        values = values.mean(gone) if reduce == "mean" else values.sum(gone)
    return values.flatten(1) if values.dim() > 1 else values[:, None]


def guess_axes(module: nn.Module, dimensions: int, *, map_axes: str, sequence_axes: str) -> str:
    """The axes of a layer's output: from the kind of module, else from the backbone's defaults.

    Args:
        module: the layer.
        dimensions: number of dimensions of its output.
        map_axes: axes of 4-D outputs, "BCTF" or "BCFT".
        sequence_axes: axes of 3-D outputs where the module does not tell, "BCT" or "BTC".

    Raises:
        InputError: no reading for that many dimensions; give ``axes=`` for the layer.
    """
    if dimensions == 2:
        return "BC"
    if dimensions == 4:
        return map_axes
    if dimensions == 3:
        last = [m for m in module.modules() if not list(m.children())][-1]
        for candidate in (module, last):
            if isinstance(candidate, nn.RNNBase | nn.MultiheadAttention) and not candidate.batch_first:
                return "TBC"
            if isinstance(candidate, (*_SEQUENCE, nn.Linear)):
                return "BTC"
            if isinstance(candidate, _CONVOLUTION_1D):
                return "BCT"
        return sequence_axes
    raise InputError(f"a layer output of {dimensions} dimensions has no default reading; give axes={{layer: 'BCTF'}}")


def sequence_default(model: nn.Module) -> str:
    """Axes of 3-D outputs of modules that do not tell (activations, dropout): channels first in 1-D conv nets."""
    kinds = [type(m) for m in model.modules()]
    convolutional = any(issubclass(kind, nn.Conv1d) for kind in kinds)
    sequential = any(issubclass(kind, _SEQUENCE) for kind in kinds)
    return "BCT" if convolutional and not sequential else "BTC"


def tensors_of(output: object) -> list[Tensor]:
    """All tensors of a layer's output, depth first, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in tensors_of(part)]
    return []


def _replace(output: object, index: int, new: Tensor) -> object:
    """``output`` with its ``index``-th tensor (depth first) replaced."""
    if isinstance(output, Tensor):
        return new
    parts = list(output.values()) if isinstance(output, dict) else list(output)  # type: ignore[call-overload]
    for position, part in enumerate(parts):
        size = len(tensors_of(part))
        if index < size:
            parts[position] = _replace(part, index, new)
            break
        index -= size
    if isinstance(output, dict):
        return type(output)(zip(output, parts, strict=True))
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*parts)
    return type(output)(parts)  # type: ignore[call-arg]


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; every flag is put back afterwards."""
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


class LayerTap:
    """Collects the outputs of named layers during one forward pass of ``model``.

    With ``differentiable`` the first watched layer starts the graph: nothing before it is recorded, so a backward pass
    costs only what lies between the earliest watched layer and the output. Downstream modules get a clone, because
    in-place operations (``ReLU(inplace=True)``) would otherwise change what was collected.

    Use as a context manager; afterwards ``tensors[layer]`` holds the outputs and ``logits(output)`` the logits.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], *, differentiable: bool, logits: str | None = None):
        self.model = model
        self.layers = tuple(layers)
        self.differentiable = differentiable
        self.tensors: dict[str, Tensor] = {}
        self._logits_layer = logits
        self._logits: Tensor | None = None
        self._saturations: list[tuple[Tensor, Tensor]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> LayerTap:
        for name in self.layers:
            self._handles.append(find_layer(self.model, name).register_forward_hook(self._watch(name)))
        if self._logits_layer is not None:
            module = find_layer(self.model, self._logits_layer)
            self._handles.append(module.register_forward_hook(self._keep_logits))
        else:
            for module in self.model.modules():
                if isinstance(module, _SATURATING):
                    self._handles.append(module.register_forward_hook(self._keep_saturation))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _watch(self, name: str):
        suffix = name.rpartition(":")[2]
        index = int(suffix) if suffix.isdigit() and ":" in name else 0

        def hook(_module: nn.Module, _inputs: object, output: object) -> object:
            found = tensors_of(output)
            if not found:
                raise InputError(f"layer {shown(name)} gives no tensor but {type(output).__name__}; choose another")
            if index >= len(found):
                raise InputError(f"layer {shown(name)}: the output has {len(found)} tensors, counted from 0")
            if name in self.tensors:
                raise InputError(
                    f"layer {shown(name)} runs more than once in a forward pass; choose one that runs once"
                )
            tensor = found[index]
            if not self.differentiable:
                self.tensors[name] = tensor.clone()
                return None
            if not tensor.is_floating_point():
                raise InputError(f"layer {shown(name)} gives {tensor.dtype}, which has no gradient; choose another")
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_(True)
            self.tensors[name] = tensor
            return _replace(output, index, tensor.clone())

        return hook

    def _keep_logits(self, _module: nn.Module, _inputs: object, output: object) -> None:
        self._logits = tensors_of(output)[0].clone()

    def _keep_saturation(self, _module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        self._saturations.append((tensors_of(inputs)[0], tensors_of(output)[0]))

    def logits(self, output: object) -> tuple[Tensor, bool]:
        """Logits (B, C) of the pass, and whether they had to be taken from probabilities.

        If the model ends in a Sigmoid or Softmax *module*, its input is returned. A functional one cannot be undone:
        the output is returned with True, so that the caller warns.
        """
        final = tensors_of(output)[0]
        saturated = False
        if self._logits is not None:
            final = self._logits
        else:
            for before, after in self._saturations:
                if after is final:
                    final = before
                    break
            else:
                with torch.no_grad():
                    saturated = bool(((final >= 0) & (final <= 1)).all()) and final.numel() > 1
        if final.dim() == 1:
            final = final[:, None]
        if final.dim() != 2:
            raise InputError(
                f"the model's output has shape {tuple(final.shape)}; logits are (batch, classes): give logits='layer'"
            )
        return final, saturated
