"""The networks, untrained or with the weights of a file, and the support vector machine, as backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor, nn

from captum_concepts.backbones import EmbeddingBackbone, TorchBackbone
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_gtzan.checkpoints import load_checkpoint
from captum_concepts_gtzan.dataset import GENRES
from captum_concepts_gtzan.features import COLUMNS, SAMPLE_RATE, features_version, track_features
from captum_concepts_gtzan.models import GenreModel, build_model
from captum_concepts_gtzan.svm import SvmModel

#: What `TorchBackbone` takes; every other option is the network's.
_PATCHING = ("layers", "hop_seconds", "short")


class FromLogMel(nn.Module):
    """A network from the log-mel map on."""

    def __init__(self, model: GenreModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mel: Tensor) -> Tensor:
        """dB (B, 1, n_mels, frames) to logits (B, n_classes)."""
        return self.model.from_log_mel(log_mel)


class NetworkBackbone(TorchBackbone):
    """A network that takes waveforms; attributions are on its log-mel map."""

    model: GenreModel

    def input_parts(self) -> tuple[nn.Module, Callable[[Tensor], Tensor], str]:
        """See `captum_concepts.attributions.api.HasInputParts`."""
        return FromLogMel(self.model), lambda waves: self.model.log_mel(waves.to(self.device)), "BCFT"


def network_backbone(
    model: GenreModel, classes: Sequence[str], device: str | None = "auto", **options: Any
) -> NetworkBackbone:
    """A network as a backbone; ``.model`` is the network itself, which takes the waveform.

    Args:
        model: from `build_model` or `load_checkpoint`.
        classes: names of the outputs.
        device: "auto", "cpu", "cuda", ...; None leaves the model where it is.
        options: ``layers`` (default: the network's ``default_layers``), ``hop_seconds`` (default: one chunk) and
            ``short`` of `TorchBackbone`.
    """
    layers = options.pop("layers", None) or model.default_layers
    seconds = model.patch_samples / model.sample_rate
    return NetworkBackbone(
        model,
        layers,
        classes=classes,
        sample_rate=model.sample_rate,
        patch_seconds=seconds,
        name=model.name,
        device=device,
        **options,
    )


def _load(name: str, weights: str | PathLike[str] | None, device: str, options: dict[str, Any]) -> TorchBackbone:
    patching = {option: options.pop(option) for option in _PATCHING if option in options}
    classes = options.pop("classes", ())
    seed = options.pop("seed", None)
    if weights is not None:
        if seed is not None:
            raise InputError(f"seed={seed}: is of untrained weights; leave it out, or leave out weights")
        model, classes = load_checkpoint(weights, name, classes, **options)
        return network_backbone(model, classes, device, **patching)
    classes = classes or GENRES
    options.setdefault("n_classes", len(classes))
    return network_backbone(build_model(name, seed or 0, **options), classes, device, **patching)


def gtzan_cnn(weights: str | PathLike[str] | None = None, device: str = "auto", **options: Any) -> TorchBackbone:
    """The backbone ``gtzan-cnn``, 29.1 s chunks; with ``seconds=3.96`` its variant for short chunks.

    Args:
        weights: a file for `load_checkpoint`; None is an untrained network.
        device: "auto", "cpu", "cuda", ...
        options: of `models.GtzanCNN`; ``layers``, ``hop_seconds``, ``short``; ``classes``, names of the outputs
            (default GTZAN's ten); ``seed`` of untrained weights.

    Raises:
        InputError: see `load_checkpoint`; an unknown device or option.
    """
    return _load("gtzan-cnn", weights, device, options)


def gtzan_vgg16(weights: str | PathLike[str] | None = None, device: str = "auto", **options: Any) -> TorchBackbone:
    """The backbone ``gtzan-vgg16``, 3.96 s chunks; arguments as in `gtzan_cnn`, options of `models.GtzanVGG16`."""
    return _load("gtzan-vgg16", weights, device, options)


def gtzan_cnn2(weights: str | PathLike[str] | None = None, device: str = "auto", **options: Any) -> TorchBackbone:
    """The backbone ``gtzan-cnn2``, 3.96 s chunks; arguments as in `gtzan_cnn`, options of `models.GtzanCNN2`."""
    return _load("gtzan-cnn2", weights, device, options)


class SvmBackbone(EmbeddingBackbone):
    """``gtzan-svm``: the machine's standardised features are the layer "embedding", and the machine is its head.

    How the features come from the audio is a black box; from the features on, gradients are exact.

    Attributes:
        machine: the support vector machine.
    """

    def __init__(self, machine: SvmModel, device: str = "auto", **options: Any) -> None:
        self.machine = machine
        super().__init__(
            self._embed,
            SAMPLE_RATE,
            machine.seconds,
            head=machine,
            classes=machine.classes,
            version=f"{machine.version()} {features_version()}",
            name="gtzan-svm",
            device=device,
            **options,
        )

    def _embed(self, waveforms: np.ndarray) -> Tensor:
        rows = [track_features(waveform) for waveform in waveforms]
        values = np.array([[row[name] for name in self.machine.features] for row in rows])
        return self.machine.standardise(values.reshape(len(rows), len(self.machine.features)))


def gtzan_svm(weights: str | PathLike[str] | None, device: str = "auto", **options: Any) -> SvmBackbone:
    """The backbone ``gtzan-svm``: a support vector machine on the named features of 30 s patches.

    A patch is as long as the median of the tracks that it was trained on, see `SvmModel.seconds`.

    Args:
        weights: what `SvmModel.save` wrote; there is no untrained machine.
        device: "auto", "cpu", "cuda", ...; the features are computed on the CPU in any case.
        options: ``hop_seconds`` and ``short`` of `EmbeddingBackbone`.

    Raises:
        InputError: see `SvmModel.load`; no weights, librosa is not installed, an unknown device or option.
    """
    for option in options:
        if option not in ("hop_seconds", "short"):
            raise InputError(f"option={short_repr(option)}: is not one of gtzan-svm; it has hop_seconds, short")
    if weights is None:
        raise InputError(
            "weights=None: gtzan-svm has no untrained form; give weights, from captum-concepts gtzan train svm"
        )
    model = SvmModel.load(weights)
    unknown = [name for name in model.features if name not in COLUMNS]
    if unknown:
        raise InputError(
            f"weights={short_repr(str(weights), 200)}: {short_repr(unknown[0])} is not computed from audio here"
        )
    return SvmBackbone(model, device, **options)
