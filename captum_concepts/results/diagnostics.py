"""Tables of what to know about the concepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from captum_concepts.text import pluralize, short_repr

NAMED = 3
LONGEST = 40
# Columns of the tables; text columns first, then whole numbers, then numbers, each marked by its type.
COLUMNS: dict[str, dict[str, type]] = {
    "stability": {"layer": object, "concept": object, "cosine": float, "chance": float},
    "pairs": {
        "layer": object,
        "first": object,
        "second": object,
        "cosine": float,
        "chance": float,
        "auc_first": float,
        "auc_second": float,
        "shared_clips": int,
        "shared_groups": int,
        "overlap": float,
    },
    "domain": {"layer": object, "auc": float, "low": float, "high": float, "random_sets": float, "common": float},
    "positions": {"layer": object, "concept": object, "axis": object, "unevenness": float, "chance": float},
    "shared": {"group": object, "explained_clips": int, "concept_clips": int, "concepts": object},
    "push_forward": {"layer": object, "next_layer": object, "concept": object, "cosine": float, "chance": float},
}


def empty_table(name: str) -> pd.DataFrame:
    """A table of diagnostics without rows."""
    return pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in COLUMNS[name].items()})


@dataclass(eq=False)
class Diagnostics:
    """Tables, each with the columns of ``COLUMNS``; ``chance`` is the upper end of what random sets give.

    Attributes:
        stability: cosine between CAVs of disjoint halves of a concept's groups; at or below ``chance`` (one random set
            in 20 is above) the direction is not repeatable.
        pairs: concepts whose CAVs point the same way beyond chance (false discovery rate 0.05 over all pairs of a
            layer; the 500 strongest), or that share half their groups or more. ``auc_first``: how well the first
            one's CAV finds the second on held-out groups. ``overlap``: shared groups over groups that show either.
        domain: a row per layer, see ``domain.DomainCheck``; no rows where concepts are held against each other.
        positions: for layers that are not pooled, how unevenly each CAV's energy lies along time and frequency;
            ``chance`` is exceeded, for some concept, in one family in 20 to which position does not matter.
        shared: groups of explained clips that concept clips are of as well.
        push_forward: see ``pushforward.push_forward``; empty unless asked for.
    """

    stability: pd.DataFrame = field(default_factory=lambda: empty_table("stability"))
    pairs: pd.DataFrame = field(default_factory=lambda: empty_table("pairs"))
    domain: pd.DataFrame = field(default_factory=lambda: empty_table("domain"))
    positions: pd.DataFrame = field(default_factory=lambda: empty_table("positions"))
    shared: pd.DataFrame = field(default_factory=lambda: empty_table("shared"))
    push_forward: pd.DataFrame = field(default_factory=lambda: empty_table("push_forward"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Diagnostics) and all(
            mine.equals(theirs) for (_, mine), (_, theirs) in zip(self.tables(), other.tables(), strict=True)
        )

    def tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """(name, table) of all."""
        return ((part.name, getattr(self, part.name)) for part in fields(self))

    def summary(self) -> list[str]:
        """How many things were found at each layer, one line per layer; nothing for layers without any."""
        found: dict[str, list[str]] = {}

        def count(rows: pd.DataFrame, one: str, many: str) -> None:
            for layer, number in rows.groupby("layer", sort=False).size().items():
                found.setdefault(str(layer), []).append(pluralize(int(number), one, many))

        for row in self.domain.to_dict("records"):
            if is_confounded(row):
                found.setdefault(row["layer"], []).append("any set of the concepts' clips differs from the random pool")
        count(self.stability[self.stability["cosine"] <= self.stability["chance"]], "unstable CAV", "unstable CAVs")
        count(self.pairs[self.pairs["cosine"] > self.pairs["chance"]], "entangled pair", "entangled pairs")
        count(
            self.positions[self.positions["unevenness"] > self.positions["chance"]],
            "CAV that depends on its position",
            "CAVs that depend on their position",
        )
        count(
            self.push_forward[self.push_forward["cosine"] <= self.push_forward["chance"]],
            "CAV that does not lead to that of the next layer",
            "CAVs that do not lead to those of the next layer",
        )
        return [f"{short_repr(layer)}: {', '.join(parts)}" for layer, parts in found.items()]

    def append(self, name: str, rows: pd.DataFrame) -> None:
        """Add rows to a table."""
        table = getattr(self, name)
        rows = typed(name, rows)
        setattr(self, name, rows if not len(table) else pd.concat([table, rows], ignore_index=True))


def typed(name: str, rows: pd.DataFrame | Mapping[str, Any]) -> pd.DataFrame:
    """A table of diagnostics with its columns in order and of their types.

    Raises:
        KeyError, ValueError: a column is missing or of another type.
    """
    columns = {}
    for column, kind in COLUMNS[name].items():
        values = list(rows[column])
        if kind is object:
            if not all(isinstance(value, str) for value in values):
                raise ValueError(f"{name} {column}: not text")
            columns[column] = pd.Series(values, dtype=object)
        else:
            columns[column] = pd.Series(values, dtype=np.int64 if kind is int else np.float64)
    return pd.DataFrame(columns)


SEPARABLE = 0.95
COMMON = 0.5


def is_confounded(check: Mapping[str, Any]) -> bool:
    """``DomainCheck.confounded`` of a row of ``Diagnostics.domain``."""
    return bool(check["low"] > 0.5 and check["random_sets"] >= SEPARABLE and check["common"] > COMMON)
