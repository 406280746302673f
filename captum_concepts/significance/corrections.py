"""Corrections of p-values for testing many concepts at once, plain and along a hierarchy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.significance.builtin import BUILTIN_CORRECTIONS, TREE_FACTOR
from captum_concepts.text import short_repr

#: Name -> what it promises, as results and messages say it.
CORRECTIONS = {name: correction.promise for name, correction in BUILTIN_CORRECTIONS.items()}
_ADJUST = {name: correction.adjust for name, correction in BUILTIN_CORRECTIONS.items() if correction.adjust is not None}


def check_correction(name: str) -> str:
    """The name, if there is such a correction.

    Args:
        name: such as "bh".

    Returns:
        the name itself.

    Raises:
        InputError: there is none.
    """
    if name not in CORRECTIONS:
        raise InputError(f"correction={short_repr(name)}: unknown; choose one of {', '.join(CORRECTIONS)}")
    return name


def adjust(p_values: np.ndarray, method: str = "bh") -> np.ndarray:
    """q-values of one family: the smallest level at which each hypothesis is rejected.

    Args:
        p_values: (m,); NaN entries are no members of the family and stay NaN.
        method: "bh" (Benjamini and Hochberg, JRSS-B 1995), "by" (Benjamini and Yekutieli, Ann. Stat. 2001), "holm"
            (Holm 1979) or "bonferroni".

    Returns:
        (m,) float64, never below the p-values.

    Raises:
        InputError: unknown method, or a p-value outside [0, 1].

    Example:
        >>> adjust(np.array([0.01, 0.04, np.nan, 0.03]), "holm").tolist()
        [0.03, 0.06, nan, 0.06]
    """
    if method not in _ADJUST:
        raise InputError(
            f"method={short_repr(method)}: not a correction of a plain family; choose one of {', '.join(_ADJUST)}"
        )
    p_values = np.asarray(p_values, dtype=np.float64)
    members = ~np.isnan(p_values)
    outside = p_values[members & ~((p_values >= 0) & (p_values <= 1))]
    if len(outside):
        raise InputError(f"p_values={outside[0]:g}: outside [0, 1]; give probabilities")
    q_values = np.full(p_values.shape, np.nan)
    if members.any():
        q_values[members] = _ADJUST[method](p_values[members])
    return q_values


def hierarchical(p_values: Mapping[str, float], hierarchy: ConceptHierarchy) -> dict[str, float]:
    """q-values of a top-down walk along a hierarchy (Yekutieli, JASA 2008).

    The roots are one family, the children of every concept another. A family is tested by Benjamini-Hochberg, and only
    if its parent was rejected. Tested at alpha / 2.88 each, the false discovery rate over the whole tree is at most
    alpha for p-values that are independent of each other along the tree, and of the tree: mine it from other groups
    than those tested. A q-value is the smallest alpha at which the walk reaches and rejects a concept.

    Args:
        p_values: concept -> p-value; those of concepts that were not testable are 1 (NaN counts as 1).
        hierarchy: over any concepts; those without a p-value are passed over (their children move up to the nearest
            ancestor that has one), and concepts that it lacks are roots. Where a concept has several parents, the one
            with the strongest link counts.

    Returns:
        concept -> q-value, at most 1; never below that of the parent.

    Example:
        >>> tree = ConceptHierarchy.from_parents({"strings": None, "violin": "strings"})
        >>> {name: round(float(q), 4) for name, q in hierarchical({"strings": 0.01, "violin": 0.002}, tree).items()}
        {'strings': 0.0288, 'violin': 0.0288}
    """
    known = [name for name in hierarchy.names if name in p_values]
    tree = hierarchy.restrict(known) if known else None
    parent: dict[str, str | None] = dict.fromkeys(p_values)
    if tree is not None:
        parent.update((name, tree.parents(name)[0]) for name in tree.names if tree.parents(name))
    families: dict[str | None, list[str]] = {}
    for name, above in parent.items():
        families.setdefault(above, []).append(name)
    found: dict[str, float] = {}
    reached: list[str | None] = [None]
    while reached:
        above = reached.pop()
        members = families.get(above, [])
        if not members:
            continue
        adjusted = adjust(np.nan_to_num([p_values[name] for name in members], nan=1.0))
        least = 0.0 if above is None else found[above]
        found.update((name, min(1.0, max(least, TREE_FACTOR * q))) for name, q in zip(members, adjusted, strict=True))
        reached += members
    return {name: found[name] for name in p_values}
