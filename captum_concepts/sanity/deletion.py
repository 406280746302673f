"""Leave a concept's sound out of recordings and see what the model says: for those whose parts are known.

A stem that was left out of a mix, or a synthesiser that can play a piece again without an instrument, makes two
recordings that differ in the concept's sound and in nothing else. So the model's answer to its deletion can be measured
instead of guessed from derivatives. Where parts are not known, see ``mixing``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.activations.extraction import extract
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import find_audio
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.groups import index_groups
from captum_concepts.errors import InputError
from captum_concepts.significance.intervals import mean_interval
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

FLIPS = 4999
MIN_GROUPS = 5
COLUMNS = ("target", "fall", "low", "high", "p_value", "spread", "n_groups")
Pair = tuple[Clip | str | Path, Clip | str | Path]


def paired_clips(whole: str | Path, without: str | Path) -> list[tuple[Clip, Clip]]:
    """Recordings in two folders that have the same name but for the ending.

    Args:
        whole: folder of recordings as they are.
        without: folder of the same ones without the concept's sound.

    Returns:
        (as it is, without), sorted by name; each pair is a group of its own.

    Raises:
        InputError: a folder without audio, a recording without its counterpart, or two of one name.
    """
    named: list[dict[str, str]] = []
    for folder in (whole, without):
        found: dict[str, str] = {}
        for path in find_audio(folder):
            name = os.path.splitext(os.path.relpath(path, folder))[0]
            if name in found:
                raise InputError(f"{folder}: two recordings are called {short_repr(name, 200)}; rename one of them")
            found[name] = path
        if not found:
            raise InputError(f"{folder}: no audio file in it; give a folder that holds some")
        named.append(found)
    for (ours, theirs), folder in zip((named, named[::-1]), (without, whole), strict=True):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            raise InputError(f"{folder}: no counterpart of {short_repr(alone[0], 200)}; add it or take the other away")
    return [(Clip(named[0][name], group=name), Clip(named[1][name], group=name)) for name in sorted(named[0])]


def deletion_effects(
    backbone: Backbone,
    pairs: Sequence[Pair],
    targets: Sequence[str | int] | str | int | None = None,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """How far each class's logit falls when a concept's sound is left out.

    What is said to speak for a class must make it fall: hold ``fall`` against ``Explanation.scores`` of the concept.

    Args:
        backbone: a model with classes.
        pairs: (recording as it is, the same without the concept's sound), e.g. from ``paired_clips`` or
            ``demo.music.MusicGenerator.without``. Pairs whose first clips are of one group count as one observation.
        targets: class names or numbers; default: all classes.
        batch_size: patches per pass.
        seed: of intervals and flips.
        progress: called with (stage, clips done, clips in all).

    Returns:
        a row per target: target; ``fall``, the mean over recordings of the logit as they are minus without; ``low`` and
        ``high``, its 95 % interval over groups; ``p_value``, two-sided, of a mean fall as far from 0 if each group's
        two versions could be exchanged (4,999 random exchanges); ``spread``, the standard deviation of the logit over
        the recordings as they are, to read ``fall`` by; n_groups.

    Raises:
        InputError: no classes, an unknown one, fewer than 5 groups, or a recording that cannot be used.
    """
    if not backbone.classes:
        raise InputError(f"backbone {backbone.name} has no classes that could fall; add a head")
    asked = [targets] if isinstance(targets, (str, int)) else targets
    wanted = range(len(backbone.classes)) if asked is None else [target_index(backbone, target) for target in asked]
    chosen = list(dict.fromkeys(wanted))
    whole = [clip if isinstance(clip, Clip) else Clip(str(clip)) for clip, _ in pairs]
    cut = [clip if isinstance(clip, Clip) else Clip(str(clip)) for _, clip in pairs]
    groups = [clip.group for clip in whole]
    names, index = index_groups(groups) if groups else ([], np.zeros(0, dtype=int))
    if len(names) < MIN_GROUPS:
        raise InputError(f"pairs: {len(names)} groups of recordings; give at least {MIN_GROUPS}")
    placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in (*whole, *cut)]
    extracted = extract(
        backbone, placed, backbone.layers[:1], targets=chosen[:1], batch_size=batch_size, on_error="refuse",
        progress=progress, stage="hearing what is left out",
    )  # fmt: skip
    logits = clip_means(cast(Tensor, extracted.logits), torch.from_numpy(extracted.counts))[:, chosen].double().cpu()
    falls = logits[: len(whole)] - logits[len(whole) :]
    low, high = mean_interval(falls, groups, seed=seed)
    signs = np.random.default_rng([seed, 0xDE1]).choice([-1.0, 1.0], size=(FLIPS, len(names)))
    flipped = np.abs(signs[:, index] @ falls.numpy())
    # Sums of the same numbers in another order differ in the last digit.
    reached = flipped >= np.abs(falls.sum(0).numpy()) * (1 - 1e-9)
    columns = (
        [backbone.classes[target] for target in chosen],
        falls.mean(0).tolist(),
        low.tolist(),
        high.tolist(),
        ((1 + reached.sum(axis=0)) / (1 + FLIPS)).tolist(),
        logits[: len(whole)].std(0).tolist(),
        [len(names)] * len(chosen),
    )
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
