"""Small classifiers on frozen embeddings, tested on held-out recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Kind = Literal["logistic", "dense"]
KINDS = ("logistic", "dense")
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Predictions:
    """What classifiers say of recordings that were held out from them.

    Attributes:
        classes: C labels, sorted.
        recordings: (R,) their names.
        groups: (R,) their groups.
        truth: int64 (R,), the class of each.
        probabilities: float64 (R, C), the mean over the tiles of each.
    """

    classes: tuple[str, ...]
    recordings: np.ndarray
    groups: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """int64 (R,), the most probable class of each."""
        return np.asarray(self.probabilities.argmax(1), dtype=np.int64)


def fit_classifier(rows: np.ndarray, labels: np.ndarray, kind: Kind = "logistic", seed: int = 0) -> Pipeline:
    """Standardise, then "logistic" (softmax, L2 with C=1) or "dense" (256, 256, softmax; Adam, early stopping off).

    Args:
        rows: float (N, D).
        labels: (N,), two different ones at least.
        kind: "logistic" or "dense".
        seed: of the dense classifier.

    Raises:
        InputError: unknown kind, or all labels are the same.
    """
    if kind not in KINDS:
        raise InputError(f"classifier={short_repr(kind)}: give logistic or dense")
    if len(set(labels)) < 2:
        raise InputError(
            f"all recordings have the label {short_repr(str(labels[0]))}: a classifier needs two; give labels"
        )
    last = (
        LogisticRegression(max_iter=2000)
        if kind == "logistic"
        else MLPClassifier((256, 256), max_iter=200, random_state=seed % 2**32)
    )
    return make_pipeline(StandardScaler(), last).fit(rows, labels.astype(str))


def as_module(classifier: Pipeline) -> nn.Sequential:
    """The fitted classifier as a network that gives logits (B, C), standardisation included in its first layer."""
    scaler, last = classifier[0], classifier[-1]
    if isinstance(last, LogisticRegression):
        weights, biases = [last.coef_.T], [last.intercept_]
    else:
        weights, biases = list(last.coefs_), list(last.intercepts_)
    if weights[-1].shape[1] == 1:  # of two classes sklearn keeps the logit of the second
        weights[-1] = np.hstack([np.zeros_like(weights[-1]), weights[-1]])
        biases[-1] = np.array([0.0, biases[-1].item()])
    biases[0] = biases[0] - (scaler.mean_ / scaler.scale_) @ weights[0]
    weights[0] = weights[0] / scaler.scale_[:, None]
    layers: list[nn.Module] = []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        linear = nn.Linear(*weight.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
            linear.bias.copy_(torch.from_numpy(np.asarray(bias)))
        layers += [nn.ReLU(), linear] if index else [linear]
    return nn.Sequential(*layers).eval()


def predict_held_out(
    rows: np.ndarray,
    labels: np.ndarray,
    recordings: np.ndarray,
    groups: np.ndarray,
    *,
    held_out: np.ndarray | None = None,
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
) -> Predictions:
    """Classify recordings by classifiers that have not seen their group.

    Args:
        rows: float (N, D), of tiles.
        labels: (N,) of the tiles; tiles without a label ("") are left out.
        recordings: (N,) the recording of each tile.
        groups: (N,) the group of each.
        held_out: bool (N,), the tiles to test on, all others being for training; None divides the groups into
            ``folds`` parts, each tested with a classifier of the others.
        kind: see `fit_classifier`.
        folds: 2 or more.
        seed: of the folds and the dense classifier.

    Raises:
        InputError: too few labels, recordings or groups.
    """
    parts = train_test_parts(labels, groups, held_out, folds, seed)
    known = labels != ""
    rows, labels, recordings, groups = rows[known], labels[known].astype(str), recordings[known], groups[known]
    classes = tuple(sorted(set(labels)))
    probabilities = np.full((len(rows), len(classes)), np.nan)
    for learn, judge in parts:
        classifier = fit_classifier(rows[learn], labels[learn], kind, seed)
        columns = np.searchsorted(classes, classifier.classes_)
        probabilities[judge] = 0.0
        probabilities[np.ix_(judge, columns)] = classifier.predict_proba(rows[judge])
    judged = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    names, first, owner = np.unique(recordings[judged].astype(str), return_index=True, return_inverse=True)
    sums = np.zeros((len(names), len(classes)))
    np.add.at(sums, owner, probabilities[judged])
    return Predictions(
        classes,
        names,
        groups[judged][first],
        np.searchsorted(classes, labels[judged][first]),
        sums / np.bincount(owner)[:, None],
    )


def train_test_parts(
    labels: np.ndarray, groups: np.ndarray, held_out: np.ndarray | None, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The labelled tiles to train and to test on, of every fold, counted without those that have no label.

    Args:
        labels, groups, held_out, folds, seed: see `predict_held_out`.

    Raises:
        InputError: too few labels, recordings or groups.
    """
    known = labels != ""
    if not known.any():
        raise InputError("no recording has a label: classifiers need them; give a folder per class")
    labels, groups = labels[known].astype(str), groups[known]
    if len(set(labels)) < 2:
        raise InputError(
            f"all recordings have the label {short_repr(str(labels[0]))}: a classifier needs two; give labels"
        )
    if held_out is None:
        return _folds(labels, groups, folds, seed)
    learn, judge = np.flatnonzero(~held_out[known]), np.flatnonzero(held_out[known])
    if not len(learn) or not len(judge):
        raise InputError("no labelled tile to learn from or none to judge by; give both parts")
    strange = sorted(set(labels[judge]) - set(labels[learn]))
    if strange:
        raise InputError(
            f"no recording to learn {short_repr(str(strange[0]))} from: it is among those to judge by only"
        )
    return [(learn, judge)]


