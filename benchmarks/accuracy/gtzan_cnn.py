"""Accuracy of GTZAN's small network, compared with logistic regression on the embeddings of published taggers.

python benchmarks/accuracy/gtzan_cnn.py [--data ../shared/data/gtzan_mini] [--out out/gtzan-cnn] [--seconds 3.96]
                                        [--crops 4]

Every track is tested once, by a network and by regressions that were fitted without it; all take the same folds, and
the regressions are fitted on the network's training and validation tracks together. Prints the accuracy of every fold,
their mean, the 95 % interval of the pooled accuracy (Wilson), the minutes of training, and the exact p-value of
McNemar's test of each regression and the network. Started again, it goes on where it was, and trains nothing twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from captum_concepts_gtzan.augmentations import Augmentation
from captum_concepts_gtzan.dataset import Track, Tracks, find_tracks
from captum_concepts_gtzan.evaluation import Evaluation
from captum_concepts_gtzan.experiments import SplitOptions, cross_validate, pooled
from captum_concepts_gtzan.training import TrainingOptions
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import captum_concepts as cc
from captum_concepts.audio.clips import Clip
from captum_concepts.cli.console import progress_bars
from captum_concepts.errors import InputError
from captum_concepts.training.schedule import Schedule

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options, parse

#: Name of the backbone, its weights, the layer whose mean over a track is its embedding.
TAGGERS = (
    ("essentia-musicnn", "essentia/msd-musicnn-1.pb", "model/dense/BiasAdd"),
    ("msd-vgg", "deezer/MSD_vgg.h5", "pool5"),
)


def embeddings(name: str, weights: Path, layer: str, tracks: Sequence[Track]) -> np.ndarray:
    """(N, D), the mean over each track."""
    backbone = cc.load_backbone(name, weights=str(weights))
    rows = []
    for track in tracks:
        blocks = [
            backbone.activations(block.inputs, [layer], "time")[layer] for block in backbone.read(Clip(track.path))
        ]
        rows.append(np.concatenate([block.cpu().numpy() for block in blocks]).mean(0))
    return np.stack(rows)


def regression(values: np.ndarray, tracks: Tracks, folds: int, seed: int) -> list[Evaluation]:
    """Logistic regression in every fold, its penalty chosen inside the fold."""
    place = {track.track_id: number for number, track in enumerate(tracks.tracks)}
    labels, found = tracks.labels(), []
    for fold in range(1, folds + 1):
        split = SplitOptions(folds=folds, fold=fold, seed=seed).parts(tracks)
        train = [place[track.track_id] for track in (*split.train, *split.validation)]
        test = [place[track.track_id] for track in split.test]
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        penalties = {"logisticregression__C": np.logspace(-4, 1, 6)}
        model = GridSearchCV(pipeline, penalties, cv=4, scoring="neg_log_loss").fit(values[train], labels[train])
        ids = tuple(tracks.tracks[number].track_id for number in test)
        found.append(Evaluation(tracks.genres, ids, labels[test], model.predict_proba(values[test])))
    return found


def show(name: str, accuracies: Sequence[float], everything: Evaluation, more: str = "") -> None:
    low, high = everything.interval
    folds = " ".join(f"{value:.2f}" for value in accuracies)
    print(
        f"{name:<34} mean {np.mean(accuracies):.3f}   pooled {everything.accuracy:.3f} [{low:.3f}, {high:.3f}]   "
        f"folds {folds}{more}",
        flush=True,
    )


def mcnemar(first: Evaluation, second: Evaluation) -> float:
    """Exact two-sided p-value that both are right equally often."""
    order = [{name: place for place, name in enumerate(each.track_ids)} for each in (first, second)]
    names = first.track_ids
    right = [
        np.array([each.predicted[at[name]] == each.truth[at[name]] for name in names])
        for each, at in zip((first, second), order, strict=True)
    ]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def main() -> None:
    parser = options(__doc__, quick="two folds, two epochs", data=DATA / "gtzan_mini", seed=0)
    parser.add_argument("--models", type=Path, default=DATA / "models")
    parser.add_argument("--out", type=Path, default=Path("out/gtzan-cnn"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.96)
    parser.add_argument("--crops", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--no-augment", action="store_true")
    given = parse(parser, {"folds": 2, "epochs": 2})
    if missing(given.data):
        return
    training = TrainingOptions(
        crops=given.crops, augmentation=Augmentation.none(0.002) if given.no_augment else Augmentation()
    )
    with progress_bars(quiet=False) as progress:
        network = cross_validate(
            "gtzan-cnn",
            given.data,
            given.out,
            folds=given.folds,
            schedule=Schedule(epochs=given.epochs, seed=given.seed, device="cpu"),
            options=training,
            model_options={"seconds": given.seconds},
            progress=progress,
        )
    cards = [json.loads((given.out / f"fold-{fold}" / "run.json").read_text()) for fold in range(1, given.folds + 1)]
    minutes = " ".join(f"{card['seconds'] / 60:.1f}" for card in cards)
    epochs = " ".join(str(len(card["history"])) for card in cards)
    show("gtzan-cnn", network.accuracies, network.pooled, f"   minutes {minutes}   epochs {epochs}")
    tracks = find_tracks(given.data)
    for name, weights, layer in TAGGERS:
        try:
            values = embeddings(name, given.models / weights, layer, tracks.tracks)
        except InputError as error:
            print(f"{name}: {error}")
            continue
        found = regression(values, tracks, given.folds, given.seed)
        more = f"   compared with gtzan-cnn p {mcnemar(pooled(found), network.pooled):.2g}"
        show(f"logistic on {Path(weights).stem} {layer}", [each.accuracy for each in found], pooled(found), more)


if __name__ == "__main__":
    main()
