"""Train an embedding: the Lightning module and what `captum_concepts.training.training_run` needs around it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captum_concepts.backbones import resolve_device
from captum_concepts.errors import InputError
from captum_concepts.seeding import generator, seeded
from captum_concepts.text import short_repr
from captum_concepts.training import Precision, Schedule, fit
from captum_concepts.types import Progress
from captum_concepts_tile2vec.checkpoints import LEARNT_FROM_KEY, Settings
from captum_concepts_tile2vec.features import CachedFeatures, TileSource, Waveforms, tiles_digest
from captum_concepts_tile2vec.loss import MININGS, STRATEGIES, Mining, Strategy, l2_penalty, triplet_loss
from captum_concepts_tile2vec.models import Network
from captum_concepts_tile2vec.tiles import Tiles
from captum_concepts_tile2vec.triplets import TripletDataset, TripletSampler

HELD_OUT_EPOCH = 2**31  # the number of the one epoch that held-out triplets are drawn in

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are the original's.

    Attributes:
        epochs: passes over all anchors.
        batch_size: triplets.
        learning_rate: of Adam, at first.
        decay: the learning rate is multiplied by this ...
        decay_steps: ... every so many steps.
        margin: of the loss.
        strategy: "active" or "all", see `triplet_loss`.
        mining: "none", "semi-hard" or "all", see `triplet_loss`.
        l2: weight of the squares of kernels and biases in the loss; 0 leaves the term out.
        neighbourhood: seconds, see `TripletSampler`.
        opposite_buffer: recordings, see `TripletSampler`.
        seed: of weights, triplets, their order and dropout.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-4
    decay: float = 0.95
    decay_steps: int = 7500
    margin: float = 1.0
    strategy: Strategy = "active"
    mining: Mining = "none"
    l2: float = 0.1
    neighbourhood: float = 5.0
    opposite_buffer: int | None = None
    seed: int = 1234

    def __post_init__(self) -> None:
        for name in ("batch_size", "decay_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={short_repr(getattr(self, name))}: give a positive whole number")
        for name in ("learning_rate", "margin"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name}={short_repr(getattr(self, name))}: give a positive number")
        if not 0 < self.decay <= 1 or not 0 <= self.l2 < float("inf"):
            raise InputError(
                f"decay={short_repr(self.decay)}, l2={short_repr(self.l2)}: give 0 < decay <= 1 and l2 >= 0"
            )
        if self.strategy not in STRATEGIES or self.mining not in MININGS:
            raise InputError(
                f"strategy is {short_repr(self.strategy)} and mining {short_repr(self.mining)}: "
                f"give {' or '.join(STRATEGIES)} and {' or '.join(MININGS)}"
            )


class TripletModule(LightningModule):
    """The network with its front-end, loss and optimiser.

    Logs loss (triplet + l2), triplet_loss, l2_loss, near and far (mean squared distances of neighbours and opposites)
    and active (share of triplets with a loss); of held-out triplets the same with ``val_``, ``val_loss`` being the
    triplet loss alone, averaged over all of them.

    Args:
        network: what is trained.
        features: front-end, or None where batches are features already.
        options: see `TrainingOptions`.
        data_parallel: split every batch over all CUDA devices.
    """

    def __init__(
        self, network: Network, features: nn.Module | None, options: TrainingOptions, data_parallel: bool = False
    ) -> None:
        super().__init__()
        self.model = network
        self.features = features
        self.options = options
        # In a tuple, so that its weights are not registered a second time.
        self._parallel = (nn.DataParallel(network),) if data_parallel and torch.cuda.device_count() > 1 else ()

    def embed(self, tiles: Tensor) -> Tensor:
        """Tiles (B, 3, channels, ...) to embeddings (3, B, size)."""
        count = len(tiles)
        tiles = tiles.transpose(0, 1).flatten(0, 1)
        if self.features is not None:
            with torch.autocast(tiles.device.type, enabled=False):
                tiles = self.features(tiles)
        network = self._parallel[0] if self._parallel else self.model
        embeddings: Tensor = network(tiles)
        return embeddings.unflatten(0, (3, count))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        options = self.options
        tiles, groups = batch
        anchors, neighbours, opposites = self.embed(tiles)
        result = triplet_loss(anchors, neighbours, opposites, options.margin, options.strategy, options.mining, groups)
        penalty = options.l2 * l2_penalty(self.model) if options.l2 else result.loss.new_zeros(())
        loss = result.loss + penalty
        told = {"loss": loss.detach(), "triplet_loss": result.loss.detach(), "l2_loss": penalty.detach()}
        told |= self._distances(result._asdict())
        self.log_dict(told, on_step=False, on_epoch=True, batch_size=len(tiles))
        if self.logger is not None:  # each step is for TensorBoard alone, the run card has the epochs
            steps = {f"step/{name}": float(value) for name, value in told.items()}
            self.logger.log_metrics(steps, step=self.global_step)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        anchors, neighbours, opposites = self.embed(batch[0])
        result = triplet_loss(anchors, neighbours, opposites, self.options.margin, "all")
        told = {"val_loss": result.loss}
        told |= {f"val_{name}": value for name, value in self._distances(result._asdict()).items()}
        self.log_dict(told, batch_size=len(batch[0]))

    @staticmethod
    def _distances(result: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: result[name] for name in ("near", "far", "active")}

    def configure_optimizers(self) -> Any:
        options = self.options
        optimiser = torch.optim.Adam(self.model.parameters(), options.learning_rate, eps=1e-7)  # as in Keras
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, options.decay_steps, options.decay)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Batches:
    """Batches of one epoch in an order drawn from the seed and the epoch alone."""

    def __init__(
        self, sampler: TripletSampler, source: TileSource, batch_size: int, workers: int, shuffle: bool
    ) -> None:
        self._sampler, self._source = sampler, source
        self._batch_size, self._workers, self._shuffle = batch_size, workers, shuffle

    def __call__(self, epoch: int) -> DataLoader[Any]:
        count = len(self._sampler)
        order = list(range(count))
        if self._shuffle:
            order = torch.randperm(count, generator=generator(self._sampler.seed, "order", epoch)).tolist()
        return DataLoader(
            TripletDataset(self._sampler, self._source, epoch),
            batch_sampler=self._cut(order),
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _cut(self, order: list[int]) -> list[list[int]]:
        batches = [order[first : first + self._batch_size] for first in range(0, len(order), self._batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1:  # one triplet says little and mines nothing
            batches[-2:] = [batches[-2] + batches[-1]]
        return batches


def train(
    tiles: Tiles,
    held_out: Tiles,
    out: str | PathLike[str],
    settings: Settings,
    options: TrainingOptions,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    data_parallel: bool = False,
    workers: int = 0,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train an embedding; a run that was killed resumes when started again with the same arguments.

    Args:
        tiles: to learn from.
        held_out: tiles of other groups; the epoch with the least triplet loss on them is kept.
        out: folder of the run: run.json, logs/ for TensorBoard, last.ckpt while it runs, model.safetensors.
        settings: shape of the embedding.
        options: how to train.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" is mixed on CUDA.
        data_parallel: split every batch over all CUDA devices.
        workers: processes that read tiles ahead; the result does not depend on it.
        cache: folder for features that are computed once (of networks that begin with statistics, those); None computes
            them in every step, on the device.
        progress: told of the batches.

    Returns:
        The weights file, see `load_tile2vec`.

    Raises:
        InputError: too few recordings, other settings than the run in ``out`` has, or training diverges.
    """
    if tiles.channels != settings.channels or held_out.channels != settings.channels:
        raise InputError(
            f"recordings have {tiles.channels} and {held_out.channels} channels where the network takes "
            f"{settings.channels}; give the same"
        )
    sampler = TripletSampler(tiles, options.neighbourhood, options.opposite_buffer, options.seed)
    try:
        judge = TripletSampler(held_out, options.neighbourhood, options.opposite_buffer, options.seed)
    except InputError as error:
        raise InputError(f"held-out recordings: {error}") from None
    for line in (*sampler.skipped, *judge.skipped):
        logger.warning("left out: %s", line)
    where = resolve_device(device)
    features = settings.make_features()
    with seeded(options.seed, "weights"):
        network = settings.make_network()
    sources: list[TileSource] = [Waveforms(tiles), Waveforms(held_out)]
    if cache is not None:
        features = features.to(where)
        fixed = network.take_fixed()
        sources = [CachedFeatures(these, features, cache, progress, fixed) for these in (tiles, held_out)]
    module = TripletModule(network, None if cache is not None else features, options, data_parallel)
    asked = {**asdict(options), **asdict(settings), "held_out": tiles_digest(held_out)}
    for given in ("epochs", "seed"):
        del asked[given]
    return fit(
        module,
        _Batches(sampler, sources[0], options.batch_size, workers, shuffle=True),
        lambda: _Batches(judge, sources[1], options.batch_size, workers, shuffle=False)(HELD_OUT_EPOCH),
        out=out,
        model=f"tile2vec-{settings.architecture}",
        schedule=Schedule(
            epochs=options.epochs,
            seed=options.seed,
            monitor="val_loss",
            patience=None,
            clip=None,
            device=device,
            precision=precision,
        ),
        data=tiles_digest(tiles),
        options=asked,
        metadata={**settings.metadata(), LEARNT_FROM_KEY: json.dumps(sorted({r.identity for r in tiles.recordings}))},
        progress=progress,
    )
