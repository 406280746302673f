"""A support vector machine on named features: trained with scikit-learn, kept as plain numbers, computed by torch.

What scikit-learn fits is written as tensors (support vectors, weights of each pair of classes) and computed again here,
so that no file needs unpickling and the decision has exact gradients.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

from captum_concepts.backbones import class_names
from captum_concepts.errors import InputError
from captum_concepts.storage import write_weights
from captum_concepts.text import short_repr
from captum_concepts_gtzan.features import FEATURES, MIN_SECONDS, SAMPLE_RATE, FeatureTable
from captum_concepts_gtzan.models import MAX_SECONDS

FORMAT = "captum-concepts-gtzan svm 1"
#: GTZAN's, for tables that do not tell.
TRACK_SECONDS = 30.0
#: AudioConcept's grid, with the gamma of its best machine.
GRID: tuple[dict[str, list[Any]], ...] = (
    {"kernel": ["linear"], "C": [0.1, 1, 5, 10, 100]},
    {"kernel": ["rbf"], "C": [0.1, 1, 5, 10, 100], "gamma": ["scale", 0.001, 0.01, 0.1, 1]},
)
_SLOPES = np.geomspace(0.5, 32, 49)


class CorrelationFilter(TransformerMixin, BaseEstimator):
    """Keeps features that vary and say something new.

    From the largest variance to the smallest, a feature is kept unless it is constant or its correlation with one
    already kept is above ``threshold`` in absolute value: of two correlated features, the one of lower variance is
    dropped. Equal variances: the earlier column first.

    Attributes:
        kept_: int64, the kept columns in their order (after `fit`).
    """

    def __init__(self, threshold: float = 0.9) -> None:
        self.threshold = threshold

    def fit(self, X: np.ndarray, y: object = None) -> CorrelationFilter:
        """Choose columns of ``X`` (N, F)."""
        varies = np.flatnonzero(np.ptp(X, axis=0) > 0)
        correlation = np.abs(np.atleast_2d(np.corrcoef(X[:, varies], rowvar=False)))
        kept: list[int] = []
        for place in np.argsort(-np.var(X[:, varies], axis=0), kind="stable"):
            if not (correlation[place, kept] > self.threshold).any():
                kept.append(int(place))
        self.kept_ = varies[sorted(kept)]
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(N, F) to (N, len(kept_))."""
        return np.asarray(X)[:, self.kept_]


