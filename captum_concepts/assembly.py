"""What an explanation carries besides its numbers: clips to listen to, timelines, warnings, provenance."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from captum_concepts.activations import Extraction
from captum_concepts.audio import Clip, find_audio
from captum_concepts.cavs import ConceptBank
from captum_concepts.concepts import ConceptSet
from captum_concepts.errors import InputError, shown
from captum_concepts.explanation import Timeline
from captum_concepts.tcav import clip_means, sensitivities
from captum_concepts.wording import counted

PACKAGES = ("captum-concepts", "torch", "torchaudio", "captum", "numpy", "scipy", "networkx", "soundfile")
EXAMPLES = 3
MOST_LINES = 10

TESTS = {
    "statistic": "magnitude x distance of positives from negatives along the CAV",
    "p_value": (
        "rank among random concepts of the same number of groups, each effect in units of the spread of those with the "
        "same answer at the quality gate"
    ),
    "p_unconditional": "rank of the effect among the same random concepts, whether they pass the quality gate or not",
    "family": "concepts within one layer and target, by p_unconditional; not testable concepts count as not rejected",
    "score interval": "95 %, Wilson for as many observations as vary as much as the groups of explained clips",
    "smooth, magnitude intervals": "95 %, studentised bootstrap over groups of explained clips",
    "gate": "lower end of the 95 % interval of the AUC on held-out groups above 0.5",
    "cav_p": "rank of that AUC among random concepts of the same number of groups",
}


def as_clips(clips: Sequence[Clip | str | Path] | str | Path) -> list[Clip]:
    """Clips from clips, file names or a folder (searched for audio); each file is its own group.

    Raises:
        InputError: nothing given, or a folder without audio.
    """
    if isinstance(clips, (str, Path)):
        path = Path(clips)
        clips = find_audio(path) if path.is_dir() else [path]
        if not clips:
            raise InputError(f"clips: no audio file in {shown(str(path))}; give a folder that holds some")
    found = list(dict.fromkeys(clip if isinstance(clip, Clip) else Clip(str(clip)) for clip in clips))
    if not found:
        raise InputError("clips: none given; pass files or a folder")
    return found


def examples(
    bank: ConceptBank, usable: list[str], heard: Extraction, activations: Tensor, positives: np.ndarray
) -> dict[str, list[Clip]]:
    """For each concept its own clips that lie farthest along the CAV, cut to their best patch."""
    rows = heard.rows
    projections = (activations @ bank.directions.T).numpy()
    found: dict[str, list[Clip]] = {}
    for name in usable:
        k = bank.names.index(name)
        own = np.flatnonzero(positives[:, k])
        chosen: dict[str, Clip] = {}
        for row in own[np.argsort(-projections[own, k], kind="stable")]:
            clip = heard.clips[rows[row]]
            start, end = heard.spans[row]
            chosen.setdefault(clip.group, Clip(clip.path, float(start), float(end), clip.group))
            if len(chosen) == EXAMPLES:
                break
        found[name] = list(chosen.values())
    return found


def timelines(
    layers: Sequence[str],
    targets: Sequence[int],
    names: Sequence[str],
    explained: Extraction,
    banks: dict[str, ConceptBank],
) -> list[Timeline]:
    """For each target the explained clips with the highest mean logit, with every concept's presence and push."""
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
    layer: str, target: str, position: int, heard: Extraction, patches: np.ndarray, bank: ConceptBank
) -> Timeline:
    """Presence and push of every concept along patches (row numbers) of one clip; ``position`` of the target among
    those that were heard for."""
    clip = heard.clips[heard.rows[patches[0]]]
    push = sensitivities(heard.gradients[layer][patches, position], bank.directions)
    presence = bank.presence(heard.activations[layer][patches])
    spans = heard.spans[patches]
    return Timeline(layer, target, clip, spans[:, 0], spans[:, 1], push.numpy(), presence.numpy())