def _folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    table = pd.DataFrame({"label": labels, "group": groups.astype(str)}).drop_duplicates()
    counts = table.groupby("label").size()
    if folds < 2:
        raise InputError(f"folds={short_repr(folds)}: give 2 or more")
    if counts.min() < folds:
        raise InputError(
            f"{short_repr(str(counts.idxmin()))} has {counts.min()} recordings or sessions: {folds} folds need as "
            "many; give fewer folds or more recordings"
        )
    # By group and in the groups' order, so that neither the order of tiles nor their number decides.
    units = table.drop_duplicates("group").sort_values("group")
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    part = np.empty(len(units), dtype=np.int64)
    for index, (_, judge) in enumerate(cut.split(units, units["label"], units["group"])):
        part[judge] = index
    of_tile = pd.Series(part, index=units["group"])[groups.astype(str)].to_numpy()
    return [(np.flatnonzero(of_tile != index), np.flatnonzero(of_tile == index)) for index in range(folds)]


@dataclass(frozen=True)
class Scores:
    """How good predictions are; intervals are 95 % of a bootstrap over groups."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float


def score(predictions: Predictions, seed: int = 0) -> Scores:
    """Accuracy and macro F1 over recordings (a class without prediction has F1 0)."""
    accuracies, f1s = _resampled(predictions, seed)
    truth, predicted = predictions.truth, predictions.predicted
    return Scores(
        float((truth == predicted).mean()),
        *_interval(accuracies),
        _macro_f1(truth, predicted, len(predictions.classes)),
        *_interval(f1s),
    )


def score_difference(first: Predictions, second: Predictions, seed: int = 0) -> Scores:
    """By how much ``first`` is better than ``second``, with the same bootstrap samples of groups for both.

    Raises:
        InputError: they are of other recordings.
    """
    if not np.array_equal(first.recordings, second.recordings):
        raise InputError("the two predictions are of other recordings: judge both by the same")
    (a, f), (b, g) = _resampled(first, seed), _resampled(second, seed)
    one, other = score(first, seed), score(second, seed)
    return Scores(one.accuracy - other.accuracy, *_interval(a - b), one.macro_f1 - other.macro_f1, *_interval(f - g))


def report(predictions: Predictions) -> pd.DataFrame:
    """A row per class: columns class, precision, recall, f1 and recordings (their number)."""
    known = range(len(predictions.classes))
    columns = precision_recall_fscore_support(
        predictions.truth, predictions.predicted, labels=list(known), zero_division=0.0
    )
    names = ("precision", "recall", "f1", "recordings")
    return pd.DataFrame({"class": predictions.classes, **dict(zip(names, columns, strict=True))})


def _resampled(predictions: Predictions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and macro F1 of every bootstrap sample of groups, each (BOOTSTRAPS,)."""
    random = np.random.default_rng(seed)
    _, owner = np.unique(predictions.groups.astype(str), return_inverse=True)
    members = [np.flatnonzero(owner == group) for group in range(owner.max() + 1)]
    accuracies, f1s = np.empty(BOOTSTRAPS), np.empty(BOOTSTRAPS)
    for index in range(BOOTSTRAPS):
        rows = np.concatenate([members[group] for group in random.integers(len(members), size=len(members))])
        truth, predicted = predictions.truth[rows], predictions.predicted[rows]
        accuracies[index] = (truth == predicted).mean()
        f1s[index] = _macro_f1(truth, predicted, len(predictions.classes))
    return accuracies, f1s


def _macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """As sklearn's, at a thousandth of its overhead; classes that appear in neither do not count."""
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    seen = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * hits[seen > 0] / seen[seen > 0]).mean())


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
