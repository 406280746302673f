"""From sensitivities to the table of scores: effect sizes with intervals, p-values by rank, q-values by family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs import ConceptBank, group_weights
from captum_concepts.corrections import TREE_FACTOR, adjust, hierarchical
from captum_concepts.errors import InputError, shown
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.intervals import mean_interval, share_interval
from captum_concepts.nulls import LayerData, NullPlan, NullSets, effects, excerpt_rows, null_sets
from captum_concepts.quality import index_groups
from captum_concepts.significance import gated_rank_test, rank_test
from captum_concepts.tcav import magnitude, sensitivities, smooth_score, smooth_values, tcav_score, temperatures
from captum_concepts.wording import counted

__all__ = [
    "LayerData",
    "LayerNulls",
    "NullPlan",
    "check_nulls",
    "enough_nulls",
    "layer_nulls",
    "needed_nulls",
    "null_families",
    "score_layer",
]

FEWEST_NULLS, MOST_NULLS = 1999, 9999
ALPHA = 0.05
NOT_TESTABLE = "not testable"

#: Groups of positives, most rows of each (see ``nulls.excerpt_rows``), mask of the rows to draw from.
NullKey = tuple[int, "int | None", bytes]


SCORE_COLUMNS = (
    "layer",
    "target",
    "concept",
    "score",
    "low",
    "high",
    "smooth",
    "smooth_low",
    "smooth_high",
    "magnitude",
    "magnitude_low",
    "magnitude_high",
    "p_value",
    "q_value",
    "p_unconditional",
    "n_nulls",
    "n_groups",
    "cav_auc",
    "cav_accuracy",
    "cav_p",
    "status",
)
COUNT_COLUMNS = ("n_nulls", "n_groups")
TEXT_COLUMNS = ("layer", "target", "concept", "status")


def empty_scores() -> pd.DataFrame:
    """A table of scores without rows."""
    return pd.DataFrame(
        {name: pd.Series(dtype=object if name in TEXT_COLUMNS else np.float64) for name in SCORE_COLUMNS}
    ).astype(dict.fromkeys(COUNT_COLUMNS, np.int64))


def needed_nulls(family: int, correction: str = "bh", alpha: float = ALPHA) -> int:
    """Pseudo-concepts without which no p-value is small enough to reject one hypothesis of a family on its own.

    Args:
        family: hypotheses in the family; for "hierarchical", the largest number of siblings.
        correction: see ``corrections.CORRECTIONS``.
        alpha: level.
    """
    factor = {"by": float((1 / np.arange(1, family + 1)).sum()), "hierarchical": TREE_FACTOR}.get(correction, 1.0)
    return int(np.ceil(round(family * factor / alpha, 6))) - 1


def enough_nulls(family: int, alpha: float = ALPHA, correction: str = "bh") -> int:
    """Pseudo-concepts that let one hypothesis of ``family`` be rejected at ``alpha``, within bounds that stay cheap."""
    return min(max(FEWEST_NULLS, needed_nulls(family, correction, alpha)), MOST_NULLS)


def check_nulls(count: int | None, family: int, correction: str = "bh") -> None:
    """Refuse a number of pseudo-concepts that lets no single hypothesis of the family be rejected.

    Raises:
        InputError: so few that the smallest p-value is above what the correction would reject; says how many it needs.
    """
    needed = _needed(family, correction)
    if count is not None and count < needed:
        raise InputError(
            f"n_nulls={count}: the smallest p-value of {count} random concepts, {1 / (count + 1):.2g}, cannot reject "
            f"one of {family} concepts at {ALPHA} (correction={shown(correction)}); give at least {needed}, or None"
        )


def _needed(family: int, correction: str) -> int:
    # How many siblings a tree will have is not known before it is mined; a single root needs this many.
    return needed_nulls(1 if correction == "hierarchical" else family, correction)


@dataclass(frozen=True)
class LayerNulls:
    """The pseudo-concepts of one layer.

    Attributes:
        of_size: (groups of positives, most rows of each, mask of the rows to draw from) -> pseudo-concepts.
        members: the same keys -> columns of the concepts that are held against them.
        count: pseudo-concepts of each size.
        warnings: concepts without any, in one line.
    """

    of_size: dict[NullKey, NullSets]
    members: dict[NullKey, list[int]]
    count: int
    warnings: list[str]

    def quality_p_values(self, bank: ConceptBank) -> np.ndarray:
        """(K,): share of pseudo-concepts with an AUC on held-out groups as high as the concept's.

        A label permutation test by whole groups, stratified by fold, of the concept's AUC; NaN without pseudo-concepts.
        """
        p_values = np.full(len(bank), np.nan)
        auc = torch.tensor(bank.quality["auc"].to_numpy(float))
        for key, columns in self.members.items():
            null = torch.nan_to_num(self.of_size[key].auc, nan=0.5)
            reached = (null[:, None] >= auc[columns]).sum(0)
            p = (1 + reached).double() / (1 + len(null))
            p_values[columns] = torch.where(torch.isfinite(auc[columns]), p, torch.nan).numpy()
        return p_values


def layer_nulls(
    bank: ConceptBank, data: LayerData, mean_gradient: Tensor, plan: NullPlan, correction: str = "bh"
) -> LayerNulls:
    """Pseudo-concepts for all concepts that could be fitted; those of equal size and equal pool share them.

    Args:
        bank: the layer's CAVs with their quality.
        data: the rows they were fitted on.
        mean_gradient: (T, D), mean over the explained clips; T may be 0.
        plan: of the draw.
        correction: decides how many are enough.

    Raises:
        InputError: ``plan.count`` is given and too few for the family.
    """
    fitted = bank.quality["status"].isin(["ok", NOT_TESTABLE]).to_numpy()
    family = int(fitted.sum())
    check_nulls(plan.count, family, correction)
    count = plan.count if plan.count is not None else enough_nulls(family, correction=correction)
    found: dict[NullKey, NullSets] = {}
    members: dict[NullKey, list[int]] = {}
    too_small: dict[int, str] = {}
    for key, columns in null_families(data, np.flatnonzero(fitted), plan.rest, plan.own).items():
        eligible = np.frombuffer(key[2], dtype=bool)
        try:
            found[key] = null_sets(data, eligible, key[0], mean_gradient, replace(plan, count=count), key[1])
        except InputError as error:
            too_small.update(dict.fromkeys(columns, str(error)))
            continue
        members[key] = columns
    return LayerNulls(found, members, count, _warnings(bank, too_small, count, family, correction))


def null_families(data: LayerData, columns: Iterable[int], rest: bool, own: bool = False) -> dict[NullKey, list[int]]:
    """Concepts that can share their pseudo-concepts: columns by what decides these.

    Args:
        data: the layer's rows.
        columns: of the concepts.
        rest, own: see ``NullPlan``.
    """
    families: dict[NullKey, list[int]] = {}
    everything = np.ones(len(data.groups), dtype=bool)
    index = index_groups(data.groups)[1]
    for k in columns:
        against = data.negatives[:, k]
        eligible = everything if rest else against | data.positives[:, k] if own else against
        shown, pool = (np.bincount(index[rows]) for rows in (data.positives[:, k], eligible))
        shown, pool = shown[shown > 0], pool[pool > 0]
        most = excerpt_rows(shown, pool) if len(pool) else None
        families.setdefault((len(shown), most, eligible.tobytes()), []).append(int(k))
    return families


def _warnings(bank: ConceptBank, too_small: dict[int, str], count: int, family: int, correction: str) -> list[str]:
    lines = []
    if too_small:
        some = ", ".join(shown(bank.names[k], 30) for k in list(too_small)[:5])
        more = ", ..." if len(too_small) > 5 else ""
        lines.append(
            f"{shown(bank.layer)}: no p-values for {counted(len(too_small), 'concept')} ({some}{more}): "
            f"{next(iter(too_small.values()))}"
        )
    needed = _needed(family, correction)
    if count < needed:
        lines.append(
            f"{shown(bank.layer)}: the smallest p-value of {count} random concepts is {1 / (count + 1):.2g}; one "
            f"rejection alone in a family of {family} would need n_nulls={needed}"
        )
    return lines


def score_layer(
    bank: ConceptBank,
    data: LayerData,
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
        correction: see ``corrections.CORRECTIONS``. A family is the concepts of one layer and target.
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
        # of clips that are all alike the interval is the value, which was rounded otherwise
        bounds = {name: value, low_name: torch.minimum(low, value), high_name: torch.maximum(high, value)}
        columns |= {column: figure.cpu().numpy() for column, figure in bounds.items()}
    return columns


def _p_values(
    bank: ConceptBank, data: LayerData, mean_gradient: Tensor, nulls: LayerNulls
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
