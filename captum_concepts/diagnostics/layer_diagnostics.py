"""All diagnostics of the concepts of one layer: tables, and a warning for each kind of finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from captum_concepts.backbones.layers import POSITION_AXES
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.concepts.overlap import Overlap
from captum_concepts.diagnostics.domain_shift import RANDOM_SETS, DomainCheck, check_domain
from captum_concepts.diagnostics.entanglement import (
    CosineBand,
    correlated_pairs,
    cross_auc,
    overlapping,
    random_directions,
    random_pair_cosines,
)
from captum_concepts.diagnostics.position import (
    SPLITS,
    NullProfiles,
    axes_of,
    energy_profile,
    position_dependence,
)
from captum_concepts.diagnostics.random_sets import GroupSampler, RandomSets
from captum_concepts.diagnostics.stability import Resampler, random_cosines
from captum_concepts.results.diagnostics import LONGEST, NAMED
from captum_concepts.text import pluralize, short_repr


class LayerChecks:
    """Checks the concepts of one layer.

    Args:
        rows: of the layer, with labels and groups.
        method: CAV method with its options.
        overlap: of the concepts' examples.
        seed: of splits and null concepts. Same seed, same bytes.
    """

    def __init__(self, rows: LabelledRows, method: CavMethod, overlap: Overlap, seed: int):
        self.rows, self.overlap, self.seed = rows, overlap, seed
        self.method = method
        self.shuffles = GroupSampler(rows.groups)
        self.resampler = Resampler(self.method, self.shuffles, group_weights(rows.groups))

    def check(
        self, bank: ConceptBank, shape: Mapping[str, int] | None = None
    ) -> tuple[dict[str, pd.DataFrame], list[str]]:
        """Tables and warnings of one layer, of the concepts that passed the quality gate.

        Args:
            bank: fitted on the rows.
            shape: sizes of the layer's axes if time and frequency are not pooled.

        Returns:
            name -> rows of ``Diagnostics``, and one warning for each kind of finding.
        """
        activations = self.rows.activations
        tables: dict[str, pd.DataFrame] = {}
        lines: list[str] = []
        usable = np.flatnonzero((bank.quality["status"] == "ok").to_numpy())
        if len(usable):
            positives, negatives = self.rows.positives[:, usable], self.rows.negatives[:, usable]
            part = _Part(bank, usable, bank.directions[usable].to(activations), positives, negatives)
            sets = RandomSets(positives, negatives, self.rows.groups, range(len(usable)), self.seed)
            tables["stability"] = self._stability(part, activations, sets, lines)
            profiles = [NullProfiles.along(a, shape or {}, part.directions, sets.kind_of) for a in axes_of(shape)]
            band = self._random(activations, sets, profiles)
            tables["pairs"] = self._pairs(part, activations, band, sets.kind_of, lines)
            if sets.count and profiles:
                tables["positions"] = self._positions(part, activations, sets, profiles, lines)
        found = check_domain(
            self.method, activations, self.rows.positives, self.rows.negatives, self.rows.groups, self.seed
        )
        if found is not None:
            tables["domain"] = pd.DataFrame([{"layer": bank.layer, **vars(found)}])
            if found.confounded:
                lines.append(_domain_line(bank.layer, found))
        return tables, lines

    def _random(self, activations: Tensor, sets: RandomSets, profiles: list[NullProfiles]) -> CosineBand | None:
        """The band of cosines of null concepts; their directions are added to ``profiles`` as well."""
        cosines: list[np.ndarray] = []
        for directions in random_directions(self.method, activations, sets):
            cosines.append(random_pair_cosines(directions))
            for along in profiles:
                along.add(directions.flatten(0, 1))
        return CosineBand.of(np.concatenate(cosines)) if cosines else None

    def _stability(self, part: _Part, activations: Tensor, sets: RandomSets, lines: list[str]) -> pd.DataFrame:
        found = self.resampler.cosines(activations, part.positives, part.negatives, self.seed).double().cpu().numpy()
        chance = np.full(len(found), np.nan)
        if sets.count:
            null = random_cosines(self.method, activations, sets, self.seed)
            chance = np.nanquantile(null, 0.95, axis=0)[sets.kind_of]
        names = [part.bank.names[k] for k in part.usable]
        table = pd.DataFrame({"layer": part.bank.layer, "concept": names, "cosine": found, "chance": chance})
        weak = table[table["cosine"] <= table["chance"]].sort_values("cosine", kind="stable")
        if len(weak):
            some = [f"{_name(r.concept)} (cosine {r.cosine:.2f}, chance up to {r.chance:.2f})" for r in _first(weak)]
            lines.append(
                f"{short_repr(part.bank.layer)}: the CAVs of {pluralize(len(weak), 'concept')} are no more "
                f"reproducible between halves of the groups than those of null concepts: "
                f"{_listed(some, len(weak))}; give more examples"
            )
        return table

    def _pairs(
        self, part: _Part, activations: Tensor, band: CosineBand | None, kinds: np.ndarray, lines: list[str]
    ) -> pd.DataFrame:
        columns = np.ix_(part.usable, part.usable)
        names = tuple(part.bank.names[k] for k in part.usable)
        overlap = Overlap(names, self.overlap.clips[columns], self.overlap.groups[columns])
        beyond, total = correlated_pairs(part.directions, band, kinds)
        pairs = beyond[["first", "second"]].to_numpy(np.int64).reshape(-1, 2)
        known = set(map(tuple, pairs.tolist()))
        same = [pair for pair in overlapping(overlap).tolist() if tuple(pair) not in known]
        pairs = np.concatenate([pairs, np.array(same, dtype=np.int64).reshape(-1, 2)])
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
                f"{_aucs(r.auc_first, r.auc_second)}{pluralize(r.shared_groups, 'shared group')})"
                for r in _first(table)
            ]
            lines.append(
                f"{short_repr(part.bank.layer)}: the CAVs of {pluralize(total, 'pair')} of concepts are "
                f"correlated beyond chance, so their scores and places in the hierarchy are not independent: "
                f"{_listed(some, total)}"
            )
        return table

    def _cross_aucs(self, part: _Part, activations: Tensor, pairs: np.ndarray) -> np.ndarray:
        """(2 P,): AUC of the first CAV for the second concept, then of the second CAV for the first."""
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        if not len(pairs):
            return np.zeros(0)
        involved, place = np.unique(pairs, return_inverse=True)
        positives, negatives = part.positives[:, involved], part.negatives[:, involved]
        split = self.resampler.halves(activations, positives, negatives, self.seed)
        return cross_auc(activations, positives, negatives, self.shuffles, split, place.reshape(-1, 2))

    def _positions(
        self, part: _Part, activations: Tensor, sets: RandomSets, profiles: list[NullProfiles], lines: list[str]
    ) -> pd.DataFrame:
        names = [part.bank.names[k] for k in part.usable]
        cosines = self.resampler.split_cosines(activations, part.positives, part.negatives, self.seed, SPLITS)
        tables = []
        for along in profiles:
            energy = energy_profile(part.directions, along.shape, along.axis)
            generator = self.shuffles.generator(self.seed, f"positions {along.axis}")
            found, chance = position_dependence(energy, along, cosines, sets.shuffles.count, generator)
            axis = POSITION_AXES[along.axis]
            table = pd.DataFrame({"layer": part.bank.layer, "concept": names, "axis": axis})
            tables.append(table.assign(unevenness=found, chance=chance))
            strong = tables[-1][found > chance].sort_values("unevenness", ascending=False, kind="stable")
            if len(strong):
                some = [f"{_name(r.concept)} ({r.unevenness:.2f}, chance up to {r.chance:.2f})" for r in _first(strong)]
                remedy = "pool='time' averages it out" if along.axis == "T" else "pool='time_freq' averages it out"
                where = f"{short_repr(part.bank.layer)}: {pluralize(len(strong), 'CAV depends', 'CAVs depend')}"
                lines.append(f"{where} on the position in {axis}: {_listed(some, len(strong))}; {remedy}")
        return pd.concat(tables, ignore_index=True)


def _domain_line(layer: str, found: DomainCheck) -> str:
    return (
        f"{short_repr(layer)}: any set of the concepts' clips looks significant, as all differ from the random pool "
        f"(held-out AUC {found.auc:.2f}; so do {found.random_sets * RANDOM_SETS:.0f} of {RANDOM_SETS} random sets; "
        f"{found.common:.0%} of the difference is common to all concepts); compare them with each other: "
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
    return short_repr(text, LONGEST)


def _first(table: pd.DataFrame) -> Iterator[Any]:
    return table.head(NAMED).itertuples()


def _aucs(first: float, second: float) -> str:
    """The AUCs as text; NaN, where the concepts have the same clips, is left out."""
    known = [f"{value:.2f}" for value in (first, second) if value == value]
    return f"AUC of one CAV for the other {' and '.join(known)}, " if known else ""


def _listed(some: list[str], total: int) -> str:
    return ", ".join(some) + (f" and {total - len(some)} more" if total > len(some) else "")
