"""Accuracy of a support vector machine on the published features, and of the protocol that gave it 0.76.

    python benchmarks/accuracy/gtzan_svm.py                # ../shared/data/gtzan_features/features_30_sec.csv
    python benchmarks/accuracy/gtzan_svm.py --audio        # and the features computed from the audio of gtzan_mini

Without leakage: nested 5-fold cross-validation by track, with the correlation filter, the scaling and the whole grid
search inside each fold. Published protocol: filter and scaling fitted to all tracks, one split of 80 to 20. Artists:
the fault-filtered parts of torchaudio, in which no artist is in two, trained on 443 + 197 tracks and tested on 290.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from captum_concepts_gtzan.features import COLUMNS, FEATURES, FeatureTable, read_features, track_features
from captum_concepts_gtzan.svm import GRID, CorrelationFilter, nested_accuracy, train_svm
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options, time_runs, wilson


def timed(run: Callable[[], str]) -> None:
    times = time_runs(run, 1, warm_up=0)
    print(f"{times.result}  [{times.median:.0f} s]", flush=True)


def nested(table: FeatureTable, features: Sequence[str], seeds: int, jobs: int) -> str:
    results = [nested_accuracy(table, features, seed=seed, jobs=jobs) for seed in range(seeds)]
    folds = np.concatenate([result.accuracy for result in results])
    truth = np.array(table.labels)
    right = int(np.mean([(np.array(result.predicted) == truth).sum() for result in results]).round())
    low, high = wilson(right, len(truth))
    chosen = sorted({tuple(sorted(best.items())) for result in results for best in result.best}, key=str)
    return (
        f"{folds.mean():.3f} (95 % {low:.3f} to {high:.3f}; sd of folds {folds.std(ddof=1):.3f}; "
        f"seeds {', '.join(f'{result.mean:.3f}' for result in results)}); chosen: "
        + "; ".join(" ".join(f"{name}={value}" for name, value in point) for point in chosen)
    )


def published_protocol(table: FeatureTable, seed: int, jobs: int) -> str:
    """Filter and scaler see the test rows too, and there is one split."""
    values = StandardScaler().fit_transform(CorrelationFilter().fit_transform(table.select(FEATURES)))
    train, test, y_train, y_test = train_test_split(values, table.labels, test_size=0.2, random_state=seed)
    search = GridSearchCV(SVC(), [dict(part) for part in GRID], cv=5, n_jobs=jobs).fit(train, y_train)
    return f"{search.score(test, y_test):.3f} on {len(y_test)} tracks; chosen: {search.best_params_}"


def artists(table: FeatureTable, jobs: int) -> str:
    from torchaudio.datasets import gtzan

    names = np.array([name.removesuffix(".wav") for name in table.ids])
    seen = np.isin(names, [*gtzan.filtered_train, *gtzan.filtered_valid])
    held = np.isin(names, gtzan.filtered_test)
    labels = np.array(table.labels)
    part = FeatureTable(tuple(names[seen]), table.names, table.values[seen], tuple(labels[seen]))
    trained = train_svm(part, jobs=jobs)
    rows = trained.model.standardise(table.select(trained.model.features)[held])
    found = np.array(trained.model.classes)[trained.model.vote(rows).numpy()]
    right = int((found == labels[held]).sum())
    low, high = wilson(right, int(held.sum()))
    return (
        f"{right / held.sum():.3f} (95 % {low:.3f} to {high:.3f}) on {held.sum()} tracks; "
        f"{trained.accuracy:.3f} by cross-validation among the {seen.sum()} others; chosen: {trained.best}"
    )


def audio(table: FeatureTable, tracks: Path) -> str:
    """Largest difference from the table, in standard deviations of each column."""
    deviation = table.values.std(axis=0)
    worst = np.zeros(len(COLUMNS))
    paths = sorted(tracks.glob("*/*.flac"))
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        ours = track_features(samples, rate)
        row = table.values[table.ids.index(f"{path.stem}.wav")]
        worst = np.maximum(worst, np.abs([ours[name] for name in COLUMNS] - row) / deviation)
    exact = [name for name, value in zip(COLUMNS, worst, strict=True) if value == 0]
    order = np.argsort(-worst)[:6]
    return (
        f"features of {len(paths)} tracks: largest difference in standard deviations of the column "
        + ", ".join(f"{COLUMNS[place]} {worst[place]:.1e}" for place in order)
        + f"; exact: {', '.join(exact)}"
    )


def main() -> None:
    parser = options(__doc__, data=DATA)
    parser.add_argument("--table", type=Path, help="default: DATA/gtzan_features/features_30_sec.csv")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--audio", action="store_true")
    given = parser.parse_args()
    path = given.table or given.data / "gtzan_features" / "features_30_sec.csv"
    if missing(path):
        return
    table = read_features(path)
    jobs = given.jobs
    without = [name for name in FEATURES if name != "length"]
    timed(lambda: f"nested 5-fold, 56 features: {nested(table, FEATURES, given.seeds, jobs)}")
    timed(lambda: f"nested 5-fold, without the file's length: {nested(table, without, given.seeds, jobs)}")
    timed(lambda: f"published protocol: {published_protocol(table, 42, jobs)}")
    timed(lambda: f"unseen artists: {artists(table, jobs)}")
    if given.audio:
        timed(lambda: audio(table, given.data / "gtzan_mini" / "genres"))


if __name__ == "__main__":
    main()
