"""Read concepts from folders, tables and playlists."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_concepts.audio import AudioError, Clip, file_digest, find_audio
from captum_concepts.concepts import ConceptSet, Skipped, concept_name
from captum_concepts.errors import InputError, shown
from captum_concepts.parents import read_parents

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = ("file", "path", "filename", "audio")
POOL_FOLDER = "random"


@dataclass
class _Collected:
    """Clips met so far, each once, and which of them show what."""

    clips: dict[tuple[str, float, float | None], Clip] = field(default_factory=dict)
    place: dict[tuple[str, float, float | None], int] = field(default_factory=dict)
    shows: dict[Any, set[int]] = field(default_factory=lambda: defaultdict(set))
    pool: set[int] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, clip: Clip) -> int:
        key = (clip.path, clip.start, clip.end)
        known = self.clips.setdefault(key, clip)
        if known.group != clip.group:
            raise InputError(
                f"{shown(clip.path, 200)}: in group {shown(known.group)} and in group {shown(clip.group)}; "
                "a clip has one group"
            )
        return self.place.setdefault(key, len(self.place))

    def concept_set(self, names: Mapping[Any, str], source: str, negatives: Any, parents: Any) -> ConceptSet:
        """The set of the concepts in ``names`` (key of ``shows`` -> name), which source the messages speak of."""
        if not any(self.shows[key] for key in names):
            reason = f" ({shown(self.skipped[0][0], 200)}: {self.skipped[0][2]})" if self.skipped else ""
            raise InputError(
                f"{shown(source, 200)}: no clip shows a concept; {len(self.skipped)} rows or files skipped{reason}"
            )
        columns = {name: column for column, name in enumerate(dict.fromkeys(names.values()))}
        labels = np.zeros((len(self.clips), len(columns)), dtype=bool)
        for key, name in names.items():
            labels[np.fromiter(self.shows[key], dtype=np.int64), columns[name]] = True
        pool = np.zeros(len(self.clips), dtype=bool)
        pool[np.fromiter(self.pool, dtype=np.int64)] = True
        clips = tuple(self.clips.values())
        return ConceptSet(tuple(columns), clips, labels, pool, negatives, read_parents(parents), self.skipped)


def read_folders(
    root: str | Path,
    *,
    pool: str | Path | None,
    negatives: Any,
    group: str | Callable[[str], str],
    parents: Any,
) -> ConceptSet:
    """See :meth:`ConceptSet.from_folders`."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{shown(str(root), 200)}: no such folder; give one with a subfolder per concept")
    if not callable(group) and group not in ("file", "folder"):
        raise InputError(f"group={shown(group)}: use 'file', 'folder' or a function from path to group")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    pools = [folder for folder in folders if folder.name == POOL_FOLDER]
    if pool is not None:
        chosen = root / pool if (root / pool).is_dir() else Path(pool)
        if not chosen.is_dir():
            known = ", ".join(shown(folder.name, 30) for folder in folders[:20])
            raise InputError(
                f"pool={shown(str(pool))}: no such folder, by itself or in {shown(str(root), 200)}, which has {known}"
            )
        pools.append(chosen)
    pool_paths = {folder.resolve() for folder in pools}
    collected = _Collected()
    loose = [path for path in find_audio(root) if Path(path).parent == root]
    collected.skipped += [(path, "no concept", "not in a subfolder; a subfolder is a concept") for path in loose]
    merged = _one_path_per_sound()
    names: dict[str, str] = {}
    for folder in [*(f for f in folders if f.resolve() not in pool_paths), *dict.fromkeys(pools)]:
        name = concept_name(folder.name)
        rows = {collected.add(_grouped(path, group)) for path in map(merged, _audio_in(folder, collected.skipped))}
        if folder.resolve() in pool_paths:
            collected.pool |= rows
        elif rows:
            names[name] = name
            collected.shows[name] |= rows
    return collected.concept_set(names, str(root), negatives, parents)


