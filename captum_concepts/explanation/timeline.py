"""One track in overlapping patches: where each concept is, and its sensitivity, every fraction of a second.

An explanation hears clips in patches side by side; here the patches of one track overlap. The concept banks are those
of the explanation, so nothing is fitted again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from captum_concepts.activations.extraction import Extraction, extract
from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.base import with_hop
from captum_concepts.backbones.inference import predicted_class
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.explanation.examples import EXAMPLES
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.results.timeline import Timeline
from captum_concepts.significance.sensitivity import clip_means, sensitivities
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

HOP = 0.5


def extract_timelines(
    explanation: Explanation,
    backbone: Backbone,
    clip: Clip | str | Path,
    targets: Sequence[str] | str | None = None,
    *,
    hop: float = HOP,
    layers: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[Timeline]:
    """Presence and sensitivity of every concept along one track, patch by patch.

    Presence is the probability that a patch shows the concept, sigmoid(scale * (f @ CAV + bias)); push is the
    derivative of the target's logit along the unit CAV. Both are of the whole patch: the hop says how often one is
    taken, the patch length how sharp in time they can be.

    Args:
        explanation: whose concept banks are used, with its pooling.
        backbone: the model that was explained, with the same weights and options.
        clip: the track.
        targets: explained classes; default: the class the model gives this track, that is the largest mean logit over
            patches side by side.
        hop: seconds between the beginnings of patches, at most the length of a patch.
        layers: explained layers; default: all.
        batch_size: patches per pass.
        progress: called with (stage, clips done, clips in all).

    Returns:
        One timeline per layer and target, in their order.

    Raises:
        InputError: another model than the one explained, an unexplained target or layer, a hop out of range, a backbone
            that does not cut audio, or a track that cannot be read.
    """
    chosen = tuple(explanation.banks) if layers is None else tuple(dict.fromkeys(layers))
    for layer in chosen:
        if layer not in explanation.banks:
            raise InputError(
                f"layer {short_repr(layer)} was not explained; choose one of {', '.join(explanation.banks) or 'none'}"
            )
    check_model(explanation, backbone)
    close = with_hop(backbone, hop)
    track = clip if isinstance(clip, Clip) else Clip(str(clip))
    track = replace(track, path=os.path.abspath(track.path))
    if targets is None:
        names = [predicted_class(backbone, track, chosen[:1], batch_size)]
        remedy = f"the model takes {short_repr(track.path, 200)} for it; name another target, or explain that class too"
    else:
        names = [targets] if isinstance(targets, str) else list(dict.fromkeys(targets))
        remedy = f"choose among {', '.join(explanation.targets[:20]) or 'none'}"
    for name in names:
        if name not in explanation.targets:
            raise InputError(f"target {short_repr(name)} was not explained: {remedy}")
    extracted = extract(
        close,
        [track],
        chosen,
        targets=[target_index(backbone, name) for name in names],
        pool=explanation.provenance["options"]["pool"],
        batch_size=batch_size,
        on_error="refuse",
        progress=progress,
        stage="listening closely",
    )
    patches = np.arange(len(extracted.spans))
    return [
        replace(timeline_of(layer, name, position, extracted, patches, explanation.banks[layer]), close=True)
        for layer in chosen
        for position, name in enumerate(names)
    ]


def add_timelines(explanation: Explanation, found: Sequence[Timeline]) -> None:
    """Put timelines first in an explanation, in place of what was added for the same layer, target and clip."""

    def key(line: Timeline) -> tuple[object, ...]:
        return (line.layer, line.target, line.clip, line.close)

    fresh = {key(line) for line in found}
    explanation.timelines = [*found, *(line for line in explanation.timelines if key(line) not in fresh)]


def check_model(explanation: Explanation, backbone: Backbone) -> None:
    """Raise InputError unless the backbone is, as far as its hash can tell, the one that was explained."""
    explained = explanation.provenance.get("backbone", {}).get("fingerprint")
    given = backbone.fingerprint()
    if backbone.name != explanation.backbone or (None not in (explained, given) and explained != given):
        raise InputError(
            f"backbone {short_repr(backbone.name)} is not the model that was explained "
            f"({short_repr(explanation.backbone)}): "
            "give the same weights and options"
        )


def timelines(
    layers: Sequence[str],
    targets: Sequence[int],
    names: Sequence[str],
    explained: Extraction,
    banks: dict[str, ConceptBank],
) -> list[Timeline]:
    """For each target the explained clips with the highest mean logit."""
    per_clip = clip_means(cast(Tensor, explained.logits), torch.from_numpy(explained.counts))
    rows = explained.rows
    found = []
    for layer in layers:
        for position, (target, name) in enumerate(zip(targets, names, strict=True)):
            for clip in torch.argsort(-per_clip[:, target], stable=True)[:EXAMPLES].tolist():
                own = np.flatnonzero(rows == clip)
                found.append(timeline_of(layer, name, position, explained, own, banks[layer]))
    return found


def timeline_of(
    layer: str, target: str, position: int, extracted: Extraction, patches: np.ndarray, bank: ConceptBank
) -> Timeline:
    """Presence and sensitivity of every concept along patches (row numbers) of one clip.

    ``position`` is that of the target among those that gradients were computed for.
    """
    clip = extracted.clips[extracted.rows[patches[0]]]
    sensitivity = sensitivities(extracted.gradients[layer][patches, position], bank.directions)
    presence = bank.presence(extracted.activations[layer][patches])
    spans = extracted.spans[patches]
    return Timeline(layer, target, clip, spans[:, 0], spans[:, 1], sensitivity.numpy(), presence.numpy())
