"""What to know of concepts before their scores and hierarchy are believed: tables, and a line for each thing found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from captum_concepts.cavs import ConceptBank, FitFunction, group_weights
from captum_concepts.domain import RANDOM_SETS, DomainCheck, check_domain, is_confounded
from captum_concepts.entanglement import (
    CosineBand,
    cross_auc,
    entangled,
    overlapping,
    random_directions,
    random_pair_cosines,
)
from captum_concepts.errors import shown
from captum_concepts.overlap import Overlap
from captum_concepts.positions import AXES, SPLITS, RandomPushes, axes_of, energy_profile, position_dependence
from captum_concepts.random_sets import Fitter, RandomSets, Shuffles
from captum_concepts.stability import Resampler, random_cosines
from captum_concepts.wording import counted

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
                found.setdefault(str(layer), []).append(counted(int(number), one, many))

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
        return [f"{shown(layer)}: {', '.join(parts)}" for layer, parts in found.items()]

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


def diagnose(
    diagnostics: Diagnostics,
    bank: ConceptBank,
    activations: Tensor,
    rows: ConceptRows,
    fit: FitFunction,
    options: dict[str, Any],
    overlap: Overlap,
    seed: int,
    shape: Mapping[str, int] | None = None,
) -> list[str]:
    """Add the tables of one layer to ``diagnostics``; the warnings. See ``LayerChecks``."""
    tables, lines = LayerChecks(rows, fit, options, overlap, seed).check(bank, activations, shape)
    for name, table in tables.items():
        diagnostics.append(name, table)
    return lines


@dataclass(frozen=True)
class ConceptRows:
    """Which rows show which concept, the same at all layers.

    Attributes:
        positives, negatives: bool (N, K).
        groups: (N,) of str.
    """

    positives: np.ndarray
    negatives: np.ndarray
    groups: np.ndarray


class LayerChecks:
    """Checks the concepts of one layer after the other.

    Args:
        rows: the concept rows.
        fit, options: the CAV method.
        overlap: of the concepts' examples.
        seed: of cuts and random sets. Same seed, same bytes.
    """

    def __init__(self, rows: ConceptRows, fit: FitFunction, options: dict[str, Any], overlap: Overlap, seed: int):
        self.rows, self.overlap, self.seed = rows, overlap, seed
        self.fitter = Fitter(fit, options)
        self.shuffles = Shuffles(rows.groups)
        self.resampler = Resampler(self.fitter, self.shuffles, group_weights(rows.groups))

    def check(
        self, bank: ConceptBank, activations: Tensor, shape: Mapping[str, int] | None = None
    ) -> tuple[dict[str, pd.DataFrame], list[str]]:
        """Tables and warnings of one layer, of the concepts that can be told apart there.

        Args:
            bank: fitted on the rows.
            activations: (N, D).
            shape: sizes of the layer's axes if time and frequency are not pooled.

        Returns:
            name -> rows of ``Diagnostics``, and one line for each kind of thing that was found.
        """
        tables: dict[str, pd.DataFrame] = {}
        lines: list[str] = []
        usable = np.flatnonzero((bank.quality["status"] == "ok").to_numpy())
        if len(usable):
            positives, negatives = self.rows.positives[:, usable], self.rows.negatives[:, usable]
            part = _Part(bank, usable, bank.directions[usable].to(activations), positives, negatives)
            sets = RandomSets(positives, negatives, self.rows.groups, range(len(usable)), self.seed)
            tables["stability"] = self._stability(part, activations, sets, lines)
            pushes = [RandomPushes.along(a, shape or {}, part.directions, sets.kind_of) for a in axes_of(shape)]
            band = self._random(activations, sets, pushes)
            tables["pairs"] = self._pairs(part, activations, band, sets.kind_of, lines)
            if sets.count and pushes:
                tables["positions"] = self._positions(part, activations, sets, pushes, lines)
        found = check_domain(
            self.fitter, activations, self.rows.positives, self.rows.negatives, self.rows.groups, self.seed
        )
        if found is not None:
            tables["domain"] = pd.DataFrame([{"layer": bank.layer, **vars(found)}])
            if found.confounded:
                lines.append(_domain_line(bank.layer, found))
        return tables, lines

    def _random(self, activations: Tensor, sets: RandomSets, pushes: list[RandomPushes]) -> CosineBand | None:
        """The band of cosines of random sets; their directions go into ``pushes`` as well."""
        cosines: list[np.ndarray] = []
        for directions in random_directions(self.fitter, activations, sets):
            cosines.append(random_pair_cosines(directions))
            for along in pushes:
                along.add(directions.flatten(0, 1))
        return CosineBand.of(np.concatenate(cosines)) if cosines else None

    def _stability(self, part: _Part, activations: Tensor, sets: RandomSets, lines: list[str]) -> pd.DataFrame:
        found = self.resampler.cosines(activations, part.positives, part.negatives, self.seed).double().cpu().numpy()
        chance = np.full(len(found), np.nan)
        if sets.count:
            null = random_cosines(self.fitter, activations, sets, self.seed)
            chance = np.nanquantile(null, 0.95, axis=0)[sets.kind_of]
        names = [part.bank.names[k] for k in part.usable]
        table = pd.DataFrame({"layer": part.bank.layer, "concept": names, "cosine": found, "chance": chance})
        weak = table[table["cosine"] <= table["chance"]].sort_values("cosine", kind="stable")
        if len(weak):
            some = [f"{_name(r.concept)} (cosine {r.cosine:.2f}, chance up to {r.chance:.2f})" for r in _first(weak)]
            lines.append(
                f"{shown(part.bank.layer)}: the CAVs of {counted(len(weak), 'concept')} are no more repeatable between "
                f"halves of the groups than those of random sets: {_listed(some, len(weak))}; give more examples"
            )
        return table

    def _pairs(
        self, part: _Part, activations: Tensor, band: CosineBand | None, kinds: np.ndarray, lines: list[str]
    ) -> pd.DataFrame:
        columns = np.ix_(part.usable, part.usable)
        names = tuple(part.bank.names[k] for k in part.usable)
        overlap = Overlap(names, self.overlap.clips[columns], self.overlap.groups[columns])
        beyond, total = entangled(part.directions, band, kinds)
        pairs = beyond[["first", "second"]].to_numpy(np.int64).reshape(-1, 2)
        known = set(map(tuple, pairs.tolist()))
        alike = [pair for pair in overlapping(overlap).tolist() if tuple(pair) not in known]
        pairs = np.concatenate([pairs, np.array(alike, dtype=np.int64).reshape(-1, 2)])
        a, b = pairs.T
        directions = part.directions.double().cpu().numpy()
        cosines = np.einsum("pd,pd->p", directions[a], directions[b])
        chance = np.full(len(pairs), np.nan)
        chance[: len(beyond)] = beyond["chance"]
        aucs = self._cross_aucs(part, activations, pairs)
        table = pd.DataFrame(
            {
                "layer": [part.bank.layer] * len(pairs),
                "first": [names[i] for i in a],
                "second": [names[i] for i in b],
                "cosine": cosines,
                "chance": chance,
                "auc_first": aucs[: len(pairs)],
                "auc_second": aucs[len(pairs) :],
                "shared_clips": overlap.clips[a, b],
                "shared_groups": overlap.groups[a, b],
                "overlap": overlap.group_jaccard[a, b],
            }
        )
        if total:
            some = [
                f"{_name(r.first)} and {_name(r.second)} (cosine {r.cosine:.2f}, chance up to {r.chance:.2f}, "
                f"{_aucs(r.auc_first, r.auc_second)}{counted(r.shared_groups, 'shared group')})"
                for r in _first(table)
            ]
            lines.append(
                f"{shown(part.bank.layer)}: the CAVs of {counted(total, 'pair')} of concepts point the same way beyond "
                f"chance, so that their scores and places in the hierarchy are not independent: {_listed(some, total)}"
            )
        return table

    def _cross_aucs(self, part: _Part, activations: Tensor, pairs: np.ndarray) -> np.ndarray:
        """(2 P,): the first one's CAV on the second, then the other way round."""
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        if not len(pairs):
            return np.zeros(0)
        involved, place = np.unique(pairs, return_inverse=True)
        positives, negatives = part.positives[:, involved], part.negatives[:, involved]
        split = self.resampler.halves(activations, positives, negatives, self.seed)
        return cross_auc(activations, positives, negatives, self.shuffles, split, place.reshape(-1, 2))

    def _positions(
        self, part: _Part, activations: Tensor, sets: RandomSets, pushes: list[RandomPushes], lines: list[str]
    ) -> pd.DataFrame:
        names = [part.bank.names[k] for k in part.usable]
        cosines = self.resampler.split_cosines(activations, part.positives, part.negatives, self.seed, SPLITS)
        tables = []
        for along in pushes:
            profiles = energy_profile(part.directions, along.shape, along.axis)
            generator = self.shuffles.generator(self.seed, f"positions {along.axis}")
            found, chance = position_dependence(profiles, along, cosines, sets.shuffles.count, generator)
            axis = AXES[along.axis]
            table = pd.DataFrame({"layer": part.bank.layer, "concept": names, "axis": axis})
            tables.append(table.assign(unevenness=found, chance=chance))
            strong = tables[-1][found > chance].sort_values("unevenness", ascending=False, kind="stable")
            if len(strong):
                some = [f"{_name(r.concept)} ({r.unevenness:.2f}, chance up to {r.chance:.2f})" for r in _first(strong)]
                remedy = "pool='time' averages it out" if along.axis == "T" else "pool='time_freq' averages it out"
                where = f"{shown(part.bank.layer)}: {counted(len(strong), 'CAV depends', 'CAVs depend')}"
                lines.append(f"{where} on the position in {axis}: {_listed(some, len(strong))}; {remedy}")
        return pd.concat(tables, ignore_index=True)


