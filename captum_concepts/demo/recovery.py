"""How well an explanation recovers a planted ground truth.

Both measures take plain results (a table of scores, a graph) and a plain truth, so they apply equally to all methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import networkx as nx
import pandas as pd

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Causes = Mapping[str, Mapping[str, int] | Iterable[str]]
_COLUMNS = ("layer", "target", "concept", "magnitude")


class CausalRecovery(NamedTuple):
    """AUC of causes against other concepts.

    `targets` has one row per layer and target: layer, target, auc, n_causes, n_others. `layers` is {layer: mean AUC
    over its targets}.
    """

    targets: pd.DataFrame
    layers: dict[str, float]


class AncestorRecovery(NamedTuple):
    """How many (ancestor, descendant) pairs of the truth were mined, and how many of the mined pairs are true."""

    precision: float
    recall: float
    f1: float


def causal_auc(scores: pd.DataFrame, causes: Causes, parents: Mapping[str, str] | None = None) -> CausalRecovery:
    """Probability that a cause of a target ranks above a concept that is not a cause, per layer and target.

    For a cause of sign +1 "above" means a larger magnitude, for one of sign -1 a smaller one; equal magnitudes count
    one half. With causes of sign +1 only, this is the area under the ROC curve.

    A relative of a cause (its ancestors and descendants by `parents`) is neither a cause nor a non-cause: where violins
    cause a genre, sustained instruments occur in it too, and a model may depend on them. Relatives are left out.
    Siblings are not: a clarinet is not a violin.

    A missing magnitude (NaN: the concept was not testable) puts a cause below everything; another
    concept without a magnitude ranks below every cause that has one.

    :param scores: rows of layer, target, concept, magnitude (mean sensitivity along the unit CAV); more columns and
        targets without causes are ignored.
    :param causes: {target: {concept: +1 or -1}}, or {target: concepts} where all are +1.
    :param parents: {concept: parent}; None means that no concepts are related.
    :raises InputError: if a column, a target or a cause is missing, a row is a duplicate, or nothing is left to
        rank against.
    """
    missing = [column for column in _COLUMNS if column not in scores.columns]
    if missing:
        raise InputError(f"scores: no column {', '.join(missing)}; there are {short_repr(list(scores.columns))}")
    if not causes:
        raise InputError("causes: {} names no target; give the causes of at least one")
    parents = parents or {}
    rows = []
    for layer, of_layer in scores.groupby("layer", sort=False):
        for target, given in causes.items():
            signs = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 1)
            of_target = of_layer[of_layer["target"] == target]
            magnitudes = _magnitudes(of_target, f"layer {short_repr(layer)}, target {short_repr(target)}", signs)
            related = set(signs).union(*(_relatives(cause, parents) for cause in signs))
            others = [value for concept, value in magnitudes.items() if concept not in related]
            if not others:
                raise InputError(
                    f"scores: target {short_repr(target)} has no concepts but its causes; score more concepts"
                )
            wins = [_win(sign * magnitudes[cause], sign * other) for cause, sign in signs.items() for other in others]
            rows.append((layer, target, sum(wins) / len(wins), len(signs), len(others)))
    table = pd.DataFrame(rows, columns=["layer", "target", "auc", "n_causes", "n_others"])
    means = table.groupby("layer", sort=False)["auc"].mean()
    return CausalRecovery(table, {str(layer): float(value) for layer, value in means.items()})


def ancestor_recovery(mined: nx.DiGraph, parents: Mapping[str, str]) -> AncestorRecovery:
    """Compare (ancestor, descendant) pairs of a mined hierarchy with those of the planted tree.

    Only pairs of two concepts of the planted tree count: there is no truth about the place of a tempo. A pair is
    mined where a path leads from ancestor to descendant, whatever is between.

    :param mined: nodes are concept names, edges lead from parent to child.
    :param parents: {concept: parent} of the planted tree.
    :returns: precision is 0 where nothing was mined; F1 is 0 where nothing mined is true.
    :raises InputError: if the planted tree is empty or not in the mined graph, or the mined graph has a cycle.
    """
    planted = nx.DiGraph([(parent, child) for child, parent in parents.items()])
    absent = sorted(set(planted) - set(mined))
    if absent or not planted:
        raise InputError(
            f"parents: {short_repr(absent)} not in the mined hierarchy; mine a hierarchy of these concepts"
        )
    if not nx.is_directed_acyclic_graph(mined):
        raise InputError(f"mined: the hierarchy has the cycle {short_repr(nx.find_cycle(mined))}; break it first")
    true = _ancestor_pairs(planted, set(planted))
    found = _ancestor_pairs(mined, set(planted))
    hits = len(true & found)
    precision = hits / len(found) if found else 0.0
    recall = hits / len(true)
    return AncestorRecovery(precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0)


def _magnitudes(rows: pd.DataFrame, place: str, causes: Mapping[str, int]) -> dict[str, float]:
    magnitudes = dict(zip(rows["concept"], rows["magnitude"].astype(float), strict=True))
    if len(magnitudes) < len(rows):
        raise InputError(f"scores: {place} scores a concept twice; keep one row per layer, target and concept")
    absent = [cause for cause in causes if cause not in magnitudes]
    if absent or not causes:
        raise InputError(
            f"scores: {place} has no row for the causes {short_repr(absent)}; explain it with these concepts"
        )
    return magnitudes


def _win(cause: float, other: float) -> float:
    if cause != cause:
        return 0.0
    if other != other:
        return 1.0
    return float(cause > other) + 0.5 * float(cause == other)


def _relatives(concept: str, parents: Mapping[str, str]) -> set[str]:
    tree = nx.DiGraph([(parent, child) for child, parent in parents.items()])
    return nx.ancestors(tree, concept) | nx.descendants(tree, concept) if concept in tree else set()


def _ancestor_pairs(graph: nx.DiGraph, concepts: set[str]) -> set[tuple[str, str]]:
    return {(above, below) for below in concepts for above in nx.ancestors(graph, below) & concepts}