def _audio_in(folder: Path, skipped: list[Skipped]) -> list[str]:
    found = []
    for path in find_audio(folder):
        if os.path.isfile(path):
            found.append(path)
        else:
            skipped.append((path, "missing", "a link to no file"))
    if not found:
        skipped.append((str(folder), "empty", "no audio in this folder"))
    return found


def _grouped(path: str, group: str | Callable[[str], str]) -> Clip:
    if callable(group):
        return Clip(path, group=str(group(path)))
    return Clip(path, group=os.path.dirname(path) if group == "folder" else path)


def _one_path_per_sound() -> Callable[[str], str]:
    """A function that gives links to one file, and copies of it under the same file name, the path seen first.

    Only files of the same name and size are compared, as everything else would mean reading all audio.
    """
    first_of_file: dict[str, str] = {}
    lone: dict[tuple[str, int], str] = {}
    first_of_bytes: dict[tuple[str, str], str] = {}

    def same_bytes(path: str) -> str:
        name = os.path.basename(path)
        alike = lone.setdefault((name, os.path.getsize(path)), path)
        if alike == path:
            return path
        try:
            first_of_bytes.setdefault((name, file_digest(alike)), alike)
            return first_of_bytes.setdefault((name, file_digest(path)), path)
        except AudioError:  # what cannot be read is reported when it is to be heard
            return path

    def merged(path: str) -> str:
        real = os.path.realpath(path)
        if real not in first_of_file:
            first_of_file[real] = same_bytes(path)
        return first_of_file[real]

    return merged


def read_table(
    path: str | Path,
    *,
    column: str | Sequence[str],
    group: str | None,
    file: str | None,
    start: str | None,
    end: str | None,
    separator: str | None,
    negatives: Any,
    parents: Any,
) -> ConceptSet:
    """See :meth:`ConceptSet.from_table`."""
    table = _load_table(path)
    columns = list(dict.fromkeys([column] if isinstance(column, str) else column))
    if not columns:
        raise InputError(f"{shown(str(path), 200)}: say which column holds concepts; there are {_listed(table)}")
    file = file or next((name for name in FILE_COLUMNS if name in table), FILE_COLUMNS[0])
    if group == file or (group == FILE_COLUMNS[0] and group not in table):
        group = None
    for name in [file, *columns, *(name for name in (group, start, end) if name is not None)]:
        if name not in table:
            raise InputError(f"{shown(str(path), 200)}: no column {shown(name)}; there are {_listed(table)}")
    collected = _Collected()
    rows = list(_clips_of_rows(table, Path(path).parent, file, group, start, end, collected))
    _note_concepts(table, columns, separator, rows, collected)
    return collected.concept_set(_names_of_columns(columns, collected.shows), str(path), negatives, parents)


