"""Options of a training run: length, seed, monitored metric, device and precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Schedule:
    """Options of a training run.

    Attributes:
        epochs: maximum number.
        seed: of the initial weights and of all randomness in training.
        monitor: the metric (logged by the module) that selects the best epoch.
        mode: whether the best value is the smallest or the largest.
        patience: number of epochs without improvement after which training stops; None trains all epochs.
        clip: maximum norm of the gradient; None does not clip.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto" is "16-mixed" on CUDA and "32-true" elsewhere.

    Raises:
        InputError: a value is out of range.
    """

    epochs: int = 60
    seed: int = 0
    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = 15
    clip: float | None = 1.0
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("seed", 0), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise InputError(f"{name}={short_repr(value)}: give a whole number of at least {least}")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip={short_repr(self.clip)}: give a positive number, or None not to clip")
        if self.mode not in ("min", "max"):
            raise InputError(f"mode={short_repr(self.mode)}: give 'min' or 'max'")
        if self.precision not in ("auto", "32-true", "16-mixed", "bf16-mixed"):
            raise InputError(f"precision={short_repr(self.precision)}: give auto, 32-true, 16-mixed or bf16-mixed")
