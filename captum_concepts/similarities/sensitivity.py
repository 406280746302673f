"""Cosine of the sensitivities of two concepts."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.similarities.measure import ROWS, Bank, mirrored
from captum_concepts.text import short_repr


def sensitivity(
    bank: Bank,
    activations: Tensor | None,
    labels: Tensor | None,
    weights: Tensor | None = None,
    *,
    gradients: Tensor,
) -> Tensor:
    """Cosine of the sensitivities of two concepts over all clips and targets.

    ``S[i, j]`` is the cosine, not centred, of the directional derivatives of the logits along the two CAVs: 1 where
    both change the logits in the same way, -1 where they change them in opposite ways, whatever the CAVs
    themselves look like. Weights of the concepts' rows play no part.
    """
    k = len(bank.names)
    products = torch.zeros(k, k, dtype=torch.float64, device=bank.directions.device)
    for some in gradients.split(max(1, ROWS // gradients.shape[1])):
        pushed = (some.to(bank.directions).flatten(0, 1) @ bank.directions.T).double()
        products += pushed.T @ pushed
    length = products.diagonal().sqrt()
    still = (length <= 0).nonzero()
    if len(still):
        raise InputError(
            f"sensitivity: no logit changes along {short_repr(bank.names[int(still[0])])}; leave the concept out"
        )
    return mirrored(products / length[:, None] / length[None, :]).to(bank.directions.dtype)
