"""Scores of sets of concepts in which each is compared with the others, along CAVs of unit length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from captum_concepts.cavs.logistic import fit_logistic
from captum_concepts.cavs.methods import CavMethod, FitFunction
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.tcav.scores import Totals, stacks
from captum_concepts.tcav.set_fits import Blocks, fit_sets

# Methods whose fit of a set is the same problem in ``resampling``, there solved for all sets at once.
_AT_ONCE: dict[FitFunction, tuple[str, set[str]]] = {fit_pattern: ("pattern", set()), fit_logistic: ("logistic", {"C"})}


def relative_directions(
    rows: Mapping[int, Tensor], sets: Sequence[Sequence[int]], cav_method: CavMethod
) -> list[Tensor]:
    """The unit CAV of each concept of each set against the other concepts of that set.

    Args:
        rows: (N_i, D) of each concept, by its id.
        sets: ids of each set's concepts, at least two, each once.
        cav_method: with its options.

    Returns:
        (C, D) of each set.

    Raises:
        InputError: NaN rows, unknown options.
    """
    method, known = _AT_ONCE.get(cav_method.fit, ("", set()))
    if not method or set(cav_method.options) - known:
        return [_one_by_one([rows[identity] for identity in members], cav_method) for members in sets]
    place = {identity: number for number, identity in enumerate(rows)}
    blocks = Blocks(torch.cat(list(rows.values())), [len(part) for part in rows.values()])
    found: dict[int, Tensor] = {}
    places = [[place[identity] for identity in members] for members in sets]
    for fits in fit_sets(blocks, places, method, **cav_method.options):
        found.update(zip(fits.numbers, torch.nn.functional.normalize(fits.weights, dim=2, eps=0.0), strict=True))
    return [found[number] for number in range(len(sets))]


def _one_by_one(parts: Sequence[Tensor], method: CavMethod) -> Tensor:
    x = torch.cat(list(parts))
    owner = torch.repeat_interleave(torch.tensor([len(part) for part in parts])).to(x.device)
    labels = owner[:, None] == torch.arange(len(parts), device=x.device)
    return method(x, labels, ~labels, x.new_ones(len(x)))[0]


def relative_scores(
    directions: Sequence[Tensor], sets: Sequence[Sequence[int]], gradients: Tensor, chunk_bytes: int = 2**28
) -> list[dict[str, Tensor]]:
    """Sign counts and magnitudes of all sets, as ``BatchedTCAV`` computes them.

    Args:
        directions: (C, D) of each set.
        sets: ids of each set's concepts.
        gradients: (N, D).
        chunk_bytes: bound of the working memory.

    Returns:
        {"sign_count": (C,), "magnitude": (C,)} of each set.
    """
    stats = [{"weights": found, "classes": members} for found, members in zip(directions, sets, strict=True)]
    totals = Totals(temperature=None)
    totals.begin(len(gradients))
    for position, stack in enumerate(stacks(stats, sets, len(gradients), gradients, chunk_bytes)):
        totals.add(position, stack, stack.along(gradients[None]))
    scores = {number: found for _, number, found in totals.means()}
    return [scores[number] for number in range(len(sets))]
