"""Diagnostics of an explanation as JSON for the page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from captum_concepts.results.diagnostics import is_confounded

if TYPE_CHECKING:
    from captum_concepts.results.explanation_data import ExplanationData

MAX_ROWS = 50


def checks(explanation: ExplanationData, index: dict[str, int]) -> dict[str, Any]:
    """Diagnostics as JSON: by layer, concepts by index; only what was found, strongest first.

    Args:
        explanation: whose.
        index: of every name on the page.
    """
    found = explanation.diagnostics
    shared = found.shared.head(MAX_ROWS)
    return {
        "layers": [_layer(explanation, layer, index) for layer in explanation.layers],
        "shared": shared.to_numpy(object).tolist(),
        "n_shared": len(found.shared),
    }


def _layer(explanation: ExplanationData, layer: str, index: dict[str, int]) -> dict[str, Any]:
    found = {
        name: table[table["layer"] == layer] for name, table in explanation.diagnostics.tables() if name != "shared"
    }
    unstable = found["stability"][found["stability"]["cosine"] <= found["stability"]["chance"]]
    placed = found["positions"][found["positions"]["unevenness"] > found["positions"]["chance"]]
    lost = found["push_forward"][found["push_forward"]["cosine"] <= found["push_forward"]["chance"]]
    domain = found["domain"].to_dict("records")
    pairs = ["first", "second", "cosine", "chance", "auc_first", "auc_second", "shared_groups", "overlap"]
    return {
        "checked": len(found["stability"]),
        "pairs": _rows(found["pairs"], pairs, index),
        "n_pairs": len(found["pairs"]),
        "unstable": _rows(unstable.sort_values("cosine", kind="stable"), ["concept", "cosine", "chance"], index),
        "n_unstable": len(unstable),
        "placed": _rows(placed, ["concept", "axis", "unevenness", "chance"], index),
        "n_placed": len(placed),
        "lost": _rows(lost, ["concept", "next_layer", "cosine", "chance"], index),
        "n_lost": len(lost),
        "domain": {**_numbers(domain[0]), "confounded": is_confounded(domain[0])} if domain else None,
    }


def _numbers(row: dict[str, Any]) -> dict[str, float | None]:
    return {key: _number(value) for key, value in row.items() if key != "layer"}


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _rows(table: pd.DataFrame, columns: list[str], index: dict[str, int]) -> list[list[Any]]:
    """The first rows; concepts as indices, numbers to four digits, None for NaN."""
    rows = []
    for row in table[columns].head(MAX_ROWS).itertuples(index=False):
        cells: list[Any] = []
        for column, value in zip(columns, row, strict=True):
            if column in ("first", "second", "concept"):
                cells.append(index.get(value))
            else:
                cells.append(value if isinstance(value, str) else _number(value))
        if cells[0] is not None and (columns[1] != "second" or cells[1] is not None):
            rows.append(cells)
    return rows