def _clips_of_rows(
    table: pd.DataFrame,
    folder: Path,
    file: str,
    group: str | None,
    start: str | None,
    end: str | None,
    collected: _Collected,
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
            collected.skipped.append((path, "bad time", f"start {shown(first)}, end {shown(last)}"))
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
    table: pd.DataFrame, columns: list[str], separator: str | None, rows: list[int | None], collected: _Collected
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
                collected.shows[(column, name)].add(row)
                named[index] = True
    collected.pool |= {row for row, has_name in zip(rows, named, strict=True) if row is not None and not has_name}


def _names_in(cell: Any, separator: str | None) -> list[str]:
    if not isinstance(cell, tuple):
        cell = str(cell).split(separator) if separator else [str(cell)]
    return [name for name in map(concept_name, cell) if name]


def _names_of_columns(columns: list[str], shows: Mapping[tuple[str, str], set[int]]) -> dict[tuple[str, str], str]:
    """(column, value) -> concept, in order of column, then value."""
    keys = sorted(shows, key=lambda key: (columns.index(key[0]), key[1]))
    alike: dict[str, list[set[int]]] = defaultdict(list)
    for column, value in keys:
        alike[value].append(shows[(column, value)])
    return {
        (column, value): value if all(clips == alike[value][0] for clips in alike[value]) else f"{column}={value}"
        for column, value in keys
    }


def read_clip_table(path: str | Path, group: str | None = None) -> list[Clip]:
    """The clips of a table: a column of files (file, path, filename or audio), start and end seconds where it has them.

    Args:
        path: csv, tsv or parquet; files are relative to its folder. Whether they exist is seen when they are heard.
        group: the column that names each clip's group; default: each file is its own.

    Raises:
        InputError: no column of files, an unknown group column, a time that is no number, no rows.
    """
    table = _load_table(path)
    file = next((name for name in FILE_COLUMNS if name in table), None)
    if file is None or (group is not None and group not in table):
        wanted = group if file is not None else " or ".join(FILE_COLUMNS)
        raise InputError(f"{shown(str(path), 200)}: no column {wanted}; there are {_listed(table)}")
    nothing = [""] * len(table)
    clips = []
    rows = zip(
        table[file], table.get("start", nothing), table.get("end", nothing), table.get(group, nothing), strict=True
    )
    for number, (name, first, last, of) in enumerate(rows, start=2):
        times = _times(first, last)
        if times is None or not str(name).strip():
            raise InputError(
                f"{shown(str(path), 200)}: row {number}: file {shown(name)}, start {shown(first)}, end {shown(last)}; "
                "give a file and seconds with start before end"
            )
        clips.append(Clip(os.path.join(Path(path).parent, str(name).strip()), *times, group=str(of)))
    if not clips:
        raise InputError(f"{shown(str(path), 200)}: the table has no rows; give at least one clip")
    return list(dict.fromkeys(clips))


def table_columns(path: str | Path) -> str:
    """The names of a table's columns, for a message."""
    return _listed(_load_table(path))


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(shown(name, 30) for name in table)


def _load_table(path: str | Path) -> pd.DataFrame:
    """Every cell as text, an empty one as ``""``; nothing is taken for a number or for missing ("NA" is a name)."""
    import pandas as pd

    if not os.path.isfile(path):
        raise InputError(f"{shown(str(path), 200)}: no such table; check the path")
    try:
        if str(path).lower().endswith((".parquet", ".pq")):
            table = pd.read_parquet(path).reset_index(drop=True)
            table.columns = [str(name) for name in table.columns]
            return table.map(lambda cell: cell if isinstance(cell, (list, np.ndarray)) else _text(cell))
        with open(path, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
        if not header.strip():
            raise InputError(f"{shown(str(path), 200)}: the table is empty; it needs a header and rows")
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
        raise InputError(f"{shown(str(path), 200)}: not UTF-8 text ({error.reason}); save the table as UTF-8") from None
    except ImportError:
        raise InputError(
            f"{shown(str(path), 200)}: reading parquet needs pyarrow; install it, or save the table as csv"
        ) from None
    except (pd.errors.ParserError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{shown(str(path), 200)}: cannot read the table: {' '.join(str(error).split())[:200]}"
        ) from None
    table.columns = [str(name).strip() for name in table.columns]
    return table.fillna("")


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell)


def read_playlists(
    playlists: Mapping[str, Iterable[str | Path | Clip]],
    *,
    pool: Iterable[str | Path | Clip],
    negatives: Any,
    parents: Any,
) -> ConceptSet:
    """See :meth:`ConceptSet.from_playlists`."""
    collected = _Collected()
    names: dict[str, str] = {}

    def rows_of(tracks: Iterable[str | Path | Clip]) -> set[int]:
        if isinstance(tracks, (str, Path, Clip)):
            raise InputError(f"playlists: {shown(tracks)} is one track; give a list of tracks")
        rows = set()
        for track in tracks:
            if isinstance(track, Clip) or os.path.isfile(track):
                rows.add(collected.add(track if isinstance(track, Clip) else Clip(str(track))))
            else:
                collected.skipped.append((str(track), "missing", "no such file"))
        return rows

    for given, tracks in playlists.items():
        name = concept_name(given)
        rows = rows_of(tracks)
        if not rows:
            collected.skipped.append((str(given), "empty", "no track of this playlist can be used"))
            continue
        names[name] = name
        collected.shows[name] |= rows
    collected.pool |= rows_of(pool)
    return collected.concept_set(names, "playlists", negatives, parents)
