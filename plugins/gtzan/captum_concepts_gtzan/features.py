"""The 58 columns of Kaggle's ``features_30_sec.csv``, computed from audio, and tables of them.

What librosa 0.7 gave, with which the published table was made, is computed with today's librosa: frames are mirrored at
the ends of the signal (the default became zeros), and the separated signals end with the last whole hop (now they end
with the signal). On 100 tracks of GTZAN every column agrees with the table within 3e-6 of its standard deviation,
except ``rolloff_mean`` and ``rolloff_var``: one frame of one track is on the edge between two bins (2e-5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from captum_concepts.audio import AudioError, Clip, iter_patches, read_clip
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_gtzan.dataset import Tracks, genre_name

SAMPLE_RATE = 22050
N_MFCC = 20
#: Seconds; the beat tracker's window of self-similarity is 8 s, and shorter signals give it little to go by.
MIN_SECONDS = 1.0

_DESCRIPTORS = (
    "chroma_stft",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    "harmony",
    "perceptr",
)


def _mean_and_variance(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}_{moment}" for name in names for moment in ("mean", "var"))


#: Kaggle's columns in their order.
COLUMNS = (
    "length",
    *_mean_and_variance(_DESCRIPTORS),
    "tempo",
    *_mean_and_variance([f"mfcc{number}" for number in range(1, N_MFCC + 1)]),
)
#: The 56 of them that AudioConcept's classifiers use.
FEATURES = tuple(name for name in COLUMNS if name not in ("spectral_centroid_mean", "spectral_bandwidth_mean"))


@dataclass(frozen=True)
class FeatureTable:
    """Features of tracks.

    Attributes:
        ids: N track ids or file names.
        names: F columns.
        values: float64 (N, F), finite.
        labels: N genres.
        skipped: one line for each track that could not be used.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray
    labels: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def select(self, names: Sequence[str]) -> np.ndarray:
        """float64 (N, len(names)), the named columns.

        Raises:
            InputError: no such column.
        """
        place = {name: index for index, name in enumerate(self.names)}
        for name in names:
            if name not in place:
                raise InputError(
                    f"features: there is no {short_repr(name)}; the table has {', '.join(self.names[:60])}"
                )
        return self.values[:, [place[name] for name in names]]


def track_features(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> dict[str, float]:
    """The features of one signal, by name in the order of ``COLUMNS``.

    Args:
        samples: float (n,), mono, at least 1 s.
        sample_rate: Hz; only at 22,050 do the values compare with the published table.

    Raises:
        InputError: librosa is not installed; the signal is too short or not finite.
    """
    librosa = _librosa()
    signal = np.ascontiguousarray(samples, dtype=np.float32)
    if signal.ndim != 1 or len(signal) < MIN_SECONDS * sample_rate:
        raise InputError(f"samples: shape {signal.shape}; give one channel of {MIN_SECONDS:g} s or more")
    if not np.isfinite(signal).all():
        raise InputError("samples: NaN or infinite; give a signal")
    spectrum = librosa.stft(signal, pad_mode="reflect")
    magnitude = np.abs(spectrum)
    power = magnitude**2
    rate = {"sr": sample_rate}
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=power, **rate))
    harmonic, percussive = (
        librosa.util.fix_length(librosa.istft(part), size=len(signal)) for part in librosa.decompose.hpss(spectrum)
    )
    onsets = librosa.onset.onset_strength(S=mel, aggregate=np.median, **rate)
    tempo, _ = librosa.beat.beat_track(onset_envelope=onsets, **rate)
    described = {
        "chroma_stft": librosa.feature.chroma_stft(S=power, **rate),
        "rms": librosa.feature.rms(y=signal, pad_mode="reflect"),
        "spectral_centroid": librosa.feature.spectral_centroid(S=magnitude, **rate),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=magnitude, **rate),
        "rolloff": librosa.feature.spectral_rolloff(S=magnitude, **rate),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(signal),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    coefficients = librosa.feature.mfcc(S=mel, n_mfcc=N_MFCC, **rate)
    described |= {f"mfcc{number}": row for number, row in enumerate(coefficients, 1)}
    found = {"length": float(len(signal)), "tempo": float(np.ravel(tempo)[0])}
    for name, values in described.items():
        found |= {f"{name}_mean": float(np.mean(values)), f"{name}_var": float(np.var(values))}
    return {name: found[name] for name in COLUMNS}


