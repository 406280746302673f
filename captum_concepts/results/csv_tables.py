"""Tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from captum_concepts.results.tables import COUNT_COLUMNS, SCORE_COLUMNS, TEXT_COLUMNS


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write ``scores.csv``: UTF-8, numbers to the last bit, NaN as nothing."""
    write_table(scores, SCORE_COLUMNS, path)


def write_table(table: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Write columns of a table as CSV: UTF-8, numbers to the last bit, NaN as nothing."""
    columns = [table[name].tolist() for name in names]
    lines = [",".join(names), *(",".join(map(_cell, row)) for row in zip(*columns, strict=True))]
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))


def _cell(value: str | float | int) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"' if value == "" or set(value) & set('",\r\n') else value
    return "" if value != value else repr(value)


def read_scores(path: Path) -> pd.DataFrame:
    """Read ``scores.csv``; texts are taken as they are (a concept may be called "NA").

    Raises:
        ValueError: not such a table.
    """
    return read_table(path, SCORE_COLUMNS)


def read_table(path: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Read what ``write_table`` wrote.

    Raises:
        ValueError: not such a table.
    """
    text = path.read_bytes().decode("utf-8", "surrogatepass")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows or tuple(rows[0]) != names or any(len(row) != len(names) for row in rows):
        raise ValueError(f"{path.name} has other columns")
    table = {}
    for name, cells in zip(names, list(zip(*rows[1:], strict=True)) or [()] * len(names), strict=True):
        if name in TEXT_COLUMNS:
            table[name] = pd.Series(list(cells), dtype=object)
        elif name in COUNT_COLUMNS:
            table[name] = pd.Series([int(cell) for cell in cells], dtype=np.int64)
        else:
            table[name] = pd.Series([float(cell or "nan") for cell in cells], dtype=np.float64)
    return pd.DataFrame(table)
