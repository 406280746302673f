"""The seconds of a track in which the sensitivity to a concept is highest, as sound."""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.decoding import Resampled, Source
from captum_concepts.errors import InputError
from captum_concepts.results.timeline import Timeline
from captum_concepts.text import short_repr

FADE = 0.02
OURS = re.compile(r"[0-9]{3,}_[A-Za-z0-9._-]+_[0-9.]+-[0-9.]+\.wav")
COLUMNS = ("file", "concept", "rank", "start", "end", "sensitivity", "presence", "layer", "target", "track")


@dataclass(frozen=True)
class Segment:
    """Seconds of a track in which a class is sensitive to a concept.

    Attributes:
        concept, layer, target: which class is sensitive to which concept, at which layer.
        rank: 1 is the concept's strongest segment.
        clip: the track's file from the first to the last second of the segment.
        sensitivity: of the target's logit along the concept's CAV, of this very patch.
        presence: probability that this patch has the concept; NaN where it is not known.
    """

    concept: str
    layer: str
    target: str
    rank: int
    clip: Clip
    sensitivity: float
    presence: float


def strongest_segments(
    line: Timeline, names: Sequence[str], concepts: Sequence[str] | None = None, *, k: int = 3
) -> list[Segment]:
    """The patches with the highest sensitivity to each concept: at most ``k``, none overlapping another.

    A segment is a patch, which is the model's input: its sensitivity is that number and no interpolation. The strongest
    comes first, then the strongest of those that do not overlap it, and so on. A concept that nowhere pushes the target
    up has none.

    Args:
        line: of the track, with K concepts.
        names: the K concepts' names (those of the layer's concept bank).
        concepts: which of them; default: all.
        k: segments per concept.

    Raises:
        InputError: k below 1, or an unknown concept.
    """
    if k < 1:
        raise InputError(f"k={short_repr(k)}: give at least 1 segment per concept")
    found = []
    for concept in names if concepts is None else dict.fromkeys(concepts):
        if concept not in names:
            raise InputError(f"concept {short_repr(concept)} is not in this timeline; it has {', '.join(names[:20])}")
        column = list(names).index(concept)
        for rank, patch in enumerate(_apart(line, line.sensitivity[:, column], k), 1):
            presence = np.nan if line.presence is None else float(line.presence[patch, column])
            start, end = float(line.starts[patch]), float(line.ends[patch])
            clip = Clip(line.clip.path, start, end, line.clip.group)
            sensitivity = float(line.sensitivity[patch, column])
            found.append(Segment(concept, line.layer, line.target, rank, clip, sensitivity, presence))
    return found


def _apart(line: Timeline, sensitivity: np.ndarray, k: int) -> list[int]:
    """Patches by falling sensitivity, above zero, that do not overlap; equal ones in the order of time."""
    chosen: list[int] = []
    for patch in np.argsort(-sensitivity, kind="stable").tolist():  # NaN comes last
        if not sensitivity[patch] > 0 or len(chosen) == k:
            break
        if all(line.starts[patch] >= line.ends[other] or line.ends[patch] <= line.starts[other] for other in chosen):
            chosen.append(patch)
    return chosen


def write_segments(segments: Sequence[Segment], folder: str | Path, *, fade: float = FADE) -> Path:
    """Write each segment as a WAV file, and ``segments.csv`` that says what each is.

    All channels and the sample rate of the source are kept, 24 bit; both ends are faded, since a cut through a wave is
    heard as a click. Equal seconds of one file are written once and named in several rows. What an earlier call wrote
    into the folder is replaced; other files stay.

    Args:
        segments: of ``strongest_segments``; may be empty.
        folder: where to.
        fade: seconds at either end, at most half of the segment.

    Returns:
        The path of ``segments.csv``, columns ``COLUMNS``; start, end in seconds of the track.

    Raises:
        InputError: a source cannot be read, the folder cannot be written, or a negative fade.
    """
    if not fade >= 0:
        raise InputError(f"fade={short_repr(fade)}: give seconds, 0 or more")
    folder = Path(folder)
    index = folder / "segments.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as made:
            _write(segments, Path(made), fade)
            if index.exists():
                for path in folder.iterdir():
                    if OURS.fullmatch(path.name):
                        path.unlink()
            for path in Path(made).iterdir():
                path.replace(folder / path.name)
    except OSError as error:
        raise InputError(f"{short_repr(str(folder), 200)}: cannot be written ({error.strerror or error})") from None
    return index


def _write(segments: Sequence[Segment], folder: Path, fade: float) -> None:
    files: dict[Clip, str] = {}
    rows = []
    for segment in segments:
        clip = segment.clip
        if clip not in files:
            stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(clip.path).stem)[:60] or "track"
            files[clip] = f"{len(files) + 1:03d}_{stem}_{clip.start:.2f}-{clip.end:.2f}.wav"
            _write_wav(clip, folder / files[clip], fade)
        row = asdict(segment)
        row.update(file=files[clip], start=clip.start, end=clip.end, track=clip.path)
        row["presence"] = "" if np.isnan(segment.presence) else segment.presence
        rows.append(row)
    with open(folder / "segments.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_wav(clip: Clip, path: Path, fade: float) -> None:
    # As read_clip, but digital silence may be part of a track that is none.
    with Source(clip, "all") as source:
        rate = source.rate
        signal = Resampled(source, rate)
        samples = np.array(signal.read(0, signal.length), dtype=np.float32)
        source.drain()
    length = min(round(fade * rate), len(samples) // 2)
    ramp = np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)[:, None]
    samples[:length] *= ramp
    samples[len(samples) - length :] *= ramp[::-1]
    soundfile.write(path, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_24")
