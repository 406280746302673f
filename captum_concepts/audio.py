"""Decode, resample and cut audio into patches, by random access.

Files are decoded by libsndfile (WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, AU, AIFF, CAF, W64), mixed to mono by the mean
of the channels and resampled with the windowed-sinc kernel of ``torchaudio.transforms.Resample`` (Hann window,
``lowpass_filter_width=6``, ``rolloff=0.99``). A clip is read once, in order, in blocks: an hour-long file costs the
memory of one block, and the patches do not depend on the size of the blocks.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import soundfile
import torch
from torch import Tensor

from captum_concepts._containers import is_cut, mp3_states_length
from captum_concepts._torchaudio import load
from captum_concepts.errors import InputError, shown

Status = Literal["unreadable", "empty", "silent", "nan", "too short", "truncated", "mislabelled"]

SILENCE = 1e-4  # peak of the mono signal, -80 dBFS
SHORTEST = 0.05  # seconds; anything shorter is a click, and a looped click is a tone that nobody played
END_TOLERANCE = 0.1  # seconds; tables round durations, and encoders pad

_READ_FRAMES = 1 << 18
_FORMATS = {
    ".wav": {"WAV", "WAVEX", "RF64"},
    ".flac": {"FLAC"},
    ".mp3": {"MP3"},
    ".ogg": {"OGG"},
    ".oga": {"OGG"},
    ".opus": {"OGG"},
    ".au": {"AU"},
    ".snd": {"AU"},
    ".aif": {"AIFF"},
    ".aiff": {"AIFF"},
    ".aifc": {"AIFF"},
    ".caf": {"CAF"},
    ".w64": {"W64"},
}


@dataclass(frozen=True, order=True, slots=True)
class Clip:
    """A piece of audio with an identity.

    Attributes:
        path: the file.
        start: seconds from the beginning of the file.
        end: seconds; None is the end of the file.
        group: the track, artist or recording it was cut from: the unit of resampling. Defaults to ``path``.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if not self.group:
            object.__setattr__(self, "group", self.path)


@dataclass(frozen=True, slots=True)
class Patches:
    """Consecutive patches of one clip.

    Attributes:
        inputs: (P, ...); for audio (P, samples) mono float32.
        starts: (P,) seconds in the file at which each patch begins.
        ends: (P,) seconds in the file at which each patch ends.
        notes: what was done to the audio beyond cutting it, such as looping a short clip.
    """

    inputs: Tensor
    starts: np.ndarray
    ends: np.ndarray
    notes: tuple[str, ...] = ()


class AudioError(InputError):
    """Audio that cannot be used as it is: ``path`` says which, ``status`` what is wrong with it."""

    def __init__(self, path: str, status: Status, what: str, remedy: str) -> None:
        self.path = path
        self.status: Status = status
        super().__init__(f"{shown(path, 200)}: {status}: {what}; {remedy}")


class _Source:
    """The frames of one clip, read in order, mono; a context manager.

    ``frames`` is the length of the clip at the file's own ``rate``; ``start`` and ``end`` are its seconds in the file.
    """

    def __init__(self, clip: Clip) -> None:
        self.path = clip.path
        self._file = _open(clip.path)
        try:
            self.rate: int = self._file.samplerate
            first, self.frames = _span(clip, _frames(clip.path, self._file), self.rate)
            if first:
                self._file.seek(first)
        except BaseException:
            self._file.close()
            raise
        self.start = first / self.rate
        self.end = (first + self.frames) / self.rate
        self.peak = 0.0
        self._position = 0

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def read(self, count: int) -> np.ndarray:
        """The next ``count`` frames (count,) float32, fewer only at the end of the clip."""
        count = min(count, self.frames - self._position)
        try:
            data = self._file.read(count, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            at = self._position / self.rate
            raise AudioError(
                self.path, "truncated", f"decoding fails after {at:.2f} s ({_reason(error)})", "replace the file"
            ) from error
        self._position += len(data)
        if len(data) < count:
            have, promised = self._position / self.rate, self.frames / self.rate
            raise AudioError(
                self.path, "truncated", f"{have:.2f} s of {promised:.2f} s can be read", "replace the file"
            )
        mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1)
        if count:
            high, low = float(mono.max()), float(mono.min())
            if not math.isfinite(high) or not math.isfinite(low):  # max and min carry NaN along
                raise AudioError(self.path, "nan", "samples are NaN or infinite", "export the audio again")
            self.peak = max(self.peak, high, -low)
        return mono

    def drain(self) -> None:
        """Read what is left, so that damage behind the last patch is found too."""
        while self._position < self.frames:
            self.read(_READ_FRAMES)


