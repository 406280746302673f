"""What to know about concepts and clips, one line each."""

from __future__ import annotations

from captum_concepts.activations.extraction import Extraction
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.text import pluralize, short_repr

MAX_LINES = 10


def concept_warnings(concepts: ConceptSet, min_groups: int) -> list[str]:
    """What to know about the examples, at most ``MAX_LINES`` lines of one kind."""
    lines = concepts.warnings()
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"{len(lines) - MAX_LINES} more such lines (in Python: ConceptSet.warnings())"]
    few = concepts.check(min_groups)
    if few:
        some = ", ".join(f"{short_repr(name, 30)} {why}" for name, why in list(few.items())[:3])
        have = "has" if len(few) == 1 else "have"
        lines.append(
            f"{len(few)} of {pluralize(len(concepts), 'concept')} {have} too few groups: "
            f"{some}{', ...' * (len(few) > 3)}"
        )
    return lines


def lost_warnings(concepts: ConceptSet, extracted: Extraction, min_groups: int) -> list[str]:
    """One line if concepts have too few groups for no other reason than that clips could not be used."""
    groups, known = concepts.groups[extracted.kept], concepts.check(min_groups)
    lost = []
    for name, before, shows in zip(
        concepts.names, concepts.n_groups(), concepts.positives()[extracted.kept].T, strict=True
    ):
        left = len(set(groups[shows].tolist()))
        if name not in known and left < min_groups:
            lost.append(f"{short_repr(name, 30)} {left} of {pluralize(int(before), 'group')}, {min_groups} needed")
    if not lost:
        return []
    what = pluralize(len(lost), "concept has", "concepts have")
    return [f"{what} too few groups left, as clips could not be used: {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}"]


def pass_warnings(extracted: Extraction, explained: Extraction | None) -> list[str]:
    """What to know about the clips that were passed over, one line each."""
    lines = []
    for what, part in (("concept", extracted), ("explained", explained)):
        if part is None:
            continue
        if part.problems:
            kinds = sorted({problem.status for problem in part.problems})
            counts = ", ".join(f"{sum(p.status == kind for p in part.problems)} {kind}" for kind in kinds)
            lines.append(f"{len(part.problems)} of the {what} clips left out: {counts}")
        if part.short:
            lines.append(
                f"{part.short} of {len(part.clips)} {what} clips are shorter than one patch and looped to fill it, "
                "unless you said otherwise (--option short=pad or short=skip; in Python short=)"
            )
    if explained is not None:
        digests = {extracted.digests[clip.path] for clip in extracted.clips}
        groups = {clip.group for clip in extracted.clips}
        shared = [
            clip.group for clip in explained.clips if clip.group in groups or explained.digests[clip.path] in digests
        ]
        if shared:
            lines.append(
                f"{len(shared)} of {len(explained.clips)} explained clips share group or file with concept clips (the "
                f"first: group {short_repr(shared[0], 200)}): their scores are not on unseen audio"
            )
    return lines
