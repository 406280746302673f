"""From sensitivities to the table of scores: effect sizes with intervals, p-values by rank, q-values by family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.results.tables import SCORE_COLUMNS
from captum_concepts.significance.corrections import adjust, hierarchical
from captum_concepts.significance.intervals import mean_interval, share_interval
from captum_concepts.significance.layer_nulls import NOT_TESTABLE, LayerNulls, layer_nulls
from captum_concepts.significance.null_concepts import NullPlan, effects
from captum_concepts.significance.rank_tests import gated_rank_test, rank_test
from captum_concepts.significance.sensitivity import (
    magnitude,
    sensitivities,
    smooth_score,
    smooth_values,
    tcav_score,
    temperatures,
)


def score_layer(
    bank: ConceptBank,
    data: LabelledRows,
    clip_gradients: Tensor,
    clip_groups: Sequence[str],
    targets: Sequence[str],
    plan: NullPlan,
    bootstrap: int,
    *,
    correction: str = "bh",
    hierarchy: ConceptHierarchy | None = None,
    nulls: LayerNulls | None = None,
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
        correction: see ``significance.CORRECTIONS``. A family is the concepts of one layer and target.
        hierarchy: for "hierarchical", mined from other groups than ``data``.
        nulls: what ``layer_nulls`` gave for the same arguments; default: drawn here.

    Returns:
        the table (columns ``SCORE_COLUMNS``), the clips' sensitivities (clips, T, K) and warnings.

    Raises:
        InputError: ``plan.count`` is too few for the family, or "hierarchical" without a hierarchy.
    """
    if correction == "hierarchical" and hierarchy is None:
        raise InputError(
            "correction='hierarchical' walks a hierarchy, but none was mined; give one, or another correction"
        )
    per_clip = sensitivities(clip_gradients, bank.directions)
    if nulls is None:
        nulls = layer_nulls(bank, data, clip_gradients.mean(0), plan, correction)
    gated, plain, counts = _p_values(bank, data, clip_gradients.mean(0), nulls)
    sizes = _effect_sizes(per_clip, clip_gradients, clip_groups, bootstrap, plan.seed)
    columns = {**sizes, "p_value": gated, "p_unconditional": plain}
    quality, t = bank.quality, len(targets)
    frame = pd.DataFrame(
        {
            "layer": pd.Series([bank.layer] * (t * len(bank)), dtype=object),
            "target": pd.Series([target for target in targets for _ in bank.names], dtype=object),
            "concept": pd.Series([*bank.names] * t, dtype=object),
            **{name: values.reshape(-1) for name, values in columns.items()},
            "n_nulls": np.tile(counts, t),
            "n_groups": len(set(clip_groups)),
            "cav_auc": np.tile(quality["auc"].to_numpy(float), t),
            "cav_accuracy": np.tile(quality["accuracy"].to_numpy(float), t),
            "cav_p": np.tile(nulls.quality_p_values(bank), t),
            "status": pd.Series(quality["status"].tolist() * t, dtype=object),
        }
    )
    frame.loc[frame["status"] != "ok", list(columns)] = np.nan
    families = [frame.iloc[start : start + len(bank)] for start in range(0, len(frame), len(bank))]
    frame["q_value"] = np.concatenate([_q_values(rows, correction, hierarchy) for rows in families])
    return frame[list(SCORE_COLUMNS)], per_clip, nulls.warnings


def _q_values(rows: pd.DataFrame, correction: str, hierarchy: ConceptHierarchy | None) -> np.ndarray:
    """(K,) of one family; NaN where there is no p-value.

    Which concepts pass the gate depends on the data that is tested next; leaving the others out of the family would
    select. They stay in it as hypotheses that were not rejected, which makes up for the gate once and for all: what is
    corrected is the p-value without condition. The one given the gate would pay for it twice.
    """
    family = rows["p_unconditional"].mask(rows["status"] == NOT_TESTABLE, 1.0)
    if correction == "hierarchical" and hierarchy is not None:
        members = dict(zip(rows["concept"][family.notna()], family[family.notna()], strict=True))
        found = hierarchical(members, hierarchy)
        q_values = np.array([found.get(name, np.nan) for name in rows["concept"]])
    else:
        q_values = adjust(family.to_numpy(), correction)
    return np.where(rows["status"] == "ok", q_values, np.nan)


def _effect_sizes(
    per_clip: Tensor, clip_gradients: Tensor, clip_groups: Sequence[str], bootstrap: int, seed: int
) -> dict[str, np.ndarray]:
    """Score, smooth score and magnitude with their intervals, each (T, K)."""
    smooth = smooth_values(per_clip, temperatures(clip_gradients))
    low, high = share_interval(per_clip > 0, clip_groups)
    smooth_low, smooth_high = mean_interval(smooth, clip_groups, bootstrap, seed)
    magnitude_low, magnitude_high = mean_interval(per_clip, clip_groups, bootstrap, seed)
    found = {
        ("score", "low", "high"): (tcav_score(per_clip), low, high),
        ("smooth", "smooth_low", "smooth_high"): (
            smooth_score(per_clip, temperatures(clip_gradients)),
            smooth_low.clamp(0, 1),
            smooth_high.clamp(0, 1),
        ),
        ("magnitude", "magnitude_low", "magnitude_high"): (magnitude(per_clip), magnitude_low, magnitude_high),
    }
    columns: dict[str, np.ndarray] = {}
    for (name, low_name, high_name), figures in found.items():
        value, low, high = (figure.double() for figure in figures)
        # of clips that are all equal the interval is the value, which was rounded otherwise
        bounds = {name: value, low_name: torch.minimum(low, value), high_name: torch.maximum(high, value)}
        columns |= {column: figure.cpu().numpy() for column, figure in bounds.items()}
    return columns


def _p_values(
    bank: ConceptBank, data: LabelledRows, mean_gradient: Tensor, nulls: LayerNulls
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, K) p-values of the effects given the gate and without it, and how many nulls each concept has (K,)."""
    device = data.activations.device
    found = effects(
        data.activations,
        bank.directions.to(data.activations),
        torch.from_numpy(data.positives).to(device),
        torch.from_numpy(data.negatives).to(device),
        torch.from_numpy(group_weights(data.groups)).to(data.activations),
        mean_gradient.to(device),
    ).cpu()
    gated, plain = (np.full(found.shape, np.nan) for _ in range(2))
    counts = np.zeros(len(bank), dtype=np.int64)
    ok = bank.quality["status"].to_numpy() == "ok"
    for key, members in nulls.members.items():
        null, columns = nulls.of_size[key], [k for k in members if ok[k]]
        counts[members] = len(null.effects)
        if not columns:
            continue
        gated[:, columns] = gated_rank_test(found[:, columns], null.effects, null.low - 0.5).numpy()
        plain[:, columns] = rank_test(found[:, columns], null.effects).numpy()
    return gated, plain, counts
