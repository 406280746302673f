"""Which axes of a layer's output are time, frequency and channels."""

from __future__ import annotations

from torch import nn

from captum_concepts.errors import InputError

_TRANSFORMER = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)
_CONVOLUTION_1D = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
)


def guess_axes(module: nn.Module, dimensions: int, *, map_axes: str, sequence_axes: str, index: int = 0) -> str:
    """The axes of a layer's output: from the kind of module, else from the backbone's defaults.

    Args:
        module: the layer.
        dimensions: number of dimensions of its output.
        map_axes: axes of 4-D outputs, "BCTF" or "BCFT".
        sequence_axes: axes of 3-D outputs where the module does not tell, "BCT", "BTC" or "TBC".
        index: which tensor of the output. The states of recurrent layers, from 1 on, are (layers, B, C): the layers
            are read as F, so that they are kept side by side where time is averaged.

    Returns:
        one letter of B, C, T, F for each dimension.

    Raises:
        InputError: no reading for that many dimensions; give ``axes=`` for the layer.
    """
    if dimensions == 1:
        return "B"
    if dimensions == 2:
        return "BC"
    if dimensions == 4:
        return map_axes
    if dimensions == 3:
        leaves = [m for m in module.modules() if not list(m.children())]
        for candidate in (module, leaves[-1]):
            if isinstance(candidate, nn.RNNBase) and index > 0:
                return "FBC"
            told = _told_axes(candidate, sequence_axes)
            if told:
                return told
        return sequence_axes
    raise InputError(
        f"axes: a layer output of {dimensions} dimensions has no default reading; give axes={{layer: 'BCTF'}}"
    )


def _told_axes(module: nn.Module, sequence_axes: str) -> str | None:
    """What the kind of a module says about its 3-D output."""
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return "BTC" if module.batch_first else "TBC"
    if isinstance(module, _TRANSFORMER):
        inner = next((m for m in module.modules() if isinstance(m, nn.MultiheadAttention)), None)
        return "BTC" if inner is None or inner.batch_first else "TBC"
    if isinstance(module, _CHANNELS_LAST):
        return "TBC" if sequence_axes == "TBC" else "BTC"
    if isinstance(module, _CONVOLUTION_1D):
        return "BCT"
    return None


def sequence_default(model: nn.Module, name: str = "") -> str:
    """Axes of the 3-D outputs of a layer that does not tell itself (activation, dropout, the user's own module).

    Taken from the part of the layer's own stack, else from the last module registered before it, that tells:
    "TBC" inside transformers with ``batch_first=False``, channels first after 1-D convolutions, channels last
    otherwise. Without ``name``: of the model as a whole, by its first module that tells.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    bare = name.partition(":")[0]
    for end in range(len(bare), 0, -1):
        parent = modules.get(bare[:end]) if end == len(bare) or bare[end] == "." else None
        if isinstance(parent, _TRANSFORMER):
            return _told_axes(parent, "BTC") or "BTC"
    told = "BTC"
    for key, module in modules.items():
        if key == bare and name:
            return told
        axes = _told_axes(module, told)
        if axes is not None and not isinstance(module, _TRANSFORMER):
            told = axes
            if not name:
                return told
    return told
