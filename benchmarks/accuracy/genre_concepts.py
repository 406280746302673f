"""Ranks of a tag's own genre among ten genre concepts, on tracks that these were not fitted on.

    python benchmarks/accuracy/genre_concepts.py               # 12 splits of ../shared/data/gtzan_mini by track
    python benchmarks/accuracy/genre_concepts.py --cav lda

For each split half of the tracks of every genre are the concepts' examples; the tags are explained on the other half.
Printed are the rank of the tag's own genre among the ten by magnitude, and the mean logit of each tag over the tracks
of each genre, which says what the model itself takes for that tag.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import captum_concepts as cc
from captum_concepts.activations.extraction import extract
from captum_concepts.significance.sensitivity import clip_means, magnitude, sensitivities, tcav_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options, parse

OWN = {"jazz": "jazz", "metal": "metal", "Hip-Hop": "hiphop", "blues": "blues", "rock": "rock"}
LAYERS = ["pool4", "pool5"]


def splits(concepts: cc.ConceptSet, seeds: int) -> dict[str, np.ndarray]:
    """Name -> bool (clips,), the tracks the concepts are fitted on: first half, second half, and random halves."""
    rank = np.array(
        [np.flatnonzero(concepts.labels[:, row.argmax()]).searchsorted(i) for i, row in enumerate(concepts.labels)]
    )
    first = rank < concepts.labels.sum(0)[concepts.labels.argmax(1)] // 2
    return {
        "first half": first,
        "second half": ~first,
        **{f"seed {seed}": concepts.split(0.5, seed) for seed in range(seeds)},
    }


def main() -> None:
    parser = options(__doc__, quick="three random splits", data=DATA)
    parser.add_argument("--cav", default="pattern")
    parser.add_argument("--seeds", type=int, default=10)
    given = parse(parser, {"seeds": 3})
    weights = given.data / "models" / "deezer" / "MSD_vgg.h5"
    tracks = given.data / "gtzan_mini" / "genres"
    if missing(weights, tracks):
        return
    backbone = cc.load_backbone("msd-vgg", weights=str(weights))
    concepts = cc.ConceptSet.from_folders(tracks)
    targets = [list(backbone.classes).index(tag) for tag in OWN]
    extracted = extract(backbone, concepts.clips, LAYERS, targets=targets)
    counts = torch.from_numpy(extracted.counts)
    ranks = []
    for layer in LAYERS:
        gradients = clip_means(extracted.gradients[layer], counts)
        for name, fitted in splits(concepts, given.seeds).items():
            rows = fitted[extracted.rows]
            bank = cc.fit_cavs(
                extracted.activations[layer][rows],
                concepts.labels[extracted.rows][rows],
                given.cav,
                concepts.groups[extracted.rows][rows],
                names=concepts.names,
                folds=0,
            )
            values = sensitivities(gradients[torch.from_numpy(~fitted)], bank.directions)
            sizes, scores = magnitude(values), tcav_score(values)
            for t, (tag, genre) in enumerate(OWN.items()):
                own = concepts.names.index(genre)
                first = concepts.names[int(sizes[t].argmax())]
                rank = 1 + int((sizes[t] > sizes[t, own]).sum())
                ranks.append((layer, name, tag, rank, float(scores[t, own]), first))
    table = pd.DataFrame(ranks, columns=["layer", "split", "tag", "rank", "score", "first"])
    print(f"{given.cav} CAVs: rank of the tag's own genre among ten, by magnitude, on tracks not used for fitting")
    print(table.pivot(index=["layer", "split"], columns="tag", values="rank").sort_index()[list(OWN)].to_string())
    firsts = table[table["rank"] == 1].groupby(["layer", "tag"]).size().unstack(fill_value=0)
    print(f"\nsplits of {table['split'].nunique()} in which it comes first")
    print(firsts.reindex(columns=list(OWN), fill_value=0).to_string())
    print(f"\nlowest TCAV score of the own genre: {table['score'].min():.2f}")
    logits = clip_means(extracted.logits[:, targets], counts).numpy()
    by_genre = {genre: logits[concepts.labels[:, k]].mean(0) for k, genre in enumerate(concepts.names)}
    print("\nmean logit of each tag over the tracks of each genre")
    print(pd.DataFrame(by_genre, index=list(OWN)).round(2).to_string())


if __name__ == "__main__":
    main()
