"""The tiles that recordings are cut into, and which of them can be used.

A *tile* is a stretch of fixed length of a recording. Tiles are read by random access
(`captum_concepts.audio.patches.read_clip`), so that a file of any length costs the memory of one tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio import SILENCE, Channels, Clip, Source, read_clip
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_tile2vec.data import Recording

_NAMED = 3  # recordings that a warning names


@dataclass(frozen=True)
class Tiles:
    """The usable tiles of some recordings.

    Attributes:
        recordings: that have at least one usable tile.
        owner: int64 (N,), the recording of each tile.
        starts: float64 (N,), seconds in the file.
        seconds: length of a tile.
        sample_rate: Hz the tiles are read at.
        channels: of every tile.
        keep_channels: all channels of the files are kept; else they are averaged.
        skipped: one line for each recording without a usable tile.
        warnings: one line for each thing that was done about the rest.
    """

    recordings: tuple[Recording, ...]
    owner: np.ndarray
    starts: np.ndarray
    seconds: float
    sample_rate: int
    channels: int
    keep_channels: bool = False
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def labels(self) -> np.ndarray:
        """(N,) the label of each tile's recording."""
        return np.array([recording.label for recording in self.recordings], dtype=object)[self.owner]

    @property
    def groups(self) -> np.ndarray:
        """(N,) the group of each tile's recording."""
        return np.array([recording.group for recording in self.recordings], dtype=object)[self.owner]

    def name(self, index: int) -> str:
        """Recording and start of a tile."""
        return f"{self.recordings[self.owner[index]].name} {self.starts[index]:g} s"

    def clip(self, index: int) -> Clip:
        """The tile as a clip of its file."""
        recording, start = self.recordings[self.owner[index]], float(self.starts[index])
        return Clip(recording.path, start, start + self.seconds, recording.group)

    def read(self, index: int) -> Tensor:
        """One tile (channels, samples), float32.

        Raises:
            AudioError: the file has changed since its tiles were found.
        """
        waveform = read_clip(self.clip(index), self.sample_rate, "all" if self.keep_channels else "mono")
        samples = round(self.seconds * self.sample_rate)
        waveform = waveform.reshape(-1, waveform.shape[-1])[:, :samples]
        # Rounding to frames of the file's own rate may leave a tile a sample short.
        return torch.nn.functional.pad(waveform, (0, samples - waveform.shape[1]))


def find_tiles(
    recordings: Sequence[Recording],
    seconds: float = 5.0,
    hop: float | None = None,
    *,
    sample_rate: int = 16_000,
    channels: Channels = "mono",
    progress: Progress | None = None,
) -> Tiles:
    """Cut recordings into tiles at 0, hop, 2 hop, ... seconds, as long as the tile lies in the file.

    Every file is decoded once, block by block, so that silent tiles and damage are known before training begins.

    Args:
        recordings: to divide into tiles.
        seconds: length of a tile.
        hop: seconds between the starts of tiles; the length of a tile by default.
        sample_rate: Hz the tiles will be read at; files of other rates are resampled.
        channels: "mono" averages a file's channels, "all" keeps them and asks for as many in every file.
        progress: told of the files.

    Raises:
        InputError: no usable tile at all, files of different numbers of channels, or a length out of range.
    """
    hop = seconds if hop is None else hop
    for name, value in (("seconds", seconds), ("hop", hop)):
        if not 0.05 <= value < 86_400:
            raise InputError(f"{name}={short_repr(value)}: give a number of seconds between 0.05 and 86400")
    found: list[tuple[Recording, np.ndarray]] = []
    skipped: list[str] = []
    silent: list[str] = []
    rates: Counter[int] = Counter()
    numbers: dict[int, str] = {}
    for done, recording in enumerate(recordings, 1):
        try:
            starts, mute, rate, count = _usable_tiles(recording, seconds, hop, channels)
        except InputError as error:
            skipped.append(str(error))
        else:
            found.append((recording, starts))
            rates[rate] += 1
            numbers.setdefault(count, recording.path)
            if mute:
                silent.append(f"{recording.name} ({mute})")
        if progress is not None:
            progress("find tiles", done, len(recordings))
    if not found:
        first = f": {skipped[0]}" if skipped else ""
        raise InputError(f"none of {len(recordings)} recordings has a usable tile of {seconds:g} s{first}")
    if len(numbers) > 1:
        (one, a), (other, b) = sorted(numbers.items())[:2]
        raise InputError(
            f"{short_repr(b, 200)} has {other} channels and {short_repr(a, 200)} {one}: give recordings of one kind, "
            "or average "
            "the channels (channels=mono)"
        )
    return Tiles(
        recordings=tuple(recording for recording, _ in found),
        owner=np.repeat(np.arange(len(found)), [len(starts) for _, starts in found]),
        starts=np.concatenate([starts for _, starts in found]),
        seconds=seconds,
        sample_rate=sample_rate,
        channels=next(iter(numbers)),
        keep_channels=channels == "all",
        skipped=tuple(skipped),
        warnings=tuple(_warnings(silent, rates, sample_rate)),
    )


