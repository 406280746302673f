"""Captum's attributions on a model's input, such as a log-mel spectrogram: which parts raise or lower a class.

The methods are Captum's own (hook ``captum_concepts_explainers``). Those that compare with a baseline compare with real
audio that the caller gives, never with noise or silence; a method that fails raises an error, and no other method
replaces it.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from captum_concepts.attributions.builtin import ABSOLUTE, METHODS
from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.inference import middle_patch, predicted_class
from captum_concepts.backbones.layers import LayerTap, frozen
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.errors import InputError
from captum_concepts.plugins.registry import lookup
from captum_concepts.text import short_repr


@runtime_checkable
class HasInputParts(Protocol):
    """A backbone that defines its input representation itself."""

    def input_parts(self) -> tuple[nn.Module, Callable[[Tensor], Tensor], str]:
        """Module from input to logits; function from waveforms (B, samples) to that input; the input's axes, letters of
        B, C, F (bands) and T (frames)."""


@dataclass
class Attributions:
    """Attributions of a class in one clip, patch by patch, by several methods.

    Attributes:
        backbone, target: the model and the class that is explained, by name.
        clip: the track.
        starts, ends: (P,), seconds of each patch in the file.
        axes: of ``inputs``, e.g. "BCFT".
        inputs: (P, ...), the model's input.
        values: method -> array of the shape of ``inputs``.
        logits: (P,), of the target.
        baseline_logits: (M,), of the target for each baseline; values of a complete method sum, patch by patch, to
            ``logits`` minus their mean.
        baselines: files whose middle patches are the M baselines.
    """

    backbone: str
    target: str
    clip: Clip
    starts: np.ndarray
    ends: np.ndarray
    axes: str
    inputs: np.ndarray
    values: dict[str, np.ndarray]
    logits: np.ndarray
    baseline_logits: np.ndarray
    baselines: tuple[str, ...]

    def gap(self, method: str) -> float:
        """Difference between the sum of attributions and the change of the logit, as a share of that change.

        0 for a complete method computed exactly; saliency is not complete.
        """
        change = self.logits - self.baseline_logits.mean()
        sums = self.values[method].reshape(len(change), -1).sum(1)
        return float(np.abs(sums - change).sum() / max(np.abs(change).sum(), np.finfo(np.float64).tiny))

    def save(self, folder: str | Path) -> Path:
        """Write ``attributions.json`` (class, track, baselines, gaps) and
        ``attributions.safetensors`` (inputs and values).

        Raises:
            InputError: the folder cannot be written.
        """
        folder = Path(folder)
        content = {
            "backbone": self.backbone,
            "target": self.target,
            "track": [self.clip.path, self.clip.start, self.clip.end],
            "starts": self.starts.tolist(),
            "ends": self.ends.tolist(),
            "axes": self.axes,
            "logits": self.logits.tolist(),
            "baseline_logits": self.baseline_logits.tolist(),
            "baselines": list(self.baselines),
            "gaps": {name: self.gap(name) for name in self.values if name not in ABSOLUTE},
        }
        arrays = {"inputs": self.inputs, **{f"values.{name}": values for name, values in self.values.items()}}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()},
                folder / "attributions.safetensors",
            )
            (folder / "attributions.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        except OSError as error:
            raise InputError(
                f"folder={short_repr(str(folder), 200)}: cannot be written "
                f"({error.strerror or error}); give another folder"
            ) from None
        return folder


def attribute(
    backbone: Backbone,
    clip: Clip | str | Path,
    baselines: Sequence[Clip],
    target: str | None = None,
    methods: Sequence[str] = tuple(METHODS),
    **options: Any,
) -> Attributions:
    """Attributions of a class for one track, on the model's input representation.

    Args:
        backbone: a model in torch, see ``input_parts``.
        clip: the track; all its patches, side by side, are attributed.
        baselines: real clips to compare with; the middle patch of each is taken.
        target: class name; default: the class that the model predicts for the track.
        methods: registered explainers (``METHODS`` and those of plugins).
        options: passed on to the methods that take them.

    Raises:
        InputError: a black box, an unknown class or method, an option that no method takes, a baseline or track that
            cannot be read, fewer than two baselines, or a method that does not support the model.
    """
    chosen = {name: lookup("explainers", name).factory for name in dict.fromkeys(methods)}
    taken = {name for function in chosen.values() for name in inspect.signature(function).parameters}
    for option in options:
        if option not in taken:
            raise InputError(f"options={short_repr(option)}: no option of {', '.join(chosen)}; leave it out")
    module, prepare, axes = input_parts(backbone)
    track = clip if isinstance(clip, Clip) else Clip(str(clip))
    name = predicted_class(backbone, track, list(backbone.layers)[:1]) if target is None else target
    number = target_index(backbone, name)
    with torch.no_grad():
        waves, used = _middle_patches(backbone, baselines)
        references = prepare(waves)
        blocks = list(backbone.read(track))
        inputs = prepare(torch.cat([block.inputs for block in blocks]))
    targets = torch.full((len(inputs),), number, device=inputs.device)
    values = {}
    with frozen(module):
        with torch.no_grad():
            logits = [module(part)[:, number].double().cpu().numpy() for part in (inputs, references)]
        for method, function in chosen.items():
            values[method] = _checked(method, function, module, inputs, targets, references, options)
    return Attributions(
        backbone=backbone.name,
        target=name,
        clip=track,
        starts=np.concatenate([block.starts for block in blocks]),
        ends=np.concatenate([block.ends for block in blocks]),
        axes=axes,
        inputs=inputs.detach().float().cpu().numpy(),
        values=values,
        logits=logits[0],
        baseline_logits=logits[1],
        baselines=used,
    )


def input_parts(backbone: Backbone) -> tuple[nn.Module, Callable[[Tensor], Tensor], str]:
    """Module, input function and axes to attribute, see ``HasInputParts``; of a ``TorchBackbone``, after its front-end.

    Raises:
        InputError: a black box.
    """
    if isinstance(backbone, HasInputParts):
        return backbone.input_parts()
    if isinstance(backbone, TorchBackbone):
        layout = "BT" if backbone.frontend is None else getattr(backbone.frontend, "layout", "")
        return _Logits(backbone.model, backbone.logits_layer), backbone.model_input, layout
    raise InputError(
        f"backbone={backbone.name}: a black box up to its embedding, so nothing can be attributed to its input; use a "
        "torch model"
    )


class _Logits(nn.Module):
    """A model without its final sigmoid or softmax."""

    def __init__(self, model: nn.Module, layer: str | None) -> None:
        super().__init__()
        self.model = model
        self._layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        with LayerTap(self.model, (), differentiable=False, logits=self._layer) as tap:
            return tap.logits(self.model(inputs))[0]


def _middle_patches(backbone: Backbone, clips: Sequence[Clip]) -> tuple[Tensor, tuple[str, ...]]:
    found, used = [], []
    for clip in clips:
        patch = middle_patch(backbone, clip)
        if patch is not None:
            found.append(patch)
            used.append(clip.path)
    if len(found) < 2:
        raise InputError(f"baselines={len(clips)} clips: only {len(found)} can be used; give at least two with sound")
    return torch.stack(found), tuple(used)


def _checked(
    method: str,
    function: Callable[..., np.ndarray],
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    baselines: Tensor,
    options: dict[str, Any],
) -> np.ndarray:
    """The values of one method; InputError if it does not support the model."""
    accepted = inspect.signature(function).parameters
    given = {name: value for name, value in options.items() if name in accepted}
    if "baselines" in accepted:
        given["baselines"] = baselines
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    try:
        # cuDNN's recurrent kernels have no backward in evaluation mode.
        with (
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=not recurrent),
            warnings.catch_warnings(),
        ):
            for told in ("Setting forward, backward hooks", "Input Tensor 0 did not already require gradients"):
                warnings.filterwarnings("ignore", told)
            values = np.asarray(function(module, inputs.detach(), targets, **given))
    except InputError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"method={method}: does not support this model ({' '.join(str(error).split())[:160]}); use another method"
        ) from error
    if values.shape != tuple(inputs.shape) or not np.isfinite(values).all():
        raise InputError(f"method={method}: gave NaN or another shape than the input; check weights and audio")
    return values
