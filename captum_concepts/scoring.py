"""From sensitivities to the table of scores: effect sizes with intervals, p-values by rank, q-values by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs import ConceptBank, FitFunction, group_weights, run_fit
from captum_concepts.errors import InputError
from captum_concepts.explanation import SCORE_COLUMNS
from captum_concepts.significance import benjamini_hochberg, bootstrap_interval, pseudo_concepts, rank_test
from captum_concepts.tcav import magnitude, sensitivities, tcav_score

FEWEST_NULLS, MOST_NULLS = 999, 4999


@dataclass(frozen=True)
class LayerData:
    """The concept rows of one layer, as they go into the fit.

    Attributes:
        activations: (N, D).
        positives, negatives: bool (N, K).
        groups: (N,) str.
    """

    activations: Tensor
    positives: np.ndarray
    negatives: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class NullPlan:
    """How the pseudo-concepts are drawn.

    Attributes:
        fit: the CAV method's function; pseudo-concepts go through the very same.
        options: of the method.
        count: pseudo-concepts for each concept size; None chooses by ``enough_nulls``.
        seed: of the draw.
        rest: whether a concept's negatives are everything else (then pseudo-concepts are drawn from all rows), or a
            fixed set of rows (then they are drawn from those).
    """

    fit: FitFunction
    options: dict
    count: int | None
    seed: int
    rest: bool


def enough_nulls(family: int, alpha: float = 0.05) -> int:
    """Pseudo-concepts that let one hypothesis of ``family`` be rejected at ``alpha``, within bounds that stay cheap."""
    return min(max(FEWEST_NULLS, int(np.ceil(family / alpha)) - 1), MOST_NULLS)


def score_layer(
    bank: ConceptBank,
    data: LayerData,
    clip_gradients: Tensor,
    clip_groups: Sequence[str],
    targets: Sequence[str],
    plan: NullPlan,
    bootstrap: int,
) -> tuple[pd.DataFrame, Tensor, list[str]]:
    """Scores of all targets and concepts at one layer.

    Args:
        bank: the layer's CAVs with their quality.
        data: the rows they were fitted on.
        clip_gradients: (clips, T, D), mean over the patches of each explained clip.
        clip_groups: (clips,).
        targets: T names.
        plan: of the null.
        bootstrap: samples for the intervals.

    Returns:
        the table (columns ``explanation.SCORE_COLUMNS``), the clips' sensitivities (clips, T, K) and warnings.
    """
    per_clip = sensitivities(clip_gradients, bank.directions)
    score, size = tcav_score(per_clip), magnitude(per_clip)
    low, high = bootstrap_interval((per_clip > 0).to(per_clip.dtype), clip_groups, bootstrap, plan.seed)
    ok = (bank.quality["status"] == "ok").to_numpy()
    p_values, warnings = _p_values(bank, data, clip_gradients.mean(0), size, ok, plan)
    frame = pd.DataFrame(
        {
            "layer": bank.layer,
            "target": np.repeat(np.array(targets, dtype=object), len(bank)),
            "concept": np.tile(np.array(bank.names, dtype=object), len(targets)),
            "score": score.flatten().double().numpy(),
            "magnitude": size.flatten().double().numpy(),
            "low": low.flatten().double().numpy(),
            "high": high.flatten().double().numpy(),
            "p_value": p_values.flatten(),
            "n_groups": len(set(clip_groups)),
            "cav_auc": np.tile(bank.quality["auc"].to_numpy(float), len(targets)),
            "status": np.tile(bank.quality["status"].to_numpy(object), len(targets)),
        }
    )
    frame.loc[frame["status"] != "ok", ["score", "magnitude", "low", "high", "p_value"]] = np.nan
    frame["q_value"] = benjamini_hochberg(frame["p_value"].to_numpy())
    return frame[list(SCORE_COLUMNS)], per_clip, warnings


def _p_values(
    bank: ConceptBank, data: LayerData, mean_gradient: Tensor, size: Tensor, ok: np.ndarray, plan: NullPlan
) -> tuple[np.ndarray, list[str]]:
    """(T, K) rank-test p-values of the magnitudes; concepts of equal size and equal pool share their nulls."""
    p_values = np.full(size.shape, np.nan)
    warnings: list[str] = []
    count = plan.count if plan.count is not None else enough_nulls(size.shape[0] * int(ok.sum()))
    families: dict[tuple[int, bytes], list[int]] = {}
    for k in np.flatnonzero(ok):
        eligible = np.ones(len(data.groups), bool) if plan.rest else data.negatives[:, k]
        n_groups = len(np.unique(data.groups[data.positives[:, k]]))
        families.setdefault((n_groups, eligible.tobytes()), []).append(int(k))
    for (n_groups, mask), members in families.items():
        eligible = np.frombuffer(mask, dtype=bool)
        try:
            drawn = pseudo_concepts(data.groups, eligible, n_groups, count, plan.seed)
        except InputError as error:
            named = ", ".join(bank.names[k] for k in members[:5])
            warnings.append(f"no p-values at {bank.layer} for {len(members)} concepts ({named}): {error}")
            continue
        null = _null_magnitudes(data, eligible, drawn, mean_gradient, plan)
        p_values[:, members] = rank_test(size[:, members], null).numpy()
    needed = size.shape[0] * int(ok.sum()) / 0.05 - 1
    if ok.any() and count < needed:
        warnings.append(
            f"{bank.layer}: the smallest p-value of {count} random concepts is {1 / (count + 1):.2g}; one rejection "
            f"alone in a family of {size.shape[0] * int(ok.sum())} would need {int(np.ceil(needed))}"
        )
    return p_values, warnings


def _null_magnitudes(
    data: LayerData, eligible: np.ndarray, drawn: np.ndarray, mean_gradient: Tensor, plan: NullPlan
) -> Tensor:
    """(R, T): magnitudes of the pseudo-concepts' CAVs."""
    rows = torch.from_numpy(np.flatnonzero(eligible))
    positives = torch.from_numpy(drawn[eligible])
    weights = torch.from_numpy(group_weights(data.groups))[rows].to(data.activations)
    directions = run_fit(plan.fit, data.activations[rows], positives, ~positives, weights, plan.options)[0]
    return directions @ mean_gradient.T
