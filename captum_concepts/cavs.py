"""Concept activation vectors: all concepts of a layer fitted at once, on the device the activations are on.

Every method maps activations (N, D) and, for each of K concepts, which rows are positive and which negative, to K unit
directions, biases and scales. The logit that a row f shows concept k is
``scales[k] * (f @ directions[k] + biases[k])``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.errors import InputError, shown
from captum_concepts.folds import stratified_parts
from captum_concepts.logistic import fit_logistic
from captum_concepts.quality import auc_with_interval, balanced_accuracy, group_means

QUALITY_COLUMNS = ("concept", "auc", "low", "high", "accuracy", "n_positive_groups", "n_negative_groups", "status")


@dataclass
class ConceptBank:
    """The K CAVs of one layer.

    Attributes:
        names: concept names.
        layer: the layer's name.
        directions: (K, D) float32, unit length; NaN rows for concepts that could not be fitted.
        biases: (K,), in activation units along the direction.
        scales: (K,), logits per activation unit.
        quality: one row per concept, columns ``QUALITY_COLUMNS``: AUC on held-out groups with its 95 % interval,
            balanced accuracy on held-out groups, counts, and status ("ok", "too few groups", "not testable").
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
        moved = [tensor.to(device) for tensor in (self.directions, self.biases, self.scales)]
        return ConceptBank(self.names, self.layer, *moved, self.quality, self.method)

    def subset(self, names: Sequence[str]) -> ConceptBank:
        """The bank of some of the concepts, in the order given."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(f"concept {shown(missing[0])} is not in the bank of layer {self.layer}")
        rows = [self.names.index(name) for name in names]
        quality = self.quality
        if len(quality):
            quality = quality.set_index("concept", drop=False).loc[list(names)].reset_index(drop=True)
        parts = [tensor[rows] for tensor in (self.directions, self.biases, self.scales)]
        return ConceptBank(tuple(names), self.layer, *parts, quality, self.method)


Fit = tuple[Tensor, Tensor, Tensor]
FitFunction = Callable[..., Fit]


def _share(mask: Tensor, weights: Tensor) -> Tensor:
    """Column weights that sum to one over each concept's rows: (N, K)."""
    weighted = mask.to(weights.dtype) * weights[:, None]
    return weighted / weighted.sum(0).clamp_min(torch.finfo(weights.dtype).tiny)


def _along(activations: Tensor, directions: Tensor, positive: Tensor, negative: Tensor) -> Fit:
    """Unit directions with the bias and scale of equal-variance Gaussians along them.

    With class means m1, m0 and pooled variance s² of the projections, the log odds at equal priors are
    (m1 - m0) / s² · (z - (m1 + m0) / 2).
    """
    directions = torch.nn.functional.normalize(directions, dim=1, eps=0.0)
    projections = activations @ directions.T
    mean_1, mean_0 = (positive * projections).sum(0), (negative * projections).sum(0)
    spread = (positive * (projections - mean_1) ** 2).sum(0) + (negative * (projections - mean_0) ** 2).sum(0)
    floor = torch.finfo(projections.dtype).eps * (projections**2).mean(0) + torch.finfo(projections.dtype).tiny
    scales = (mean_1 - mean_0) / (spread / 2).clamp_min(floor)
    return directions, -(mean_1 + mean_0) / 2, scales


def fit_pattern(activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor) -> Fit:
    """Difference of class means: the pattern cov(x, y) / var(y) for binary y. One matrix product for all concepts.

    Haufe et al., NeuroImage 2014; Pahde et al., ICLR 2025 (arXiv 2202.03482); the direction of FastCAV.

    Args:
        activations: (N, D).
        positives, negatives: bool (N, K).
        weights: (N,), weight of each row.

    Returns:
        directions (K, D), biases (K,), scales (K,).
    """
    positive, negative = _share(positives, weights), _share(negatives, weights)
    return _along(activations, (positive - negative).T @ activations, positive, negative)


