"""Tables of diagnostics of the concepts."""

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
    """Tables, each with the columns of ``COLUMNS``; ``chance`` is the upper limit for null concepts.

    Attributes:
        stability: cosine between CAVs of disjoint halves of a concept's groups; at or below ``chance`` (one null
            concept in 20 is above) the CAV is not reproducible.
        pairs: concepts whose CAVs are correlated beyond chance (false discovery rate 0.05 over all pairs of a
            layer; the 500 strongest), or that share half their groups or more. ``auc_first``: AUC of the first
            CAV for the second concept on held-out groups. ``overlap``: shared groups over groups of either.
        domain: a row per layer, see ``diagnostics.DomainCheck``; no rows where concepts are each other's negatives.
        positions: for layers that are not pooled, unevenness of each CAV's energy along time and frequency;
            if position does not matter, some concept exceeds ``chance`` in one family in 20.
        shared: groups of explained clips that also have concept clips.
        push_forward: see ``diagnostics.push_forward``; empty unless asked for.
    """

    stability: pd.DataFrame = field(default_factory=lambda: empty_table("stability"))
    pairs: pd.DataFrame = field(default_factory=lambda: empty_table("pairs"))
    domain: pd.DataFrame = field(default_factory=lambda: empty_table("domain"))
    positions: pd.DataFrame = field(default_factory=lambda: empty_table("positions"))
    shared: pd.DataFrame = field(default_factory=lambda: empty_table("shared"))
    push_forward: pd.DataFrame = field(default_factory=lambda: empty_table("push_forward"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Diagnostics) and all(
            first.equals(second) for (_, first), (_, second) in zip(self.tables(), other.tables(), strict=True)
        )

    def tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """(name, table) of all."""
        return ((part.name, getattr(self, part.name)) for part in fields(self))

    def summary(self) -> list[str]:
        """Number of findings of each kind, one line per layer; no line for layers without findings."""
        found: dict[str, list[str]] = {}

        def count(rows: pd.DataFrame, one: str, many: str) -> None:
            for layer, number in rows.groupby("layer", sort=False).size().items():
                found.setdefault(str(layer), []).append(pluralize(int(number), one, many))

        for row in self.domain.to_dict("records"):
            if is_confounded(row):
                found.setdefault(row["layer"], []).append("any set of the concepts' clips differs from the random pool")
        count(self.stability[self.stability["cosine"] <= self.stability["chance"]], "unstable CAV", "unstable CAVs")
        count(
            self.pairs[self.pairs["cosine"] > self.pairs["chance"]],
            "correlated pair",
            "correlated pairs",
        )
        count(
            self.positions[self.positions["unevenness"] > self.positions["chance"]],
            "CAV that depends on its position",
            "CAVs that depend on their position",
        )
        count(
            self.push_forward[self.push_forward["cosine"] <= self.push_forward["chance"]],
            "CAV that differs from that of the next layer",
            "CAVs that differ from those of the next layer",
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
