"""Backbone around a black box that gives embeddings, with or without a head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.patches import Patches, Short, iter_patches
from captum_concepts.backbones.base import BackboneBase
from captum_concepts.backbones.fingerprint import Unhashable, fingerprint
from captum_concepts.backbones.layers import check_pooling, frozen
from captum_concepts.backbones.options import check_short, check_targets, class_names, resolve_device, whole_samples
from captum_concepts.backbones.protocol import Gradients
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

logger = logging.getLogger(__name__)


class EmbeddingBackbone(BackboneBase):
    """A black box that gives one embedding per patch, with or without a head on top.

    Args:
        embed: (B, patch_samples) float32 ndarray on the CPU -> (B, D) array or tensor.
        sample_rate: Hz.
        patch_seconds, hop_seconds: length and distance (default: one length) of patches.
        head: (B, D) -> (B, C). An ``nn.Module`` is differentiated exactly; any other callable gets float64 arrays and
            is differentiated by central differences, 2·D calls' worth of rows per batch.
        head_output: "logits", or "probabilities", which are turned into log-odds log(p / (1 - p)) first.
        classes: names of the head's columns.
        version: a string that changes when ``embed`` or a callable head changes; without it nothing is cached, because
            a black box cannot be hashed.
        step: central-difference step relative to the root mean square of the embedding.
        short, name, device: as in ``TorchBackbone``.

    Raises:
        InputError: an argument is out of range, or head and classes do not go together.

    Example:
        >>> def levels(waves):
        ...     return np.stack([waves.mean(1), waves.std(1)], 1)
        >>> backbone = EmbeddingBackbone(levels, 8000, 0.1, head=nn.Linear(2, 1), classes=["loud"])
        >>> backbone.activations(torch.zeros(3, 800), ["embedding"])["embedding"].shape
        torch.Size([3, 2])
        >>> backbone.gradients(torch.zeros(3, 800), ["embedding"], targets=[0]).gradients["embedding"].shape
        torch.Size([3, 1, 2])
    """

    layers: Sequence[str] = ("embedding",)
    sample_rate: int
    patch_seconds: float
    hop_samples: int

    # Over ten arguments, as each says one thing about a model that is known only to its user.
    def __init__(
        self,
        embed: Callable[[np.ndarray], Any],
        sample_rate: int,
        patch_seconds: float,
        head: nn.Module | Callable[[np.ndarray], Any] | None = None,
        classes: Sequence[str] = (),
        *,
        head_output: str = "logits",
        hop_seconds: float | None = None,
        version: str | None = None,
        step: float = 1e-2,
        short: Short = "repeat",
        name: str = "embedding",
        device: str | torch.device = "cpu",
    ):
        if head_output not in ("logits", "probabilities"):
            raise InputError(f"head_output={short_repr(head_output)}: is not known; use logits or probabilities")
        if head is None and classes:
            raise InputError("head=None: classes were given but no head; give head= or leave classes empty")
        if head is not None and not classes:
            raise InputError("classes=(): are missing; name the head's columns")
        if sample_rate < 1 or step <= 0:
            raise InputError(
                f"sample_rate={short_repr(sample_rate)}, step={short_repr(step)}: must be positive; give other numbers"
            )
        check_short(short)
        self.embed = embed
        self.sample_rate = int(sample_rate)
        self.patch_seconds = float(patch_seconds)
        self.patch_samples = whole_samples("patch_seconds", patch_seconds, self.sample_rate)
        hop = patch_seconds if hop_seconds is None else hop_seconds
        self.hop_samples = whole_samples("hop_seconds", hop, self.sample_rate)
        self.head = head
        self.head_output = head_output
        self.classes = class_names(classes)
        self.version = version
        self.step = step
        self.short = short
        self.name = name
        self.device = resolve_device(device)
        self._head_dtype = torch.float32
        if isinstance(head, nn.Module):
            head.to(self.device)
            self._head_dtype = next((p.dtype for p in head.parameters() if p.is_floating_point()), torch.float32)

    def fingerprint(self) -> str | None:
        """Hash of ``name``, ``version``, patching and a torch head; None without a version, or if a torch head cannot
        be read (see ``captum_concepts.backbones.fingerprint``)."""
        if self.version is None:
            return None
        parts = (self.name, self.version, self.sample_rate, self.patch_samples, self.hop_samples, self.short)
        # For a callable head the version answers, but whether there is one decides what can be computed.
        head = self.head if isinstance(self.head, nn.Module) else self.head is None
        try:
            return fingerprint("captum_concepts embeddings 2", parts, self.head_output, self.step, head)
        except Unhashable as reason:
            logger.info("%s has no fingerprint, so nothing is kept: %s", self.name, reason)
            return None

    def check_layers(self, layers: Sequence[str]) -> None:
        """Check that every layer is "embedding".

        Args:
            layers: names.

        Raises:
            InputError: none is given, or another one.
        """
        if not layers:
            raise InputError(f"layers=(): is empty; {self.name} has one: embedding")
        for layer in layers:
            if layer != "embedding":
                raise InputError(f"layer={short_repr(layer)}: is not in {self.name}; its only layer is: embedding")

    def read(self, clip: Clip) -> Iterator[Patches]:
        """Cut a clip into patches.

        Args:
            clip: what to read.

        Returns:
            blocks of mono waveforms (P, patch_samples).

        Raises:
            AudioError: the audio cannot be used.
        """
        return iter_patches(clip, self.sample_rate, self.patch_samples, self.hop_samples, short=self.short)

    def activations(self, inputs: Tensor, layers: Sequence[str], pool: str = "time") -> dict[str, Tensor]:
        """Embeddings; there is nothing to pool.

        Args:
            inputs: waveforms (B, patch_samples).
            layers: "embedding".
            pool: any pooling; all give the same.

        Returns:
            "embedding" -> (B, D).

        Raises:
            InputError: ``embed`` gives another shape.
        """
        check_pooling(pool)
        given = self.embed(inputs.detach().cpu().numpy())
        embedding = torch.as_tensor(given.detach() if isinstance(given, Tensor) else np.asarray(given)).float()
        if embedding.dim() != 2 or len(embedding) != len(inputs):
            raise InputError(
                f"embed: {self.name} gave shape {tuple(embedding.shape)} for {len(inputs)} patches; it must give "
                f"({len(inputs)}, D)"
            )
        return dict.fromkeys(layers, embedding.to(self.device))

    def gradients(self, inputs: Tensor, layers: Sequence[str], targets: Sequence[int], pool: str = "time") -> Gradients:
        """Gradient of the head's logits with respect to the embedding: exact for a torch head, else by differences.

        Args:
            inputs: waveforms (B, patch_samples).
            layers: "embedding".
            targets: column numbers of the logits, T of them.
            pool: as in ``activations``.

        Returns:
            logits (B, C), embeddings (B, D) and gradients (B, T, D).

        Raises:
            InputError: there is no head, or no such target.
        """
        if self.head is None:
            raise InputError(f"backbone={short_repr(self.name)}: has no head, so nothing to explain; give no target")
        embedding = self.activations(inputs, ["embedding"], pool)["embedding"]
        check_targets(targets, len(self.classes), self.name)
        if isinstance(self.head, nn.Module):
            logits, gradient = self._exact(embedding, targets)
        else:
            logits, gradient = self._differences(embedding, targets)
        return Gradients(logits, dict.fromkeys(layers, embedding), dict.fromkeys(layers, gradient))

    def _exact(self, embedding: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
        head = cast(nn.Module, self.head)
        with torch.enable_grad(), frozen(head):
            leaf = embedding.detach().requires_grad_(True)
            logits = self._log_odds(head(leaf.to(self._head_dtype)))
            rows = [torch.autograd.grad(logits[:, t].sum(), leaf, retain_graph=True)[0] for t in targets]
        gradient = torch.stack(rows, 1) if rows else embedding.new_zeros(len(embedding), 0, embedding.shape[1])
        return logits.detach(), gradient

    def _differences(self, embedding: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = embedding.double().cpu().numpy()
        head = cast(Callable[[np.ndarray], Any], self.head)

        def logits_of(points: np.ndarray) -> np.ndarray:
            given = np.asarray(head(points))
            if given.ndim not in (1, 2) or len(given) != len(points):
                raise InputError(
                    f"head: gave shape {given.shape} for {len(points)} embeddings; it must give ({len(points)}, C)"
                )
            return self._log_odds(torch.as_tensor(given)).double().numpy()

        size = self.step * np.sqrt(np.mean(rows**2, axis=1)) + np.finfo(np.float32).tiny
        gradient = np.empty((len(rows), len(targets), rows.shape[1]), np.float64)
        moves = np.eye(rows.shape[1])
        for i, row in enumerate(rows):
            above = logits_of(row + size[i] * moves)[:, list(targets)]
            below = logits_of(row - size[i] * moves)[:, list(targets)]
            gradient[i] = ((above - below) / (2 * size[i])).T
        logits = torch.as_tensor(logits_of(rows), dtype=torch.float32)
        return logits.to(self.device), torch.as_tensor(gradient, dtype=torch.float32).to(self.device)

    def _log_odds(self, output: Tensor) -> Tensor:
        if output.dim() == 1:
            output = output[:, None]
        if output.shape[1] != len(self.classes):
            raise InputError(
                f"classes: {len(self.classes)} names for {output.shape[1]} outputs of the head of {self.name}; give "
                "one for each"
            )
        if self.head_output == "logits":
            return output
        if not output.is_floating_point():
            output = output.double()
        # Certainty (0 or 1) becomes the last value before it that the head's own precision distinguishes from it.
        return torch.logit(output, eps=torch.finfo(output.dtype).eps)