def fit_lda(
    activations: Tensor, positives: Tensor, negatives: Tensor, weights: Tensor, shrinkage: float | None = None
) -> Fit:
    """Difference of class means, whitened by the shrunk covariance of all rows.

    With all rows as positives or negatives this is Fisher's direction: whitening by the total covariance instead of the
    within-class one only changes its length (Sherman-Morrison). One factorisation serves all concepts.

    Args:
        activations, positives, negatives, weights: as in ``fit_pattern``.
        shrinkage: share of the mean variance times identity in the covariance, 0 to 1; None takes the oracle-
            approximating value (Chen et al., IEEE TSP 2010, eq. 23).

    Returns:
        directions (K, D), biases (K,), scales (K,).
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage={shrinkage} must be between 0 and 1")
    positive, negative = _share(positives, weights), _share(negatives, weights)
    share = weights / weights.sum()
    centred = (activations - share @ activations) * share.sqrt()[:, None]
    n, d = activations.shape
    wide = d > n
    gram = (centred @ centred.T if wide else centred.T @ centred).double()
    trace, squared = gram.diagonal().sum(), (gram**2).sum()
    if shrinkage is None:
        mean_square = trace**2
        alpha = ((1 - 2 / d) * squared + mean_square) / ((n + 1 - 2 / d) * (squared - mean_square / d)).clamp_min(
            1e-300
        )
        shrinkage = float(alpha.clamp(1e-3, 1.0))
    ridge = shrinkage * trace / d + torch.finfo(torch.float32).eps * trace / d
    keep = 1 - shrinkage
    difference = ((positive - negative).T @ activations).double()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(keep * gram + ridge * identity)
    if wide:
        # Woodbury: (ridge I + keep C'C)^-1 d = (d - keep C' (ridge I + keep CC')^-1 C d) / ridge
        rows = centred.double()
        inner = torch.cholesky_solve(rows @ difference.T, factor)
        solved = (difference - keep * (rows.T @ inner).T) / ridge
    else:
        solved = torch.cholesky_solve(difference.T, factor).T
    solved = torch.nn.functional.normalize(solved, dim=1).to(activations.dtype)
    return _along(activations, solved, positive, negative)


CAV_METHODS: dict[str, FitFunction] = {"pattern": fit_pattern, "lda": fit_lda, "logistic": fit_logistic}


def group_weights(groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) weights 1 / (rows of the row's group): every group counts the same, however many patches it has."""
    _, index, counts = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True, return_counts=True)
    return 1.0 / counts[index]


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
        method: a registered name ("pattern", "lda", "logistic", ...) or a function like ``fit_pattern``.
        groups: (N,) the track or recording of each row; default: every row its own.
        negatives: bool (N, K); default: every row that does not show the concept.
        weights: (N,) weight of each row; default: 1 / rows of its group.
        names: K names; default "0", "1", ...
        layer: name kept in the bank.
        folds: for the held-out quality; 0 leaves the quality out.
        min_groups: concepts with fewer positive or negative groups get status "too few groups" and NaN.
        seed: of the assignment of groups to folds (it does not depend on the order of rows or concepts).
        options: passed on to the method.

    Returns:
        ConceptBank. A concept whose held-out AUC does not exceed 0.5 by its 95 % interval has status "not testable".

    Raises:
        InputError: shapes that do not fit, NaN activations, a row both positive and negative, unknown method.
    """
    x, positives, negative = _checked(activations, labels, negatives)
    n, k = positives.shape
    names = tuple(map(str, names)) if names is not None else tuple(map(str, range(k)))
    if len(names) != k:
        raise InputError(f"names: {len(names)} names for {k} columns of labels")
    group = np.arange(n).astype(str) if groups is None else np.asarray(groups, dtype=object).astype(str)
    if len(group) != n:
        raise InputError(f"groups: {len(group)} entries for {n} rows of activations")
    row_weights = torch.as_tensor(group_weights(group) if weights is None else weights).to(x)
    fit = resolve_method(method)
    counts = _group_counts(group, positives), _group_counts(group, negative)
    enough = (counts[0] >= min_groups) & (counts[1] >= min_groups)
    directions = x.new_full((k, x.shape[1]), torch.nan)
    biases, scales = x.new_full((k,), torch.nan), x.new_full((k,), torch.nan)
    fitted = torch.as_tensor(np.flatnonzero(enough), device=x.device)
    if len(fitted):
        parts = run_fit(fit, x, positives[:, fitted], negative[:, fitted], row_weights, options)
        directions[fitted], biases[fitted], scales[fitted] = parts
    quality = _quality(x, positives, negative, row_weights, group, names, fitted, fit, folds, seed, options)
    quality.insert(0, "concept", names)
    quality["n_positive_groups"], quality["n_negative_groups"] = counts
    degenerate = ~torch.isfinite(directions).all(1).cpu().numpy()
    testable = (quality["low"] > 0.5).to_numpy() if folds else np.ones(k, bool)
    quality["status"] = np.select([~enough, degenerate | ~testable], ["too few groups", "not testable"], default="ok")
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
    parts = fit(activations, positives, negatives, weights, **options)
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
    if x.dim() != 2:
        raise InputError(f"activations: shape {tuple(x.shape)}; pass (rows, features)")
    if not x.is_floating_point():
        x = x.float()
    if not torch.isfinite(x).all():
        raise InputError("activations: NaN or infinite values; drop the clips they come from")
    positives = torch.as_tensor(labels).to(device=x.device, dtype=torch.bool)
    if positives.dim() != 2 or len(positives) != len(x):
        raise InputError(f"labels: shape {tuple(positives.shape)}; pass ({len(x)}, concepts)")
    negative = ~positives if negatives is None else torch.as_tensor(negatives).to(device=x.device, dtype=torch.bool)
    if negative.shape != positives.shape:
        raise InputError(
            f"negatives: shape {tuple(negative.shape)} differs from that of labels {tuple(positives.shape)}"
        )
    if (positives & negative).any():
        both = int((positives & negative).any(0).nonzero()[0])
        raise InputError(
            f"negatives: column {both} marks rows that are also positives; take them out of one of the two"
        )
    return x, positives, negative


def _group_counts(groups: np.ndarray, mask: Tensor) -> np.ndarray:
    """(K,) number of distinct groups among each column's rows."""
    _, index = np.unique(groups, return_inverse=True)
    present = torch.zeros(index.max() + 1 if len(index) else 0, mask.shape[1], device=mask.device)
    present.index_add_(0, torch.as_tensor(index, device=mask.device), mask.float())
    return (present > 0).sum(0).cpu().numpy()


