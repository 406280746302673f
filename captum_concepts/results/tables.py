"""Columns and empty tables of an explanation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

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


SHARE_COLUMNS = ("layer", "target", "concept", "share", "branch", "error", "branch_error", "completeness", "explained")
TEXTS = 3  # the first columns


def empty_shares() -> pd.DataFrame:
    """A table of shares without rows."""
    return share_table([])


def share_table(rows: Sequence[tuple[str | float, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) or [()] * len(SHARE_COLUMNS)
    types = [object] * TEXTS + [np.float64] * (len(SHARE_COLUMNS) - TEXTS)
    given = zip(SHARE_COLUMNS, columns, types, strict=True)
    return pd.DataFrame({name: pd.Series(list(values), dtype=kind) for name, values, kind in given})