def piece_features(path: str | PathLike[str], names: Sequence[str], seconds: float) -> np.ndarray:
    """The named features of the consecutive pieces of a file: what a machine trained on tracks of this length takes.

    Args:
        path: audio; a remainder is left out, a file shorter than a piece is repeated.
        names: of ``COLUMNS``.
        seconds: length of a piece.

    Returns:
        float64 (P, len(names)), as they are measured.

    Raises:
        InputError: librosa is not installed, or a feature that is not computed here.
        AudioError: the file cannot be used.
    """
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"features: {short_repr(name)} is not computed from audio; use those of COLUMNS")
    samples = round(seconds * SAMPLE_RATE)
    pieces = iter_patches(Clip(str(path)), SAMPLE_RATE, samples, samples, short="repeat", max_patches=1)
    rows = [track_features(piece.inputs[0].numpy()) for piece in pieces]
    return np.array([[row[name] for name in names] for row in rows])


def _librosa() -> ModuleType:
    try:
        import librosa
    except ImportError:
        raise InputError("features need librosa: pip install 'captum-concepts-gtzan[features]'") from None
    return librosa


def features_version() -> str:
    """Changes when the same audio may give other features.

    Raises:
        InputError: librosa is not installed.
    """
    return f"features 1, librosa {_librosa().__version__}"


def extract_features(tracks: Tracks, progress: Callable[[str, int, int], None] | None = None) -> FeatureTable:
    """The features of whole tracks, decoded to mono at 22,050 Hz; about 1.5 s of one core for 30 s of audio.

    Args:
        tracks: those of `find_tracks`; what it skipped is in the table's ``skipped`` too.
        progress: called as ``progress("features", done, total)``.

    Raises:
        InputError: librosa is not installed, or no track could be used.
    """
    _librosa()
    kept, rows, skipped = [], [], list(tracks.skipped)
    for done, track in enumerate(tracks.tracks, 1):
        try:
            rows.append(list(track_features(read_clip(Clip(track.path), SAMPLE_RATE).numpy()).values()))
            kept.append(track)
        except AudioError as error:
            skipped.append(str(error))
        except InputError as error:
            skipped.append(f"{short_repr(track.path, 200)}: {error}")
        if progress is not None:
            progress("features", done, len(tracks))
    if not rows:
        raise InputError(f"features: none of {len(tracks)} tracks could be used; the first: {skipped[0]}")
    names = tuple(track.track_id + Path(track.path).suffix for track in kept)
    return FeatureTable(names, COLUMNS, np.array(rows), tuple(track.genre for track in kept), tuple(skipped))


def write_features(table: FeatureTable, path: str | PathLike[str]) -> None:
    """A CSV file in Kaggle's layout: ``filename``, the features, ``label``; numbers keep all their digits."""
    columns: Mapping[str, Sequence[object] | np.ndarray] = {
        "filename": table.ids,
        **{name: table.values[:, place] for place, name in enumerate(table.names)},
        "label": table.labels,
    }
    frame = pd.DataFrame(columns)
    frame["length"] = frame["length"].astype(np.int64)
    frame.to_csv(path, index=False)


def read_features(path: str | PathLike[str]) -> FeatureTable:
    """A table in Kaggle's layout, separated by commas or semicolons, with or without a byte order mark.

    Raises:
        InputError: no such table, no ``label`` column, or a cell that is no finite number.
    """
    where = short_repr(str(path), 200)
    try:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(";,\t", key=header.count)
        frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{where}: cannot read the table ({' '.join(str(error).split())[:120]})") from None
    names = tuple(name for name in frame.columns if name not in ("filename", "label"))
    if "label" not in frame.columns or not names or not len(frame):
        raise InputError(f"{where}: not a table of features; it needs rows, features and a column 'label'")
    columns = []
    for name in names:
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            cell = frame[name].iloc[bad[0]]
            raise InputError(
                f"{where}: row {bad[0] + 2}, {short_repr(name)}: {short_repr(cell)} is not a finite number; fix it"
            )
        columns.append(values)
    ids = frame["filename"] if "filename" in frame.columns else frame.index.astype(str)
    labels = tuple(genre_name(str(label)) for label in frame["label"])
    return FeatureTable(tuple(map(str, ids)), names, np.stack(columns, axis=1), labels)