def _quality(
    x: Tensor,
    positives: Tensor,
    negatives: Tensor,
    weights: Tensor,
    groups: np.ndarray,
    names: Sequence[str],
    fitted: Tensor,
    fit: FitFunction,
    folds: int,
    seed: int,
    options: dict[str, Any],
) -> pd.DataFrame:
    """Held-out AUC with interval and balanced accuracy of every concept; NaN where not fitted."""
    k = positives.shape[1]
    table = pd.DataFrame({name: np.full(k, np.nan) for name in ("auc", "low", "high", "accuracy")})
    if not folds or not len(fitted):
        return table
    positives, negatives = positives[:, fitted], negatives[:, fitted]
    unique, index = np.unique(groups, return_inverse=True)
    index = torch.as_tensor(index, device=x.device)
    group_positive = group_means(positives.to(x.dtype), index, len(unique)) > 0
    group_negative = (group_means(negatives.to(x.dtype), index, len(unique)) > 0) & ~group_positive
    shows = group_positive.cpu().numpy()
    chosen = [names[k] for k in fitted.tolist()]
    fold = stratified_parts(list(unique), shows, chosen, [1 / folds] * folds, seed)
    logits = x.new_full((len(unique), len(fitted)), torch.nan)
    for number in range(folds):
        held = torch.as_tensor(fold == number, device=x.device)
        train = ~held[index]
        if not held.any() or not train.any():
            continue
        direction, bias, scale = run_fit(fit, x[train], positives[train], negatives[train], weights[train], options)
        rows = scale * (x[~train] @ direction.T + bias)
        means = group_means(rows, index[~train], len(unique))
        logits[held] = means[held]
    auc, low, high = auc_with_interval(logits, group_positive, group_negative)
    where = fitted.cpu().numpy()
    for name, values in zip(("auc", "low", "high"), (auc, low, high), strict=True):
        table.loc[where, name] = values.cpu().double().numpy()
    table.loc[where, "accuracy"] = balanced_accuracy(logits, group_positive, group_negative).cpu().double().numpy()
    return table
