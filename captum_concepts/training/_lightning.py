"""What `captum_concepts.training.training_run` asks of Lightning; the one place that imports it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorboard  # noqa: F401  without it Lightning would write other logs, and say so in a warning only
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from captum_concepts.errors import InputError
from captum_concepts.seeding import draw_seed
from captum_concepts.storage.safetensors_files import written
from captum_concepts.text import short_repr
from captum_concepts.training.run_folder import LOGS, RunFolder
from captum_concepts.training.schedule import Schedule
from captum_concepts.types import Progress


class CheckpointCallback(Checkpoint):
    """After every epoch: history, schedulers, best weights, whether to stop, and the state on disk, in this order."""

    def __init__(
        self,
        run: RunFolder,
        schedule: Schedule,
        card: Mapping[str, Any],
        metadata: Mapping[str, str],
        progress: Progress | None,
    ) -> None:
        self._run = run
        self._schedule = schedule
        self._card = dict(card)
        self._metadata = metadata
        self._progress = progress
        self._history: list[dict[str, float]] = []
        self._begun = 0.0
        self._plateaus: list[Any] = []

    # State ----------------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        return "captum_concepts"

    def state_dict(self) -> dict[str, Any]:
        return {"history": self._history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history = [dict(epoch) for epoch in state_dict["history"]]

    @property
    def done(self) -> int:
        """Epochs that were trained to their end."""
        return len(self._history)

    def has_ended(self, state: Mapping[str, Any]) -> bool:
        """Whether the run that left this state had no epoch to go."""
        try:
            self.load_state_dict(state["callbacks"][self.state_key])
            if not {"pytorch-lightning_version", "loops", "optimizer_states", "lr_schedulers"} <= state.keys():
                raise KeyError
            self._best()
            return self._ended()
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{short_repr(str(self._run.state), 200)}: is no state of a training run; remove it to begin this "
                "run again"
            ) from None

    def _best(self) -> int:
        """The first of the best epochs, from 0."""
        values = [epoch[self._schedule.monitor] for epoch in self._history]
        return values.index(min(values) if self._schedule.mode == "min" else max(values))

    def _ended(self) -> bool:
        patience = self._schedule.patience
        return self.done >= self._schedule.epochs or (patience is not None and self.done - 1 - self._best() >= patience)

    # Hooks ----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning steps these after the state of the epoch has been saved, and a run that goes on would lack the step.
        self._plateaus = [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau and c.interval == "epoch"]
        for config in self._plateaus:
            config.interval = "by CheckpointCallback"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(draw_seed(self._schedule.seed, "step", trainer.current_epoch, batch_idx))  # for dropout

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        count = trainer.num_training_batches
        if self._progress is not None and math.isfinite(count):
            done = trainer.current_epoch * int(count) + batch_idx + 1
            self._progress("train", done, self._schedule.epochs * int(count))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        norms = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        pl_module.log("gradient_norm", torch.stack(norms).norm(), on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        pl_module.log("learning_rate", rate)
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self._require_finite(metrics, trainer.current_epoch)
        metrics |= {"epoch": trainer.current_epoch, "learning_rate": rate, "seconds": time.monotonic() - self._begun}
        self._history.append(metrics)
        for config in self._plateaus:
            config.scheduler.step(metrics[config.monitor])
        if self._best() == trainer.current_epoch:
            self._write_best(pl_module)
        trainer.should_stop = trainer.should_stop or self._ended()
        with written(self._run.state) as path:
            trainer.save_checkpoint(path)
        self._run.write(self._told())

    def _require_finite(self, metrics: Mapping[str, float], epoch: int) -> None:
        monitor = self._schedule.monitor
        if monitor not in metrics:
            raise InputError(
                f"monitor={short_repr(monitor)}: the model logs {', '.join(sorted(metrics))}; give one of these"
            )
        if not math.isfinite(metrics[monitor]):
            raise InputError(
                f"{monitor} is {metrics[monitor]} in epoch {epoch + 1}: training diverged; give a lower learning rate"
            )

    def _write_best(self, pl_module: LightningModule) -> None:
        best = self._history[-1]
        told = {name: self._card[name] for name in ("data", "options", "versions")}
        # Without the seconds the same seed gives the same bytes. The gradient of a skipped step is infinite.
        told |= {k: v if math.isfinite(v) else None for k, v in best.items() if k != "seconds"}
        metadata = {**self._metadata, "training": json.dumps(told, allow_nan=False)}
        self._run.write_weights(pl_module.model.state_dict(), metadata)  # type: ignore[union-attr]

    def _told(self) -> dict[str, Any]:
        seconds = sum(epoch["seconds"] for epoch in self._history)
        best = self._history[self._best()]
        return {**self._card, "best_epoch": int(best["epoch"]) + 1, "seconds": seconds, "history": self._history}

    def finish(self) -> None:
        """Write into the card that the run is finished; its last state is no longer needed."""
        self._run.write({**self._told(), "finished": True})
        self._run.state.unlink(missing_ok=True)


class _Loader:
    """A Lightning data loader that asks anew for its batches whenever an epoch begins."""

    def __init__(self, batches: Callable[[], Iterable[Any]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches())

    def __len__(self) -> int:
        return len(self._batches())  # type: ignore[arg-type]


class _WeightsOnly(TorchCheckpointIO):
    """Never unpickles objects, whatever the version of Lightning does by default."""

    def load_checkpoint(  # type: ignore[override]  # the third argument is new in Lightning 2.6
        self, path: Any, map_location: Any = None, **_: Any
    ) -> dict[str, Any]:
        return dict(torch.load(path, map_location=map_location or "cpu", weights_only=True))


def train(
    module: LightningModule,
    batches: Callable[[int], Iterable[Any]],
    validation: Callable[[], Iterable[Any]],
    run: RunFolder,
    schedule: Schedule,
    device: torch.device,
    precision: str,
    keeper: CheckpointCallback,
    step: int | None,
) -> None:
    """Lightning's loop, quiet, from the beginning or from the state in the folder, taken after ``step`` steps."""
    interrupt = signal.getsignal(signal.SIGINT)
    with _quiet():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=schedule.epochs,
            gradient_clip_val=schedule.clip,
            callbacks=[keeper],
            # What a killed run still logged after that state would be drawn twice.
            logger=TensorBoardLogger(run.folder, name="", version=LOGS, purge_step=step),
            plugins=[_WeightsOnly()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        # Lightning's own count of epochs is not yet that of the state when it first asks for batches.
        epochs = _Loader(lambda: batches(keeper.done))
        try:
            trainer.fit(module, epochs, _Loader(validation), ckpt_path=None if step is None else str(run.state))
        except SystemExit:  # what Lightning makes of Ctrl-C, with the handler of the signal taken away
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's messages and warnings (about its own loaders, tips, GPUs found) do not reach the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
