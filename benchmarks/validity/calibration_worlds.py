"""Data for calibration.py: activations of models, and concepts whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

import captum_concepts as cc
from captum_concepts.activations.extraction import extract
from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import MusicGenerator
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.significance.sensitivity import clip_means

TAGS = ("jazz", "rock", "metal", "Hip-Hop", "country", "blues", "folk", "soul", "electronic", "ambient")


@dataclass(frozen=True)
class Rows:
    """Activations (N, D) of a layer with groups (N,), and gradients (clips, T, D) of targets on other clips."""

    name: str
    activations: torch.Tensor
    groups: np.ndarray
    gradients: torch.Tensor
    clip_groups: list[str]


def _rows(
    name: str, backbone: Backbone, layer: str, clips: list[Clip], explained: list[Clip], targets: list[int]
) -> Rows:
    extracted = extract(backbone, clips, [layer])
    derived = extract(backbone, explained, [layer], targets=targets)
    groups = np.array([extracted.clips[row].group for row in extracted.rows], dtype=object)
    gradients = clip_means(derived.gradients[layer], torch.from_numpy(derived.counts))
    # The first patch of each: longer clips among shorter ones need random sets of excerpts of several lengths.
    first = np.sort(np.unique(groups.astype(str), return_index=True)[1])
    activations = extracted.activations[layer][torch.from_numpy(first)]
    return Rows(name, activations, groups[first], gradients, [clip.group for clip in derived.clips])


def generator_rows(folder: Path, pieces: int) -> Rows:
    """The embedded model on pieces of the generator, a third as many more to explain."""
    generator = MusicGenerator(seed=1, duration=3.0)
    clips = []
    for index in range(pieces + pieces // 3):
        path = folder / f"{index}.wav"
        soundfile.write(path, generator.clip(index).waveform, generator.sample_rate)
        clips.append(Clip(str(path)))
    backbone = demo_backbone()
    return _rows(
        "generator", backbone, backbone.layers[-1], clips[:pieces], clips[pieces:], list(range(len(backbone.classes)))
    )


def real_rows(notes: int, data: Path) -> Rows | None:
    """MSD-VGG (pool4) on notes of the Philharmonia Orchestra, ``TAGS`` explained on 3 s of tracks of GTZAN."""
    weights, table = data / "models" / "deezer" / "MSD_vgg.h5", data / "philharmonia" / "clips.csv"
    tracks = sorted((data / "gtzan_mini" / "genres").glob("*/*.flac"))
    if not (weights.exists() and table.exists() and tracks):
        return None
    backbone = cc.load_backbone("msd-vgg", weights=str(weights))
    files = pd.read_csv(table)["file"].sample(notes, random_state=0)
    clips = [Clip(str(table.parent / file), 0.0, None, file) for file in files]
    explained = [Clip(str(track), 10.0, 13.0, track.stem) for track in tracks]
    targets = [list(backbone.classes).index(tag) for tag in TAGS]
    return _rows("MSD-VGG, notes", backbone, "pool4", clips, explained, targets)


@dataclass(frozen=True)
class Mixed:
    """200 concepts, 20 of them planted, with a tree that the truth follows and one that it does not."""

    data: LabelledRows
    names: list[str]
    truth: np.ndarray
    gradients: torch.Tensor
    clip_groups: list[str]
    tree: ConceptHierarchy
    random_tree: ConceptHierarchy


def mixed_truth(seed: int, concepts: int = 200, planted: int = 20, groups: int = 12, pool: int = 120) -> Mixed:
    """Planted concepts are partly along the gradient; of the others half are null concepts, half orthogonal to it.

    The tree has 20 roots with nine children each; the planted concepts are two whole subtrees, but in the random tree
    they are anywhere.
    """
    width = 48
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    gradient = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
    shift = torch.nn.functional.normalize(torch.randn(concepts, width, generator=generator), dim=1) * 3
    shift -= (shift @ gradient)[:, None] * gradient
    sign = torch.where(torch.rand(planted, generator=generator) < 0.5, -1.0, 1.0)
    shift[:planted] += 1.6 * sign[:, None] * gradient
    shift[planted + (concepts - planted) // 2 :] = 0
    owner = np.concatenate([np.repeat(np.arange(concepts), groups), np.full(pool, -1)])
    x = torch.randn(len(owner), width, generator=generator)
    x[: concepts * groups] += shift[torch.from_numpy(owner[: concepts * groups])]
    shows = owner[:, None] == np.arange(concepts)
    data = LabelledRows(
        x,
        shows,
        np.repeat(owner[:, None] < 0, concepts, 1),
        np.array([f"g{i}" for i in range(len(owner))], dtype=object),
    )
    clips = gradient + 0.1 * torch.randn(40, 1, width, generator=generator)
    names = [f"c{i}" for i in range(concepts)]
    trees = []
    for order in (names, rng.permutation(names).tolist()):
        edges = [(order[i - i % 10], order[i]) for i in range(concepts) if i % 10]
        trees.append(ConceptHierarchy.from_edges(names, edges))
    return Mixed(data, names, np.arange(concepts) < planted, clips, [f"e{i}" for i in range(40)], *trees)
