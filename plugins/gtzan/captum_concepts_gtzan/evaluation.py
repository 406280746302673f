"""Classify whole files, and measure accuracy."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.stats import binomtest

from captum_concepts.audio import AudioError, Clip, iter_patches
from captum_concepts.backbones import resolve_device
from captum_concepts.errors import InputError
from captum_concepts.storage import read_weights, written
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_gtzan.checkpoints import load_checkpoint
from captum_concepts_gtzan.dataset import Track
from captum_concepts_gtzan.models import MODELS, GenreModel


class Classifier(Protocol):
    """A trained model that classifies files."""

    name: str
    classes: tuple[str, ...]

    @abstractmethod
    def logits(self, path: str) -> tuple[np.ndarray, int]:
        """Mean logits (C,) over all chunks of a file, and their number.

        Raises:
            AudioError: the file cannot be used.
        """


class NetworkClassifier:
    """A network on consecutive chunks; a file shorter than a chunk is repeated.

    Args:
        model: the network.
        classes: names of its outputs.
        device: "auto", "cpu", "cuda", ...
        batch_size: chunks per pass.
    """

    def __init__(self, model: GenreModel, classes: Sequence[str], device: str = "auto", batch_size: int = 16) -> None:
        self.name = model.name
        self.classes = tuple(classes)
        self._device = resolve_device(device)
        self._model = model.to(self._device).eval()
        self._batch_size = batch_size

    def logits(self, path: str) -> tuple[np.ndarray, int]:
        """See `Classifier`; a file is read block by block, so that its length does not matter."""
        samples = self._model.patch_samples
        total, count = np.zeros(len(self.classes)), 0
        blocks = iter_patches(
            Clip(path), self._model.sample_rate, samples, samples, short="repeat", max_patches=self._batch_size
        )
        with torch.inference_mode():
            for block in blocks:
                total += self._model(block.inputs.to(self._device)).double().sum(0).cpu().numpy()
                count += len(block.inputs)
        return total / count, count


class SvmClassifier:
    """A support vector machine on the features of pieces as long as its training tracks; its "logits" are
    log-probabilities."""

    def __init__(self, weights: str | PathLike[str]) -> None:
        from captum_concepts_gtzan.svm import SvmModel

        self.name = "gtzan-svm"
        self._model = SvmModel.load(weights)
        self.classes = self._model.classes

    def logits(self, path: str) -> tuple[np.ndarray, int]:
        """See `Classifier`."""
        from captum_concepts_gtzan.features import piece_features

        rows = piece_features(path, self._model.features, self._model.seconds)
        with torch.inference_mode():
            return self._model(self._model.standardise(rows)).mean(0).numpy(), len(rows)


def load_classifier(
    weights: str | PathLike[str], model: str | None = None, device: str = "auto", seconds: float | None = None
) -> Classifier:
    """A classifier from a weights file.

    Args:
        weights: what `train_network` or `train_svm` wrote, or a ``state_dict`` as `load_checkpoint` reads it.
        model: name of the network, where the file does not say; a file of another is refused.
        device: of a network.
        seconds: length of its chunks, where the file does not say.

    Raises:
        InputError: see `load_checkpoint`; or nothing says which network it is.
    """
    told = _told(weights)
    if told.get("format", "").startswith("captum-concepts-gtzan svm"):
        if model not in (None, "gtzan-svm"):
            raise InputError(
                f"weights={short_repr(str(weights), 200)}: of gtzan-svm, not of {model}; leave out the model"
            )
        if seconds is not None:
            raise InputError(
                f"seconds={short_repr(seconds)}: gtzan-svm takes pieces as long as its training tracks; leave it out"
            )
        return SvmClassifier(weights)
    if model == "gtzan-svm":
        raise InputError(
            f"weights={short_repr(str(weights), 200)}: not of gtzan-svm; give the file that training it wrote"
        )
    name = model or told.get("model", "")
    if name not in MODELS:
        raise InputError(
            f"weights={short_repr(str(weights), 200)}: do not say of which network they are; give the model, one of "
            f"{', '.join(MODELS)}"
        )
    options: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
    network, classes = load_checkpoint(weights, name, **options)
    return NetworkClassifier(network, classes, device)


def trained_with(weights: str | PathLike[str]) -> dict[str, Any]:
    """The options that weights were trained with; empty where the file does not say."""
    try:
        return dict(json.loads(_told(weights)["training"])["options"])
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}


def learnt_from(weights: str | PathLike[str]) -> frozenset[str]:
    """Ids of the tracks that weights were trained or chosen on; empty where the file does not say."""
    try:
        return frozenset(map(str, json.loads(_told(weights)["learnt_from"])))
    except (KeyError, ValueError, TypeError, RecursionError):
        return frozenset()


def _told(weights: str | PathLike[str]) -> dict[str, str]:
    """The metadata of a safetensors file; of any other file there is none, and loading it says what is wrong."""
    try:
        return read_weights(weights)[1]
    except InputError:
        return {}


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        path: the file.
        probabilities: (C,), softmax of the mean logits.
        chunks: how many were classified.
    """

    path: str
    probabilities: np.ndarray
    chunks: int


