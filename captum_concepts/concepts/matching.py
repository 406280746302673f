"""Negatives from the concepts' own domain: other concepts' clips, as long and as loud as the concept's own."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.decoding import Source
from captum_concepts.errors import InputError
from captum_concepts.seeding import random_key, without_common_folder
from captum_concepts.text import pluralize, short_repr

logger = logging.getLogger(__name__)
DURATION_STEP = 0.5  # octaves of duration in one cell
LOUDNESS_STEP = 3.0  # dB in one cell
QUIETEST = -120.0
BALANCED = 0.25
SHORT_OF = 0.1  # the share of a concept's clips whose cells may hold too few candidates
_BLOCK = 1 << 16


def clip_properties(clips: Sequence[Clip]) -> np.ndarray:
    """Duration and loudness of clips, read from the files.

    Loudness is the root mean square of the whole clip, as single strokes are shorter than the 0.4 s blocks of ITU-R
    BS.1770.

    Returns:
        float64 (N, 2): seconds, and dB relative to full scale (at least -120); NaN for a clip that cannot be read.
    """
    found = np.full((len(clips), 2), np.nan)
    for number, clip in enumerate(clips):
        try:
            with Source(clip) as source:
                power = 0.0
                while len(block := source.read(_BLOCK)):
                    power += float(np.square(block, dtype=np.float64).sum())
                level = 10 * math.log10(power / source.frames) if power else QUIETEST
                found[number] = source.frames / source.rate, max(level, QUIETEST)
        except InputError as error:
            logger.info("not matched: %s", error)
    return found


def matched(labels: np.ndarray, candidates: np.ndarray, properties: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Choose, for each concept, candidates that are spread over duration and loudness as its own clips are.

    Duration and loudness are cut into cells of half an octave by 3 dB. From each cell come as many candidates for each
    of the concept's clips there; how many is set by the cells with the fewest, a tenth of the clips aside. Which ones
    is decided by a hash of their keys.

    Args:
        labels: bool (N, K).
        candidates: bool (N, K), clips that may be negatives.
        properties: float (N, 2), see ``clip_properties``.
        keys: (N,) distinct texts.

    Returns:
        bool (N, K), a part of ``candidates``. A concept none of whose cells holds a candidate gets none.
    """
    usable = np.isfinite(properties).all(axis=1)
    cell_of = np.full(len(labels), -1)
    steps = np.stack([np.log2(properties[usable, 0]) / DURATION_STEP, properties[usable, 1] / LOUDNESS_STEP], 1)
    if usable.any():
        cell_of[usable] = np.unique(np.floor(steps).astype(np.int64), axis=0, return_inverse=True)[1].ravel()
    hashes = [random_key(0, key) for key in without_common_folder(keys)]
    order = np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=np.int64)
    order = order[np.argsort(cell_of[order], kind="stable")]
    order = order[usable[order]]
    cells = cell_of[order]
    count = int(cell_of.max(initial=-1)) + 1
    chosen = np.zeros(labels.shape, dtype=bool)
    for k in range(labels.shape[1]):
        own = np.bincount(cells[labels[order, k]], minlength=count)
        here = candidates[order, k]
        there = np.bincount(cells[here], minlength=count)
        full = own > 0
        if not (own * there).any():
            continue
        ratio = _low_quantile(there[full] / own[full], own[full])
        wanted = np.ceil(max(ratio, 1.0) * own).astype(np.int64)
        sorted_cells = cells[here]
        first = np.concatenate([[0], np.cumsum(there)[:-1]])
        rank = np.arange(len(sorted_cells)) - first[sorted_cells]
        chosen[order[here][rank < wanted[sorted_cells]], k] = True
    return chosen


def _low_quantile(values: np.ndarray, weights: np.ndarray) -> float:
    """The value that all but ``SHORT_OF`` of the weight lies at or above."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, SHORT_OF, side="right").clip(max=len(order) - 1)])


def imbalance_lines(
    names: Sequence[str], labels: np.ndarray, negatives: np.ndarray, properties: np.ndarray
) -> list[str]:
    """One line if negatives of some concepts still differ in duration or loudness, see ``imbalance``."""
    worst = np.nan_to_num(np.abs(imbalance(labels, negatives, properties))).max(axis=1, initial=0.0)
    order = np.argsort(-worst, kind="stable")[: int((worst > BALANCED).sum())]
    if not len(order):
        return []
    some = ", ".join(f"{short_repr(names[k], 30)} {worst[k]:.1f}" for k in order[:3]) + ", ..." * (len(order) > 3)
    return [
        f"in-domain negatives of {pluralize(len(order), 'concept')} are not as long or loud as the concept's own clips "
        f"(by standard deviations: {some}); there are too few like them"
    ]


def imbalance(labels: np.ndarray, negatives: np.ndarray, properties: np.ndarray) -> np.ndarray:
    """Standardised mean differences between positives and negatives.

    Args:
        labels, negatives: bool (N, K).
        properties: float (N, 2), see ``clip_properties``.

    Returns:
        float (K, 2): of log duration and of loudness, in standard deviations of all usable clips; NaN without clips of
        both kinds. Below 0.25 is usually called balanced (Stuart, Statistical Science 2010).
    """
    values = np.stack([np.log2(properties[:, 0]), properties[:, 1]], 1)
    usable = np.isfinite(values).all(axis=1)
    values = values[usable]
    spread = values.std(axis=0)
    result = np.full((labels.shape[1], 2), np.nan)
    for k in range(labels.shape[1]):
        one, zero = values[labels[usable, k]], values[negatives[usable, k]]
        if len(one) and len(zero):
            result[k] = (one.mean(axis=0) - zero.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return result
