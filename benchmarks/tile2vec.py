"""What is an embedding worth that was learnt without labels? Against an untrained one and pooled log-mel.

    python benchmarks/tile2vec.py                     # both sections, minutes on two cores
    python benchmarks/tile2vec.py --only genres       # GTZAN: 5 folds of tracks, logistic regression
    python benchmarks/tile2vec.py --only instruments  # Philharmonia: k-means against instruments

Genres: in each fold the embedding is learnt, without labels, from the tracks outside the fold alone; so is the
regression, with labels. Every input is treated alike: rows of tiles of 2.5 s, standardised, logistic regression,
probabilities averaged over the tiles of a track. Instruments: the notes of each instrument are drawn in
random order and put together into recordings; the embedding is learnt from five of six, and k-means (as many clusters
as instruments) is judged on the sixth. Intervals are 95 %, from a bootstrap over recordings, the same draws for both
sides of a difference. Files are written to a temporary folder only.

The setting is a reduced one. The full one, for a GPU and all of GTZAN, would be (it was not run here):

    captum-concepts tile2vec train --layout gtzan --data gtzan/ --out run/ --model ResNet18 --size 256 --tile 5 \
        --hop 1 --batch-size 512 --mining semi-hard --learning-rate 1e-3 --decay-steps 1000 --l2 1e-4 --epochs 100 \
        --workers 12 --cache features/
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from captum_concepts_tile2vec.checkpoints import Settings, Tile2Vec, load_tile2vec, untrained
from captum_concepts_tile2vec.classifiers import Predictions, predict_held_out, score, score_difference
from captum_concepts_tile2vec.data import Recording, folder_recordings, split_by_group
from captum_concepts_tile2vec.features import KeptFeatures, pooled
from captum_concepts_tile2vec.looking import cluster
from captum_concepts_tile2vec.tiles import Tiles, find_tiles
from captum_concepts_tile2vec.training import TrainingOptions, train
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from captum_concepts.audio import Clip, read_clip

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = 256
TRAINING = TrainingOptions(
    epochs=10, batch_size=256, learning_rate=1e-3, decay=0.9, decay_steps=10, margin=1.0, mining="none", l2=0.0
)
Rows = dict[str, np.ndarray]
BOOTSTRAPS = 1000


def inputs(model: Tile2Vec, tiles: Tiles, cache: Path) -> Rows:
    """Rows (N, D) of all tiles from each of the inputs that are compared."""
    kept = KeptFeatures(tiles, model.features, cache)
    blocks = [kept.read(range(first, min(first + 64, len(tiles)))) for first in range(0, len(tiles), 64)]
    blank = untrained(model.settings, seed=0)
    statistics = model.network.get_submodule("encoder.0")
    with torch.no_grad():
        ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "embedding": lambda block: model.embed(block, ready=True),
            "untrained": lambda block: blank.embed(block, ready=True),
            "pooled log-mel": pooled,
            "statistics": statistics,  # what the network begins with
        }
        return {name: torch.cat([way(block) for block in blocks]).numpy() for name, way in ways.items()}


def learn(
    recordings: list[Recording], settings: Settings, hop: float, folder: Path, options: TrainingOptions
) -> Tile2Vec:
    """An embedding of some recordings, without their labels; a fifth of them chooses the epoch."""
    parts = split_by_group(recordings, 0.2, seed=0)
    tiles, judged = (find_tiles(part, settings.seconds, hop) for part in (parts.train, parts.evaluate))
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    return load_tile2vec(train(tiles, judged, out, settings, options, device="cpu", cache=folder / "cache"))


def merged(parts: list[Predictions]) -> Predictions:
    """The predictions of all folds, of every recording once, sorted by name."""
    order = np.argsort(np.concatenate([part.recordings for part in parts]))
    columns = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("recordings", "groups", "truth", "probabilities")
    )
    return Predictions(parts[0].classes, *columns)


def genres(folder: Path, folds: int, seed: int) -> None:
    """Logistic regression on GTZAN, folds by track."""
    recordings = folder_recordings(SHARED / "gtzan_mini" / "genres")
    settings = Settings("StatisticsNet", size=SIZE, seconds=2.5)
    tiles = find_tiles(recordings, settings.seconds)
    paths = np.array([recording.path for recording in tiles.recordings], dtype=object)[tiles.owner]
    names = np.array([recording.name for recording in tiles.recordings], dtype=object)[tiles.owner]
    said: dict[str, list[Predictions]] = {}
    widths: dict[str, int] = {}
    genre = [recording.label for recording in recordings]
    for learnt, apart in StratifiedKFold(folds, shuffle=True, random_state=seed).split(genre, genre):
        model = learn([recordings[index] for index in learnt], settings, 1.25, folder, TRAINING)
        held_out = np.isin(paths, [recordings[index].path for index in apart])
        for name, rows in inputs(model, tiles, folder / "cache").items():
            found = predict_held_out(rows, tiles.labels, names, tiles.groups, held_out=held_out)
            said.setdefault(name, []).append(found)
            widths[name] = rows.shape[1]
    results = {name: merged(parts) for name, parts in said.items()}
    table = [{"input": f"{name} ({widths[name]} numbers)", **vars(score(these))} for name, these in results.items()]
    ours = results.pop("embedding")
    table += [
        {"input": f"embedding - {name}", **vars(score_difference(ours, these))} for name, these in results.items()
    ]
    print(f"genres: {len(recordings)} tracks, {folds} folds, {len(tiles)} tiles")
    print(pd.DataFrame(table).round(3).to_string(index=False), flush=True)


def concatenated(folder: Path, parts: int, seed: int) -> list[Recording]:
    """Recordings of one instrument each, made of its single notes, of those that have enough."""
    root = SHARED / "philharmonia"
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


def instruments(folder: Path, seed: int) -> None:
    """k-means on Philharmonia, against the instruments."""
    recordings = concatenated(folder, 6, seed)
    settings = Settings("StatisticsNet", size=SIZE, seconds=1.0)
    apart = [recording for recording in recordings if recording.name.endswith(" 5")]
    learnt = [recording for recording in recordings if not recording.name.endswith(" 5")]
    model = learn(learnt, settings, 0.5, folder, TRAINING)
    tiles = find_tiles(apart, settings.seconds, 0.5)
    rows = inputs(model, tiles, folder / "cache")
    rows |= {
        f"{name}, standardised": StandardScaler().fit_transform(rows[name]) for name in ("pooled log-mel", "statistics")
    }
    assigned = {name: cluster(these, tiles.labels, seed=seed).assigned for name, these in rows.items()}
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(tiles.owner == owner) for owner in range(len(tiles.recordings))]
    draws = [
        np.concatenate([members[owner] for owner in random.integers(len(members), size=len(members))])
        for _ in range(BOOTSTRAPS)
    ]
    labels = tiles.labels.astype(str)
    drawn = {
        name: np.array([adjusted_rand_score(labels[draw], these[draw]) for draw in draws])
        for name, these in assigned.items()
    }
    whole = {name: adjusted_rand_score(labels, these) for name, these in assigned.items()}
    table = [
        {"input": f"{name} ({rows[name].shape[1]} numbers)", "adjusted_rand": whole[name], **_ends(drawn[name])}
        for name in rows
    ]
    table += [
        {
            "input": f"embedding - {name}",
            "adjusted_rand": whole["embedding"] - whole[name],
            **_ends(drawn["embedding"] - drawn[name]),
        }
        for name in rows
        if name != "embedding"
    ]
    print(f"instruments: {len(members)} recordings judged, {len(set(labels))} instruments, {len(tiles)} tiles")
    print(pd.DataFrame(table).round(3).to_string(index=False), flush=True)


def _ends(values: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["genres", "instruments"])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not SHARED.exists():
        print(f"skipped: {SHARED.name} is not here")
        return
    for name, section in (
        ("genres", lambda folder: genres(folder, options.folds, options.seed)),
        ("instruments", lambda folder: instruments(folder, options.seed)),
    ):
        if options.only in (None, name):
            began = time.perf_counter(), time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                section(Path(folder))
            print(
                f"{time.perf_counter() - began[0]:.0f} s, {time.process_time() - began[1]:.0f} s of CPU\n", flush=True
            )


if __name__ == "__main__":
    main()
