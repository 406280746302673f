"""Tones for tests, as samples and as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from captum_concepts.audio.clips import Clip


def sine(hertz: float, seconds: float, rate: int, peak: float = 1.0) -> np.ndarray:
    """(samples,) float64: a sine wave from phase zero."""
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def tone(path: Path, seconds: float, hertz: float = 440.0, peak: float = 0.3, rate: int = 8000) -> Clip:
    """A sine wave in a file of 32-bit samples."""
    soundfile.write(path, sine(hertz, seconds, rate, peak), rate, subtype="FLOAT")
    return Clip(str(path))
