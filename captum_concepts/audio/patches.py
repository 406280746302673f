"""Cut audio into patches, block by block, by random access.

A clip is decoded once, in order: an hour-long file costs the memory of one block, and the patches do not depend on the
size of the blocks. How files are decoded and resampled is described in `captum_concepts.audio.decoding`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio.clips import AudioError, Channels, Clip
from captum_concepts.audio.decoding import Resampled, Source
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Short = Literal["repeat", "pad", "skip"]
SHORTEST = 0.05  # seconds; a looped click would be an artificial tone
_BLOCK_SAMPLES = 1 << 22  # 16 MiB of patches per block, or one patch where that is longer


@dataclass(frozen=True, slots=True)
class Patches:
    """Consecutive patches of one clip.

    Attributes:
        inputs: (P, ...); for audio (P, samples) mono float32.
        starts: (P,) seconds in the file at which each patch begins.
        ends: (P,) seconds in the file at which each patch ends.
        notes: changes of the audio other than cutting it, such as looping a short clip.
    """

    inputs: Tensor
    starts: np.ndarray
    ends: np.ndarray
    notes: tuple[str, ...] = ()


def iter_patches(
    clip: Clip,
    sample_rate: int,
    patch_samples: int,
    hop_samples: int,
    pad: tuple[int, int] = (0, 0),
    short: Short = "repeat",
    max_patches: int = 64,
    channels: Channels = "mono",
) -> Iterator[Patches]:
    """Cut a clip into patches, block by block.

    There are ``1 + floor((n - patch_samples) / hop_samples)`` patches, n being the clip's samples at ``sample_rate``
    plus ``pad``; a remainder shorter than a patch is dropped. Everything wrong with a clip of one block is raised
    before its block is given out, and silence always is; NaN or damage further on in a longer clip is raised when it is
    reached, and the caller must then drop the blocks it has.

    Args:
        clip: what to read.
        sample_rate: Hz of the patches.
        patch_samples: length of a patch at ``sample_rate``.
        hop_samples: distance between the beginnings of consecutive patches at ``sample_rate``.
        pad: zeros put before and after the clip's signal before it is cut, for front-ends that centre their frames;
            ``starts`` and ``ends`` do not count them.
        short: what becomes of a clip shorter than one patch: "repeat" loops its signal until the patch is full, "pad"
            appends zeros, "skip" raises AudioError "too short". Clips under 0.05 s are always too short.
        max_patches: patches per block at most; long patches come in smaller blocks, of 16 MiB or one patch.
        channels: "mono" averages a file's channels; "all" keeps them, patches are then (P, channels, samples).

    Returns:
        an iterator over blocks of patches (P, patch_samples).

    Raises:
        AudioError: the audio cannot be used; see ``AudioError.status``.
        InputError: the clip's span is not inside the file, or an argument is out of range.
    """
    for name, value in (("sample_rate", sample_rate), ("patch_samples", patch_samples), ("hop_samples", hop_samples)):
        if value < 1:
            raise InputError(f"{name}={short_repr(value)}: must be positive; give a positive whole number")
    if min(pad) < 0 or max_patches < 1:
        raise InputError(
            f"pad={short_repr(pad)}, max_patches={short_repr(max_patches)}: out of range; give at least 0 and 1"
        )
    if short not in ("repeat", "pad", "skip"):
        raise InputError(f"short={short_repr(short)}: is not known; give 'repeat', 'pad' or 'skip'")
    _check_channels(channels)
    most = min(max_patches, max(1, _BLOCK_SAMPLES // max(patch_samples, hop_samples)))
    return _iter_patches(clip, channels, sample_rate, patch_samples, hop_samples, pad, short, most)


def _iter_patches(
    clip: Clip,
    channels: Channels,
    sample_rate: int,
    patch_samples: int,
    hop_samples: int,
    pad: tuple[int, int],
    short: Short,
    most: int,
) -> Iterator[Patches]:
    with Source(clip, channels) as source:
        if source.frames < SHORTEST * source.rate:
            raise _too_short(source, SHORTEST)
        signal = Resampled(source, sample_rate)
        total = signal.length + sum(pad)
        if total < patch_samples:
            if short == "skip":
                raise _too_short(source, patch_samples / sample_rate)
            yield _short_patch(signal, patch_samples, pad[0], short)
            return
        count = 1 + (total - patch_samples) // hop_samples
        for first in range(0, count, most):
            here = min(most, count - first)
            begin = first * hop_samples - pad[0]
            end = begin + (here - 1) * hop_samples + patch_samples
            samples = _with_zeros(signal, begin, end)
            if first + here == count:
                source.drain()
            source.refuse_silence()
            starts = source.start + (begin + hop_samples * np.arange(here)) / sample_rate
            yield Patches(
                torch.from_numpy(samples).unfold(0, patch_samples, hop_samples).contiguous(),
                np.clip(starts, source.start, source.end),
                np.clip(starts + patch_samples / sample_rate, source.start, source.end),
            )


def _with_zeros(signal: Resampled, begin: int, end: int) -> np.ndarray:
    """Samples ``begin`` to ``end`` of the signal, which is zero outside itself."""
    first = min(max(begin, 0), signal.length)
    last = min(max(end, first), signal.length)
    return _pad(signal.read(first, last), first - begin, end - last)


def _pad(samples: np.ndarray, before: int, after: int) -> np.ndarray:
    """Zeros around samples (n,) or (n, channels)."""
    return np.pad(samples, ((before, after), *((0, 0) for _ in samples.shape[1:])))


def _short_patch(signal: Resampled, patch_samples: int, left: int, short: Short) -> Patches:
    source = signal.source
    samples = signal.read(0, signal.length)
    source.drain()
    source.refuse_silence()
    space = patch_samples - left
    seconds = f"{source.end - source.start:.2f} s"
    if short == "repeat":
        note = f"clip of {seconds} looped to fill one patch"
        samples = np.resize(samples, (space, *samples.shape[1:]))
    else:
        note = f"clip of {seconds} filled with zeros to one patch"
        samples = _pad(samples, 0, space - len(samples))
    inputs = torch.from_numpy(np.ascontiguousarray(_pad(samples, left, 0).T))[None]
    return Patches(inputs, np.array([source.start]), np.array([source.end]), (note,))


def _too_short(source: Source, wanted: float) -> AudioError:
    have = source.end - source.start
    remedy = "give a longer clip" if wanted <= SHORTEST else "give a longer clip, or the option short=repeat to loop it"
    return AudioError(source.clip.path, "too short", f"{have:.3f} s where {wanted:.3f} s are needed", remedy)


def read_clip(clip: Clip, sample_rate: int, channels: Channels = "mono") -> Tensor:
    """The whole of a clip, resampled, float32.

    Args:
        clip: what to read.
        sample_rate: Hz of the result.
        channels: "mono" is the mean of the channels, "all" keeps them.

    Returns:
        (samples,) for "mono", (channels, samples) for "all".

    Raises:
        AudioError, InputError: as `iter_patches`, but any length above zero is read; a clip read with "all" channels
            is silent only if every one of them is.
    """
    _check_channels(channels)
    with Source(clip, channels) as source:
        signal = Resampled(source, sample_rate)
        samples = signal.read(0, signal.length)
        source.drain()
        source.refuse_silence()
    return torch.from_numpy(np.ascontiguousarray(samples.T))


def _check_channels(channels: str) -> None:
    if channels not in ("mono", "all"):
        raise InputError(f"channels={short_repr(channels)}: is not known; give 'mono' or 'all'")
