"""Concepts along one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captum_concepts.audio.clips import Clip


@dataclass
class Timeline:
    """Where each concept is heard along one clip, and how much it pushes one target there.

    ``push`` has shape (P, K): the sensitivity of the target's logit along each unit CAV, patch by patch;
    ``presence``, of the same shape, is the probability that the patch shows the concept, ``ConceptBank.presence`` (None
    in explanations saved before there was one). NaN for concepts without a CAV. ``starts`` and ``ends`` are the
    patches' seconds in the file, shape (P,). ``close``: the user asked for this track, heard with a hop of its own.
    """

    layer: str
    target: str
    clip: Clip
    starts: np.ndarray
    ends: np.ndarray
    push: np.ndarray
    presence: np.ndarray | None = None
    close: bool = False
