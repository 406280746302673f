"""Concepts along one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captum_concepts.audio.clips import Clip


@dataclass
class Timeline:
    """Presence of each concept along one clip, and the sensitivity of one target to it.

    ``sensitivity`` has shape (P, K): the sensitivity of the target's logit along each unit CAV, patch by patch;
    ``presence``, of the same shape, is the probability that the patch has the concept, ``ConceptBank.presence`` (None
    in explanations of older versions). NaN for concepts without a CAV. ``starts`` and ``ends`` are the
    patches' seconds in the file, shape (P,). ``close``: the user asked for this track, with its own hop.
    """

    layer: str
    target: str
    clip: Clip
    starts: np.ndarray
    ends: np.ndarray
    sensitivity: np.ndarray
    presence: np.ndarray | None = None
    close: bool = False