def _domain_line(layer: str, found: DomainCheck) -> str:
    return (
        f"{shown(layer)}: any set of the concepts' clips looks significant, as all differ from the random pool "
        f"(held-out AUC {found.auc:.2f}; so do {found.random_sets * RANDOM_SETS:.0f} of {RANDOM_SETS} random sets; "
        f"{found.common:.0%} of what sets a concept apart is common to all); hold them against each other: "
        "--negatives in-domain (in Python concepts.with_negatives('in-domain'))"
    )


@dataclass(frozen=True)
class _Part:
    """The concepts of a bank that are checked: their numbers in it, CAVs (K, D), and masks over rows (N, K)."""

    bank: ConceptBank
    usable: np.ndarray
    directions: Tensor
    positives: np.ndarray
    negatives: np.ndarray


def _name(text: Any) -> str:
    return shown(text, LONGEST)


def _first(table: pd.DataFrame) -> Iterator[Any]:
    return table.head(NAMED).itertuples()


def _aucs(first: float, second: float) -> str:
    """NaN, where one concept's clips are the other's too, is left out."""
    known = [f"{value:.2f}" for value in (first, second) if value == value]
    return f"its CAV finds the other with AUC {' and '.join(known)}, " if known else ""


def _listed(some: list[str], total: int) -> str:
    return ", ".join(some) + (f" and {total - len(some)} more" if total > len(some) else "")
