"""Concept activation vectors: all concepts of a layer fitted at once, on the device the activations are on.

Every method maps activations (N, D) and, for each of K concepts, which rows are positive and which negative, to K unit
directions, biases and scales. The logit that a row f shows concept k is
``scales[k] * (f @ directions[k] + biases[k])``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.discriminants import Fit, fit_lda, fit_pattern
from captum_concepts.errors import InputError, shown
from captum_concepts.folds import stratified_parts
from captum_concepts.logistic import fit_logistic
from captum_concepts.quality import auc_with_interval, balanced_accuracy, gaussian_log_odds, group_means, index_groups

QUALITY_COLUMNS = (
    "concept",
    "auc",
    "low",
    "high",
    "accuracy",
    "p_value",
    "n_positive_groups",
    "n_negative_groups",
    "status",
)

# Held-out logits of different folds share most of what they were fitted on. The variance of the AUC of meaningless
# concepts was 1.5 to 1.8 times DeLong's in simulations (30 to 200 groups, 12 to 300 features).
FOLD_INFLATION = 1.6


@dataclass
class ConceptBank:
    """The K CAVs of one layer.

    Attributes:
        names: concept names.
        layer: the layer's name.
        directions: (K, D), unit length, dtype of the activations; NaN rows for concepts that could not be fitted.
        biases: (K,), in activation units along the direction.
        scales: (K,), logits per activation unit.
        quality: one row per concept, columns ``QUALITY_COLUMNS``: AUC on held-out groups with its 95 % interval,
            balanced accuracy on held-out groups, p-value of the AUC among random sets (see
            ``scoring.LayerNulls``; NaN until it is computed), counts, and status ("ok", "too few groups", "not
            testable").
        method: how it was fitted.
    """

    names: tuple[str, ...]
    layer: str
    directions: Tensor
    biases: Tensor
    scales: Tensor
    quality: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(QUALITY_COLUMNS)))
    method: str = ""

    def __post_init__(self) -> None:
        k = len(self.names)
        if self.directions.dim() != 2 or len(self.directions) != k:
            raise InputError(f"directions: shape {tuple(self.directions.shape)} does not fit {k} names")
        for label, values in (("biases", self.biases), ("scales", self.scales)):
            if tuple(values.shape) != (k,):
                raise InputError(f"{label}: shape {tuple(values.shape)} does not fit {k} names")

    def __len__(self) -> int:
        return len(self.names)

    def logits(self, activations: Tensor) -> Tensor:
        """(N, D) -> (N, K): the logit that each row shows each concept."""
        return self.scales * (activations @ self.directions.T + self.biases)

    def presence(self, activations: Tensor) -> Tensor:
        """(N, D) -> (N, K): the probability that each row shows each concept."""
        return torch.sigmoid(self.logits(activations))

    def to(self, device: str | torch.device) -> ConceptBank:
        """The same bank on another device."""
        return replace(
            self, directions=self.directions.to(device), biases=self.biases.to(device), scales=self.scales.to(device)
        )

    def subset(self, names: Sequence[str]) -> ConceptBank:
        """The bank of some of the concepts, in the order given."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(f"concept {shown(missing[0])} is not in the bank of layer {self.layer}")
        rows = [self.names.index(name) for name in names]
        quality = self.quality
        if len(quality):
            quality = quality.set_index("concept", drop=False).loc[list(names)].reset_index(drop=True)
        return replace(
            self,
            names=tuple(names),
            directions=self.directions[rows],
            biases=self.biases[rows],
            scales=self.scales[rows],
            quality=quality,
        )


FitFunction = Callable[..., Fit]


CAV_METHODS: dict[str, FitFunction] = {"pattern": fit_pattern, "lda": fit_lda, "logistic": fit_logistic}


def group_weights(groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) weights 1 / (rows of the row's group): every group counts the same, however many patches it has."""
    _, index = index_groups(groups)
    return np.asarray(1.0 / np.bincount(index)[index])


def fit_cavs(
    activations: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    method: str | FitFunction = "pattern",
    groups: Sequence[str] | np.ndarray | None = None,
    *,
    negatives: Tensor | np.ndarray | None = None,
    weights: Tensor | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    layer: str = "",
    folds: int = 5,
    min_groups: int = 5,
    seed: int = 0,
    **options: Any,
) -> ConceptBank:
    """Fit the CAVs of all concepts of one layer, with their quality on held-out groups.

    Args:
        activations: (N, D).
        labels: bool (N, K), which rows show which concept.
        method: a registered name ("pattern", "lda", "logistic", ...) or a function like ``discriminants.fit_pattern``.
        groups: (N,) the track or recording of each row; default: every row its own.
        negatives: bool (N, K); default: every row that does not show the concept.
        weights: (N,) weight of each row; default: 1 / rows of its group.
        names: K names; default "0", "1", ...
        layer: name kept in the bank.
        folds: for the held-out quality, at least 2; 0 leaves the quality out.
        min_groups: concepts with fewer positive or negative groups get status "too few groups" and NaN.
        seed: of the assignment of groups to folds (it does not depend on the order of rows or concepts).
        options: passed on to the method.

    Returns:
        ConceptBank. A concept whose held-out AUC does not exceed 0.5 by its 95 % interval has status "not testable".

    Raises:
        InputError: shapes that do not fit, NaN activations, a row both positive and negative, unknown method or
            option, a weight that is negative or not finite.
    """
    x, positives, negative = _checked(activations, labels, negatives)
    n, k = positives.shape
    names = tuple(map(str, names)) if names is not None else tuple(map(str, range(k)))
    if len(names) != k:
        raise InputError(f"names: {len(names)} names for {k} columns of labels")
    if folds < 0 or folds == 1:
        raise InputError(f"folds={folds}: give at least 2, or 0 to leave the quality out")
    given = np.arange(n) if groups is None else groups
    if len(given) != n:
        raise InputError(f"groups: {len(given)} entries for {n} rows of activations")
    group_names, index = index_groups(given)
    grouping = Grouping(group_names, torch.as_tensor(index, device=x.device))
    row_weights = _row_weights(group_weights(given) if weights is None else weights, x)
    fit = resolve_method(method)
    counts = grouping.any(positives).sum(0).cpu().numpy(), grouping.any(negative).sum(0).cpu().numpy()
    enough = (counts[0] >= min_groups) & (counts[1] >= min_groups)
    directions = x.new_full((k, x.shape[1]), torch.nan)
    biases, scales = x.new_full((k,), torch.nan), x.new_full((k,), torch.nan)
    fitted = torch.as_tensor(np.flatnonzero(enough), device=x.device)
    if len(fitted):
        parts = run_fit(fit, x, positives[:, fitted], negative[:, fitted], row_weights, options)
        directions[fitted], biases[fitted], scales[fitted] = parts
    quality = pd.DataFrame({"concept": pd.Series(names, dtype=object)})
    quality[["auc", "low", "high", "accuracy", "p_value"]] = np.nan
    if folds and len(fitted):
        shown_by = grouping.any(positives[:, fitted]).cpu().numpy()
        chosen = [names[i] for i in fitted.tolist()]
        fold = stratified_parts(grouping.names, shown_by, chosen, [1 / folds] * folds, seed)
        logits, of_group = held_out_logits(
            x, positives[:, fitted], negative[:, fitted], row_weights, grouping, fold, fit, options
        )
        measured = (*auc_with_interval(logits, *of_group, FOLD_INFLATION), balanced_accuracy(logits, *of_group))
        for column, values in zip(("auc", "low", "high", "accuracy"), measured, strict=True):
            quality.loc[fitted.cpu().numpy(), column] = values.cpu().double().numpy()
    quality["n_positive_groups"], quality["n_negative_groups"] = counts
    degenerate = ~torch.isfinite(directions).all(1).cpu().numpy()
    testable = (quality["low"] > 0.5).to_numpy() if folds else np.ones(k, bool)
    status = np.select([~enough, degenerate | ~testable], ["too few groups", "not testable"], default="ok")
    quality["status"] = pd.Series(status.tolist(), dtype=object)
    label = method if isinstance(method, str) else getattr(method, "__name__", "custom")
    return ConceptBank(names, layer, directions, biases, scales, quality[list(QUALITY_COLUMNS)], label)


def resolve_method(method: str | FitFunction) -> FitFunction:
    """The fit function of a registered name; a callable is returned as it is."""
    if callable(method):
        return method
    from captum_concepts.plugins import lookup

    return lookup("cav_methods", method).factory


def run_fit(
    fit: FitFunction,
    activations: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    options: dict[str, Any],
) -> Fit:
    """Call a fit function and bring what it returns to unit directions with biases and scales.

    A plugin may return (directions, biases) of any length, meaning the logit ``f @ directions[k] + biases[k]``.

    Raises:
        InputError: unknown options, or results of the wrong shape.
    """
    try:
        inspect.signature(fit).bind(activations, positives, negatives, weights, **options)
    except TypeError as error:
        raise InputError(f"cav_options={shown(options)}: {error}") from None
    parts = tuple(fit(activations, positives, negatives, weights, **options))
    if len(parts) not in (2, 3):
        raise InputError(f"CAV method {getattr(fit, '__name__', 'custom')}: must give (directions, biases)")
    directions, biases = parts[:2]
    k = positives.shape[1]
    if tuple(directions.shape) != (k, activations.shape[1]) or tuple(biases.shape) != (k,):
        raise InputError(
            f"CAV method {getattr(fit, '__name__', 'custom')}: gave shapes {tuple(directions.shape)} and "
            f"{tuple(biases.shape)}; it must give ({k}, {activations.shape[1]}) and ({k},)"
        )
    if len(parts) == 3:
        return directions, biases, parts[2]
    lengths = directions.norm(dim=1)
    return directions / lengths[:, None], biases / lengths, lengths


def _checked(
    activations: Tensor | np.ndarray, labels: Tensor | np.ndarray, negatives: Tensor | np.ndarray | None
) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.as_tensor(activations)
    if x.dim() != 2 or not x.numel():
        raise InputError(f"activations: shape {tuple(x.shape)}; pass (rows, features)")
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if not torch.isfinite(x).all():
        raise InputError("activations: NaN or infinite values; drop the clips they come from")
    positives = _mask(labels, "labels", x)
    if positives.dim() != 2 or len(positives) != len(x):
        raise InputError(f"labels: shape {tuple(positives.shape)}; pass ({len(x)}, concepts)")
    negative = ~positives if negatives is None else _mask(negatives, "negatives", x)
    if negative.shape != positives.shape:
        raise InputError(
            f"negatives: shape {tuple(negative.shape)} differs from that of labels {tuple(positives.shape)}"
        )
    if (positives & negative).any():
        both = int((positives & negative).any(0).nonzero()[0, 0])
        raise InputError(
            f"negatives: column {both} marks rows that are also positives; take them out of one of the two"
        )
    return x, positives, negative


def _mask(values: Tensor | np.ndarray, argument: str, like: Tensor) -> Tensor:
    mask = torch.as_tensor(values).to(like.device)
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise InputError(f"{argument}: values other than 0 and 1; pass True where a row shows a concept")
    return mask.bool()


def _row_weights(weights: Tensor | np.ndarray, like: Tensor) -> Tensor:
    result = torch.as_tensor(weights).to(like)
    if tuple(result.shape) != (len(like),):
        raise InputError(f"weights: shape {tuple(result.shape)}; pass ({len(like)},), one number for each row")
    if not (torch.isfinite(result) & (result > 0)).all():
        raise InputError("weights: zero, negative, infinite or NaN; give positive numbers, and leave other rows out")
    return result


@dataclass(frozen=True)
class Grouping:
    """G sorted group names, and the group of each row: int (N,)."""

    names: list[str]
    index: Tensor

    def any(self, mask: Tensor) -> Tensor:
        """bool (N, K) -> bool (G, K): whether any row of the group is marked."""
        counts = torch.zeros(len(self.names), mask.shape[1], device=mask.device)
        return counts.index_add_(0, self.index, mask.float()) > 0


def held_out_logits(
    x: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    grouping: Grouping,
    fold: np.ndarray,
    fit: FitFunction,
    options: dict[str, Any],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits of groups by CAVs that were fitted without them, and which groups are positive and negative.

    A group counts by the mean over its rows that are positives or, in a group without any, negatives. The logits of a
    fold are those of two Gaussians of equal variance over the groups fitted on, whatever the method's own scale is, so
    that folds can be compared. NaN where the other folds lack positives or negatives.

    Args:
        x: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,).
        grouping: of the rows into G groups.
        fold: (G,) int, the fold of each group.
        fit, options: of the method.

    Returns:
        logits (G, K), (bool (G, K), bool (G, K)).
    """
    of_group = grouping.any(positives), grouping.any(negatives) & ~grouping.any(positives)
    members = torch.where(of_group[0][grouping.index], positives, negatives)
    logits = x.new_full(of_group[0].shape, torch.nan)
    used = members.any(1)
    rows, index = (x, grouping.index) if used.all() else (x[used], grouping.index[used])
    members = members[used]
    for number in np.unique(fold):
        held = torch.as_tensor(fold == number, device=x.device)
        out = held[grouping.index]
        complete = positives[~out].any(0) & negatives[~out].any(0)
        if not complete.any():
            continue
        shows, against = positives[~out][:, complete], negatives[~out][:, complete]
        direction = run_fit(fit, x[~out], shows, against, weights[~out], options)[0]
        values = group_means(rows @ direction.T, members[:, complete], index, len(grouping.names))
        fitted = [part[:, complete] & ~held[:, None] for part in of_group]
        logits[held.nonzero(), complete.nonzero().T] = gaussian_log_odds(values, *fitted)[held]
    return logits, of_group
