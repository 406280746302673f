"""Features of tiles, computed in batches on the device, and features cached on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from captum_concepts.audio import Frontend, FrontendConfig, file_digest, load_torchaudio
from captum_concepts.backbones import fingerprint
from captum_concepts.errors import InputError
from captum_concepts.storage import ActivationStore
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_tile2vec.tiles import Tiles

Kind = Literal["logmel", "mfcc", "raw"]
KINDS = ("logmel", "mfcc", "raw")
SAMPLE_RATE = 16_000
_BLOCK = 64  # tiles computed and committed at a time


class TileFeatures(nn.Module):
    """Waveforms (B, channels, samples), or (B, samples) for one channel, to (B, channels, frames, bands).

    "logmel": magnitude of a 1024-point Fourier transform of Hann windows of 480 samples every 160, 128 mel bands from
    50 to 8000 Hz (HTK, triangles over mel, as TensorFlow's ``linear_to_mel_weight_matrix``), ln(x + 1e-6); 5 s are 498
    frames. "mfcc": the first 13 coefficients of a cosine transform (type II, scaled by sqrt(2 / bands)) of the same,
    as TensorFlow's ``mfccs_from_log_mel_spectrograms``. "raw": the samples as frames of one band.

    Args:
        kind: "logmel", "mfcc" or "raw".
        seconds: length of a tile at 16 kHz.

    Attributes:
        sample_rate: 16000 Hz.
        patch_samples, hop_samples: samples of a tile, for backbones that cut audio themselves.
        frames, bands: of the result.
        layout: axes of the result, for backbones.

    Raises:
        InputError: an unknown kind, or tiles shorter than a window.
    """

    cosines: Tensor
    layout = "BCTF"

    def __init__(self, kind: Kind = "logmel", seconds: float = 5.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"features={short_repr(kind)}: give logmel, mfcc or raw")
        self.kind: Kind = kind
        self.seconds = seconds
        self.sample_rate = SAMPLE_RATE
        self.patch_samples = self.hop_samples = round(seconds * SAMPLE_RATE)
        if kind == "raw":
            self.frames, self.bands = self.patch_samples, 1
            return
        self.spectrogram = Frontend(
            FrontendConfig(
                sample_rate=SAMPLE_RATE,
                n_fft=1024,
                window_samples=480,
                frame_hop=160,
                n_mels=128,
                f_min=50.0,
                f_max=8000.0,
                mel_scale="htk",
                mel_norm=None,
                mel_triangles="mel",
                power=1,
                periodic=True,
                compression="ln(x+0.000001)",
                patch_samples=self.patch_samples,
            )
        )
        self.frames, self.bands = self.spectrogram.patch_frames, 128
        if kind == "mfcc":
            self.bands = 13
            cosines = load_torchaudio()[0].create_dct(13, 128, norm=None) / (2 * 128) ** 0.5
            self.register_buffer("cosines", cosines, persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, channels, samples) or (B, samples) to features (B, channels, frames, bands).

        Raises:
            InputError: the waveforms have another shape.
        """
        if waveforms.ndim == 2:
            waveforms = waveforms[:, None]
        if waveforms.ndim != 3 or waveforms.shape[2] != self.patch_samples:
            raise InputError(
                f"waveforms have shape {tuple(waveforms.shape)}: give (batch, channels, {self.patch_samples}) samples"
            )
        if self.kind == "raw":
            return waveforms[..., None]
        logmel: Tensor = self.spectrogram(waveforms.flatten(0, 1))
        features = logmel @ self.cosines if self.kind == "mfcc" else logmel
        return features.unflatten(0, waveforms.shape[:2])


class TileSource(Protocol):
    """Where a network's input comes from.

    Attributes:
        tiles: which tiles there are.
        ready: what `read` gives are features already; else waveforms.
    """

    tiles: Tiles
    ready: bool

    def read(self, indices: Sequence[int]) -> Tensor:
        """The tiles of these numbers, (len(indices), channels, ...)."""
        ...


class Waveforms:
    """Tiles read from their files whenever they are wanted."""

    ready = False

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles

    def read(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), channels, samples) float32."""
        return torch.stack([self.tiles.read(int(index)) for index in indices])


class CachedFeatures:
    """Tiles whose features were computed once and are in an `ActivationStore`.

    The store's rules are those of activations: a namespace that is the fingerprint of the features, a key that is the
    content of the file and the seconds of the tile, damage found and computed again.

    Args:
        tiles: which tiles.
        features: what to compute, on the device it is to be computed on.
        folder: of the store.
        progress: told of the tiles.
        then: without weights; computed of the features and kept in their place, such as the statistics that a network
            begins with, which are far smaller.

    Raises:
        InputError: see `ActivationStore.put`.
    """

    ready = True

    def __init__(
        self,
        tiles: Tiles,
        features: TileFeatures,
        folder: str | os.PathLike[str],
        progress: Progress | None = None,
        then: nn.Module | None = None,
    ) -> None:
        self.tiles = tiles
        self._shape = (tiles.channels, features.frames, features.bands) if then is None else (-1,)
        self._store = ActivationStore(Path(folder))
        extractor = features if then is None else nn.Sequential(features, then)
        self._namespace = "tile2vec-" + _namespace(extractor)
        self._keys = _tile_keys(tiles)
        self._fill(extractor, progress)

    def read(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), channels, frames, bands) float32, or (len(indices), numbers) of what was computed ``then``."""
        keys = [self._keys[index] for index in indices]
        distinct = list(dict.fromkeys(keys))
        rows, _ = self._store.get(self._namespace, "tile", distinct)
        place = {key: row for row, key in enumerate(distinct)}
        return rows[[place[key] for key in keys]].reshape(len(keys), *self._shape)

    def _fill(self, features: nn.Module, progress: Progress | None) -> None:
        absent = set(self._store.missing(self._namespace, ["tile"], list(dict.fromkeys(self._keys))))
        wanted = list({self._keys[index]: index for index in range(len(self.tiles))}.items())
        wanted = [(key, index) for key, index in wanted if key in absent]
        device = next(features.buffers(), torch.empty(0)).device
        done = len(self.tiles) - len(wanted)
        if progress is not None:
            progress("features", done, len(self.tiles))
        for first in range(0, len(wanted), _BLOCK):
            block = wanted[first : first + _BLOCK]
            waveforms = torch.stack([self.tiles.read(index) for _, index in block])
            with torch.no_grad():
                rows = features(waveforms.to(device)).flatten(1).cpu()
            self._store.put(
                self._namespace, {key: {"tile": row[None]} for (key, _), row in zip(block, rows, strict=True)}
            )
            if progress is not None:
                progress("features", done + first + len(block), len(self.tiles))


def _namespace(features: nn.Module) -> str:
    known = fingerprint(features)
    if known is None:
        raise InputError("features: what they compute cannot be fingerprinted; run without a cache")
    return known


def _tile_keys(tiles: Tiles) -> list[str]:
    """The key of each tile: content, ending, seconds, rate and channels; never the path."""
    digests = [file_digest(recording.path) + Path(recording.path).suffix.lower() for recording in tiles.recordings]
    how = f"{tiles.seconds!r} {tiles.sample_rate} {'all' if tiles.keep_channels else 'mono'}"
    return [f"{digests[owner]} {float(start)!r} {how}" for owner, start in zip(tiles.owner, tiles.starts, strict=True)]


def pooled(features: Tensor) -> Tensor:
    """Mean and standard deviation over time of features (B, channels, frames, bands): (B, 2 * channels * bands)."""
    return torch.cat([features.mean(2), features.std(2, correction=0)], dim=1).flatten(1)


def tiles_digest(tiles: Tiles) -> str:
    """sha256 over the names and starts of all tiles, for run cards."""
    digest = hashlib.sha256()
    for index, label in enumerate(tiles.labels):
        digest.update(f"{tiles.name(index)}\0{label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
