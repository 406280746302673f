"""Collect and differentiate the outputs of named layers of any ``nn.Module`` in one forward pass, and pool them.

Axes are letters: B batch, C channels (or features), T time, F frequency. A pooled activation is flattened in the order
time, frequency, channels, whatever order the layer itself uses.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from captum_concepts.choices import POOLINGS
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr, suggest

# The axes along which an unpooled activation has a position in the patch.
POSITION_AXES = {"T": "time", "F": "frequency"}
REDUCED = {"time": "T", "none": "", "time_freq": "TF"}
_SATURATING = (nn.Sigmoid, nn.Softmax, nn.LogSoftmax, nn.LogSigmoid)
# The names of autograd's steps: of the same functions, and of what moves or converts values without changing them.
_SATURATING_NODES = ("Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid")
_RESHAPING = (
    "Alias",
    "AsStrided",
    "Clone",
    "Expand",
    "Permute",
    "ReshapeAlias",
    "Select",
    "Slice",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "Unbind",
    "Unsqueeze",
    "UnsafeView",
    "View",
)


def check_pooling(pool: str) -> None:
    """Check the name of a pooling.

    Args:
        pool: "time", "none" or "time_freq".

    Raises:
        InputError: another name.

    Example:
        >>> check_pooling("mean")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: pool='mean': is not a pooling; use one of time, none, time_freq
    """
    if pool not in POOLINGS:
        raise InputError(f"pool={short_repr(pool)}: is not a pooling; use one of {', '.join(POOLINGS)}")


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module with a name.

    Args:
        model: where it is looked up.
        name: as in ``model.named_modules()``; a suffix ``:k`` (the k-th tensor of a tuple output) is ignored.

    Returns:
        the module.

    Raises:
        InputError: no such layer; the message suggests the nearest names and lists the others.

    Example:
        >>> model = nn.Sequential()
        >>> model.add_module("block1", nn.ReLU())
        >>> find_layer(model, "block1")
        ReLU()
        >>> find_layer(model, "blok1")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: layer='blok1': is not in Sequential; did you mean 'block1'? layers: block1
    """
    # A module that is used under two names is found under both.
    modules = {key: module for key, module in model.named_modules(remove_duplicate=False) if key}
    if not modules:
        raise InputError(f"layer={short_repr(name)}: {type(model).__name__} has no layers; wrap it in a module")
    bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdecimal() and name not in modules else name
    if bare in modules:
        return modules[bare]
    remedy = suggest(bare, modules, "layers", 40)
    raise InputError(f"layer={short_repr(name)}: is not in {type(model).__name__}; {remedy}")


def output_index(name: str) -> int:
    """Which tensor of a tuple output a layer's name asks for: 1 for "gru:1", 0 for "gru"."""
    suffix = name.rpartition(":")[2]
    # No layer has as many tensors as nine digits say, and Python refuses to read thousands of them.
    return int(suffix[:9]) if ":" in name and suffix.isdecimal() else 0


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

    Example:
        >>> values = torch.arange(12.0).reshape(1, 2, 2, 3)  # two channels, two bands, three frames
        >>> pool_map(values, "BCFT", "time")
        tensor([[ 1.,  7.,  4., 10.]])
    """
    order = [axes.index(letter) for letter in "BTFC" if letter in axes]
    values = values.permute(order)
    letters = [letter for letter in "BTFC" if letter in axes]
    gone = [i for i, letter in enumerate(letters) if letter in REDUCED[pool]]
    if gone:
        values = values.mean(gone) if reduce == "mean" else values.sum(gone)
    return values.flatten(1) if values.dim() > 1 else values[:, None]


def tensors_of(output: object) -> list[Tensor]:
    """All tensors of a layer's output, depth first, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in tensors_of(part)]
    return []


def replace_tensor(output: object, index: int, new: Tensor) -> object:
    """``output`` with its ``index``-th tensor (depth first) replaced."""
    if isinstance(output, Tensor):
        return new
    if not isinstance(output, dict | list | tuple):
        raise TypeError(type(output))
    items = list(output.items()) if isinstance(output, dict) else list(enumerate(output))
    parts = [part for _, part in items]
    for position, part in enumerate(parts):
        size = len(tensors_of(part))
        if index < size:
            parts[position] = replace_tensor(part, index, new)
            break
        index -= size
    if isinstance(output, dict):
        changed = copy.copy(output)  # keeps what subclasses add to dict
        for (key, _), part in zip(items, parts, strict=True):
            changed[key] = part
        return changed
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*parts)
    return type(output)(parts)