def predict(
    classifier: Classifier, paths: Sequence[str], progress: Progress | None = None
) -> tuple[list[Prediction], list[str]]:
    """Predictions in the order of ``paths``, and one line for every file that could not be used."""
    found, skipped = [], []
    for number, path in enumerate(paths, 1):
        try:
            logits, chunks = classifier.logits(path)
            weights = np.exp(logits - logits.max())
            found.append(Prediction(path, weights / weights.sum(), chunks))
        except AudioError as error:
            skipped.append(str(error))
        except InputError as error:  # what is too short for features, say
            skipped.append(f"{short_repr(path, 200)}: {error}")
        if progress is not None:
            progress("classify", number, len(paths))
    return found, skipped


@dataclass(frozen=True)
class Evaluation:
    """Predictions beside the truth, one row per track.

    Attributes:
        classes: names of the classes.
        track_ids: N.
        truth: int64 (N,).
        probabilities: float64 (N, C).
        skipped: one line for every track that could not be used; it counts nowhere.
    """

    classes: tuple[str, ...]
    track_ids: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    skipped: tuple[str, ...] = ()

    @cached_property
    def predicted(self) -> np.ndarray:
        """int64 (N,), the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Share of tracks whose genre is the most probable one."""
        return float((self.predicted == self.truth).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson), tracks being independent."""
        right = binomtest(int((self.predicted == self.truth).sum()), len(self.truth))
        found = right.proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @property
    def confusion(self) -> np.ndarray:
        """int64 (C, C), tracks of each true class (row) by predicted class (column)."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts

    @property
    def report(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and number of tracks of each class, and their macro and weighted means."""
        from sklearn.metrics import precision_recall_fscore_support

        numbers = list(range(len(self.classes)))
        columns = ("precision", "recall", "f1", "tracks")
        rows = precision_recall_fscore_support(self.truth, self.predicted, labels=numbers, zero_division=0.0)
        report = {
            name: dict(zip(columns, map(float, row), strict=True))
            for name, row in zip(self.classes, zip(*rows, strict=True), strict=True)
        }
        for mean in ("macro", "weighted"):
            *found, _ = precision_recall_fscore_support(
                self.truth, self.predicted, labels=numbers, average=mean, zero_division=0.0
            )
            report[f"{mean} mean"] = dict(zip(columns, [*map(float, found), float(len(self.truth))], strict=True))
        return report

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        tracks = [
            {
                "track": track,
                "genre": self.classes[true],
                "predicted": self.classes[said],
                "probabilities": dict(zip(self.classes, map(float, row), strict=True)),
            }
            for track, true, said, row in zip(
                self.track_ids, self.truth, self.predicted, self.probabilities, strict=True
            )
        ]
        return {
            "accuracy": self.accuracy,
            "interval": self.interval,
            "macro_f1": self.report["macro mean"]["f1"],
            "report": self.report,
            "classes": self.classes,
            "confusion": self.confusion.tolist(),
            "tracks": tracks,
            "skipped": self.skipped,
        }

    def save(self, folder: str | PathLike[str]) -> None:
        """Write ``evaluation.json`` and the picture ``confusion.png``."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with written(Path(folder) / "evaluation.json") as path:
            path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        with written(Path(folder) / "confusion.png") as path:
            draw_confusion(self.confusion, self.classes, path)


def evaluate(classifier: Classifier, tracks: Sequence[Track], progress: Progress | None = None) -> Evaluation:
    """Classify every track and compare with its genre.

    Raises:
        InputError: a track's genre is not one of the classifier's classes, or no track can be used.
    """
    place = {name: number for number, name in enumerate(classifier.classes)}
    for track in tracks:
        if track.genre not in place:
            raise InputError(
                f"genre={short_repr(track.genre)}: of {short_repr(track.path, 200)} is not one of "
                f"{', '.join(classifier.classes)}"
            )
    found, skipped = predict(classifier, [track.path for track in tracks], progress)
    if not found:
        raise InputError(
            f"none of {len(tracks)} tracks can be used; the first: {skipped[0] if skipped else 'none given'}"
        )
    of = {track.path: track for track in tracks}
    return Evaluation(
        classifier.classes,
        tuple(of[each.path].track_id for each in found),
        np.array([place[of[each.path].genre] for each in found]),
        np.stack([each.probabilities for each in found]),
        tuple(skipped),
    )


def draw_confusion(confusion: np.ndarray, classes: Sequence[str], path: str | PathLike[str]) -> None:
    """Write a confusion matrix as a picture: shade is the share of the true class, the number counts tracks."""
    from matplotlib.figure import Figure

    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    size = 2.0 + 0.55 * len(classes)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour)
    names = [name if len(name) <= 24 else name[:23] + "…" for name in classes]
    places = np.arange(len(classes))
    # A $ in a genre's name would begin a formula.
    axes.set_xticks(places, names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("genre")
    axes.set_title(f"{int(np.trace(confusion))} of {int(confusion.sum())} tracks are right")
    figure.savefig(path, format="png", dpi=150)
