"""Audio files as frames, read in order, at any sample rate; and the faults of files that cannot be.

libsndfile decodes (WAV, FLAC, MP3, Ogg Vorbis, Ogg Opus, AU, AIFF, CAF, W64), channels are averaged unless all are
asked for, and the windowed-sinc kernel of `torchaudio.transforms.Resample` (Hann window, ``lowpass_filter_width=32``,
``rolloff=0.99``) resamples: ten times nearer to an ideal low-pass than torchaudio's width of 6, at a tenth more time.

Damage is found as far as the format allows. A file cut off shows in WAV, RF64, W64, AU, AIFF and Ogg (size in the
header, end mark of the last page), in FLAC and in MP3 with a Xing or Info header (fewer frames than stated). An MP3
file without such a header does not say how long it should be: cut off, it is only shorter.
"""

from __future__ import annotations

import math
import os
import stat
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import torch
from torch import Tensor

from captum_concepts.audio._containers import is_cut, mp3_frames_stated
from captum_concepts.audio._torchaudio import load
from captum_concepts.audio.clips import AudioError, Channels, Clip, ClipError
from captum_concepts.text import short_repr

SILENCE = 1e-4  # peak of the mono signal, or of the loudest channel where all are read; -80 dBFS
END_TOLERANCE = 0.1  # seconds; tables round durations, and MP3 encoders pad
FORMATS = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".flac": ("FLAC",),
    ".mp3": ("MP3",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".au": ("AU",),
    ".snd": ("AU",),
    ".aif": ("AIFF",),
    ".aiff": ("AIFF",),
    ".aifc": ("AIFF",),
    ".caf": ("CAF",),
    ".w64": ("W64",),
}
_WIDTH, _ROLLOFF = 32, 0.99  # zero crossings on each side, cut-off as a share of the lower Nyquist frequency
_KERNEL_SIZE = 1 << 22  # 16 MiB
_READ_FRAMES = 1 << 18
_HELD_FRAMES = 1 << 24  # 6 minutes at 44.1 kHz, 64 MiB


class Source:
    """The frames of one clip, read in order, mono or with all channels; a context manager.

    Args:
        clip: what to read.
        channels: "mono", the mean of the channels, frames are (n,); or "all", frames are (n, channels).

    Attributes:
        rate: Hz of the file.
        frames: length of the clip at that rate.
        start, end: seconds of the clip in the file.
        shape: of one frame, () or (channels,).
        peak: of the frames read so far.

    Raises:
        AudioError: the file cannot be used.
        InputError: the clip is not inside the file.
    """

    def __init__(self, clip: Clip, channels: Channels = "mono") -> None:
        self.clip = clip
        self.channels: Channels = channels
        self._file = open_audio(clip.path)
        self.shape = () if channels == "mono" else (int(self._file.channels),)
        try:
            self.rate = int(self._file.samplerate)
            self._held, length = _length(clip, self._file, channels)
            first, self.frames = _span(clip, length, self.rate)
            if first and self._held is None:
                self._file.seek(first)
        except BaseException:
            self._file.close()
            raise
        self.start = first / self.rate
        self.end = (first + self.frames) / self.rate
        self.peak = 0.0
        self._position = 0

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def read(self, count: int) -> np.ndarray:
        """The next ``count`` frames (count, *shape) float32, fewer only at the end of the clip.

        Raises:
            AudioError: "truncated" or "nan".
        """
        count = min(count, self.frames - self._position)
        if count <= 0:
            return np.empty((0, *self.shape), np.float32)
        if self._held is None:
            frames = _decode(self._file, self.clip.path, count, self.channels)
        else:
            frames = self._held[self._position : self._position + count]
        self._position += len(frames)
        if len(frames) < count:
            raise _truncated(self.clip.path, self.start + self._position / self.rate, self.end)
        high, low = float(frames.max()), float(frames.min())
        if not math.isfinite(high) or not math.isfinite(low):  # max and min carry NaN along
            raise AudioError(self.clip.path, "nan", "samples are NaN or infinite", "export the audio again")
        self.peak = max(self.peak, high, -low)
        return frames

    def drain(self) -> None:
        """Read what is left, so that damage behind the last patch is found too."""
        while self._position < self.frames:
            self.read(_READ_FRAMES)

    def refuse_silence(self) -> None:
        """Raise AudioError "silent" if the whole clip is; a silent beginning costs a look ahead by a second reader."""
        if self.peak >= SILENCE:
            return
        if self._position < self.frames:
            with Source(self.clip, self.channels) as ahead:
                while ahead.peak < SILENCE and ahead._position < ahead.frames:
                    ahead.read(_READ_FRAMES)
                self.peak = ahead.peak
        if self.peak < SILENCE:
            level = f"{20 * math.log10(self.peak):.0f} dBFS" if self.peak else "digital silence"
            raise AudioError(
                self.clip.path, "silent", f"peak {level}, below -80 dBFS", "replace the recording or leave it out"
            )


