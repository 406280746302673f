"""Small generated data sets in the layouts that GTZAN comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """The path of real data; skips where it is not available."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"the shared {name} is not available")
        return SHARED / name

    return path


def write_track(path: Path, seconds: float = 0.3, seed: int = 0, rate: int = 22050) -> Path:
    """A noisy tone of its own pitch."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    signal = 0.3 * np.sin(2 * np.pi * (200 + 40 * seed) * time) + 0.01 * random.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, rate)
    return path


@pytest.fixture(scope="session")
def gtzan_like() -> Callable[..., Path]:
    """``write(root, below, ending, genres, numbers)``: a data set with tracks ``<genre>/<genre>.<number><ending>``."""

    def write(
        root: Path,
        below: str = "genres",
        ending: str = ".wav",
        genres: Iterable[str] = ("blues", "jazz"),
        numbers: Iterable[int] = range(3),
        seconds: float = 0.3,
    ) -> Path:
        numbers = list(numbers)
        for place, genre in enumerate(genres):
            for number in numbers:
                path = root / below / genre / f"{genre}.{number:05d}{ending}"
                write_track(path, seconds + 0.01 * number, seed=10 * place + number)
        return root

    return write
