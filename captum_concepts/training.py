"""Train a model so that the same seed gives the same weights, also when the run was killed and started again.

Randomness has no state: every epoch, batch and example draws from a hash of the seed and its own number (`generator`),
so that nothing depends on how many workers read ahead or on where a run was taken up. Training itself is Lightning's
(mixed precision, clipping, devices, TensorBoard); it is imported when `fit` is called and belongs to the extra
``captum-concepts[training]``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from captum_concepts.backbones import resolve_device
from captum_concepts.errors import InputError, shown
from captum_concepts.run_folder import RunFolder
from captum_concepts.weight_files import read_weights

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

__all__ = ["Schedule", "draw_seed", "fit", "generator", "read_weights", "seeded"]

Progress = Callable[[str, int, int], None]
Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Schedule:
    """How long and on what to train.

    Attributes:
        epochs: at most.
        seed: of the weights and of everything drawn while training.
        monitor: the metric (logged by the module) that says which epoch is best.
        mode: whether the best is its least or its greatest value.
        patience: epochs without a better value after which training stops; None trains all epochs.
        clip: largest norm of the gradient of a step; None does not clip.
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
                raise InputError(f"{name}={shown(value)}: give a whole number of at least {least}")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip={shown(self.clip)}: give a positive number, or None not to clip")
        if self.mode not in ("min", "max"):
            raise InputError(f"mode={shown(self.mode)}: give 'min' or 'max'")
        if self.precision not in ("auto", "32-true", "16-mixed", "bf16-mixed"):
            raise InputError(f"precision={shown(self.precision)}: give auto, 32-true, 16-mixed or bf16-mixed")


def draw_seed(seed: int, *parts: int | str) -> int:
    """A number (63 bits) that depends on the seed and on what it is drawn for, e.g. ``("noise", epoch, index)``."""
    text = "\0".join(f"{type(part).__name__}{part}" for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A generator on the CPU that starts from `draw_seed`; draws are moved to the device, so that devices agree."""
    return torch.Generator().manual_seed(draw_seed(seed, *parts))


@contextlib.contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """PyTorch's global generator draws from `draw_seed` within, as when weights are made; then it is as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(seed, *parts))
        yield


def fit(
    module: LightningModule,
    batches: Callable[[int], Iterable[Any]],
    validation: Callable[[], Iterable[Any]],
    *,
    out: str | os.PathLike[str],
    model: str,
    schedule: Schedule,
    data: str,
    options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train ``module`` and keep the weights of its best epoch.

    After every epoch the state of the weights, the optimiser, the schedulers and the history goes to
    ``out/last.ckpt``. A run that was killed at any moment and is started again with the same arguments ends, on a CPU,
    with the weights of a run that was never killed; one that is finished is not trained again.

    Args:
        module: a Lightning module; its attribute ``model`` is the network whose weights are kept. It logs
            ``schedule.monitor``; schedulers may step by epoch or by batch. Made within `seeded`, so that its first
            weights follow from the seed.
        batches: the batches of an epoch. They must follow from the number of the epoch alone (see `generator`).
        validation: the batches that the monitored metric is measured on.
        out: folder of the run; see `captum_concepts.run_folder`.
        model: name of the model, for the card.
        schedule: how long and on what.
        data: digest of the data; a run on other data is another run.
        options: everything else that decides the result, as JSON knows it; kept in the card and held against it.
        metadata: kept in the weights file, e.g. ``{"classes": ...}``, next to ``training`` (JSON: data, options,
            versions, and the metrics of the best epoch).
        progress: called with ("train", batches done, batches in all).

    Returns:
        ``out/model.safetensors``, the best epoch's weights.

    Raises:
        InputError: Lightning is missing, ``out`` holds another run or one at work, or cannot be used, or the monitored
            metric is not finite.
    """
    engine = _engine()
    device = resolve_device(schedule.device)
    precision = schedule.precision
    if precision == "auto":
        precision = "16-mixed" if device.type == "cuda" else "32-true"
    asked = {**asdict(schedule), "device": device.type, "precision": precision, **(options or {})}
    run = RunFolder(out)
    with run.held():
        card = run.begin({"model": model, "data": data, "options": asked})
        if card["finished"]:
            run.state.unlink(missing_ok=True)  # the run may have been killed just before
            if not run.weights.is_file():
                raise InputError(
                    f"{shown(str(run.weights), 200)}: is gone, though the run is finished; remove the folder to train "
                    "again"
                )
            return run.weights
        state = run.load_state()
        keeper = engine.Keeper(run, schedule, card, dict(metadata or {}), progress)
        if state is None or not keeper.has_ended(state):
            step = None if state is None else int(state["global_step"])
            with seeded(schedule.seed, "fit"):
                engine.train(module, batches, validation, run, schedule, device, precision, keeper, step)
        keeper.finish()
        return run.weights


def _engine() -> Any:
    try:
        from captum_concepts import _lightning
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("lightning", "tensorboard"):
            raise
        raise InputError(
            f"training needs {error.name}, which is not installed: pip install 'captum-concepts[training]'"
        ) from None
    return _lightning
