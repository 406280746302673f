"""The similarity ``discriminant``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from captum_concepts.similarities.discriminant.means import observations, scaled_products
from captum_concepts.similarities.discriminant.neighbours import discriminant_space
from captum_concepts.similarities.measure import Bank, nonempty


def discriminant(
    bank: Bank,
    activations: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
) -> Tensor:
    """Inner products of the concepts in Fisher's discriminant space: of their means, and of their neighbourhoods.

    See ``discriminant.means`` and ``discriminant.neighbours``; both are freed of noise.
    Seen from all rows together: the diagonal is how far a concept lies from them (squared), 1 on average; below 0
    where noise alone lies farther. It does not use the CAVs of the bank.
    """
    to = bank.directions.device
    observed = observations(activations.to(to), labels.to(to), None if weights is None else weights.to(to), groups)
    nonempty(bank, observed.shows.sum(0))
    return scaled_products(discriminant_space(observed).inner_products()).to(bank.directions.dtype)