class _Resampled:
    """A source at another sample rate, read in order; ``length`` samples in all.

    A ratio of rates whose reduced denominator is above 1280 (no two ordinary rates have one) is replaced by the
    nearest ratio that has not: the kernel grows with the product of its terms, and the error is below 1e-6.
    """

    def __init__(self, source: _Source, sample_rate: int) -> None:
        ratio = Fraction(sample_rate, source.rate).limit_denominator(1280)
        self.source = source
        self.sample_rate = sample_rate
        self._up, self._down = ratio.numerator, ratio.denominator
        self._same = self._up == self._down
        self.length = -(-source.frames * self._up // self._down)
        self._held = np.empty(0, np.float32)
        self._held_from = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples ``start`` to ``stop`` (float32); ``start`` must not fall from call to call."""
        if self._same:
            return self._frames(start, stop)
        kernel, margin = _kernel(self._down, self._up)
        first, last = start // self._up, -(-stop // self._up)
        frames = self._frames(first * self._down - margin, last * self._down + margin)
        windows = torch.from_numpy(frames).unfold(0, 2 * margin + self._down, self._down)
        return (windows @ kernel).reshape(-1)[start - first * self._up : stop - first * self._up].numpy()

    def _frames(self, start: int, stop: int) -> np.ndarray:
        """Source frames ``start`` to ``stop``, zeros outside the clip."""
        begin, end = max(start, 0), min(stop, self.source.frames)
        while self._held_from + len(self._held) < begin:
            self._held_from += len(self._held)
            self._held = self.source.read(min(_READ_FRAMES, begin - self._held_from))
        self._held = self._held[begin - self._held_from :]
        self._held_from = begin
        missing = end - begin - len(self._held)
        if missing > 0:
            fresh = self.source.read(missing)
            self._held = np.concatenate((self._held, fresh)) if len(self._held) else fresh
        return np.pad(self._held[: end - begin], (begin - start, stop - end))


@lru_cache(maxsize=32)
def _kernel(down: int, up: int) -> tuple[Tensor, int]:
    """Kernel (2 * margin + down, up) and margin: ``up`` samples from each window of ``down`` frames and its margins."""
    resample = load()[1].Resample(down, up, resampling_method="sinc_interp_hann", lowpass_filter_width=6, rolloff=0.99)
    return resample.kernel[:, 0].T.contiguous(), resample.width


def iter_patches(
    clip: Clip,
    sample_rate: int,
    patch_samples: int,
    hop_samples: int,
    pad: tuple[int, int] = (0, 0),
    short: Literal["repeat", "pad", "skip"] = "repeat",
    max_patches: int = 64,
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
        max_patches: patches per block.

    Raises:
        AudioError: the audio cannot be used; see ``AudioError.status``.
        InputError: the clip's span is not inside the file, or an argument is out of range.
    """
    for name, value in (("sample_rate", sample_rate), ("patch_samples", patch_samples), ("hop_samples", hop_samples)):
        if value < 1:
            raise InputError(f"{name} is {shown(value)}: give a positive whole number")
    if min(pad) < 0 or max_patches < 1:
        raise InputError(
            f"pad is {shown(pad)} and max_patches {shown(max_patches)}: give pad >= 0 and max_patches >= 1"
        )
    if short not in ("repeat", "pad", "skip"):
        raise InputError(f"short is {shown(short)}: give 'repeat', 'pad' or 'skip'")
    return _iter_patches(clip, sample_rate, patch_samples, hop_samples, pad, short, max_patches)


def _iter_patches(
    clip: Clip,
    sample_rate: int,
    patch_samples: int,
    hop_samples: int,
    pad: tuple[int, int],
    short: str,
    max_patches: int,
) -> Iterator[Patches]:
    with _Source(clip) as source:
        signal = _Resampled(source, sample_rate)
        if source.frames < SHORTEST * source.rate:
            raise _too_short(source, SHORTEST)
        total = signal.length + sum(pad)
        if total < patch_samples:
            if short == "skip":
                raise _too_short(source, patch_samples / sample_rate)
            yield _short_patch(signal, patch_samples, pad[0], short)
            return
        count = 1 + (total - patch_samples) // hop_samples
        for first in range(0, count, max_patches):
            here = min(max_patches, count - first)
            begin = first * hop_samples - pad[0]
            end = begin + (here - 1) * hop_samples + patch_samples
            inside = max(begin, 0), min(end, signal.length)
            samples = np.pad(signal.read(*inside), (inside[0] - begin, end - inside[1]))
            if first + here == count:
                source.drain()
            _refuse_silence(clip, source)
            starts = source.start + (begin + hop_samples * np.arange(here)) / sample_rate
            yield Patches(
                torch.from_numpy(samples).unfold(0, patch_samples, hop_samples).contiguous(),
                np.clip(starts, source.start, source.end),
                np.clip(starts + patch_samples / sample_rate, source.start, source.end),
            )


def _short_patch(signal: _Resampled, patch_samples: int, left: int, short: str) -> Patches:
    source = signal.source
    samples = signal.read(0, signal.length)
    source.drain()
    _refuse_silence(Clip(source.path), source)
    room = patch_samples - left
    seconds = f"{source.end - source.start:.2f} s"
    if short == "repeat":
        note = f"clip of {seconds} looped to fill one patch"
        samples = np.resize(samples, room)
    else:
        note = f"clip of {seconds} filled with zeros to one patch"
        samples = np.pad(samples, (0, room - len(samples)))
    inputs = torch.from_numpy(np.pad(samples, (left, 0)))[None]
    return Patches(inputs, np.array([source.start]), np.array([source.end]), (note,))


def _too_short(source: _Source, wanted: float) -> AudioError:
    have = source.end - source.start
    remedy = "give a longer clip" if wanted <= SHORTEST else "give a longer clip, or short='repeat' to loop it"
    return AudioError(source.path, "too short", f"{have:.3f} s where {wanted:.3f} s are needed", remedy)


def _refuse_silence(clip: Clip, source: _Source) -> None:
    """Raise if the whole clip is silent; a silent beginning makes this look ahead through a second reader."""
    if source.peak >= SILENCE:
        return
    with _Source(clip) as ahead:
        while source.peak < SILENCE and ahead._position < ahead.frames:
            ahead.read(_READ_FRAMES)
            source.peak = ahead.peak
    if source.peak < SILENCE:
        decibel = f"{20 * math.log10(source.peak):.0f} dBFS" if source.peak else "digital silence"
        raise AudioError(
            clip.path, "silent", f"peak {decibel}, below -80 dBFS", "replace the recording or leave it out"
        )


def read_clip(clip: Clip, sample_rate: int) -> Tensor:
    """The whole of a clip, mono, resampled: (samples,) float32.

    Raises:
        AudioError, InputError: as `iter_patches`, but any length above zero is read.
    """
    with _Source(clip) as source:
        signal = _Resampled(source, sample_rate)
        samples = signal.read(0, signal.length)
        source.drain()
        _refuse_silence(clip, source)
    return torch.from_numpy(np.ascontiguousarray(samples))


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio that the file holds.

    Raises:
        AudioError: the file cannot be read.
    """
    with _open(str(path)) as file:
        return _frames(str(path), file) / file.samplerate


def file_digest(path: str | os.PathLike[str]) -> str:
    """sha256 of the file's bytes, hexadecimal.

    Raises:
        AudioError: the file cannot be read.
    """
    digest = hashlib.sha256()
    _require_file(str(path))
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_audio(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of all audio files below a folder, sorted, by extension; hidden files are left out.

    Links to folders are followed, each folder is entered once.

    Raises:
        InputError: ``folder`` is not a folder.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{shown(str(folder), 200)} is not a folder: give a folder with audio files")
    found: list[str] = []
    entered: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in _FORMATS)
        found.extend(os.path.join(where, name) for name in names)
    return sorted(found)


def _require_file(path: str) -> None:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise AudioError(path, "unreadable", _reason(error), "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "unreadable", "not a regular file", "give an audio file")
    if not os.access(path, os.R_OK):
        raise AudioError(path, "unreadable", "no permission to read it", "change its permissions")
    if status.st_size == 0:
        raise AudioError(path, "empty", "the file has 0 bytes", "replace the file")


def _open(path: str) -> soundfile.SoundFile:
    _require_file(path)
    suffix = Path(path).suffix.lower()
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(
            path, "unreadable", _reason(error), "give WAV, FLAC, MP3, OGG, Opus, AU or AIFF audio"
        ) from error
    expected = _FORMATS.get(suffix)
    problem = None
    if expected and file.format not in expected:
        problem = AudioError(path, "mislabelled", f"the content is {file.format}", "rename it to what it is")
    elif not 1000 <= file.samplerate <= 768000:
        problem = AudioError(path, "unreadable", f"sample rate {file.samplerate} Hz", "export the audio again")
    elif file.frames <= 0:
        problem = AudioError(path, "empty", "the file has no audio frames", "replace the file")
    elif is_cut(path, file.format):
        problem = AudioError(path, "truncated", "it ends before the length its header states", "replace the file")
    if problem:
        file.close()
        raise problem
    return file


def _frames(path: str, file: soundfile.SoundFile) -> int:
    """Frames in the file; counted by decoding where the format does not state them. Leaves the file at its start."""
    if file.format != "MP3" or mp3_states_length(path):
        return file.frames
    status = os.stat(path)
    return _counted_frames(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _counted_frames(path: str, size: int, changed: int) -> int:
    frames = 0
    with soundfile.SoundFile(path) as file:
        buffer = np.empty((min(_READ_FRAMES, file.frames), file.channels), np.float32)
        while len(part := file.read(out=buffer)):
            frames += len(part)
    return frames


def _span(clip: Clip, frames: int, rate: int) -> tuple[int, int]:
    """First frame and number of frames of a clip in a file of ``frames`` frames."""
    length = frames / rate
    end = length if clip.end is None else clip.end
    if not (0 <= clip.start < end <= length + END_TOLERANCE) or clip.start >= length:
        raise InputError(
            f"{shown(clip.path, 200)}: the clip from {clip.start} s to {shown(clip.end)} s is not inside the file "
            f"of {length:.3f} s: correct start and end"
        )
    first = round(clip.start * rate)
    last = frames if clip.end is None else min(round(end * rate), frames)
    if last <= first:
        raise AudioError(clip.path, "too short", f"{end - clip.start:.6f} s", "give a longer clip")
    return first, last - first


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120]
