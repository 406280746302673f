"""Training with resumable runs: the same seed gives the same weights, also after an interruption.

Randomness has no state: every epoch, batch and example uses a generator keyed by the seed and its own number
(`generator`), so results do not depend on the number of workers or on where a run was resumed. Training itself is
Lightning's (mixed precision, clipping, devices, TensorBoard); it is imported when `fit` is called and belongs to the
extra ``captum-concepts[training]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_concepts.backbones.options import resolve_device
from captum_concepts.errors import InputError
from captum_concepts.seeding import seeded
from captum_concepts.text import short_repr
from captum_concepts.training.run_folder import RunFolder
from captum_concepts.training.schedule import Schedule
from captum_concepts.types import Progress

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


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
    """Train ``module`` and save the weights of its best epoch.

    After every epoch the state of the weights, the optimiser, the schedulers and the history is saved to
    ``out/last.ckpt``. A run that was interrupted at any moment and is started again with the same arguments ends, on a
    CPU, with the weights of an uninterrupted run; a finished run is not trained again.

    Args:
        module: a Lightning module; its attribute ``model`` is the network whose weights are kept. It logs
            ``schedule.monitor``; schedulers may step by epoch or by batch. Create it inside `seeded`, so that its
            initial weights depend on the seed only.
        batches: the batches of an epoch. They must depend on the number of the epoch only (see `generator`).
        validation: the batches that the monitored metric is measured on.
        out: folder of the run; see `captum_concepts.training.run_folder`.
        model: name of the model, for the card.
        schedule: options of the run.
        data: digest of the data; a run on other data is another run.
        options: everything else that determines the result, as JSON values; saved in the card and compared with it.
        metadata: kept in the weights file, e.g. ``{"classes": ...}``, next to ``training`` (JSON: data, options,
            versions, and the metrics of the best epoch).
        progress: called with ("train", batches done, total).

    Returns:
        ``out/model.safetensors``, the best epoch's weights.

    Raises:
        InputError: Lightning is missing, ``out`` has another run or is in use, or cannot be used, or the monitored
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
            run.state.unlink(missing_ok=True)  # the run may have been interrupted just before
            if not run.weights.is_file():
                raise InputError(
                    f"{short_repr(str(run.weights), 200)}: missing, though the run is finished; "
                    "remove the folder to train "
                    "again"
                )
            return run.weights
        state = run.load_state()
        keeper = engine.CheckpointCallback(run, schedule, card, dict(metadata or {}), progress)
        if state is None or not keeper.has_ended(state):
            step = None if state is None else int(state["global_step"])
            with seeded(schedule.seed, "fit"):
                engine.train(module, batches, validation, run, schedule, device, precision, keeper, step)
        keeper.finish()
        return run.weights


def _engine() -> Any:
    try:
        from captum_concepts.training import _lightning
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("lightning", "tensorboard"):
            raise
        raise InputError(
            f"training needs {error.name}, which is not installed; pip install 'captum-concepts[training]'"
        ) from None
    return _lightning
