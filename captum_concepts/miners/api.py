"""Miners: from a similarity matrix to a :class:`ConceptHierarchy`.

A miner is a plain function ``(similarity: Tensor (K, K), names: tuple[str, ...], **options) -> ConceptHierarchy``.
``similarity[p, c]`` speaks for the link p -> c (p above c). :func:`mine` checks the input and calls the miner.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.matrix import MAX_SIMILARITY
from captum_concepts.miners.several_parents import add_parents, check_parent_options
from captum_concepts.plugins.registry import lookup
from captum_concepts.text import short_repr

Miner = Callable[..., ConceptHierarchy]


def mine(
    similarity: Tensor | np.ndarray,
    names: Sequence[str],
    miner: str | Miner = "spanning_tree",
    *,
    max_parents: int = 1,
    parent_margin: float = 0.1,
    **options: object,
) -> ConceptHierarchy:
    """Mine a hierarchy.

    Args:
        similarity: (K, K), finite; row p, column c speaks for the link p -> c. The diagonal is never used as a link.
        names: K unique names, in the order of the rows.
        miner: a name in :data:`MINERS`, or a function with a miner's signature.
        max_parents, parent_margin: above 1, concepts get further parents; see ``several_parents.add_parents``.
        options: passed to the miner.

    Raises:
        InputError: no concept, a matrix of another shape, NaN, infinity or what is no number, duplicate names, an
            unknown miner or option, an option that is NaN, or a matrix that is not symmetric for a miner that needs it.

    Returns:
        the hierarchy over all K names.

    Example:
        >>> similarity = [[1.0, 0.9, 0.8], [0.2, 1.0, 0.1], [0.2, 0.1, 1.0]]
        >>> mine(similarity, ["strings", "violin", "cello"], "subsumption", threshold=0.5).children("strings")
        ['violin', 'cello']
    """
    names = tuple(names)
    similarity = _checked(similarity, names)
    check_parent_options(max_parents, parent_margin)
    for option, value in options.items():
        if isinstance(value, float) and np.isnan(value):  # every comparison with it would be false
            raise InputError(f"{option}=nan: not a number; give a number")
    function = _miner(miner)
    try:
        inspect.signature(function).bind(similarity, names, **options)
    except TypeError as error:
        raise InputError(f"miner {short_repr(miner)}: {error}; see its documentation for the options") from None
    if len(names) == 1:
        return ConceptHierarchy.from_edges(names, [])
    mined = function(similarity, names, **options)
    if not isinstance(mined, ConceptHierarchy) or mined.names[: len(names)] != names:
        raise InputError(
            f"miner {short_repr(miner)}: must return a ConceptHierarchy over all {len(names)} names in order"
        )
    if max_parents > 1:
        if len(mined) > len(names):
            raise InputError("max_parents: needs a hierarchy whose nodes are all concepts; leave out inner='unnamed'")
        return add_parents(mined, similarity, max_parents=max_parents, margin=parent_margin)
    return mined


def _miner(miner: str | Miner) -> Miner:
    if callable(miner):
        return miner
    found: Miner = lookup("miners", miner).factory
    return found


def _checked(similarity: Tensor | np.ndarray, names: tuple[str, ...]) -> Tensor:
    if not names:
        raise InputError("names: no concepts; a hierarchy needs at least one")
    ConceptHierarchy.from_edges(names, [])  # complains about empty and duplicate names
    try:
        similarity = similarity if isinstance(similarity, Tensor) else torch.from_numpy(np.array(similarity))
    except (TypeError, ValueError) as error:
        raise InputError(f"similarity: {short_repr(str(error))}; give a matrix of numbers") from None
    if similarity.shape != (len(names), len(names)):
        raise InputError(
            f"similarity: shape {tuple(similarity.shape)} for {len(names)} names; give ({len(names)}, {len(names)})"
        )
    if similarity.is_complex():
        raise InputError("similarity: complex numbers; give real ones")
    similarity = similarity.detach() if similarity.is_floating_point() else similarity.double()
    bad = (~torch.isfinite(similarity)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise InputError(
            f"similarity: {similarity[row, column].item()} at {short_repr(names[row])}, {short_repr(names[column])}"
            f" ({len(bad)} such entries); leave out concepts without a usable vector"
        )
    if similarity.abs().amax() > MAX_SIMILARITY:
        raise InputError(
            f"similarity: beyond {MAX_SIMILARITY:g}, where squares are infinite; divide it by its largest entry"
        )
    return similarity
