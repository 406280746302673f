"""Recordings made up for the tests: folders of tones, and DCASE 2018 task 5 in its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from captum_concepts_tile2vec.data import Recording
from captum_concepts_tile2vec.tiles import Tiles

LABELS = {"absence": 200.0, "cooking": 1000.0, "working": 3000.0}


def tone(hertz: float, seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A tone with a little noise, (frames,) or (frames, channels), each channel with a phase of its own."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((len(time), channels))
    samples = 0.3 * np.sin(2 * np.pi * hertz * time[:, None] + np.arange(channels)) + 0.02 * noise
    return (samples[:, 0] if channels == 1 else samples).astype(np.float32)


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder per class with tones of its pitch."""

    def write(per_class: int = 3, seconds: float = 2.0, rate: int = 16_000, channels: int = 1) -> Path:
        root = tmp_path / "recordings"
        for row, (label, hertz) in enumerate(LABELS.items()):
            (root / label).mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                samples = tone(hertz * (1 + 0.03 * number), seconds, rate, channels, seed=10 * row + number)
                soundfile.write(root / label / f"{number}.wav", samples, rate)
        return root

    return write


@pytest.fixture
def dcase(tmp_path: Path) -> Path:
    """DCASE 2018 task 5 in small: 3 labels, 4 sessions of each, 2 files of each, 4 channels; 2 folds by session."""
    root = tmp_path / "dcase"
    (root / "audio").mkdir(parents=True)
    (root / "evaluation_setup").mkdir()
    lines = []
    for row, (label, hertz) in enumerate(LABELS.items()):
        for session in range(4):
            for part in range(2):
                name = f"audio/DevNode{session + 1}_ex{4 * row + session}_{part}.wav"
                samples = tone(hertz * (1 + 0.03 * session), 2.0, channels=4, seed=len(lines))
                soundfile.write(root / name, samples, 16_000)
                lines.append((name, label, f"ex{4 * row + session}", session))
    (root / "meta.txt").write_text("".join(f"{name}\t{label}\t{group}\n" for name, label, group, _ in lines))
    for fold in (1, 2):
        apart = (2, 3) if fold == 1 else (0, 1)
        train = "".join(f"{name}\t{label}\t{group}\n" for name, label, group, s in lines if s not in apart)
        evaluate = "".join(f"{name}\t{label}\n" for name, label, _, s in lines if s in apart)
        (root / "evaluation_setup" / f"fold{fold}_train.txt").write_text(train)
        (root / "evaluation_setup" / f"fold{fold}_evaluate.txt").write_text(evaluate)
    return root


@pytest.fixture
def dcase_evaluation(tmp_path: Path) -> Path:
    """DCASE 2018 task 5's evaluation set in small: 6 numbered files of 3 sessions, and evaluate.txt."""
    root = tmp_path / "dcase-eval"
    (root / "audio").mkdir(parents=True)
    (root / "evaluation_setup").mkdir()
    lines = []
    for number in range(1, 7):
        label, hertz = list(LABELS.items())[(number - 1) % 3]
        soundfile.write(root / f"audio/{number}.wav", tone(1.05 * hertz, 2.0, channels=4, seed=90 + number), 16_000)
        lines.append(f"audio/{number}.wav\t{label}\tex{(number - 1) // 2}\n")
    for name in ("meta.txt", "evaluation_setup/evaluate.txt"):
        (root / name).write_text("".join(lines))
    return root


@pytest.fixture
def tiles_of() -> Callable[..., Tiles]:
    """Makes tiles without files: of recordings with so many tiles each, one second long."""

    def make(counts: list[int], groups: list[str] | None = None, labels: list[str] | None = None) -> Tiles:
        names = [f"r{index}" for index in range(len(counts))]
        recordings = tuple(
            Recording(name, name, label, group)
            for name, label, group in zip(names, labels or [""] * len(counts), groups or names, strict=True)
        )
        starts = np.concatenate([np.arange(count, dtype=float) for count in counts])
        return Tiles(recordings, np.repeat(np.arange(len(counts)), counts), starts, 1.0, 16_000, 1)

    return make
