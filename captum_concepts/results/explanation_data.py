"""The record of an explanation: plain data without methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from captum_concepts.audio.clips import Clip
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.results.diagnostics import Diagnostics
from captum_concepts.results.tables import empty_shares
from captum_concepts.results.timeline import Timeline


@dataclass
class ExplanationData:
    """All results of one explanation of one model, as plain values.

    Attributes:
        scores: one row per layer, target and concept, columns ``SCORE_COLUMNS``. A concept that could not be
            tested has a ``status`` other than ``"ok"`` and NaN in the numeric columns that need a test.
        hierarchies: layer -> mined hierarchy.
        banks: layer -> concept bank (CAVs with quality).
        supports: layer -> share of bootstrap samples with each link, if ``support`` was requested.
        similarities: layer -> (K, K) float32.
        sensitivities: layer -> (clips, targets, concepts) float32, mean over the patches of each clip.
        clips: the explained clips, in the order of ``sensitivities``.
        examples: layer -> concept -> the concept's own clips farthest along its CAV (best first, each cut to
            its best patch).
        timelines: for each layer and target, the explained clips with the highest logit; before them those that
            ``timeline.add_timelines`` added for the user.
        warnings: one line each.
        diagnostics: diagnostics of the concepts, see ``diagnostics.Diagnostics``.
        shares: contributions of each concept and subtree to each class, columns
            ``SHARE_COLUMNS``; empty unless requested.
        provenance: versions, seeds, weight and clip hashes, options.
    """

    backbone: str
    layers: tuple[str, ...]
    targets: tuple[str, ...]
    concepts: tuple[str, ...]
    scores: pd.DataFrame
    hierarchies: dict[str, ConceptHierarchy]
    banks: dict[str, ConceptBank]
    similarities: dict[str, np.ndarray]
    sensitivities: dict[str, np.ndarray]
    clips: tuple[Clip, ...]
    examples: dict[str, dict[str, list[Clip]]] = field(default_factory=dict)
    timelines: list[Timeline] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    shares: pd.DataFrame = field(default_factory=empty_shares)
    supports: dict[str, Support] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
