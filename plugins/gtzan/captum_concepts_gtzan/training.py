"""Train the networks, with the defaults of AudioConcept and without its faults."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from captum_concepts.backbones import resolve_device
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts.training import Schedule, fit
from captum_concepts.types import Progress
from captum_concepts_gtzan.augmentations import Augmentation, mask
from captum_concepts_gtzan.batches import Recordings, TrainingBatches, whole_tracks
from captum_concepts_gtzan.checkpoints import FORMAT
from captum_concepts_gtzan.models import GenreModel, build_model

#: Learning rates of AudioConcept; the small network takes a larger one.
LEARNING_RATES = {"gtzan-cnn": 5e-3, "gtzan-vgg16": 4e-5, "gtzan-cnn2": 4e-5}


@dataclass(frozen=True)
class TrainingOptions:
    """How the networks learn.

    Attributes:
        learning_rate: of Adam; None is the network's own of ``LEARNING_RATES``.
        weight_decay: L2 penalty in Adam.
        label_smoothing: share of the target that is spread over all classes.
        plateau_factor, plateau_patience: the learning rate times this after so many epochs without a lower loss.
        batch_size: examples per step.
        crops: examples of each track in an epoch.
        augmentation: how examples are changed.

    Raises:
        InputError: a number is out of range.
    """

    learning_rate: float | None = None
    weight_decay: float = 8e-4
    label_smoothing: float = 0.15
    plateau_factor: float = 0.75
    plateau_patience: int = 8
    batch_size: int = 16
    crops: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"learning_rate={short_repr(self.learning_rate)}: give a positive number")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={short_repr(self.weight_decay)}: give 0 or more")
        for name in ("label_smoothing", "plateau_factor"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={short_repr(getattr(self, name))}: give a share from 0 to below 1")


class GenreTraining(LightningModule):
    """Batches of `TrainingBatches` to losses; validation takes whole tracks, each as the mean of its chunks' logits.

    Args:
        model: the network.
        options: how it learns; ``learning_rate`` is set.
    """

    def __init__(self, model: GenreModel, options: TrainingOptions) -> None:
        super().__init__()
        # Twice as fast on a CPU, where channels are few.
        self.model: GenreModel = model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._options = options
        classes = int(model.options["n_classes"])
        # Accuracy is the share of tracks (micro): classes of unequal size are not weighed up.
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_metrics": nn.ModuleDict(
                    {"accuracy": MulticlassAccuracy(classes, average="micro"), "f1": MulticlassF1Score(classes)}
                )
                for stage in ("train", "val")
            }
        )

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch."""
        waves, boxes, labels = batch
        with torch.no_grad():  # nothing before the first convolution learns
            log_mel = mask(self.model.log_mel(waves), boxes)
        logits = self.model.from_log_mel(log_mel)
        smoothing = self._options.label_smoothing
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        self._log("train", loss, logits, labels)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Loss and metrics of one track."""
        chunks, label = batch
        logits = track_logits(self.model, chunks)[None]
        self._log("val", nn.functional.cross_entropy(logits, label), logits, label)

    def _log(self, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        metrics: Any = self.metrics[f"{stage}_metrics"]
        for name, metric in metrics.items():
            metric(logits.float().softmax(1), labels)
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        """Adam, and a learning rate that falls when the validation loss no longer does."""
        options = self._options
        optimizer = torch.optim.Adam(
            self.model.parameters(), lr=options.learning_rate or 0.0, weight_decay=options.weight_decay
        )
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=options.plateau_factor, patience=options.plateau_patience
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


def track_logits(model: GenreModel, chunks: Tensor, batch_size: int = 16) -> Tensor:
    """Mean logits (C,) over all chunks (P, samples) of a track."""
    total = torch.stack([model(part).float().sum(0) for part in chunks.split(batch_size)]).sum(0)
    return total / len(chunks)


def train_network(
    name: str,
    train: Recordings,
    validation: Recordings,
    classes: Sequence[str],
    out: str | os.PathLike[str],
    *,
    schedule: Schedule,
    options: TrainingOptions | None = None,
    model_options: Mapping[str, Any] | None = None,
    described: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a network, or go on with the run that is in ``out``.

    Args:
        name: one of ``models.MODELS``.
        train: to learn from; decoded at the network's sample rate.
        validation: whose loss says which epoch is best.
        classes: names of the outputs.
        out: folder of the run; see `captum_concepts.training.training_run.fit`.
        schedule: how long and where.
        options: how the network learns.
        model_options: of the network, e.g. ``seconds``.
        described: more that decides the result, such as the split; kept with the run and compared with it on resuming.
        progress: called with ("train", batches done, batches in all).

    Returns:
        The weights of the best epoch, which `checkpoints.load_checkpoint` reads, with the ids of the tracks of both
        parts (``learnt_from``).

    Raises:
        InputError: as `captum_concepts.training.training_run.fit` and `build_model`, or too few tracks.
    """
    model = build_model(name, schedule.seed, **{"n_classes": len(classes), **(model_options or {})})
    chosen = asdict(options or TrainingOptions())
    chosen["augmentation"] = (options or TrainingOptions()).augmentation
    chosen["learning_rate"] = chosen["learning_rate"] or LEARNING_RATES[name]
    options = TrainingOptions(**chosen)
    batches = TrainingBatches(
        train,
        model.patch_samples,
        model.sample_rate,
        options.augmentation,
        options.batch_size,
        options.crops,
        schedule.seed,
        resolve_device(schedule.device),
    )
    return fit(
        GenreTraining(model, options),
        batches,
        lambda: whole_tracks(validation, model.patch_samples),
        out=out,
        model=name,
        schedule=schedule,
        data=f"{train.digest} {validation.digest}",
        options={**asdict(options), **model.options, **(described or {})},
        metadata={
            "format": FORMAT,
            "model": name,
            "classes": json.dumps(list(classes)),
            "options": json.dumps(model.options, sort_keys=True),
            "learnt_from": json.dumps([track.track_id for part in (train, validation) for track in part.tracks]),
        },
        progress=progress,
    )