class Resampled:
    """A source at another sample rate, read in order; ``length`` samples in all."""

    def __init__(self, source: Source, sample_rate: int) -> None:
        ratio = Fraction(sample_rate, source.rate)
        self.source = source
        self._up, self._down = ratio.numerator, ratio.denominator
        self.length = -(-source.frames * self._up // self._down)
        self._waiting = np.empty((0, *source.shape), np.float32)
        self._waiting_from = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples ``start`` to ``stop`` (float32, as the source's frames); ``start`` must not fall from call to call.

        Raises:
            AudioError: as `Source.read`.
        """
        if self._up == self._down:
            return self._frames(start, stop)
        if self._up * self._down > _KERNEL_SIZE:
            parts = [self._sample_by_sample(at, min(at + 4096, stop)) for at in range(start, stop, 4096)]
            return np.concatenate(parts or [np.empty((0, *self.source.shape), np.float32)])
        kernel, margin = _kernel(self._down, self._up)
        up = kernel.shape[1]
        down = up // self._up * self._down
        first, last = start // up, -(-stop // up)
        frames = self._frames(first * down - margin, last * down + margin)
        windows = torch.from_numpy(frames).unfold(0, 2 * margin + down, down)
        samples = (windows @ kernel).movedim(-1, 1).reshape(-1, *self.source.shape)
        return np.asarray(samples[start - first * up : stop - first * up].numpy())

    def _sample_by_sample(self, start: int, stop: int) -> np.ndarray:
        """The same filter for rates without a small common ratio, whose kernel would fill the memory."""
        band = min(1.0, self._up / self._down) * _ROLLOFF  # cut-off, of the file's Nyquist frequency
        margin = math.ceil(_WIDTH / band)
        middle, rest = np.divmod(np.arange(start, stop) * self._down, self._up)
        first = int(middle[0]) - margin
        frames = self._frames(first, int(middle[-1]) + margin + 2)
        offsets = np.arange(-margin, margin + 2)
        zeros_away = ((offsets - (rest / self._up)[:, None]) * band).clip(-_WIDTH, _WIDTH)
        weights = band * np.sinc(zeros_away) * np.cos(zeros_away * np.pi / _WIDTH / 2) ** 2
        taken = frames[(middle - first)[:, None] + offsets]
        return np.asarray(np.einsum("ij...,ij->i...", taken, weights), np.float32)

    def _frames(self, start: int, stop: int) -> np.ndarray:
        """Source frames ``start`` to ``stop``, zeros outside the clip."""
        begin, end = max(start, 0), min(stop, self.source.frames)
        while self._waiting_from + len(self._waiting) < begin:
            self._waiting_from += len(self._waiting)
            self._waiting = self.source.read(min(_READ_FRAMES, begin - self._waiting_from))
        self._waiting = self._waiting[begin - self._waiting_from :]
        self._waiting_from = begin
        missing = end - begin - len(self._waiting)
        if missing > 0:
            fresh = self.source.read(missing)
            self._waiting = np.concatenate((self._waiting, fresh)) if len(self._waiting) else fresh
        around = ((begin - start, stop - end), *((0, 0) for _ in self.source.shape))
        return np.pad(self._waiting[: end - begin], around)


@lru_cache(maxsize=32)
def _kernel(down: int, up: int) -> tuple[Tensor, int]:
    """Kernel (2 * margin + r * down, r * up) and margin: r * up samples from a window of r * down frames and margins.

    The kernel is repeated r times, down its diagonal, so that windows overlap by less than half: copies of windows
    that are nearly all margin, as 2:1 would have, are what memory and time would go into.
    """
    # In float64, or the times of the taps are rounded and the samples off by 2e-6.
    resample = load()[1].Resample(
        down, up, "sinc_interp_hann", lowpass_filter_width=_WIDTH, rolloff=_ROLLOFF, dtype=torch.float64
    )
    margin = int(resample.width)
    repeats = -(-2 * margin // down)
    kernel = torch.zeros(2 * margin + repeats * down, repeats * up)
    for r in range(repeats):
        kernel[r * down : (r + 1) * down + 2 * margin, r * up : (r + 1) * up] = resample.kernel[:, 0].T
    return kernel, margin


def require_file(path: str) -> None:
    """Raise AudioError "unreadable" or "empty" unless ``path`` is a file with bytes that may be read."""
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


def open_audio(path: str) -> soundfile.SoundFile:
    """Open a file for decoding.

    Raises:
        AudioError: "unreadable", "empty", "mislabelled" or "truncated".
    """
    require_file(path)
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        remedy = "give WAV, FLAC, MP3, OGG, Opus, AU or AIFF audio"
        if isinstance(error, UnicodeEncodeError):  # of the path, not of what is in the file
            raise AudioError(path, "unreadable", "its name is not UTF-8", "rename the file") from error
        raise AudioError(path, "unreadable", _reason(error), remedy) from error
    suffix = Path(path).suffix.lower()
    problem = None
    if file.format not in FORMATS.get(suffix, (file.format,)):
        problem = AudioError(path, "mislabelled", f"the content is {file.format}", "rename the file to what it is")
    elif not 1000 <= file.samplerate <= 768000:
        problem = AudioError(path, "unreadable", f"sample rate {file.samplerate} Hz", "export the audio again")
    elif file.frames <= 0:
        problem = AudioError(path, "empty", "the file has no audio frames", "replace the file")
    elif is_cut(path, file.format):
        problem = AudioError(path, "truncated", "it ends before its header says", "replace the file")
    if problem:
        file.close()
        raise problem
    return file


def file_frames(path: str, file: soundfile.SoundFile) -> int:
    """Frames in an open file; an MP3 file is decoded once to count them.

    What libsndfile says of MP3 is a guess from the size of the file, tags included, or a header that may be wrong.

    Raises:
        AudioError: "truncated", if an MP3 file holds less than its header states.
    """
    if file.format != "MP3":
        return int(file.frames)
    status = os.stat(path)
    return _counted_frames(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _counted_frames(path: str, size: int, changed: int) -> int:
    with soundfile.SoundFile(path) as file:
        counts = 0
        while len(part := _decode(file, path, _READ_FRAMES)):
            counts += len(part)
        return _checked(path, file, counts)


def _length(clip: Clip, file: soundfile.SoundFile, channels: Channels) -> tuple[np.ndarray | None, int]:
    """All frames, where they must be decoded to be counted and are wanted anyway, else None; and their number."""
    if file.format != "MP3" or clip.start or clip.end is not None or file.frames > _HELD_FRAMES:
        return None, file_frames(clip.path, file)
    parts = [_decode(file, clip.path, _READ_FRAMES, channels)]
    while len(part := _decode(file, clip.path, _READ_FRAMES, channels)):
        parts.append(part)
    held = np.concatenate(parts)
    return held, _checked(clip.path, file, len(held))


def _checked(path: str, file: soundfile.SoundFile, counts: int) -> int:
    if counts == 0:
        raise AudioError(path, "empty", "no audio frames can be decoded", "replace the file")
    short = (file.frames - counts) / file.samplerate
    if short > END_TOLERANCE and mp3_frames_stated(path):
        raise _truncated(path, counts / file.samplerate, file.frames / file.samplerate)
    return counts


def _decode(file: soundfile.SoundFile, path: str, count: int, channels: Channels = "mono") -> np.ndarray:
    """The next ``count`` frames, float32, (count,) or (count, channels); fewer at the end of the file."""
    try:
        data = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(path, "truncated", f"decoding fails ({_reason(error)})", "replace the file") from error
    if channels == "all":
        return np.asarray(data)
    return np.asarray(data[:, 0] if data.shape[1] == 1 else data.mean(axis=1))


def _truncated(path: str, have: float, promised: float) -> AudioError:
    return AudioError(path, "truncated", f"audio ends at {have:.2f} s of {promised:.2f} s", "replace the file")


def _span(clip: Clip, frames: int, rate: int) -> tuple[int, int]:
    """First frame and number of frames of a clip in a file of ``frames`` frames."""
    length = frames / rate
    end = length if clip.end is None else clip.end
    if not (0 <= clip.start < end <= length + END_TOLERANCE) or clip.start >= length:
        raise ClipError(
            clip.path,
            f"the clip from {short_repr(clip.start)} s to {short_repr(clip.end)} s is not inside the file of "
            f"{length:.3f} s; correct its start and end",
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