class SvmModel(nn.Module):
    """Standardised features (N, F) to log-probabilities (N, C), in float64 and differentiable.

    Pairwise margins m_cd of classes c and d become p_cd = sigmoid(slope * m_cd), and these become
    p_c = 1 / (sum over d of 1 / p_cd - (C - 2)), normalised (D. Price, S. Knerr, L. Personnaz, G. Dreyfus, "Pairwise
    neural network classifiers with probabilistic outputs", NIPS 1994). One slope is fitted to margins on held-out
    folds. The most probable class may differ from the vote of all pairs, which is what scikit-learn's ``predict``
    gives: see `vote`.

    Args:
        features: names of the F features.
        classes: names of the C classes.
        tensors: ``mean``, ``scale`` (F,); ``support`` (S, F), standardised; ``weights`` (P, S) and ``intercept`` (P,)
            of the P = C (C - 1) / 2 pairs in the order (0, 1), (0, 2), ..., positive for the first; ``slope`` ().
        gamma: of the RBF kernel; None is the linear kernel.
        seconds: the median length of the tracks it was trained on; audio is given to it in pieces of this length, as
            "length" is one of the features and others depend on it.

    Raises:
        InputError: shapes that do not fit, or values that are not finite.
    """

    mean: Tensor
    scale: Tensor
    support: Tensor
    weights: Tensor
    intercept: Tensor
    slope: Tensor

    def __init__(
        self,
        features: Sequence[str],
        classes: Sequence[str],
        tensors: Mapping[str, Tensor],
        gamma: float | None,
        seconds: float = TRACK_SECONDS,
    ) -> None:
        super().__init__()
        self.seconds = float(seconds)
        if not MIN_SECONDS <= self.seconds <= MAX_SECONDS:
            raise InputError(f"svm: seconds={short_repr(seconds)}: give {MIN_SECONDS:g} to {MAX_SECONDS:g}")
        self.features = tuple(map(str, features))
        self.classes = class_names(classes)
        self.gamma = None if gamma is None else float(gamma)
        if self.gamma is not None and not 0 < self.gamma < math.inf:
            raise InputError(f"svm: gamma={short_repr(gamma)}: give a positive number; train the machine again")
        pairs = len(self.classes) * (len(self.classes) - 1) // 2
        vectors = len(tensors["support"]) if "support" in tensors and tensors["support"].dim() else 0
        shapes = {
            "mean": (len(self.features),),
            "scale": (len(self.features),),
            "support": (vectors, len(self.features)),
            "weights": (pairs, vectors),
            "intercept": (pairs,),
            "slope": (),
        }
        for name, shape in shapes.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                have = tuple(tensors[name].shape) if name in tensors else "missing"
                raise InputError(f"svm: {name} is {have}, expected {shape}; train the machine again")
            value = tensors[name].detach().to(torch.float64)
            if not value.isfinite().all() or (name in ("scale", "slope") and not (value > 0).all()):
                raise InputError(f"svm: {name} holds NaN, infinite or impossible values; train the machine again")
            self.register_parameter(name, nn.Parameter(value.clone(), requires_grad=False))
        self._pairs = torch.tensor(list(combinations(range(len(self.classes)), 2))).reshape(-1, 2)

    def standardise(self, values: np.ndarray) -> Tensor:
        """Raw features (N, F) to float64 (N, F) with the mean 0 and the variance 1 of the training data."""
        return (torch.as_tensor(values, dtype=torch.float64) - self.mean) / self.scale

    def margins(self, standardised: Tensor) -> Tensor:
        """Signed margin of each pair (N, P), as scikit-learn's ``decision_function`` of shape "ovo"."""
        if self.gamma is None:
            kernel = standardised @ self.support.T
        else:
            squares = standardised.square().sum(1, keepdim=True) + self.support.square().sum(1)
            kernel = (-self.gamma * (squares - 2 * standardised @ self.support.T)).exp()
        return kernel @ self.weights.T + self.intercept

    def forward(self, standardised: Tensor) -> Tensor:
        """Standardised features (N, F) to log-probabilities (N, C)."""
        scaled = self.slope * self.margins(standardised)
        square = scaled.new_zeros(len(scaled), len(self.classes), len(self.classes))
        first, second = self._pairs.to(scaled.device).T
        square[:, first, second] = -scaled
        square[:, second, first] = scaled
        # 1 / p_cd = 1 + exp(-slope m_cd), so 1 / p_c = 1 + their sum; the zero of d = c is that 1.
        return torch.log_softmax(-torch.logsumexp(square, 2), 1)

    def vote(self, standardised: Tensor) -> Tensor:
        """int64 (N,), the class that wins most pairs, of equals the first: scikit-learn's ``SVC.predict``."""
        margins = self.margins(standardised)
        first, second = self._pairs.to(margins.device).T
        won = torch.where(margins > 0, first, second)
        return torch.nn.functional.one_hot(won, len(self.classes)).sum(1).argmax(1)

    def version(self) -> str:
        """Hash of all numbers and names."""
        digest = hashlib.sha256(json.dumps([FORMAT, self.features, self.classes, self.gamma, self.seconds]).encode())
        for _, value in sorted(self.named_parameters()):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file; a crash leaves the file that was there."""
        described = {name: getattr(self, name) for name in ("features", "classes", "gamma", "seconds")}
        write_weights(path, dict(self.named_parameters()), {"format": FORMAT, "svm": json.dumps(described)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SvmModel:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, another file, or one that was damaged.
        """
        where = f"weights={short_repr(str(path), 200)}"
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{where}: not a safetensors file ({reason}); train one with gtzan train svm") from None
        if metadata.get("format") != FORMAT:
            raise InputError(f"{where}: not a support vector machine of this program; train one with gtzan train svm")
        try:
            described = json.loads(metadata["svm"])
            return cls(described["features"], described["classes"], tensors, described["gamma"], described["seconds"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (KeyError, TypeError, ValueError, RecursionError):
            raise InputError(f"{where}: its description is damaged; train the machine again") from None


@dataclass(frozen=True)
class Trained:
    """A machine and how it was found.

    Attributes:
        model: fitted to all tracks.
        best: the chosen grid point.
        accuracy: of the grid point, mean over the folds of the search; optimistic, as the best of many.
        grid: each grid point with its ``accuracy`` and ``std`` over the folds.
    """

    model: SvmModel
    best: dict[str, Any]
    accuracy: float
    grid: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Nested:
    """Accuracy on tracks that took part in no choice.

    Attributes:
        accuracy: (k,), of each outer fold.
        best: the grid point chosen inside each fold.
        features: how many features the filter left in each fold.
        predicted: N predicted genres, each by the machine of the fold that did not see the track.
    """

    accuracy: np.ndarray
    best: tuple[dict[str, Any], ...]
    features: tuple[int, ...]
    predicted: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean over the folds."""
        return float(self.accuracy.mean())


def svm_pipeline(threshold: float = 0.9) -> Pipeline:
    """Correlation filter, standardisation, machine: one estimator, so that each fold fits all of it."""
    return Pipeline([("filter", CorrelationFilter(threshold)), ("scale", StandardScaler()), ("svm", SVC())])


def train_svm(
    table: FeatureTable,
    features: Sequence[str] = FEATURES,
    grid: Sequence[Mapping[str, Sequence[Any]]] = GRID,
    *,
    folds: int = 5,
    threshold: float = 0.9,
    seed: int = 42,
    jobs: int = 1,
) -> Trained:
    """Search the grid by cross-validation, fit the best machine to all tracks, and fit its probabilities.

    Args:
        table: features and genres.
        features: columns to use.
        grid: grid points of `SVC`: ``C``, ``kernel`` ("linear" or "rbf"), ``gamma``.
        folds: of the search, stratified.
        threshold: see `CorrelationFilter`.
        seed: of the folds.
        jobs: processes.

    Raises:
        InputError: no such column, fewer than two genres, or a genre with fewer tracks than folds.
    """
    values, labels = table.select(features), _labels(table, folds)
    search = _search(grid, folds, threshold, seed, jobs).fit(values, labels)
    fitted = search.best_estimator_
    tuned = Pipeline([*fitted.steps[:-1], ("svm", _pairwise(fitted.named_steps["svm"]))])
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    held_out = cross_val_predict(tuned, values, labels, cv=parts, method="decision_function")
    results = search.cv_results_
    points = tuple(
        {**_plain(point), "accuracy": float(mean), "std": float(std)}
        for point, mean, std in zip(
            results["params"], results["mean_test_score"], results["std_test_score"], strict=True
        )
    )
    model = _exported(fitted, features, _slope(_oriented(held_out), labels), _seconds(table))
    return Trained(model, _plain(search.best_params_), float(search.best_score_), points)


def nested_accuracy(
    table: FeatureTable,
    features: Sequence[str] = FEATURES,
    grid: Sequence[Mapping[str, Sequence[Any]]] = GRID,
    *,
    folds: int = 5,
    threshold: float = 0.9,
    seed: int = 42,
    jobs: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Nested:
    """Accuracy of the whole procedure: filter, scaling and grid search see only the training part of each outer fold.

    Arguments as in `train_svm`; ``progress`` is called as ``progress("folds", done, total)``.
    """
    values, labels = table.select(features), _labels(table, folds)
    predicted = np.empty(len(labels), dtype=object)
    accuracy, best, kept = [], [], []
    outer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for done, (train, test) in enumerate(outer.split(values, labels), 1):
        search = _search(grid, folds, threshold, seed, jobs).fit(values[train], labels[train])
        predicted[test] = search.predict(values[test])
        accuracy.append(float(np.mean(predicted[test] == labels[test])))
        best.append(_plain(search.best_params_))
        kept.append(len(search.best_estimator_.named_steps["filter"].kept_))
        if progress is not None:
            progress("folds", done, folds)
    return Nested(np.array(accuracy), tuple(best), tuple(kept), tuple(map(str, predicted)))


def _search(
    grid: Sequence[Mapping[str, Sequence[Any]]], folds: int, threshold: float, seed: int, jobs: int
) -> GridSearchCV:
    points = [{f"svm__{name}": list(choices) for name, choices in part.items()} for part in grid]
    inner = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return GridSearchCV(svm_pipeline(threshold), points, cv=inner, scoring="accuracy", n_jobs=jobs)


def _labels(table: FeatureTable, folds: int) -> np.ndarray:
    labels = np.array(table.labels)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise InputError(f"labels: {len(names)} genre in the table; give two or more")
    if not isinstance(folds, int) or not 2 <= folds <= counts.min():
        raise InputError(
            f"folds={short_repr(folds)}: give 2 or more, and at most the {counts.min()} tracks of "
            f"{short_repr(str(names[counts.argmin()]))}"
        )
    return labels


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("svm__"): value for name, value in params.items()}


def _pairwise(machine: SVC) -> SVC:
    return SVC(**{**machine.get_params(), "decision_function_shape": "ovo"})


def _oriented(margins: np.ndarray) -> np.ndarray:
    """(N, P), positive for the first class of each pair; for two classes scikit-learn gives (N,), positive for the
    second."""
    return -margins[:, None] if margins.ndim == 1 else margins


def _slope(margins: np.ndarray, labels: np.ndarray) -> float:
    """The slope under which held-out tracks of both classes of a pair are most likely, all pairs together."""
    names = np.unique(labels)
    signed = []
    for pair, (first, second) in enumerate(combinations(range(len(names)), 2)):
        signed += [margins[labels == names[first], pair], -margins[labels == names[second], pair]]
    margin = np.concatenate(signed)
    return float(_SLOPES[np.argmin([np.logaddexp(0, -slope * margin).mean() for slope in _SLOPES])])


def _seconds(table: FeatureTable) -> float:
    if "length" not in table.names:
        return TRACK_SECONDS
    # The median is the length that most of GTZAN's tracks have; their mean is 10 ms above it, and they would be looped.
    return float(np.clip(np.median(table.select(["length"])) / SAMPLE_RATE, MIN_SECONDS, MAX_SECONDS))


def _exported(fitted: Pipeline, features: Sequence[str], slope: float, seconds: float) -> SvmModel:
    machine, scaler = fitted.named_steps["svm"], fitted.named_steps["scale"]
    classes = [str(name) for name in machine.classes_]
    starts = np.concatenate([[0], np.cumsum(machine.n_support_)])
    weights = np.zeros((len(classes) * (len(classes) - 1) // 2, len(machine.support_vectors_)))
    sign = -1.0 if len(classes) == 2 else 1.0  # scikit-learn turns the sign of a single pair
    for pair, (first, second) in enumerate(combinations(range(len(classes)), 2)):
        # Row d - 1 (or d) of the coefficients of a class's vectors is for the pair with class d.
        for own, other in ((first, second - 1), (second, first)):
            vectors = slice(starts[own], starts[own + 1])
            weights[pair, vectors] = sign * machine.dual_coef_[other, vectors]
    tensors = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "support": machine.support_vectors_,
        "weights": weights,
        "intercept": sign * machine.intercept_,
        "slope": np.array(slope),
    }
    gamma = float(machine._gamma) if machine.kernel == "rbf" else None  # the number that "scale" became
    names = [features[column] for column in fitted.named_steps["filter"].kept_]
    arrays = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    return SvmModel(names, classes, arrays, gamma, seconds)
