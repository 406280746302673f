"""All CAVs of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

QUALITY_COLUMNS = (
    "concept",
    "auc",
    "low",
    "high",
    "accuracy",
    "p_value",
    "n_positive_groups",
    "n_negative_groups",
    "status",
)


@dataclass
class ConceptBank:
    """The K CAVs of one layer.

    Attributes:
        names: concept names.
        layer: the layer's name.
        directions: (K, D), unit length, dtype of the activations; NaN rows for concepts that could not be fitted.
        biases: (K,), in activation units along the direction.
        scales: (K,), logits per activation unit.
        quality: one row per concept, columns ``QUALITY_COLUMNS``: AUC on held-out groups with its 95 % interval,
            balanced accuracy on held-out groups, p-value of the AUC among null concepts (see
            ``significance.LayerNulls``; NaN until it is computed), counts, and status ("ok", "too few groups", "not
            testable").
        method: how it was fitted.
    """

    names: tuple[str, ...]
    layer: str
    directions: Tensor
    biases: Tensor
    scales: Tensor
    quality: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(QUALITY_COLUMNS)))
    method: str = ""

    def __post_init__(self) -> None:
        k = len(self.names)
        if self.directions.dim() != 2 or len(self.directions) != k:
            raise InputError(f"directions: shape {tuple(self.directions.shape)} does not fit {k} names")
        for label, values in (("biases", self.biases), ("scales", self.scales)):
            if tuple(values.shape) != (k,):
                raise InputError(f"{label}: shape {tuple(values.shape)} does not fit {k} names")

    def __len__(self) -> int:
        return len(self.names)

    def logits(self, activations: Tensor) -> Tensor:
        """(N, D) -> (N, K): the logit that each row has each concept."""
        return self.scales * (activations @ self.directions.T + self.biases)

    def presence(self, activations: Tensor) -> Tensor:
        """(N, D) -> (N, K): the probability that each row has each concept."""
        return torch.sigmoid(self.logits(activations))

    def to(self, device: str | torch.device) -> ConceptBank:
        """The same bank on another device."""
        return replace(
            self, directions=self.directions.to(device), biases=self.biases.to(device), scales=self.scales.to(device)
        )

    def subset(self, names: Sequence[str]) -> ConceptBank:
        """The bank of some of the concepts, in the order given."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(f"concept {short_repr(missing[0])} is not in the bank of layer {self.layer}")
        rows = [self.names.index(name) for name in names]
        quality = self.quality
        if len(quality):
            quality = quality.set_index("concept", drop=False).loc[list(names)].reset_index(drop=True)
        return replace(
            self,
            names=tuple(names),
            directions=self.directions[rows],
            biases=self.biases[rows],
            scales=self.scales[rows],
            quality=quality,
        )
