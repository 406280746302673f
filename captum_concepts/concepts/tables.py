"""Read concepts and clips from tables."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.collect import Collected, LabelledClips
from captum_concepts.concepts.names import concept_name
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = ("file", "path", "filename", "audio")


def read_table(
    path: str | Path,
    *,
    column: str | Sequence[str],
    group: str | None,
    file: str | None,
    start: str | None,
    end: str | None,
    separator: str | None,
) -> LabelledClips:
    """See :meth:`captum_concepts.ConceptSet.from_table`."""
    table = _load_table(path)
    columns = list(dict.fromkeys([column] if isinstance(column, str) else column))
    if not columns:
        raise InputError(f"{short_repr(str(path), 200)}: say which column holds concepts; there are {_listed(table)}")
    file = file or next((name for name in FILE_COLUMNS if name in table), FILE_COLUMNS[0])
    if group == file or (group == FILE_COLUMNS[0] and group not in table):
        group = None
    for name in [file, *columns, *(name for name in (group, start, end) if name is not None)]:
        if name not in table:
            raise InputError(f"{short_repr(str(path), 200)}: no column {short_repr(name)}; there are {_listed(table)}")
    collected = Collected()
    rows = list(_clips_of_rows(table, Path(path).parent, file, group, start, end, collected))
    _note_concepts(table, columns, separator, rows, collected)
    return collected.labelled(_names_of_columns(columns, collected.members), str(path))


def _clips_of_rows(
    table: pd.DataFrame,
    folder: Path,
    file: str,
    group: str | None,
    start: str | None,
    end: str | None,
    collected: Collected,
) -> Iterable[int | None]:
    """For each row the place of its clip, or None if it cannot be used."""
    nothing = [""] * len(table)
    starts = table.get(start or "start", nothing)
    ends = table.get(end or "end", nothing)
    groups = table[group] if group is not None else nothing
    there: dict[str, bool] = {}
    for name, first, last, of in zip(table[file], starts, ends, groups, strict=True):
        path = os.path.join(folder, str(name).strip())
        if path not in there:
            there[path] = bool(str(name).strip()) and os.path.isfile(path)
        times = _times(first, last)
        if not there[path]:
            collected.skipped.append((path, "missing", "no such file"))
            yield None
        elif times is None:
            collected.skipped.append((path, "bad time", f"start {short_repr(first)}, end {short_repr(last)}"))
            yield None
        else:
            yield collected.add(Clip(path, *times, group=str(of)))


def _times(first: Any, last: Any) -> tuple[float, float | None] | None:
    try:
        start = float(first) if first != "" else 0.0
        end = float(last) if last != "" else None
    except ValueError:
        return None
    if not (0 <= start < math.inf) or (end is not None and not start < end < math.inf):
        return None
    return start, end


def _note_concepts(
    table: pd.DataFrame, columns: list[str], separator: str | None, rows: list[int | None], collected: Collected
) -> None:
    named = [False] * len(rows)
    for column in columns:
        known: dict[Any, list[str]] = {}
        for index, (row, cell) in enumerate(zip(rows, table[column], strict=True)):
            if row is None:
                continue
            cell = tuple(cell) if isinstance(cell, (list, np.ndarray)) else cell
            if cell not in known:
                known[cell] = _names_in(cell, separator)
            for name in known[cell]:
                collected.members[(column, name)].add(row)
                named[index] = True
    collected.pool |= {row for row, has_name in zip(rows, named, strict=True) if row is not None and not has_name}


def _names_in(cell: Any, separator: str | None) -> list[str]:
    if not isinstance(cell, tuple):
        cell = str(cell).split(separator) if separator else [str(cell)]
    return [name for name in map(concept_name, cell) if name]


def _names_of_columns(columns: list[str], members: Mapping[tuple[str, str], set[int]]) -> dict[tuple[str, str], str]:
    """(column, value) -> concept, in order of column, then value."""
    keys = sorted(members, key=lambda key: (columns.index(key[0]), key[1]))
    same_value: dict[str, list[set[int]]] = defaultdict(list)
    for column, value in keys:
        same_value[value].append(members[(column, value)])
    return {
        (column, value): value
        if all(clips == same_value[value][0] for clips in same_value[value])
        else f"{column}={value}"
        for column, value in keys
    }


def read_clip_table(path: str | Path, group: str | None = None) -> list[Clip]:
    """The clips of a table: a column of files (file, path, filename or audio), start and end seconds where it has them.

    Args:
        path: csv, tsv or parquet; files are relative to its folder. Whether they exist is checked when they are read.
        group: the column that names each clip's group; default: each file is its own.

    Returns:
        the clips, each once, in the table's order.

    Raises:
        InputError: no column of files, an unknown group column, a time that is no number, no rows.
    """
    table = _load_table(path)
    file = next((name for name in FILE_COLUMNS if name in table), None)
    if file is None or (group is not None and group not in table):
        wanted = group if file is not None else " or ".join(FILE_COLUMNS)
        raise InputError(f"{short_repr(str(path), 200)}: no column {wanted}; there are {_listed(table)}")
    nothing = [""] * len(table)
    clips = []
    rows = zip(
        table[file], table.get("start", nothing), table.get("end", nothing), table.get(group, nothing), strict=True
    )
    for number, (name, first, last, of) in enumerate(rows, start=2):
        times = _times(first, last)
        if times is None or not str(name).strip():
            raise InputError(
                f"{short_repr(str(path), 200)}: row {number}: file {short_repr(name)}, start {short_repr(first)}, "
                f"end {short_repr(last)}; "
                "give a file and seconds with start before end"
            )
        clips.append(Clip(os.path.join(Path(path).parent, str(name).strip()), *times, group=str(of)))
    if not clips:
        raise InputError(f"{short_repr(str(path), 200)}: the table has no rows; give at least one clip")
    return list(dict.fromkeys(clips))


def table_columns(path: str | Path) -> str:
    """The names of a table's columns, for a message."""
    return _listed(_load_table(path))


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(short_repr(name, 30) for name in table)


def _load_table(path: str | Path) -> pd.DataFrame:
    """Every cell as text, an empty one as ``""``; nothing is taken for a number or for missing ("NA" is a name)."""
    import pandas as pd

    if not os.path.isfile(path):
        raise InputError(f"{short_repr(str(path), 200)}: no such table; check the path")
    try:
        if str(path).lower().endswith((".parquet", ".pq")):
            table = pd.read_parquet(path).reset_index(drop=True)
            table.columns = [str(name) for name in table.columns]
            return table.map(lambda cell: cell if isinstance(cell, (list, np.ndarray)) else _text(cell))
        with open(path, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
        if not header.strip():
            raise InputError(f"{short_repr(str(path), 200)}: the table is empty; it needs a header and rows")
        sep = max("\t;,", key=header.count)
        table = pd.read_csv(
            path,
            sep=sep,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            index_col=False,
            skip_blank_lines=True,
        )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{short_repr(str(path), 200)}: not UTF-8 text ({error.reason}); save the table as UTF-8"
        ) from None
    except ImportError:
        raise InputError(
            f"{short_repr(str(path), 200)}: reading parquet needs pyarrow; install it, or save the table as csv"
        ) from None
    except (pd.errors.ParserError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{short_repr(str(path), 200)}: cannot read the table: {' '.join(str(error).split())[:200]}"
        ) from None
    table.columns = [str(name).strip() for name in table.columns]
    return table.fillna("")


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell)
