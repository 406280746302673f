"""Recordings in memory, and random training batches of them."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_concepts.audio import AudioError, Clip, file_digest, read_clip
from captum_concepts.errors import InputError
from captum_concepts.seeding import generator
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_gtzan.augmentations import Augmentation, crop
from captum_concepts_gtzan.dataset import Track

_AHEAD = 2  # batches that are being made while one is learned from


@dataclass(frozen=True)
class Recordings:
    """Decoded tracks.

    Attributes:
        tracks: those that could be decoded.
        waves: of each, (n,) float32 on the CPU.
        labels: int64 (N,), each track's class.
        skipped: one line for every track that could not be decoded.
        digest: sha256 of the tracks' ids, genres and files; of nothing else.
    """

    tracks: tuple[Track, ...]
    waves: tuple[Tensor, ...]
    labels: Tensor
    skipped: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.tracks)


def read_recordings(
    tracks: Sequence[Track],
    classes: Sequence[str],
    sample_rate: int,
    progress: Progress | None = None,
    stage: str = "read",
) -> Recordings:
    """Decode tracks into memory, 88 kB for a second at 22,050 Hz.

    A track that is silent, damaged or cannot be decoded is left out and named; it never becomes silence.

    Raises:
        InputError: none can be decoded, or one has a genre that is not one of ``classes``.
    """
    place = {name: index for index, name in enumerate(classes)}
    kept, waves, skipped = [], [], []
    digest = hashlib.sha256()
    for number, track in enumerate(tracks, 1):
        if track.genre not in place:
            raise InputError(
                f"genre={short_repr(track.genre)}: of {short_repr(track.path, 200)} is not one of {', '.join(classes)}"
            )
        try:
            waves.append(read_clip(Clip(track.path), sample_rate))
            digest.update(
                f"{track.track_id}\0{track.genre}\0{file_digest(track.path)}\n".encode("utf-8", "surrogatepass")
            )
            kept.append(track)
        except AudioError as error:
            skipped.append(str(error))
        if progress is not None:
            progress(stage, number, len(tracks))
    if not kept:
        raise InputError(
            f"none of {len(tracks)} tracks can be used; the first: {skipped[0] if skipped else 'there is none'}"
        )
    labels = torch.tensor([place[track.genre] for track in kept])
    return Recordings(tuple(kept), tuple(waves), labels, tuple(skipped), digest.hexdigest())


class TrainingBatches:
    """The batches of any epoch: random crops, changed by an `Augmentation`, in random order.

    A call with the number of an epoch gives an iterable of (waves (B, samples), boxes (B, 4), labels (B,)) on the
    device. What an example is follows from the seed, the epoch, its track and the number of its crop; the threads that
    make the examples do not matter.

    Args:
        recordings: to learn from.
        samples: length of an example.
        sample_rate: Hz.
        augmentation: how they are changed.
        batch_size: examples per batch, at least 2; the batches of an epoch differ by one example at most.
        crops: examples of each track in an epoch.
        seed: of everything drawn.
        device: where the changes are computed.
        threads: that make examples ahead.

    Raises:
        InputError: a number is out of range, or there are fewer than two examples.
    """

    def __init__(
        self,
        recordings: Recordings,
        samples: int,
        sample_rate: int,
        augmentation: Augmentation,
        batch_size: int,
        crops: int,
        seed: int,
        device: torch.device,
        threads: int = 2,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 2), ("crops", crops, 1), ("threads", threads, 1)):
            if value < least:
                raise InputError(f"{name}={short_repr(value)}: give {least} or more")
        if len(recordings) * crops < 2:
            raise InputError("one example is too few to train on; give more tracks")
        self._recordings = recordings
        self._samples, self._sample_rate = samples, sample_rate
        self._augmentation = augmentation
        self._batch_size, self._crops, self._seed = batch_size, crops, seed
        self._device, self._threads = device, threads

    def __call__(self, epoch: int) -> _Epoch:
        return _Epoch(self, epoch)

    @property
    def count(self) -> int:
        """Batches of an epoch; none has a single example, of which batch normalisation cannot learn."""
        return max(1, min(math.ceil(self._examples / self._batch_size), self._examples // 2))

    @property
    def _examples(self) -> int:
        return len(self._recordings) * self._crops

    def order(self, epoch: int) -> tuple[Tensor, ...]:
        """The examples of each batch, by number: ``track * crops + crop``."""
        order = torch.randperm(self._examples, generator=generator(self._seed, "order", epoch))
        return torch.tensor_split(order, self.count)

    def example(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """A wave (samples,) and its box (4,)."""
        track, take = divmod(number, self._crops)
        draws = generator(self._seed, "example", epoch, self._recordings.tracks[track].track_id, take)
        wave = self._recordings.waves[track].to(self._device)
        return self._augmentation.example(wave, self._samples, self._sample_rate, draws)

    def made(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of an epoch, some of them made ahead."""
        with ThreadPoolExecutor(self._threads) as pool:
            waiting: deque[tuple[Tensor, list[Future[tuple[Tensor, Tensor]]]]] = deque()
            try:
                for numbers in self.order(epoch):
                    waiting.append((numbers, [pool.submit(self.example, epoch, int(n)) for n in numbers]))
                    if len(waiting) > _AHEAD:
                        yield self._joined(*waiting.popleft())
                while waiting:
                    yield self._joined(*waiting.popleft())
            finally:
                for future in (future for _, futures in waiting for future in futures):
                    future.cancel()

    def _joined(self, numbers: Tensor, futures: list[Future[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor, Tensor]:
        waves, boxes = zip(*(future.result() for future in futures), strict=True)
        labels = self._recordings.labels[numbers // self._crops]
        return torch.stack(waves), torch.stack(boxes).to(self._device), labels.to(self._device)


class _Epoch:
    def __init__(self, batches: TrainingBatches, epoch: int) -> None:
        self._batches, self._epoch = batches, epoch

    def __len__(self) -> int:
        return self._batches.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return self._batches.made(self._epoch)


def chunks(wave: Tensor, samples: int) -> Tensor:
    """A recording as (P, samples): consecutive chunks without a remainder, or, if it is shorter, one, repeated.

    This is how `captum_concepts.audio.patches.iter_patches` cuts.
    """
    if wave.shape[-1] < samples:
        return crop(wave, samples, 0)[None]
    return wave.unfold(0, samples, samples)


def whole_tracks(recordings: Recordings, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every track's chunks (P, samples) and its class, (1,)."""
    for wave, label in zip(recordings.waves, recordings.labels, strict=True):
        yield chunks(wave, samples), label[None]
