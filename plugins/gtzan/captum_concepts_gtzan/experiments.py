"""From a folder of music to a trained and tested classifier: one run, or one for each fold."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_concepts.audio import file_digest
from captum_concepts.errors import InputError
from captum_concepts.storage import written
from captum_concepts.text import short_repr
from captum_concepts.training import RunFolder, Schedule
from captum_concepts.types import Progress
from captum_concepts_gtzan.batches import read_recordings
from captum_concepts_gtzan.dataset import Tracks, find_tracks
from captum_concepts_gtzan.evaluation import Evaluation, evaluate, load_classifier
from captum_concepts_gtzan.models import build_model
from captum_concepts_gtzan.splits import Split, file_split, filtered_split, k_fold, stratified_split

if TYPE_CHECKING:
    from captum_concepts_gtzan.training import TrainingOptions

_log = logging.getLogger("captum_concepts.gtzan")
FILTERED_TRACKS = 930  # in GTZAN's fault-filtered lists


@dataclass(frozen=True)
class SplitOptions:
    """How a data set is split into training, validation and test tracks.

    Attributes:
        split: "filtered" (GTZAN's fault-filtered, artist-separated parts), "stratified", a folder that holds
            ``train_filtered.txt`` and its siblings, or "auto": "filtered" where nine tenths of its tracks are present,
            else "stratified".
        folds, fold: cross-validation by track instead: of so many folds, which is tested (from 1).
        seed: of the random split.
    """

    split: str = "auto"
    folds: int | None = None
    fold: int | None = None
    seed: int = 0

    def parts(self, tracks: Tracks) -> Split:
        """Training, validation and test.

        Raises:
            InputError: see `captum_concepts_gtzan.splits`; or a fold without folds.
        """
        if (self.folds is None) != (self.fold is None):
            raise InputError("folds, fold: belong together; give both, e.g. folds=5 and fold=1, or neither")
        if self.folds is not None and self.fold is not None:
            if not 1 <= self.fold <= self.folds:
                raise InputError(f"fold={short_repr(self.fold)}: give 1 to {self.folds}")
            return k_fold(tracks, self.folds, self.seed)[self.fold - 1]
        if self.split == "stratified":
            return stratified_split(tracks, seed=self.seed)
        if self.split == "filtered":
            return filtered_split(tracks)
        if self.split != "auto":
            return file_split(tracks, self.split)
        try:
            found = filtered_split(tracks)
            if len(found.train) + len(found.validation) + len(found.test) >= 0.9 * FILTERED_TRACKS:
                return found
        except InputError:  # not GTZAN
            pass
        return stratified_split(tracks, seed=self.seed)

    def described(self) -> dict[str, Any]:
        """What a run keeps of it, next to its seed."""
        return {"split": self.split, "folds": self.folds, "fold": self.fold}

    @classmethod
    def of_run(cls, options: Mapping[str, Any]) -> SplitOptions | None:
        """The one that a run was trained with; None where its options do not say."""
        try:
            return cls(str(options["split"]), options["folds"], options["fold"], int(options["seed"]))
        except (KeyError, TypeError, ValueError):
            return None


def train_and_test(
    name: str,
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    schedule: Schedule,
    options: TrainingOptions | None = None,
    model_options: Mapping[str, Any] | None = None,
    split_options: SplitOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Train a network on one part of a data set and test the weights of its best epoch on another.

    Writes what `captum_concepts.training.fit` writes, ``evaluation.json`` and ``confusion.png`` into ``out``. Tracks
    that cannot be used are named in a warning and in the evaluation, and count nowhere.

    Args:
        name: one of ``models.MODELS``.
        data: folder with one subfolder per genre.
        out: folder of the run; a killed run resumes, a finished one is only tested.
        schedule: how long and where; its seed also splits the data.
        options: how the network learns.
        model_options: of the network, e.g. ``seconds``.
        split_options: how the data are split; with the seed of the schedule by default.
        progress: called with the stages "read training", "read validation", "train" and "classify".

    Raises:
        InputError: bad data, options or folder.
    """
    from captum_concepts_gtzan.training import train_network

    tracks = find_tracks(data)
    split_options = split_options or SplitOptions(seed=schedule.seed)
    split = split_options.parts(tracks)
    for line in (*tracks.skipped, *split.notes):
        _log.warning("%s", line)
    rate = build_model(name, **{"n_classes": len(tracks.genres), **(model_options or {})}).sample_rate
    parts = {}
    for stage, part in (("read training", split.train), ("read validation", split.validation)):
        parts[stage] = read_recordings(part, tracks.genres, rate, progress, stage)
        for line in parts[stage].skipped:
            _log.warning("%s", line)
    weights = train_network(
        name,
        parts["read training"],
        parts["read validation"],
        tracks.genres,
        out,
        schedule=schedule,
        options=options,
        model_options=model_options,
        described=split_options.described(),
        progress=progress,
    )
    found = evaluate(load_classifier(weights, device=schedule.device), split.test, progress)
    skipped = (*parts["read training"].skipped, *parts["read validation"].skipped, *found.skipped)
    for line in found.skipped:
        _log.warning("%s", line)
    found = Evaluation(found.classes, found.track_ids, found.truth, found.probabilities, (*tracks.skipped, *skipped))
    found.save(out)
    return found


@dataclass(frozen=True)
class CrossValidation:
    """Folds, each trained without the tracks it was tested on.

    Attributes:
        accuracies: of each fold.
        pooled: the predictions of all folds; every track is in it once.
    """

    accuracies: tuple[float, ...]
    pooled: Evaluation

    @property
    def mean(self) -> float:
        """Mean accuracy of the folds."""
        return float(np.mean(self.accuracies))

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it; ``interval`` is that of the pooled accuracy."""
        return {"mean_accuracy": self.mean, "fold_accuracies": self.accuracies, **self.pooled.as_json()}


def cross_validate(
    name: str,
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    folds: int = 5,
    schedule: Schedule,
    options: TrainingOptions | None = None,
    model_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """`train_and_test` for each fold, in ``out/fold-1`` and so on; arguments as there.

    Writes ``cross-validation.json`` and, of all folds, ``evaluation.json`` and ``confusion.png``.
    """
    found: list[Evaluation] = []
    for fold in range(1, folds + 1):
        shown_progress = None if progress is None else _of_fold(progress, fold, folds)
        split_options = SplitOptions(folds=folds, fold=fold, seed=schedule.seed)
        found.append(
            train_and_test(
                name,
                data,
                Path(out) / f"fold-{fold}",
                schedule=schedule,
                options=options,
                model_options=model_options,
                split_options=split_options,
                progress=shown_progress,
            )
        )
    result = CrossValidation(tuple(each.accuracy for each in found), pooled(found))
    result.pooled.save(out)
    with written(Path(out) / "cross-validation.json") as path:
        path.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    return result


def _of_fold(progress: Progress, fold: int, folds: int) -> Progress:
    return lambda stage, done, total: progress(f"fold {fold}/{folds} {stage}", done, total)


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The predictions of several evaluations as one.

    Raises:
        InputError: they have different classes.
    """
    classes = evaluations[0].classes
    if any(each.classes != classes for each in evaluations):
        raise InputError("evaluations: of different classes; give those of one data set")
    return Evaluation(
        classes,
        tuple(track for each in evaluations for track in each.track_ids),
        np.concatenate([each.truth for each in evaluations]),
        np.concatenate([each.probabilities for each in evaluations]),
        tuple(dict.fromkeys(line for each in evaluations for line in each.skipped)),
    )


def train_support_vectors(
    out: str | PathLike[str],
    *,
    data: str | PathLike[str] | None = None,
    features: str | PathLike[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit a support vector machine to all tracks, and say how accurate the whole procedure is on unseen ones.

    Writes ``model.safetensors``, ``run.json`` and, of ``data``, ``features.csv`` into ``out``; started again, it takes
    the features that are there, and does nothing more once it is finished.

    Args:
        out: folder of the run.
        data: folder with one subfolder per genre, whose features are computed; or
        features: a table of features in Kaggle's layout.
        folds: of the nested cross-validation and of the grid search in it.
        seed: of the folds.
        jobs: processes of the grid search.
        progress: called with the stages "features" and "folds".

    Returns:
        The card: ``accuracy`` (nested), ``fold_accuracies``, ``best`` (grid point), ``skipped`` and more.

    Raises:
        InputError: both or none of ``data`` and ``features``, or bad ones.
    """
    if (data is None) == (features is None):
        raise InputError("data, features: give one of them, a folder of audio or a table")
    run = RunFolder(out)
    with run.held():
        return _train_support_vectors(run, data, features, folds, seed, jobs, progress)


def _train_support_vectors(
    run: RunFolder,
    data: str | PathLike[str] | None,
    features: str | PathLike[str] | None,
    folds: int,
    seed: int,
    jobs: int,
    progress: Progress | None,
) -> dict[str, Any]:
    from captum_concepts_gtzan.features import extract_features, features_version, read_features, write_features
    from captum_concepts_gtzan.svm import nested_accuracy, train_svm

    tracks = None if data is None else find_tracks(data)
    digest = file_digest(str(features)) if tracks is None else f"{features_version()} {_digest(tracks)}"
    card = run.begin({"model": "gtzan-svm", "data": digest, "options": {"folds": folds, "seed": seed}})
    if card["finished"] and run.weights.is_file():
        return card
    kept = run.folder / "features.csv"
    skipped: tuple[str, ...] = card.get("skipped", ())
    if tracks is None:
        table = read_features(str(features))
    elif kept.is_file():
        table = read_features(kept)
    else:
        table = extract_features(tracks, progress)
        skipped = table.skipped
        run.write({**card, "skipped": skipped})
        with written(kept) as path:
            write_features(table, path)
    for line in skipped:
        _log.warning("%s", line)
    nested = nested_accuracy(table, folds=folds, seed=seed, jobs=jobs, progress=progress)
    trained = train_svm(table, folds=folds, seed=seed, jobs=jobs)
    trained.model.save(run.weights)
    right = np.array(nested.predicted) == np.array(table.labels)
    card |= {
        "finished": True,
        "accuracy": float(right.mean()),
        "fold_accuracies": list(nested.accuracy),
        "best": trained.best,
        "best_in_folds": nested.best,
        "tracks": len(table.labels),
        "skipped": skipped,
    }
    run.write(card)
    return card


def _digest(tracks: Tracks) -> str:
    digest = hashlib.sha256()
    for track in tracks.tracks:
        digest.update(f"{track.track_id}\0{track.genre}\0{file_digest(track.path)}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
