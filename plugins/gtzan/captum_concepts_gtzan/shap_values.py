"""SHAP values of the support vector machine's named features; ``shap`` is the optional extra of that name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_gtzan.features import FeatureTable, piece_features
from captum_concepts_gtzan.svm import SvmModel

BACKGROUND = 20


@dataclass(frozen=True)
class FeatureContributions:
    """What each feature adds to a class's log-probability for each of N tracks.

    Attributes:
        target: the class, by name.
        features: F names.
        tracks: N files.
        rows: (N, F), the tracks' own features, as they were measured; of a track of several pieces, their means.
        values: (N, F), SHAP values; of a track of several pieces, their means.
        base: mean of the log-probability over the background; ``base + values.sum(1)`` is the tracks' own, that is the
            mean over their pieces.
        background: number of tracks they are compared with.
    """

    target: str
    features: tuple[str, ...]
    tracks: tuple[str, ...]
    rows: np.ndarray
    values: np.ndarray
    base: float
    background: int

    def save(self, folder: str | Path) -> Path:
        """Write ``shap.json``, a ``waterfall-NUMBER.png`` for each track, and with several tracks ``beeswarm.png`` and
        ``heatmap.png``.

        Raises:
            InputError: shap is not installed, or the folder cannot be written.
        """
        folder = Path(folder)
        content = {
            "target": self.target,
            "base": self.base,
            "background": self.background,
            "tracks": [
                {
                    "file": file,
                    "measured": dict(zip(self.features, row, strict=True)),
                    "shap": dict(zip(self.features, shares, strict=True)),
                }
                for file, row, shares in zip(self.tracks, self.rows.tolist(), self.values.tolist(), strict=True)
            ],
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "shap.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
            self._draw(folder)
        except OSError as error:
            raise InputError(f"{short_repr(str(folder), 200)}: cannot be written ({error.strerror or error})") from None
        return folder

    def _draw(self, folder: Path) -> None:
        shap = _shap()
        import matplotlib.pyplot as plt

        explained = shap.Explanation(
            self.values, np.full(len(self.values), self.base), self.rows, feature_names=list(self.features)
        )
        pictures: dict[str, Any] = {
            f"waterfall-{i}": lambda i=i: shap.plots.waterfall(explained[i], max_display=11, show=False)
            for i in range(len(self.values))
        }
        if len(self.values) > 1:
            pictures["beeswarm"] = lambda: shap.plots.beeswarm(explained, max_display=11, show=False)
            pictures["heatmap"] = lambda: shap.plots.heatmap(explained, max_display=11, show=False)
        with plt.rc_context({"backend": "agg"}):
            for name, draw in pictures.items():
                plt.figure()
                draw()
                number = name.removeprefix("waterfall-")
                title = Path(self.tracks[int(number)]).name if number.isdigit() else f"{len(self.tracks)} tracks"
                plt.title(f"{title}: log-probability of {self.target}".replace("$", r"\$"), fontsize=10)
                plt.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
                plt.close("all")


def explain_features(
    model: SvmModel,
    files: Sequence[str | Path],
    background: FeatureTable,
    target: str | None = None,
    *,
    max_background: int = BACKGROUND,
    seed: int = 0,
) -> FeatureContributions:
    """SHAP values (permutation explainer; Lundberg & Lee, NIPS 2017) of the features of the chosen files.

    Tracks and background are given as they were measured, and one function standardises both: the machine's own.

    Args:
        model: the machine.
        files: audio to explain; features are computed here of pieces as long as the machine's training tracks, see
            `features.piece_features`.
        background: tracks to compare with; ``max_background`` of them, chosen at random by ``seed``.
        target: class; default: the most probable one of the first file.
        max_background: background tracks at most.
        seed: of that choice and of the permutations.

    Raises:
        InputError: shap or librosa is not installed, no file, an unknown class, a table that lacks a feature, or audio
            that cannot be read.
    """
    shap = _shap()
    if not files:
        raise InputError("files: none given; name the tracks to explain")
    reference = background.select(model.features)
    if max_background < 1 or not len(reference):
        raise InputError(f"max_background={short_repr(max_background)}: give at least one background track")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(reference))[:max_background])
    pieces = [piece_features(path, model.features, model.seconds) for path in files]
    rows, first = np.concatenate(pieces), np.cumsum([0, *map(len, pieces)])

    def log_probabilities(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(model.standardise(np.asarray(values, dtype=np.float64))).double().cpu().numpy()

    name = model.classes[int(log_probabilities(pieces[0]).mean(0).argmax())] if target is None else target
    if name not in model.classes:
        raise InputError(
            f"target={short_repr(name)}: is not a class of the machine; its classes: {', '.join(model.classes)}"
        )
    column = list(model.classes).index(name)
    masker = shap.maskers.Independent(reference[chosen], max_samples=len(chosen))
    explainer = shap.PermutationExplainer(lambda values: log_probabilities(values)[:, column], masker, seed=seed)
    explained = explainer(rows, max_evals=20 * (2 * len(model.features) + 1), silent=True)
    values = np.asarray(explained.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("shap gave NaN; check the table and the audio")
    base = float(np.ravel(explained.base_values)[0])
    rows, values = (np.stack([part.mean(0) for part in np.split(of, first[1:-1])]) for of in (rows, values))
    return FeatureContributions(name, tuple(model.features), tuple(map(str, files)), rows, values, base, len(chosen))


def _shap() -> ModuleType:
    try:
        import shap
    except ImportError:
        raise InputError("SHAP values need shap: pip install 'captum-concepts-gtzan[shap]'") from None
    return shap