def _warnings(silent: list[str], rates: Counter[int], sample_rate: int) -> list[str]:
    warnings = []
    if silent:
        more = f" and {len(silent) - _NAMED} more" if len(silent) > _NAMED else ""
        warnings.append(
            f"silent tiles left out in {len(silent)} recordings (tiles): "
            f"{', '.join(map(short_repr, silent[:_NAMED]))}{more}"
        )
    if len(rates) > 1:
        kinds = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(rates.items()))
        warnings.append(f"mixed sample rates, {kinds}: all are resampled to {sample_rate} Hz")
    if low := sum(count for rate, count in rates.items() if rate < sample_rate):
        warnings.append(
            f"{low} recordings have a lower rate than {sample_rate} Hz: above half their own rate they are empty"
        )
    return warnings


def _usable_tiles(
    recording: Recording, seconds: float, hop: float, channels: Channels
) -> tuple[np.ndarray, int, int, int]:
    """Starts of the tiles that are not silent, how many are, and the rate and channels of the file.

    Raises:
        AudioError: the file cannot be used or is shorter than a tile.
        InputError: all its tiles are silent.
    """
    with Source(Clip(recording.path), channels) as source:
        length = source.frames / source.rate
        count = int(np.floor((length - seconds) / hop + 1e-9)) + 1 if length >= seconds - 1e-9 else 0
        if count < 1:
            raise InputError(
                f"{short_repr(recording.path, 200)}: too short: {length:.2f} s where a tile has {seconds:g} s; "
                "give longer recordings or shorter tiles"
            )
        starts = hop * np.arange(count)
        first = np.round(starts * source.rate).astype(np.int64)
        last = np.minimum(first + round(seconds * source.rate), source.frames)
        peaks = _peaks(source, first, last)
        loud = peaks >= SILENCE
        if not loud.any():
            raise InputError(
                f"{short_repr(recording.path, 200)}: silent: all {count} tiles are below -80 dBFS; replace the "
                "recording or "
                "leave it out"
            )
        number = source.shape[0] if source.shape else 1
        return starts[loud], int((~loud).sum()), source.rate, number


def _peaks(source: Source, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Largest absolute value in each of the spans of frames, which are sorted; reads the source to its end."""
    peaks = np.zeros(len(first))
    at = 0
    while len(block := source.read(1 << 18)):
        loudness = np.abs(block).reshape(len(block), -1).max(axis=1)
        for index in range(int(np.searchsorted(last, at, "right")), int(np.searchsorted(first, at + len(block)))):
            inside = loudness[max(first[index] - at, 0) : last[index] - at]
            peaks[index] = max(peaks[index], inside.max(initial=0.0))
        at += len(block)
    return peaks
