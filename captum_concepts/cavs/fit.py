"""Concept activation vectors: all concepts of a layer fitted at once, on the device the activations are on.

Every method maps activations (N, D) and, for each of K concepts, which rows are positive and which negative, to K unit
directions, biases and scales. The logit that a row f has concept k is
``scales[k] * (f @ directions[k] + biases[k])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.cavs.bank import QUALITY_COLUMNS, ConceptBank
from captum_concepts.cavs.groups import Grouping, group_weights, index_groups, row_weights
from captum_concepts.cavs.held_out import FOLD_INFLATION, held_out_logits
from captum_concepts.cavs.methods import CavMethod, FitFunction, resolve_method
from captum_concepts.cavs.quality import auc_with_interval, balanced_accuracy
from captum_concepts.concepts.folds import stratified_parts
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


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
        labels: bool (N, K), which rows are positives of which concept.
        method: a registered name ("pattern", "lda", "logistic", ...) or a function like ``cavs.fit_pattern``.
        groups: (N,) the track or recording of each row; default: every row its own.
        negatives: bool (N, K); default: every row that is not a positive.
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

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(40)[:, None] % 2 == 0
        >>> rows = torch.randn(40, 3, generator=generator) + 4 * labels * torch.tensor([1.0, 0.0, 0.0])
        >>> bank = fit_cavs(rows, labels, "pattern", names=["piano"])
        >>> bank.quality["status"].tolist(), bool(bank.directions[0, 0] > 0.9)
        (['ok'], True)
    """
    x, positives, negative = _checked(activations, labels, negatives)
    n, k = positives.shape
    names = tuple(map(str, names)) if names is not None else tuple(map(str, range(k)))
    if len(names) != k:
        raise InputError(f"names={short_repr(names)}: {len(names)} names for {k} columns of labels; give {k}")
    if folds < 0 or folds == 1:
        raise InputError(f"folds={folds}: too few; give at least 2, or 0 to leave the quality out")
    given = np.arange(n) if groups is None else groups
    if len(given) != n:
        raise InputError(f"groups={short_repr(groups)}: {len(given)} entries for {n} rows of activations; give {n}")
    group_names, index = index_groups(given)
    grouping = Grouping(group_names, torch.as_tensor(index, device=x.device))
    weight_of_row = row_weights(group_weights(given) if weights is None else weights, x)
    fit = CavMethod(resolve_method(method), options)
    counts = grouping.any(positives).sum(0).cpu().numpy(), grouping.any(negative).sum(0).cpu().numpy()
    enough = (counts[0] >= min_groups) & (counts[1] >= min_groups)
    directions = x.new_full((k, x.shape[1]), torch.nan)
    biases, scales = x.new_full((k,), torch.nan), x.new_full((k,), torch.nan)
    fitted = torch.as_tensor(np.flatnonzero(enough), device=x.device)
    if len(fitted):
        parts = fit(x, positives[:, fitted], negative[:, fitted], weight_of_row)
        directions[fitted], biases[fitted], scales[fitted] = parts
    quality = pd.DataFrame({"concept": pd.Series(names, dtype=object)})
    quality[["auc", "low", "high", "accuracy", "p_value"]] = np.nan
    if folds and len(fitted):
        shown_by = grouping.any(positives[:, fitted]).cpu().numpy()
        chosen = [names[i] for i in fitted.tolist()]
        fold = stratified_parts(grouping.names, shown_by, chosen, [1 / folds] * folds, seed)
        logits, of_group = held_out_logits(
            x, positives[:, fitted], negative[:, fitted], weight_of_row, grouping, fold, fit
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
        raise InputError(f"{argument}: values other than 0 and 1; pass True where a row is a positive")
    return mask.bool()
