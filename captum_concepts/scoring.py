"""From sensitivities to the table of scores: effect sizes with intervals, p-values by rank, q-values by family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs import ConceptBank, FitFunction, group_weights, run_fit
from captum_concepts.discriminants import separation
from captum_concepts.errors import InputError, shown
from captum_concepts.explanation import SCORE_COLUMNS
from captum_concepts.significance import benjamini_hochberg, pseudo_concepts, rank_test, share_interval
from captum_concepts.tcav import magnitude, sensitivities, tcav_score

FEWEST_NULLS, MOST_NULLS = 999, 4999
MASK_VALUES = 2**27


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
    options: dict[str, Any]
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
    low, high = share_interval(per_clip > 0, clip_groups, bootstrap, plan.seed)
    ok = (bank.quality["status"] == "ok").to_numpy()
    p_values, warnings = _p_values(bank, data, clip_gradients.mean(0), size, ok, plan)
    frame = pd.DataFrame(
        {
            "layer": pd.Series([bank.layer] * (len(targets) * len(bank)), dtype=object),
            "target": pd.Series([target for target in targets for _ in bank.names], dtype=object),
            "concept": pd.Series([*bank.names] * len(targets), dtype=object),
            "score": score.flatten().double().numpy(),
            "magnitude": size.flatten().double().numpy(),
            "low": low.flatten().double().numpy(),
            "high": high.flatten().double().numpy(),
            "p_value": p_values.flatten(),
            "n_groups": len(set(clip_groups)),
            "cav_auc": np.tile(bank.quality["auc"].to_numpy(float), len(targets)),
            "status": pd.Series(bank.quality["status"].tolist() * len(targets), dtype=object),
        }
    )
    frame.loc[frame["status"] != "ok", ["score", "magnitude", "low", "high", "p_value"]] = np.nan
    # Which concepts pass the gate depends on the data that is tested next; leaving the others out of the family would
    # select. They stay in it as hypotheses that were not rejected.
    family = frame["p_value"].mask(frame["status"] == "not testable", 1.0)
    frame["q_value"] = np.where(frame["status"] == "ok", benjamini_hochberg(family.to_numpy()), np.nan)
    return frame[list(SCORE_COLUMNS)], per_clip, warnings


def _p_values(
    bank: ConceptBank, data: LayerData, mean_gradient: Tensor, size: Tensor, ok: np.ndarray, plan: NullPlan
) -> tuple[np.ndarray, list[str]]:
    """(T, K) rank-test p-values of the effects; concepts of equal size and equal pool share their nulls.

    A concept's effect is its magnitude times the distance of its positives from its negatives along the CAV: the
    first-order change of the logit from an average negative to an average positive. The magnitude alone would not do:
    the direction of a random set, brought to unit length, is as long as that of a concept.
    """
    p_values = np.full(size.shape, np.nan)
    distance = separation(
        data.activations,
        bank.directions.to(data.activations),
        torch.from_numpy(data.positives).to(data.activations.device),
        torch.from_numpy(data.negatives).to(data.activations.device),
        torch.from_numpy(group_weights(data.groups)).to(data.activations),
    )
    effect = size * distance.to(size)
    warnings: list[str] = []
    asked = size.shape[0] * int((ok | (bank.quality["status"] == "not testable").to_numpy()).sum())
    count = plan.count if plan.count is not None else enough_nulls(asked)
    too_small: dict[int, str] = {}
    for (n_groups, mask), members in _families(data, ok, plan).items():
        eligible = np.frombuffer(mask, dtype=bool)
        try:
            drawn = pseudo_concepts(data.groups, eligible, n_groups, count, plan.seed)
        except InputError as error:
            too_small.update(dict.fromkeys(members, str(error)))
            continue
        null = _null_effects(data, eligible, drawn, mean_gradient, plan)
        p_values[:, members] = rank_test(effect[:, members].cpu(), null.cpu()).numpy()
    if too_small:
        some = ", ".join(shown(bank.names[k], 30) for k in list(too_small)[:5])
        more = ", ..." if len(too_small) > 5 else ""
        warnings.append(
            f"{shown(bank.layer)}: no p-values for {len(too_small)} concepts ({some}{more}): "
            f"{next(iter(too_small.values()))}"
        )
    family = asked - size.shape[0] * len(too_small)
    if ok.any() and count < family / 0.05 - 1:
        warnings.append(
            f"{shown(bank.layer)}: the smallest p-value of {count} random concepts is {1 / (count + 1):.2g}; one "
            f"rejection alone in a family of {family} would need n_nulls={int(np.ceil(family / 0.05 - 1))}"
        )
    return p_values, warnings


def _families(data: LayerData, ok: np.ndarray, plan: NullPlan) -> dict[tuple[int, bytes], list[int]]:
    """Concepts that can share their nulls: {(groups of positives, mask of the rows to draw from): columns}."""
    families: dict[tuple[int, bytes], list[int]] = {}
    everything = np.ones(len(data.groups), dtype=bool)
    for k in np.flatnonzero(ok):
        eligible = everything if plan.rest else data.negatives[:, k]
        n_groups = len(set(data.groups[data.positives[:, k]]))
        families.setdefault((n_groups, eligible.tobytes()), []).append(int(k))
    return families


def _null_effects(
    data: LayerData, eligible: np.ndarray, drawn: np.ndarray, mean_gradient: Tensor, plan: NullPlan
) -> Tensor:
    """(R, T): effects of the pseudo-concepts."""
    device = data.activations.device
    weights = torch.from_numpy(group_weights(data.groups)[eligible]).to(data.activations)
    rows = data.activations[torch.from_numpy(np.flatnonzero(eligible)).to(device)]
    blocks = torch.from_numpy(drawn[eligible]).split(max(1, MASK_VALUES // len(rows)), dim=1)
    parts = []
    for block in blocks:
        positives = block.to(device)
        directions = run_fit(plan.fit, rows, positives, ~positives, weights, plan.options)[0]
        distance = separation(rows, directions, positives, ~positives, weights)
        parts.append(distance[:, None] * (directions @ mean_gradient.to(directions).T))
    return torch.cat(parts)
