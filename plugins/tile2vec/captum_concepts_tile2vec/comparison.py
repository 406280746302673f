"""Compare an embedding with its baselines: the same network untrained, and pooled input features."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from captum_concepts.errors import InputError
from captum_concepts.storage import write_weights
from captum_concepts.text import short_repr
from captum_concepts.types import Progress
from captum_concepts_tile2vec.checkpoints import Tile2Vec, untrained, weights_digest
from captum_concepts_tile2vec.classifiers import (
    Kind,
    Predictions,
    as_module,
    fit_classifier,
    predict_held_out,
    report,
    score,
    score_difference,
    train_test_parts,
)
from captum_concepts_tile2vec.embedding import embed_side_by_side
from captum_concepts_tile2vec.tiles import Tiles


@dataclass(frozen=True)
class Comparison:
    """How well labels can be read from an embedding and from its baselines.

    Attributes:
        scores: a row for each input ("embedding", "untrained", "pooled features") and for the embedding's lead over
            each baseline; columns input, accuracy, macro_f1, each with _low and _high (95 %, bootstrap over groups).
        classes: precision, recall, F1 of every class, on the embedding.
        predictions: by input.
        classifier: fitted to the embeddings of all labelled tiles.
        recordings: number of recordings judged.
        embedding: `weights_digest` of the embedding.
    """

    scores: pd.DataFrame
    classes: pd.DataFrame
    predictions: dict[str, Predictions]
    classifier: Pipeline
    recordings: int
    embedding: str


def compare_embeddings(
    model: Tile2Vec,
    tiles: Tiles,
    *,
    held_out: set[str] | None = None,
    kind: Kind = "logistic",
    folds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Classify from the embedding, from an untrained network of its shape, and from pooled features.

    Args:
        model: the embedding.
        tiles: labelled, of all recordings.
        held_out: paths of the recordings to judge by; None cross-validates in ``folds`` parts.
        kind: of classifier.
        folds: of the cross-validation.
        seed: of folds, dense classifiers, bootstrap and the untrained weights.
        progress: told of the tiles.

    Raises:
        InputError: see `predict_held_out` and `embed_tiles`.
    """
    labels, groups = tiles.labels, tiles.groups
    names = np.array([recording.name for recording in tiles.recordings], dtype=object)[tiles.owner]
    paths = np.array([recording.path for recording in tiles.recordings], dtype=object)[tiles.owner]
    apart = None if held_out is None else np.array([path in held_out for path in paths])
    train_test_parts(labels, groups, apart, folds, seed)  # unusable labels are found before audio is read
    device = next(model.network.parameters()).device
    (trained, random), features = embed_side_by_side(
        [model, untrained(model.settings, seed, device)], tiles, progress=progress
    )
    rows = {"embedding": trained, "untrained": random, "pooled features": features}
    predictions = {
        name: predict_held_out(these, labels, names, groups, held_out=apart, kind=kind, folds=folds, seed=seed)
        for name, these in rows.items()
    }
    table = [{"input": name, **asdict(score(these, seed))} for name, these in predictions.items()]
    table += [
        {"input": f"embedding − {name}", **asdict(score_difference(predictions["embedding"], these, seed))}
        for name, these in predictions.items()
        if name != "embedding"
    ]
    known = labels != ""
    return Comparison(
        pd.DataFrame(table),
        report(predictions["embedding"]),
        predictions,
        fit_classifier(rows["embedding"][known], labels[known], kind, seed),
        len(predictions["embedding"].recordings),
        weights_digest(model),
    )


def write_comparison(result: Comparison, out: str | os.PathLike[str]) -> None:
    """Write scores.csv, classes.csv, predictions.csv and classifier.safetensors (layers and class names).

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result.scores.to_csv(folder / "scores.csv", index=False)
        result.classes.to_csv(folder / "classes.csv", index=False)
        _predicted(result).to_csv(folder / "predictions.csv", index=False)
        classes = [str(name) for name in result.classifier.classes_]
        write_weights(
            folder / "classifier.safetensors",
            as_module(result.classifier).state_dict(),
            {"classes": json.dumps(classes), "embedding": result.embedding},
        )
    except OSError as error:
        raise InputError(
            f"{short_repr(str(out), 200)}: cannot be written to ({error.strerror}); give another folder"
        ) from None


def _predicted(result: Comparison) -> pd.DataFrame:
    """What was said of every recording, from each input."""
    first = result.predictions["embedding"]
    classes = np.array(first.classes, dtype=object)
    said = {name: classes[these.predicted] for name, these in result.predictions.items()}
    return pd.DataFrame({"recording": first.recordings, "group": first.groups, "label": classes[first.truth], **said})
