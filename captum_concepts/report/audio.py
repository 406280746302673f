"""Clips to mono MP3, the one format every browser plays."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import soundfile

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import duration
from captum_concepts.audio.patches import read_clip
from captum_concepts.errors import InputError

logger = logging.getLogger(__name__)
MP3_RATES = (16_000, 22_050, 24_000, 32_000, 44_100)
COMPRESSION = 0.7
FADE_SECONDS = 0.005
BATCH = 64


@dataclass(frozen=True)
class Sound:
    """An encoded clip: ``data`` is a whole MP3 file of ``seconds`` seconds."""

    data: bytes
    seconds: float

    @cached_property
    def digest(self) -> str:
        """sha256 of the MP3, by which equal sounds are stored once."""
        return hashlib.sha256(self.data).hexdigest()


def encode(clip: Clip, longest: float) -> Sound:
    """The clip's span, cut to its first ``longest`` seconds, as mono MP3 at the file's own rate (at most 44.1 kHz).

    Raises:
        InputError: the file cannot be read or the span holds no audio.
    """
    try:
        native = soundfile.info(clip.path).samplerate
        rate = next((r for r in MP3_RATES if r >= native), MP3_RATES[-1])
        end = min(duration(clip.path) if clip.end is None else clip.end, clip.start + longest)
        samples = read_clip(replace(clip, end=end), rate).numpy()
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise InputError(f"clip={clip.path!r}: cannot be read; {error}") from error
    samples = np.clip(samples, -1.0, 1.0)
    # A hard cut makes an audible click, which could be mistaken for part of the concept.
    ramp = np.linspace(0.0, 1.0, min(len(samples), round(FADE_SECONDS * rate)), dtype=np.float32)
    samples[: len(ramp)] *= ramp
    samples[len(samples) - len(ramp) :] *= ramp[::-1]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=COMPRESSION)
    return Sound(buffer.getvalue(), len(samples) / rate)


def encode_all(spans: Sequence[tuple[Clip, float]]) -> Iterator[Sound | None]:
    """Encode (clip, longest seconds) pairs in parallel, in order; None where one fails, and one logged warning for all.

    A caller that stops iterating stops the work after the current batch.
    """

    failures: list[InputError] = []

    def one(span: tuple[Clip, float]) -> Sound | None:
        try:
            return encode(*span)
        except InputError as error:
            failures.append(error)
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for first in range(0, len(spans), BATCH):
                yield from pool.map(one, spans[first : first + BATCH])
        finally:
            if failures:
                logger.warning("the report has no sound for %d clips, e.g.: %s", len(failures), failures[0])
