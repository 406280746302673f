"""A small model with dropout, batch normalisation and a plateau schedule; and, as a script, runs of it that are killed.

python tests/tiny_training.py FOLDER: for every N, a child trains in FOLDER/N, is killed at its N-th event (a batch is
asked for, a file is about to be renamed, or has just been) and trains again in the same folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from captum_concepts.seeding import generator, seeded
from captum_concepts.training.schedule import Schedule
from captum_concepts.training.training_run import fit

SCHEDULE = Schedule(epochs=3, seed=7, patience=None, device="cpu")
BATCHES = 3


class Tiny(LightningModule):
    """Two dense layers; learns whether the sum of six numbers is positive."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.rate = rate

    def _loss(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.model(inputs), labels)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._loss(batch, "val")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), self.rate)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


def one_batch(draws: torch.Generator, rows: int = 16) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(rows, 6, generator=draws)
    return inputs, (inputs.sum(1) > 0).long()


class Epoch:
    """The batches of one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(BATCHES):
            event()
            yield one_batch(generator(7, self.epoch, index))


def validation() -> list[tuple[Tensor, Tensor]]:
    return [one_batch(generator(7, "held out", index)) for index in range(2)]


def tiny(rate: float = 0.5) -> Tiny:
    with seeded(7, "weights"):
        return Tiny(rate)


def run(out: Path, schedule: Schedule = SCHEDULE, rate: float = 0.5, data: str = "d", **more: Any) -> Path:
    return fit(
        tiny(rate),
        Epoch,
        validation,
        out=out,
        model="tiny",
        schedule=schedule,
        data=data,
        options={"rate": rate},
        **more,
    )


_events = [0, -1]  # how many there were, and which one kills


def event() -> None:
    _events[0] += 1
    if _events[0] == _events[1]:
        os.kill(os.getpid(), signal.SIGKILL)


def _child(out: Path, kill_at: int) -> bool:
    """Whether a child that trains in ``out`` was killed at its ``kill_at``-th event."""
    child = os.fork()
    if child == 0:
        try:
            _events[:] = [0, kill_at]
            run(out)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"a child ended with {status}")
    return status != 0


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    replace = os.replace

    def with_events(source: Any, target: Any) -> None:
        event()
        replace(source, target)
        event()

    os.replace = with_events
    kills = 0
    while _child(folder / str(kills), kills + 1):
        _child(folder / str(kills), -1)
        kills += 1
    print(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
