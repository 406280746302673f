"""Deletion: the change of logits when a concept's sound is left out of recordings whose parts are known.

A mix without one stem, or a synthesised piece without one instrument, gives two recordings that differ only in the
concept's sound. So the effect of deletion can be measured instead of estimated from derivatives. Where parts are not
known, see ``added_sound``.
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

N_PERMUTATIONS = 4999
MIN_GROUPS = 5
COLUMNS = ("target", "fall", "low", "high", "p_value", "spread", "n_groups")
Pair = tuple[Clip | str | Path, Clip | str | Path]


def paired_clips(whole: str | Path, without: str | Path) -> list[tuple[Clip, Clip]]:
    """Recordings in two folders that have the same name without the ending.

    Args:
        whole: folder of recordings as they are.
        without: folder of the same ones without the concept's sound.

    Returns:
        (as it is, without), sorted by name; each pair is a group of its own.

    Raises:
        InputError: a folder without audio, a recording without its counterpart, or two of one name.
    """
    named: list[dict[str, str]] = []
    for option, folder in (("whole", whole), ("without", without)):
        found: dict[str, str] = {}
        for path in find_audio(folder):
            name = os.path.splitext(os.path.relpath(path, folder))[0]
            if name in found:
                raise InputError(
                    f"{option}={short_repr(str(folder), 200)}: two recordings are named "
                    f"{short_repr(name, 200)}; rename one"
                )
            found[name] = path
        if not found:
            raise InputError(f"{option}={short_repr(str(folder), 200)}: no audio file in it; give a folder with audio")
        named.append(found)
    sides = (("without", without, named[0], named[1]), ("whole", whole, named[1], named[0]))
    for option, folder, there, other in sides:
        alone = sorted(there.keys() - other.keys())
        if alone:
            name = short_repr(alone[0], 200)
            where = short_repr(str(folder), 200)
            raise InputError(f"{option}={where}: no counterpart of {name}; add it or remove the other")
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

    Deletion of a concept with a positive effect must lower the class: compare ``fall`` with ``Explanation.scores``.

    Args:
        backbone: a model with classes.
        pairs: (recording as it is, the same without the concept's sound), e.g. from ``paired_clips`` or
            ``demo.music.MusicGenerator.without``. Pairs whose first clips are of one group count as one observation.
        targets: class names or numbers; default: all classes.
        batch_size: patches per pass.
        seed: of intervals and permutations.
        progress: called with (stage, clips done, total).

    Returns:
        a row per target: target; ``fall``, the mean over recordings of the logit with minus without the sound;
        ``low`` and ``high``, its 95 % interval over groups; ``p_value``, two-sided, of a mean fall as far from 0 if
        each group's two versions could be exchanged (4,999 random exchanges); ``spread``, the standard deviation of the
        logit over the recordings with the sound, as a scale for ``fall``; n_groups.

    Raises:
        InputError: no classes, an unknown one, fewer than 5 groups, or a recording that cannot be used.
    """
    if not backbone.classes:
        raise InputError(f"backbone={backbone.name}: no classes, so nothing can be measured; add a head")
    asked = [targets] if isinstance(targets, (str, int)) else targets
    wanted = range(len(backbone.classes)) if asked is None else [target_index(backbone, target) for target in asked]
    chosen = list(dict.fromkeys(wanted))
    whole = [clip if isinstance(clip, Clip) else Clip(str(clip)) for clip, _ in pairs]
    deleted = [clip if isinstance(clip, Clip) else Clip(str(clip)) for _, clip in pairs]
    groups = [clip.group for clip in whole]
    names, index = index_groups(groups) if groups else ([], np.zeros(0, dtype=int))
    if len(names) < MIN_GROUPS:
        raise InputError(f"pairs={len(names)} groups of recordings: too few; give at least {MIN_GROUPS}")
    placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in (*whole, *deleted)]
    extracted = extract(
        backbone, placed, backbone.layers[:1], targets=chosen[:1], batch_size=batch_size, on_error="refuse",
        progress=progress, stage="extracting pairs",
    )  # fmt: skip
    logits = clip_means(cast(Tensor, extracted.logits), torch.from_numpy(extracted.counts))[:, chosen].double().cpu()
    falls = logits[: len(whole)] - logits[len(whole) :]
    low, high = mean_interval(falls, groups, seed=seed)
    signs = np.random.default_rng([seed, 0xDE1]).choice([-1.0, 1.0], size=(N_PERMUTATIONS, len(names)))
    permuted = np.abs(signs[:, index] @ falls.numpy())
    # Sums of the same numbers in another order differ in the last digit.
    reached = permuted >= np.abs(falls.sum(0).numpy()) * (1 - 1e-9)
    columns = (
        [backbone.classes[target] for target in chosen],
        falls.mean(0).tolist(),
        low.tolist(),
        high.tolist(),
        ((1 + reached.sum(axis=0)) / (1 + N_PERMUTATIONS)).tolist(),
        logits[: len(whole)].std(0).tolist(),
        [len(names)] * len(chosen),
    )
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
