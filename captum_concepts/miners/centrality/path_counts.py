"""Numbers of shortest paths that neither lose digits nor overflow, for :mod:`captum_concepts.miners.centrality.api`."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError

EXACT = 2.0**24  # integers up to here are exact in float32
HUGE = 2.0**500


def growth_of(largest: Tensor) -> Tensor | None:
    """Powers of two that bring each source's largest count down to about 1; None where none is huge."""
    if float(largest.max()) <= HUGE:
        return None
    return torch.exp2(torch.frexp(largest.double()).exponent.clamp(min=0).double())


def scaled(counts: Tensor, growth: Tensor) -> Tensor:
    """``counts / growth``; raises InputError where a count vanishes beside the largest of its source."""
    result = counts / growth
    if bool(((result < torch.finfo(result.dtype).tiny) & (counts > 0)).any()):
        raise InputError(
            "adjacency: numbers of shortest paths that differ by more than 2^1000 at one distance from a node are"
            " beyond float64; take a denser graph"
        )
    return result
