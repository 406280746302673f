"""Recorded notes as concepts on several levels, for hierarchies.py: instruments (and dynamics), groups, families."""

from __future__ import annotations

import csv
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch

import captum_concepts as cc
from captum_concepts.activations.extraction import extract
from captum_concepts.storage.activation_store import ActivationStore

LEVELS = ("instrument", "group", "family")
MIN_CLIPS = (
    10  # clips of an instrument in one dynamic, for it to be a concept: half of them, five, are fewest for a CAV
)
BACKBONES = {
    "msd-vgg": ("models/deezer/MSD_vgg.h5", ["pool3", "pool4", "pool5"]),
    "musicnn": (
        "models/essentia/msd-musicnn-1.pb",
        ["model/batch_normalization_10/batchnorm/add_1", "model/dense/BiasAdd"],
    ),
}


def notes(
    data: Path, store: Path | None, model: str
) -> tuple[list[dict[str, str]], dict[str, torch.Tensor], np.ndarray]:
    """Rows of clips.csv of pitched instruments, activations of each layer and the clip of each of their rows."""
    with (data / "philharmonia/clips.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] in ("strings", "winds")]
    clips = [cc.Clip(str(data / "philharmonia" / row["file"])) for row in rows]
    weights, layers = BACKBONES[model]
    name, options = (
        ("essentia", {"card": str((data / weights).with_suffix(".json"))}) if model == "musicnn" else (model, {})
    )
    backbone = cc.load_backbone(name, weights=str(data / weights), **options)
    kept = ActivationStore(store) if store else None
    found = extract(backbone, clips, layers, store=kept)
    return [rows[i] for i in found.kept], found.activations, found.rows


def add_dynamics(rows: list[dict[str, str]], truth: dict[str, str | None]) -> None:
    """A level below the instrument, "cello, forte" and the like, where there are enough clips."""
    counts = Counter((row["instrument"], row["dynamic"]) for row in rows)
    for row in rows:
        enough = row["dynamic"] and counts[row["instrument"], row["dynamic"]] >= MIN_CLIPS
        row["played"] = f"{row['instrument']}, {row['dynamic']}" if enough else ""
        if enough:
            truth[row["played"]] = row["instrument"]


def labels_of(
    rows: list[dict[str, str]], names: list[str], levels: tuple[str, ...], protocol: str, seed: int
) -> np.ndarray:
    """bool (clips, concepts)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((len(rows), len(names)), dtype=bool)
    by_instrument = defaultdict(list)
    for i, row in enumerate(rows):
        by_instrument[row["instrument"]].append(i)
    for members in by_instrument.values():
        mixed = rng.permutation(members)
        if protocol == "overlapping":
            chosen = [levels] * len(mixed)
        elif protocol == "disjoint" and "played" in levels:
            chosen = disjoint_with_dynamics([rows[i] for i in mixed])
        elif protocol == "disjoint":
            chosen = [(levels[d],) for d in rng.integers(len(levels), size=len(mixed))]
        else:
            half, upper = len(mixed) // 2, [level for level in levels[1:] if rows[members[0]][level]]
            chosen = [(levels[0] if i < half else upper[i % len(upper)],) for i in range(len(mixed))]
        for clip, at in zip(mixed, chosen, strict=True):
            for level in at:
                if rows[clip][level]:
                    labels[clip, names.index(rows[clip][level])] = True
    if protocol == "equal":
        for column in labels.T:
            column[rng.permutation(np.flatnonzero(column))[30:]] = False
    return labels


def disjoint_with_dynamics(mixed: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """The one level on which each clip of an instrument is an example, clips in random order.

    A dynamic has as few as ten clips, and a random choice could leave it, or the instrument, too few for a CAV. So
    every other clip of a dynamic is an example of it alone; the rest are examples on the levels above in turn.
    """
    seen: Counter[str] = Counter()
    above = itertools.cycle([level for level in LEVELS if mixed[0][level]])
    chosen: list[tuple[str, ...]] = []
    for row in mixed:
        seen[row["played"]] += 1
        chosen.append(("played",) if row["played"] and seen[row["played"]] % 2 else (next(above),))
    return chosen
