"""Ranks of a tag's own genre among ten genre concepts, and agreement of differences with gradients, on a tagger.

    python benchmarks/accuracy/essentia_genres.py --weights msd-musicnn-1.pb --gtzan gtzan_mini/genres

The tracks of each of ten genres are halved: the CAVs are fitted on one half, the other half is explained, for
five tags that have a genre of the same name; then the halves change places. A genre's rank is its place among the
ten by score (share of clips whose sensitivity is positive), and by magnitude where scores are equal. The second part
takes the same sensitivities by central differences in Essentia and counts equal signs. The third explains the moods of
a head on the tagger at the tagger's own layer (--head moods_mirex-msd-musicnn-1.pb).
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import captum_concepts as cc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import DATA, missing, options

LAYER = "model/dense/BiasAdd"
TAGS = {"metal": "metal", "jazz": "jazz", "Hip-Hop": "hiphop", "blues": "blues", "country": "country"}


def halves(folder: Path) -> list[dict[str, list[str]]]:
    """Genre -> tracks, twice: every other track, and the rest."""
    tracks = {genre.name: sorted(str(file) for file in genre.iterdir()) for genre in sorted(folder.iterdir())}
    return [{genre: files[start::2] for genre, files in tracks.items()} for start in (0, 1)]


def ranks(scores: pd.DataFrame, own: dict[str, str]) -> dict[str, int]:
    """Target -> place of its own concept, 1 the first."""
    found = {}
    for target, genre in own.items():
        rows = scores[scores.target == target].sort_values(["score", "magnitude"], ascending=False)
        found[target] = list(rows.concept).index(genre) + 1
    return found


def explained(explainer: cc.ConceptHierarchyExplainer, fit: dict[str, list[str]], test: dict[str, list[str]]):
    clips = [cc.Clip(path) for files in test.values() for path in files]
    return explainer.explain(clips, cc.ConceptSet.from_playlists(fit, negatives="rest"), list(TAGS))


def sign_agreement(
    exact: cc.TorchBackbone, differences: cc.Backbone, bank: cc.ConceptBank, test: dict[str, list[str]], patches: int
) -> tuple[float, float, float, int]:
    """Shares of equal signs, among all and among those that differences are sure of; share of the sure; how many."""
    targets = [exact.classes.index(tag) for tag in TAGS]
    equal, sure = [], []
    for files in test.values():
        inputs = next(iter(exact.read(cc.Clip(files[0])))).inputs[:patches]
        gradients = exact.gradients(inputs, [LAYER], targets).gradients[LAYER]
        along = (gradients @ bank.directions.T).numpy()
        values, errors = differences.sensitivities(inputs, LAYER, targets, bank.directions.numpy())
        equal.append(np.sign(values) == np.sign(along))
        sure.append(np.abs(values) > errors)
    agree, certain = np.concatenate(equal), np.concatenate(sure)
    return agree.mean(), agree[certain].mean(), certain.mean(), agree.size


def main() -> None:
    parser = options(__doc__, data=DATA)
    parser.add_argument("--weights", help="default: DATA/models/essentia/msd-musicnn-1.pb")
    parser.add_argument("--head", help="default: DATA/models/essentia/moods_mirex-msd-musicnn-1.pb")
    parser.add_argument("--gtzan", type=Path, help="default: DATA/gtzan_mini/genres")
    parser.add_argument("--hop-seconds", type=float, default=3.0)
    parser.add_argument("--patches", type=int, default=5, help="of one track per genre, compared with differences")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    models = args.data / "models" / "essentia"
    weights = args.weights or str(models / "msd-musicnn-1.pb")
    mood_head = args.head or str(models / "moods_mirex-msd-musicnn-1.pb")
    gtzan = args.gtzan or args.data / "gtzan_mini" / "genres"
    if missing(Path(weights), Path(mood_head), gtzan):
        return
    exact = cc.load_backbone("essentia-musicnn", weights, args.device, hop_seconds=args.hop_seconds)
    first, second = halves(gtzan)
    places = defaultdict(list)
    for fit, test in ((first, second), (second, first)):
        start = time.perf_counter()
        explanation = explained(cc.ConceptHierarchyExplainer(exact, LAYER), fit, test)
        seconds = time.perf_counter() - start
        found = ranks(explanation.scores, TAGS)
        for target, place in found.items():
            places[target].append(place)
        print(f"explained in {seconds:.0f} s; rank of the own genre of ten: {found}", flush=True)
        for target in TAGS:
            rows = explanation.scores[explanation.scores.target == target]
            top = rows.sort_values(["score", "magnitude"], ascending=False).head(3)
            print(f"  {target}: {[(row.concept, round(row.score, 2)) for row in top.itertuples()]}")
    print("in the top 2 both times:", [target for target, both in places.items() if max(both) <= 2])
    differences = cc.load_backbone("essentia-musicnn", weights, "cpu", gradients="differences")
    agree, certain, share, count = sign_agreement(exact, differences, explanation.banks[LAYER], test, args.patches)
    print(
        f"signs by differences equal those of gradients: {agree:.2%} of {count}; {certain:.2%} of the {share:.1%} sure"
    )
    head = cc.load_backbone("essentia-musicnn", weights, args.device, head=mood_head, hop_seconds=args.hop_seconds)
    clips = [cc.Clip(files[0]) for files in test.values()]
    moods = cc.ConceptHierarchyExplainer(head, LAYER).explain(
        clips, cc.ConceptSet.from_playlists(fit, negatives="rest")
    )
    print(f"{head.classes[4]} rests on, through the head at {LAYER}:")
    rows = moods.scores[moods.scores.target == head.classes[4]].sort_values("magnitude", ascending=False)
    print(rows[["concept", "score", "magnitude", "q_value"]].to_string(index=False))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