def concept_warnings(concepts: ConceptSet, min_groups: int) -> list[str]:
    """What to know about the examples, at most ``MOST_LINES`` lines of one kind."""
    lines = concepts.warnings()
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"{len(lines) - MOST_LINES} more such lines (in Python: ConceptSet.warnings())"]
    few = concepts.check(min_groups)
    if few:
        some = ", ".join(f"{shown(name, 30)} {why}" for name, why in list(few.items())[:3])
        have = "has" if len(few) == 1 else "have"
        lines.append(
            f"{len(few)} of {counted(len(concepts), 'concept')} {have} too few groups: {some}{', ...' * (len(few) > 3)}"
        )
    return lines


def lost_warnings(concepts: ConceptSet, heard: Extraction, min_groups: int) -> list[str]:
    """One line if concepts have too few groups for no other reason than that clips could not be used."""
    groups, known = concepts.groups[heard.kept], concepts.check(min_groups)
    lost = []
    for name, before, shows in zip(
        concepts.names, concepts.n_groups(), concepts.positives()[heard.kept].T, strict=True
    ):
        left = len(set(groups[shows].tolist()))
        if name not in known and left < min_groups:
            lost.append(f"{shown(name, 30)} {left} of {counted(int(before), 'group')}, {min_groups} needed")
    if not lost:
        return []
    what = counted(len(lost), "concept has", "concepts have")
    return [f"{what} too few groups left, as clips could not be used: {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}"]


def pass_warnings(heard: Extraction, explained: Extraction | None) -> list[str]:
    """What to know about the clips that were heard, one line each."""
    lines = []
    for what, part in (("concept", heard), ("explained", explained)):
        if part is None:
            continue
        if part.problems:
            kinds = sorted({problem.status for problem in part.problems})
            counted = ", ".join(f"{sum(p.status == kind for p in part.problems)} {kind}" for kind in kinds)
            lines.append(f"{len(part.problems)} of the {what} clips left out: {counted}")
        if part.short:
            lines.append(
                f"{part.short} of {len(part.clips)} {what} clips are shorter than one patch and looped to fill it, "
                "unless you said otherwise (--option short=pad or short=skip; in Python short=)"
            )
    if explained is not None:
        digests = {heard.digests[clip.path] for clip in heard.clips}
        groups = {clip.group for clip in heard.clips}
        shared = [
            clip.group for clip in explained.clips if clip.group in groups or explained.digests[clip.path] in digests
        ]
        if shared:
            lines.append(
                f"{len(shared)} of {len(explained.clips)} explained clips share group or file with concept clips (the "
                f"first: group {shown(shared[0], 200)}): their scores are not on unseen audio"
            )
    return lines


def concept_record(concepts: ConceptSet) -> dict[str, Any]:
    """Which clips show which concepts: all that is needed to make the set again."""
    return {
        "negatives": concepts.negatives,
        "clips": [
            [clip.path, clip.start, clip.end, clip.group, np.flatnonzero(shows).tolist(), bool(in_pool)]
            for clip, shows, in_pool in zip(concepts.clips, concepts.labels, concepts.pool, strict=True)
        ],
    }


def pass_record(heard: Extraction, explained: Extraction | None) -> dict[str, Any]:
    """How much was heard, sha256 of every file, and what was left out."""
    passes = [heard] if explained is None else [heard, explained]
    return {
        "patches": {
            "concepts": int(heard.counts.sum()),
            "explained": int(explained.counts.sum()) if explained else 0,
        },
        "clips": {path: digest for part in passes for path, digest in sorted(part.digests.items())},
        "left_out": [
            {"path": problem.path, "status": problem.status, "message": problem.message}
            for part in passes
            for problem in part.problems
        ],
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def plain(value: object) -> Any:
    """An option as JSON can hold it; functions and other objects by their name, infinite numbers as text."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value) if isinstance(value, Path) else getattr(value, "__qualname__", type(value).__qualname__)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