@contextlib.contextmanager
def frozen(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients; every flag is put back afterwards."""
    training = [(module, module.training) for model in models for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for model in models for parameter in model.parameters()]
    try:
        for model in models:
            model.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
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

    Args:
        model: whose forward pass is watched.
        layers: names.
        differentiable: whether gradients with respect to the outputs are wanted.
        logits: layer whose output holds the logits; default: what the model returns.

    Raises:
        InputError: in the forward pass: a layer gives no tensor, runs more than once or has no gradient.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        >>> with LayerTap(model, ["0"], differentiable=True) as tap:
        ...     output = model(torch.zeros(4, 3))
        >>> tap.tensors["0"].shape, tap.logits(output)[0].shape
        (torch.Size([4, 2]), torch.Size([4, 1]))
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], *, differentiable: bool, logits: str | None = None):
        self.model = model
        self.layers = tuple(dict.fromkeys(layers))
        self.differentiable = differentiable
        self.tensors: dict[str, Tensor] = {}
        self._logits_layer = logits
        self._logits: Tensor | None = None
        self._saturations: list[tuple[Tensor, Tensor]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> LayerTap:
        # All are found before the first is hooked: where this raises, __exit__ does not run.
        watched = [(find_layer(self.model, name), name) for name in self.layers]
        last = None if self._logits_layer is None else find_layer(self.model, self._logits_layer)
        for module, name in watched:
            self._handles.append(module.register_forward_hook(self._watch(name)))
        if last is not None:
            self._handles.append(last.register_forward_hook(self._keep_logits))
        else:
            for module in self.model.modules():
                if isinstance(module, _SATURATING):
                    self._handles.append(module.register_forward_hook(self._keep_saturation))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _watch(self, name: str) -> Callable[[nn.Module, object, object], object]:
        index = output_index(name)

        def hook(_module: nn.Module, _inputs: object, output: object) -> object:
            found = tensors_of(output)
            if not found:
                raise InputError(
                    f"layer={short_repr(name)}: gives no tensor but {type(output).__name__}; choose another"
                )
            if index >= len(found):
                raise InputError(
                    f"layer={short_repr(name)}: its output has {len(found)} tensors; give :0 to :{len(found) - 1}"
                )
            if name in self.tensors:
                raise InputError(
                    f"layer={short_repr(name)}: runs more than once in a forward pass; choose one that runs once"
                )
            tensor = found[index]
            if not self.differentiable:
                self.tensors[name] = tensor.clone()
                return None
            if not tensor.is_floating_point():
                raise InputError(
                    f"layer={short_repr(name)}: gives {tensor.dtype}, which has no gradient; choose another"
                )
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_(True)
            self.tensors[name] = tensor
            return replace_tensor(output, index, tensor.clone())

        return hook

    def _keep_logits(self, _module: nn.Module, _inputs: object, output: object) -> None:
        found = tensors_of(output)
        if not found:
            raise InputError(
                f"logits={short_repr(self._logits_layer)}: gives no tensor but {type(output).__name__}; choose another"
            )
        self._logits = found[0].clone()

    def _keep_saturation(self, _module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        before, after = tensors_of(inputs), tensors_of(output)
        if before and after:
            self._saturations.append((before[0], after[0]))

    def logits(self, output: object) -> tuple[Tensor, bool]:
        """Logits (B, C) of the pass, and whether they had to be taken from probabilities.

        If the model ends in a Sigmoid or Softmax *module*, its input is returned. A functional one cannot be undone:
        the output is returned with True, so that the caller warns.

        Args:
            output: what the model returned.

        Returns:
            the logits, and whether they seem to be probabilities.

        Raises:
            InputError: the model gives no tensor, or one that is not (B, C) or (B,).
        """
        found = tensors_of(output)
        if not found:
            raise InputError(f"model: returns {type(output).__name__} without a tensor; give logits='layer'")
        final = found[0]
        saturated = False
        if self._logits is not None:
            final = self._logits
        else:
            for before, after in self._saturations:
                if after is final:
                    final = before
                    break
            else:
                saturated = _is_saturated(final)
        if final.dim() == 1:
            final = final[:, None]
        if final.dim() != 2:
            raise InputError(
                f"model: its output has shape {tuple(final.shape)}, logits are (batch, classes); give logits='layer'"
            )
        return final, saturated


def _is_saturated(final: Tensor) -> bool:
    """Whether an output is known to be probabilities or their logarithms: by what made it, or by rows that sum to 1.

    Its range says nothing: tanh, batch norm or a small batch of a plain model may stay between 0 and 1 as well.
    """
    node = final.grad_fn
    while node is not None and _kind_of(node) in _RESHAPING:
        node = node.next_functions[0][0]
    if node is not None and _kind_of(node) in _SATURATING_NODES:
        return True
    if final.dim() != 2 or final.shape[1] < 3 or not len(final) or not final.is_floating_point():
        return False
    values = final.detach().float()
    if bool((values <= 0).all()):
        values = values.exp()
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-4).all())


def _kind_of(node: torch.autograd.graph.Node) -> str:
    """ "View" of "ViewBackward0", the name that autograd gives to the step of a view."""
    return node.name().partition("Backward")[0]
