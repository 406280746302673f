"""The null concepts of one layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.groups import index_groups
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.choices import ALPHA
from captum_concepts.errors import InputError
from captum_concepts.significance.builtin import BUILTIN_CORRECTIONS
from captum_concepts.significance.corrections import check_correction
from captum_concepts.significance.null_concepts import NullPlan, NullSets, excerpt_rows, null_sets
from captum_concepts.text import pluralize, short_repr

MIN_NULLS, MAX_NULLS = 1999, 9999
NOT_TESTABLE = "not testable"
#: Groups of positives, most rows of each (see ``nulls.excerpt_rows``), mask of the rows to draw from.
NullKey = tuple[int, "int | None", bytes]


def needed_nulls(family: int, correction: str = "bh", alpha: float = ALPHA) -> int:
    """Null concepts without which no p-value is small enough to reject one hypothesis of a family on its own.

    Args:
        family: hypotheses in the family; for "hierarchical", the largest number of siblings.
        correction: see ``significance.CORRECTIONS``.
        alpha: level.
    """
    factor = BUILTIN_CORRECTIONS[check_correction(correction)].factor(family)
    return int(np.ceil(round(family * factor / alpha, 6))) - 1


def enough_nulls(family: int, correction: str = "bh", alpha: float = ALPHA) -> int:
    """Null concepts that let one hypothesis of ``family`` be rejected at ``alpha``, within bounds that stay cheap.

    Args:
        family, correction, alpha: as in ``needed_nulls``.
    """
    return min(max(MIN_NULLS, needed_nulls(family, correction, alpha)), MAX_NULLS)


def check_nulls(count: int | None, family: int, correction: str = "bh") -> None:
    """Refuse a number of null concepts that lets no single hypothesis of the family be rejected.

    Raises:
        InputError: so few that the smallest p-value is above what the correction would reject; says how many it needs.
    """
    needed = fewest_nulls(family, correction)
    if count is not None and count < needed:
        raise InputError(
            f"n_nulls={count}: the smallest p-value of {count} null concepts, {1 / (count + 1):.2g}, cannot reject "
            f"one of {family} concepts at {ALPHA} (correction={short_repr(correction)}); give at least {needed}, or "
            "None"
        )


def fewest_nulls(family: int, correction: str) -> int:
    # How many siblings a tree will have is not known before it is mined; a single root needs this many.
    return needed_nulls(1 if correction == "hierarchical" else family, correction)


@dataclass(frozen=True)
class LayerNulls:
    """The null concepts of one layer.

    Attributes:
        of_size: (groups of positives, most rows of each, mask of the rows to draw from) -> null concepts.
        members: the same keys -> columns of the concepts that are compared with them.
        count: null concepts of each size.
        warnings: concepts without any, in one line.
    """

    of_size: dict[NullKey, NullSets]
    members: dict[NullKey, list[int]]
    count: int
    warnings: list[str]

    def quality_p_values(self, bank: ConceptBank) -> np.ndarray:
        """(K,): share of null concepts with an AUC on held-out groups as high as the concept's.

        A label permutation test by whole groups, stratified by fold, of the concept's AUC; NaN without null concepts.
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
    bank: ConceptBank, data: LabelledRows, mean_gradient: Tensor, plan: NullPlan, correction: str = "bh"
) -> LayerNulls:
    """Null concepts for all concepts that could be fitted; those of equal size and equal negatives share them.

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
    return LayerNulls(found, members, count, null_warnings(bank, too_small, count, family, correction))


def null_families(
    data: LabelledRows, columns: Iterable[int], rest: bool, own: bool = False
) -> dict[NullKey, list[int]]:
    """Concepts that can share their null concepts: columns by what decides these.

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
        marked, pool = (np.bincount(index[rows]) for rows in (data.positives[:, k], eligible))
        marked, pool = marked[marked > 0], pool[pool > 0]
        most = excerpt_rows(marked, pool) if len(pool) else None
        families.setdefault((len(marked), most, eligible.tobytes()), []).append(int(k))
    return families


def null_warnings(bank: ConceptBank, too_small: dict[int, str], count: int, family: int, correction: str) -> list[str]:
    lines = []
    if too_small:
        some = ", ".join(short_repr(bank.names[k], 30) for k in list(too_small)[:5])
        more = ", ..." if len(too_small) > 5 else ""
        lines.append(
            f"{short_repr(bank.layer)}: no p-values for {pluralize(len(too_small), 'concept')} ({some}{more}): "
            f"{next(iter(too_small.values()))}"
        )
    needed = fewest_nulls(family, correction)
    if count < needed:
        lines.append(
            f"{short_repr(bank.layer)}: the smallest p-value of {count} null concepts is {1 / (count + 1):.2g}; one "
            f"rejection alone in a family of {family} would need n_nulls={needed}"
        )
    return lines
