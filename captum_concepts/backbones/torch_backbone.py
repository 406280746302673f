"""Any ``torch.nn.Module`` as a backbone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.frontends import Frontend
from captum_concepts.audio.frontends import frontend as make_frontend
from captum_concepts.audio.patches import Patches, Short, iter_patches
from captum_concepts.backbones.axes import guess_axes, sequence_default
from captum_concepts.backbones.base import BackboneBase
from captum_concepts.backbones.fingerprint import Unhashable, fingerprint
from captum_concepts.backbones.layers import LayerTap, check_pooling, find_layer, frozen, output_index, pool_map
from captum_concepts.backbones.options import check_short, check_targets, class_names, resolve_device, whole_samples
from captum_concepts.backbones.protocol import Gradients
from captum_concepts.errors import InputError
from captum_concepts.text import listed_names, short_repr

logger = logging.getLogger(__name__)


class TorchBackbone(BackboneBase):
    """Any ``nn.Module`` as a backbone.

    Args:
        model: the classifier; it gets what the front-end returns and gives (B, classes). Its weights, its mode and its
            ``requires_grad`` flags are left as they are.
        layers: names from ``model.named_modules()``; ``"gru:1"`` picks the second tensor of a tuple output.
        frontend: waveform to model input: a preset's name, a ``Frontend``, any module or callable on (B, samples), or
            None if the model takes the waveform itself.
        classes: names of the output's columns; by default "0", "1", ..., as many as the model gives for one patch.
        sample_rate: Hz; taken from the front-end where it states one.
        patch_seconds, hop_seconds: length and distance of patches; taken from the front-end where it states them. The
            default distance is one patch length.
        axes: layer -> letters, where the defaults read a layer wrongly (see ``layers.guess_axes``).
        logits: layer whose output holds the logits, where the model returns probabilities by a functional call.
        short: what to do with clips shorter than one patch, see ``audio.iter_patches``.
        name: short name for results; the class's name by default.
        device: "auto", "cpu", "cuda", ...; None leaves the model where it is.

    Raises:
        InputError: unknown layer (the valid ones are listed), missing sample rate or patch length, two classes of one
            name.

    Inputs are converted to the type of the model's weights (half, double) after the front-end. Fingerprints are
    explained in ``captum_concepts.backbones.fingerprint``.

    Example:
        >>> model = nn.Sequential(nn.Linear(800, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> backbone = TorchBackbone(model, "1", classes=["blues", "jazz"], sample_rate=8000, patch_seconds=0.1)
        >>> backbone.activations(torch.zeros(3, 800), ["1"])["1"].shape
        torch.Size([3, 4])
        >>> backbone.gradients(torch.zeros(3, 800), ["1"], targets=[1]).gradients["1"].shape
        torch.Size([3, 1, 4])
        >>> backbone.with_hop(0.05).hop_samples
        400
    """

    model: nn.Module
    sample_rate: int
    patch_seconds: float
    hop_samples: int

    # Over ten arguments, as each says one thing about a model that is known only to its user.
    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        frontend: str | nn.Module | Callable[[Tensor], Tensor] | None = None,
        classes: Sequence[str] = (),
        sample_rate: int | None = None,
        *,
        patch_seconds: float | None = None,
        hop_seconds: float | None = None,
        axes: Mapping[str, str] | None = None,
        logits: str | None = None,
        short: Short = "repeat",
        name: str = "",
        device: str | torch.device | None = None,
    ):
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model={short_repr(model)}: is not a torch.nn.Module; wrap black boxes in EmbeddingBackbone"
            )
        self.model = model
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.frontend = make_frontend(frontend) if isinstance(frontend, str) else frontend
        self._classes = class_names(classes) or None
        self.name = name or type(model).__name__
        check_short(short)
        self.short = short
        self.logits_layer = logits
        self._axes = dict(axes or {})
        self._read_as: dict[str, str] = {}
        if device is not None:
            self.model.to(resolve_device(device))
        first = next(model.parameters(), next(model.buffers(), torch.zeros(0)))
        self.device = first.device
        self._dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        if isinstance(self.frontend, nn.Module):
            self.frontend.to(self.device)
        self._read_patching(sample_rate, patch_seconds, hop_seconds)
        self.check_layers(self.layers)
        for layer, letters in self._axes.items():
            find_layer(model, layer)
            if len(set(letters)) != len(letters) or set(letters) - set("BCTF") or "B" not in letters:
                raise InputError(
                    f"axes[{short_repr(layer)}]={short_repr(letters)}: is no reading; use B and C, T, F, at most once"
                )
        if logits is not None:
            find_layer(model, logits)
        # Where recurrence or attention puts time first, shapes decide which of the first two axes is the batch.
        self._time_first = any(not getattr(module, "batch_first", True) for module in model.modules())
        self._saturation_warned = self._uncached_logged = False

    @property
    def classes(self) -> Sequence[str]:
        """Names of the model's outputs; empty if it gives no logits (B, C)."""
        if self._classes is None:
            silence = torch.zeros(1, self.patch_samples)
            with torch.no_grad(), frozen(*self._modules()):
                try:
                    with LayerTap(self.model, (), differentiable=False, logits=self.logits_layer) as tap:
                        outputs = tap.logits(self.model(self.model_input(silence)))[0].shape[1]
                except InputError:
                    outputs = 0
            self._classes = tuple(map(str, range(outputs)))
        return self._classes

    def _modules(self) -> list[nn.Module]:
        return [self.model] + ([self.frontend] if isinstance(self.frontend, nn.Module) else [])

    def _read_patching(self, sample_rate: int | None, patch_seconds: float | None, hop_seconds: float | None) -> None:
        stated = self.frontend if isinstance(self.frontend, Frontend) else None
        rate = getattr(self.frontend, "sample_rate", None) if sample_rate is None else sample_rate
        if rate is None:
            raise InputError("sample_rate=None: is missing; give the rate in Hz that the model was trained at")
        if rate < 1:
            raise InputError(
                f"sample_rate={short_repr(rate)}: must be positive; give the rate in Hz of the model's training"
            )
        self.sample_rate = int(rate)
        if stated is not None and self.sample_rate != stated.sample_rate:
            raise InputError(
                f"sample_rate={sample_rate}: differs from the front-end's {stated.sample_rate}; drop one of them"
            )
        samples = getattr(self.frontend, "patch_samples", None)
        if patch_seconds is not None:
            if stated is not None:
                raise InputError(
                    f"patch_seconds={short_repr(patch_seconds)}: the front-end fixes the patch; change it with "
                    "frontend(..., patch_frames=n)"
                )
            samples = whole_samples("patch_seconds", patch_seconds, self.sample_rate)
        if not samples or samples <= 0:
            raise InputError("patch_seconds=None: is missing; give the length of the model's input in seconds")
        self.patch_samples = int(samples)
        hop = getattr(self.frontend, "hop_samples", None) or self.patch_samples
        self.hop_samples = hop if hop_seconds is None else whole_samples("hop_seconds", hop_seconds, self.sample_rate)
        self.pad: tuple[int, int] = getattr(self.frontend, "pad", (0, 0))
        self.patch_seconds = (self.patch_samples - sum(self.pad)) / self.sample_rate
        layout = getattr(self.frontend, "layout", "BCFT")
        self._map_axes = "BCTF" if layout in ("BTF", "BCTF") else "BCFT"

    def check_layers(self, layers: Sequence[str]) -> None:
        """Check that all layers exist.

        Args:
            layers: names.

        Raises:
            InputError: none is given, or one does not exist; the message suggests near names and lists the model's.
        """
        if not layers:
            listed = listed_names((name for name, _ in self.model.named_modules() if name), 40)
            raise InputError(f"layers=(): is empty; choose from: {listed}")
        for layer in layers:
            find_layer(self.model, layer)

    def fingerprint(self) -> str | None:
        """sha256 of weights, code and settings of model and front-end, and of patching and axes.

        Computed anew at each call, because the weights may have been trained on since. None if something in the model
        cannot be read, so that nothing is cached; the log says what.
        """
        patching = (self.sample_rate, self.patch_samples, self.hop_samples, self.pad, self.short)
        reading = (dict(sorted(self._axes.items())), self._map_axes, self.logits_layer)
        try:
            return fingerprint("captum_concepts activations 2", self.model, self.frontend, patching, reading)
        except Unhashable as reason:
            if not self._uncached_logged:
                self._uncached_logged = True
                logger.info("%s has no fingerprint, so its activations are not kept: %s", self.name, reason)
            return None

    def read(self, clip: Clip) -> Iterator[Patches]:
        """Cut a clip into patches.

        Args:
            clip: what to read.

        Returns:
            blocks of mono waveforms (P, patch_samples) at the model's sample rate.

        Raises:
            AudioError: the audio cannot be used.
        """
        return iter_patches(
            clip, self.sample_rate, self.patch_samples, self.hop_samples, pad=self.pad, short=self.short
        )

    def activations(self, inputs: Tensor, layers: Sequence[str], pool: str = "time") -> dict[str, Tensor]:
        """Pooled activations, one forward pass for all layers.

        Args:
            inputs: waveforms (B, patch_samples).
            layers: names.
            pool: "time", "none" or "time_freq".

        Returns:
            layer -> (B, D) on the model's device.
        """
        check_pooling(pool)
        with torch.no_grad(), frozen(*self._modules()):
            tap = LayerTap(self.model, layers, differentiable=False)
            with tap:
                self.model(self.model_input(inputs))
            return {layer: self._pool(tap, layer, tap.tensors, pool, "mean", len(inputs)) for layer in layers}

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str = "time") -> Gradients:
        """Logits, pooled activations and gradients: one forward, one backward per target for all layers together.

        Args:
            inputs: waveforms (B, patch_samples).
            layers: names.
            targets: column numbers of the logits, T of them.
            pool: as in ``activations``; gradients are summed over the axes that activations are averaged over.

        Returns:
            logits (B, C), and for each layer activations (B, D) and gradients (B, T, D).

        Raises:
            InputError: a target does not depend on a layer, or there is no such target.
        """
        check_pooling(pool)
        with torch.no_grad(), frozen(*self._modules()):
            prepared = self.model_input(inputs)
        # cuDNN's recurrent kernels have no backward in evaluation mode.
        recurrent = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
        with torch.enable_grad(), frozen(self.model), torch.backends.cudnn.flags(enabled=not recurrent):
            tap = LayerTap(self.model, layers, differentiable=True, logits=self.logits_layer)
            with tap:
                logits, saturated = tap.logits(self.model(prepared))
            if saturated and not self._saturation_warned:
                self._saturation_warned = True
                logger.warning(
                    "%s seems to return probabilities or their logarithms: if so, give logits='<layer>' so that "
                    "sensitivities are of logits",
                    self.name,
                )
            if self._classes is not None and logits.shape[1] != len(self._classes):
                raise InputError(
                    f"classes: {len(self._classes)} names for {logits.shape[1]} outputs of {self.name}; give as many"
                )
            check_targets(targets, logits.shape[1], self.name)
            watched = [tap.tensors[layer] for layer in layers]
            per_target = [
                self._backward(logits, target, watched, layers, last=position == len(targets) - 1)
                for position, target in enumerate(targets)
            ]
        activations, gradients = {}, {}
        for position, layer in enumerate(layers):
            activations[layer] = self._pool(tap, layer, tap.tensors, pool, "mean", len(inputs)).detach()
            rows = [self._pool(tap, layer, {layer: found[position]}, pool, "sum", len(inputs)) for found in per_target]
            gradients[layer] = torch.stack(rows, 1) if rows else activations[layer][:, None][:, :0]
        return Gradients(logits.detach(), activations, gradients)

    def _backward(
        self, logits: Tensor, target: int, watched: list[Tensor], layers: Sequence[str], *, last: bool
    ) -> list[Tensor]:
        if not logits.requires_grad:
            raise InputError(
                f"layers={short_repr(tuple(layers))}: no target depends on them; choose layers before the output"
            )
        found = torch.autograd.grad(logits[:, target].sum(), watched, retain_graph=not last, allow_unused=True)
        for layer, gradient in zip(layers, found, strict=True):
            if gradient is None:
                raise InputError(
                    f"layer={short_repr(layer)}: target {target} does not depend on it; choose another layer"
                )
        return list(found)

    def model_input(self, inputs: Tensor) -> Tensor:
        """What the model gets for patches.

        Args:
            inputs: waveforms (B, patch_samples).

        Returns:
            the front-end's output, on the model's device and in the type of its weights.
        """
        inputs = inputs.to(self.device)
        prepared = inputs if self.frontend is None else self.frontend(inputs)
        if self._dtype is not None and isinstance(prepared, Tensor) and prepared.is_floating_point():
            prepared = prepared.to(self._dtype)
        return prepared

    def map_shapes(self, layers: Sequence[str]) -> dict[str, dict[str, int]]:
        """Sizes of the axes of the layers' outputs for one patch.

        Args:
            layers: names.

        Returns:
            layer -> {"T": frames, "F": bands, "C": channels}, those that it has, in the order of flattening.
        """
        silence = torch.zeros(2, self.patch_samples)
        with torch.no_grad(), frozen(*self._modules()):
            with LayerTap(self.model, layers, differentiable=False) as tap:
                self.model(self.model_input(silence))
            found = {}
            for layer in layers:
                sizes = dict(zip(self.axes_of(layer, tap.tensors[layer], 2), tap.tensors[layer].shape, strict=True))
                found[layer] = {letter: int(sizes[letter]) for letter in "TFC" if letter in sizes}
        return found

    def axes_of(self, layer: str, values: Tensor, batch: int) -> str:
        """The letters of the axes of a layer's output, see ``layers``.

        Args:
            layer: its name.
            values: its output.
            batch: number of patches.

        Returns:
            one letter of B, C, T, F for each axis.

        Raises:
            InputError: the letters do not fit the shape.
        """
        axes = self._axes.get(layer) or self._guessed_axes(layer, tuple(values.shape), batch)
        if len(axes) != values.dim():
            raise InputError(
                f"axes[{short_repr(layer)}]={short_repr(axes)}: its output has shape {tuple(values.shape)}; give "
                f"one letter for each of its {values.dim()} axes"
            )
        return axes

    def _pool(
        self, tap: LayerTap, layer: str, tensors: Mapping[str, Tensor], pool: str, reduce: str, batch: int
    ) -> Tensor:
        values = tensors[layer]
        axes = self.axes_of(layer, values, batch)
        if values.shape[axes.index("B")] != batch:
            raise InputError(
                f"layer={short_repr(layer)}: its output {tuple(values.shape)} read as {axes} is not {batch} rows; give "
                f"axes={{{short_repr(layer)}: ...}} with B where the batch is"
            )
        return pool_map(values, axes, pool, reduce=reduce)

    def _guessed_axes(self, layer: str, shape: tuple[int, ...], batch: int) -> str:
        module = find_layer(self.model, layer)
        default = sequence_default(self.model, layer)
        axes = guess_axes(module, len(shape), map_axes=self._map_axes, sequence_axes=default, index=output_index(layer))
        told = isinstance(module, nn.RNNBase | nn.MultiheadAttention)
        if not self._time_first or told or axes not in ("BTC", "TBC"):
            return axes
        if (shape[0] == batch) != (shape[1] == batch):
            self._read_as[layer] = "BTC" if shape[0] == batch else "TBC"
        if layer not in self._read_as:
            raise InputError(
                f"layer={short_repr(layer)}: in its output {shape} either of the first two axes may be the batch; give "
                f"axes={{{short_repr(layer)}: 'BTC'}} or 'TBC'"
            )
        return self._read_as[layer]
