"""Accuracy of an embedding that was learnt without labels, compared with an untrained one and pooled log-mel.

    python benchmarks/accuracy/tile2vec.py                     # both sections, minutes on two cores
    python benchmarks/accuracy/tile2vec.py --only genres       # GTZAN: 5 folds of tracks, logistic regression
    python benchmarks/accuracy/tile2vec.py --only instruments  # Philharmonia: k-means compared with instruments

Genres: in each fold the embedding is learnt, without labels, from the tracks outside the fold alone; so is the
regression, with labels. A second embedding, in closed form (Fisher's discriminants of recordings), is
fitted on the same tracks, without labels too. Every input is treated the same: rows of tiles of 2.5 s,
standardised, logistic regression. Judged are tiles, as in the original, and tracks, their tiles' probabilities
averaged; the folds can be drawn more than once. The setting was chosen with the labels of the first five tracks of each
genre, so figures are also given of the other five (the regression learns from all tracks outside the fold).

Instruments: the notes of each instrument are drawn in random order and put together into recordings; the embedding is
learnt from five of six, and k-means (as many clusters as instruments) is judged on the sixth. Intervals are 95 %, from
a bootstrap over recordings, the same draws for both sides of a difference. Files are written to a temporary folder
only.

The setting is a reduced one. The full one, for a GPU and all of GTZAN, would be (it was not run here):

    captum-concepts tile2vec train --layout gtzan --data gtzan/ --out run/ --model ResNet18 --size 256 --tile 5 \
        --hop 1 --batch-size 512 --mining semi-hard --learning-rate 1e-3 --decay-steps 1000 --l2 1e-4 --epochs 100 \
        --workers 12 --cache features/
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from captum_concepts_tile2vec.checkpoints import Settings, Tile2Vec, load_tile2vec, untrained
from captum_concepts_tile2vec.classifiers import Predictions, predict_held_out, score, score_difference
from captum_concepts_tile2vec.data import Recording, folder_recordings, split_by_group
from captum_concepts_tile2vec.discriminants import fit_discriminants
from captum_concepts_tile2vec.embedding_analysis import cluster
from captum_concepts_tile2vec.features import CachedFeatures, pooled
from captum_concepts_tile2vec.tiles import Tiles, find_tiles
from captum_concepts_tile2vec.training import TrainingOptions, train
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.patches import read_clip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, bootstrap_rows, missing, options, parse, percentile_interval, time_runs

GENRES = Settings("ContrastNet", size=64, seconds=2.5)
GENRES_TRAINING = TrainingOptions(
    epochs=8, batch_size=128, learning_rate=3e-3, decay=0.7, decay_steps=20, mining="all", l2=0.01, neighbourhood=30.0
)
INSTRUMENTS = Settings("StatisticsNet", size=256, seconds=1.0)
INSTRUMENTS_TRAINING = TrainingOptions(
    epochs=10, batch_size=256, learning_rate=1e-3, decay=0.9, decay_steps=10, margin=1.0, mining="none", l2=0.0
)
Rows = dict[str, np.ndarray]
BOOTSTRAPS = 1000


def inputs(model: Tile2Vec, tiles: Tiles, cache: Path) -> Rows:
    """Rows (N, D) of all tiles from each of the inputs that are compared."""
    kept = CachedFeatures(tiles, model.features, cache)
    blocks = [kept.read(range(first, min(first + 64, len(tiles)))) for first in range(0, len(tiles), 64)]
    blank = untrained(model.settings, seed=0)
    wide = untrained(replace(model.settings, size=256), seed=0)
    statistics = model.network.get_submodule("encoder.0")
    with torch.no_grad():
        ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "embedding": lambda block: model.embed(block, ready=True),
            "untrained": lambda block: blank.embed(block, ready=True),
            **({} if model.settings.size == 256 else {"wide untrained": lambda block: wide.embed(block, ready=True)}),
            "pooled log-mel": pooled,
            "statistics": statistics,  # what the network begins with
        }
        return {name: torch.cat([way(block) for block in blocks]).numpy() for name, way in ways.items()}


def learn(
    recordings: list[Recording], settings: Settings, hop: float, share: float, folder: Path, options: TrainingOptions
) -> Tile2Vec:
    """An embedding of some recordings, without their labels; a share of them chooses the epoch."""
    parts = split_by_group(recordings, share, seed=0)
    tiles, judged = (find_tiles(part, settings.seconds, hop) for part in (parts.train, parts.evaluate))
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    return load_tile2vec(train(tiles, judged, out, settings, options, device="cpu", cache=folder / "cache"))


def merged(parts: list[Predictions]) -> Predictions:
    """The predictions of all folds, sorted by name."""
    order = np.argsort(np.concatenate([part.recordings for part in parts]))
    columns = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("recordings", "groups", "truth", "probabilities")
    )
    return Predictions(parts[0].classes, *columns)


def of_tracks(tiles: Predictions) -> Predictions:
    """The mean over the tiles of each track."""
    names, first, owner = np.unique(tiles.groups.astype(str), return_index=True, return_inverse=True)
    sums = np.zeros((len(names), len(tiles.classes)))
    np.add.at(sums, owner, tiles.probabilities)
    return Predictions(tiles.classes, names, names, tiles.truth[first], sums / np.bincount(owner)[:, None])


def some(predictions: Predictions, groups: list[str]) -> Predictions:
    """Those of some groups."""
    here = np.isin(predictions.groups.astype(str), groups)
    columns = (getattr(predictions, name)[here] for name in ("recordings", "groups", "truth", "probabilities"))
    return Predictions(predictions.classes, *columns)


def genres(data: Path, folder: Path, folds: int, repeats: int, seed: int) -> None:
    """Logistic regression on GTZAN, folds by track, drawn ``repeats`` times."""
    recordings = folder_recordings(data / "gtzan_mini" / "genres")
    tiles = find_tiles(recordings, GENRES.seconds)
    names = np.array([tiles.name(index) for index in range(len(tiles))], dtype=object)
    said: dict[str, list[Predictions]] = {}
    told: dict[str, list[Predictions]] = {}
    widths: dict[str, int] = {}
    genre = [recording.label for recording in recordings]
    for repeat in range(repeats):
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed + repeat)
        options = replace(GENRES_TRAINING, seed=GENRES_TRAINING.seed + repeat)
        for learnt, apart in cut.split(genre, genre):
            model = learn([recordings[index] for index in learnt], GENRES, 1.25, 0.1, folder, options)
            held_out = np.isin(tiles.groups.astype(str), [recordings[index].group for index in apart])
            extracted = [recordings[index] for index in learnt]
            closed = fit_discriminants(find_tiles(extracted, GENRES.seconds, 1.25), GENRES, folder / "cache")
            rows_of = inputs(model, tiles, folder / "cache")
            rows_of["discriminants"] = inputs(closed, tiles, folder / "cache")["embedding"]
            for name, rows in rows_of.items():
                found = predict_held_out(rows, tiles.labels, names, tiles.groups, held_out=held_out)
                said.setdefault(name, []).append(found)
                told.setdefault(name, []).append(of_tracks(found))
                widths[name] = rows.shape[1]
    others = [recording.group for index, recording in enumerate(recordings) if genre[:index].count(genre[index]) >= 5]
    everyone = [recording.group for recording in recordings]
    for what, parts in (("tiles", said), ("tracks", told)):
        results = {name: merged(these) for name, these in parts.items()}
        for which, groups in (("all tracks", everyone), ("the tracks nothing was chosen by", others)):
            chosen = {name: some(these, groups) for name, these in results.items()}
            table = [{"input": f"{name} ({widths[name]} numbers)", **vars(score(it))} for name, it in chosen.items()]
            for ours in ("embedding", "discriminants"):
                table += [
                    {"input": f"{ours} - {name}", **vars(score_difference(chosen[ours], it))}
                    for name, it in chosen.items()
                    if name != ours
                ]
            print(f"genres: {what} of {which} ({len(groups)} tracks), {repeats} x {folds} folds")
            print(pd.DataFrame(table).round(3).to_string(index=False), flush=True)


def concatenated(data: Path, folder: Path, parts: int, seed: int) -> list[Recording]:
    """Recordings of one instrument each, made of its single notes, of those that have enough."""
    root = data / "philharmonia"
    notes = pd.read_csv(root / "clips.csv")
    notes = notes[notes.groupby("instrument")["file"].transform("size") >= 10 * parts]
    random = np.random.default_rng(seed)
    recordings = []
    for instrument, mine in notes.groupby("instrument"):
        order = random.permutation(mine["file"].to_numpy())
        for number, files in enumerate(np.array_split(order, parts)):
            path = folder / "notes" / str(instrument) / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = np.concatenate([read_clip(Clip(str(root / file)), 16_000).numpy() for file in files])
            soundfile.write(path, samples, 16_000, subtype="FLOAT")
            recordings.append(Recording(str(path), f"{instrument} {number}", str(instrument), str(path)))
    return recordings


def instruments(data: Path, folder: Path, seed: int) -> None:
    """k-means on Philharmonia, compared with the instruments."""
    recordings = concatenated(data, folder, 6, seed)
    apart = [recording for recording in recordings if recording.name.endswith(" 5")]
    learnt = [recording for recording in recordings if not recording.name.endswith(" 5")]
    model = learn(learnt, INSTRUMENTS, 0.5, 0.2, folder, INSTRUMENTS_TRAINING)
    tiles = find_tiles(apart, INSTRUMENTS.seconds, 0.5)
    rows = inputs(model, tiles, folder / "cache")
    rows |= {
        f"{name}, standardised": StandardScaler().fit_transform(rows[name]) for name in ("pooled log-mel", "statistics")
    }
    assigned = {name: cluster(these, tiles.labels, seed=seed).assigned for name, these in rows.items()}
    samples = list(bootstrap_rows(tiles.owner, BOOTSTRAPS, seed))
    labels = tiles.labels.astype(str)
    sampled = {
        name: np.array([adjusted_rand_score(labels[sample], these[sample]) for sample in samples])
        for name, these in assigned.items()
    }
    whole = {name: adjusted_rand_score(labels, these) for name, these in assigned.items()}
    table = [
        {"input": f"{name} ({rows[name].shape[1]} numbers)", "adjusted_rand": whole[name], **_ends(sampled[name])}
        for name in rows
    ]
    table += [
        {
            "input": f"embedding - {name}",
            "adjusted_rand": whole["embedding"] - whole[name],
            **_ends(sampled["embedding"] - sampled[name]),
        }
        for name in rows
        if name != "embedding"
    ]
    print(f"instruments: {len(tiles.recordings)} recordings judged, {len(set(labels))} instruments, {len(tiles)} tiles")
    print(pd.DataFrame(table).round(3).to_string(index=False), flush=True)


def _ends(values: np.ndarray) -> dict[str, float]:
    low, high = percentile_interval(values)
    return {"low": low, "high": high}


def main() -> None:
    parser = options(__doc__, quick="two folds", data=DATA, seed=0)
    parser.add_argument("--only", choices=["genres", "instruments"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="draws of the folds")
    given = parse(parser, {"folds": 2})
    if missing(given.data):
        return
    for name, section in (
        ("genres", lambda folder: genres(given.data, folder, given.folds, given.repeats, given.seed)),
        ("instruments", lambda folder: instruments(given.data, folder, given.seed)),
    ):
        if given.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                times = time_runs(partial(section, Path(folder)), 1, warm_up=0)
            print(f"{times.median:.0f} s, {times.processor[0]:.0f} s of CPU\n", flush=True)


if __name__ == "__main__":
    main()
