"""Added sound: whether a concept's sound, mixed into clips, raises the classes that it has a positive effect on.

A sound cannot be removed from a recording without a source separator, whose errors would be measured too; it can be
added exactly. Of two clips with added sound of the same loudness, one from the concept's examples and one from its
negatives, the first must have the higher logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from captum_concepts.activations.extraction import Extraction
from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.inference import middle_patch
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.choices import ALPHA
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.errors import InputError, NotWaveformsError
from captum_concepts.sanity.checks import FALSE_ALARM, Check, LayerView, impossible
from captum_concepts.seeding import random_key, without_common_folder
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.types import Progress

MAX_DONORS = 24  # groups of each concept whose sound is added
MIN_DONORS = 8  # so that chance alone gives p below 0.01
HOSTS_PER_DONOR = 2  # explained clips that each donor is added to
MAX_PER_TARGET = 3  # significant concepts tried for each class
N_PERMUTATIONS = 4999
NAME = "added sound"
MIN_CONCEPTS = 5  # with fewer, a rise that is not significant is no evidence against the explanation
MEASURED = "rise of the class by the concept's sound over other sound, in standard deviations of the logit"


class SignificantPair(NamedTuple):
    """A concept with a significant positive effect on a class."""

    concept: str
    target: int


def mix(host: Tensor, donor: Tensor) -> Tensor:
    """Two waveforms (..., samples) in equal parts: the donor scaled to the host's loudness, and so is the sum."""
    loudness = host.square().mean(-1, keepdim=True).sqrt()
    other = donor.square().mean(-1, keepdim=True).sqrt()
    return (host + donor * (loudness / other.clamp_min(torch.finfo(donor.dtype).tiny))) / 2**0.5


def significant_pairs(view: LayerView) -> list[SignificantPair]:
    """For each class the strongest significant concepts that raise it."""
    table = view.table
    found = []
    for number, target in enumerate(view.targets):
        rows = table[(table["target"] == target) & (table["status"] == "ok")]
        rows = rows[(rows["q_value"] < ALPHA) & (rows["magnitude"] > 0)]
        best = rows.sort_values("magnitude", ascending=False, kind="stable").head(MAX_PER_TARGET)
        found += [SignificantPair(str(concept), number) for concept in best["concept"]]
    return found


class AddedSoundEffects:
    """How much more a concept's sound raises the classes than other sound; each concept is measured once.

    Args:
        backbone, concepts: the model, and the concepts with their negatives.
        explained: the clips that sound is added to.
        targets: T class numbers.
        pool, batch_size, seed: as elsewhere.

    Attributes:
        patches: how many went through the model so far.
        spread: (T,), standard deviation of each class's logit over the explained clips.
    """

    def __init__(
        self,
        backbone: Backbone,
        concepts: ConceptSet,
        explained: Extraction,
        targets: Sequence[int],
        *,
        pool: str,
        batch_size: int,
        seed: int,
    ):
        self.backbone, self.concepts, self.targets = backbone, concepts, list(targets)
        self.pool, self.batch_size, self.seed = pool, batch_size, seed
        self.patches = 0
        logits = clip_means(cast(Tensor, explained.logits), torch.from_numpy(explained.counts))
        self.spread = logits[:, self.targets].std(0).numpy()
        self._positives, self._negatives = concepts.positives(), concepts.negative_mask()
        self._found: dict[str, Tensor | None] = {}
        hosts = self._some(range(len(explained.clips)), [clip.group for clip in explained.clips], "host")
        self._hosts: list[Tensor] = []
        for i in hosts:
            if len(self._hosts) == MAX_DONORS * HOSTS_PER_DONOR:
                break
            patch = self._patch(explained.clips[i])
            if patch is not None:
                self._hosts.append(patch)

    def __call__(self, concept: str) -> Tensor | None:
        """(donors, T) rises in logits; None if there are too few groups to add."""
        if concept not in self._found:
            self._found[concept] = self._measure(concept)
        return self._found[concept]

    def _measure(self, concept: str) -> Tensor | None:
        k = self.concepts.names.index(concept)
        with_concept = self._donors(self._positives[:, k], f"with {concept}")
        without_concept = self._donors(self._negatives[:, k], f"without {concept}")
        count = min(len(with_concept), len(without_concept))
        if count < MIN_DONORS or not self._hosts:
            return None
        hosts = torch.stack([self._hosts[i % len(self._hosts)] for i in range(count * HOSTS_PER_DONOR)])
        rises = torch.zeros(count, len(self.targets))
        for donors, sign in ((with_concept, 1), (without_concept, -1)):
            added = torch.stack(donors[:count]).repeat_interleave(HOSTS_PER_DONOR, 0)
            logits = self._logits(mix(hosts, added))
            rises += sign * logits.reshape(count, HOSTS_PER_DONOR, -1).mean(1)
        return rises

    def _donors(self, member: np.ndarray, purpose: str) -> list[Tensor]:
        rows = np.flatnonzero(member).tolist()
        found: list[Tensor] = []
        for i in self._some(rows, [self.concepts.clips[row].group for row in rows], purpose):
            if len(found) == MAX_DONORS:
                break
            patch = self._patch(self.concepts.clips[rows[i]])
            if patch is not None:
                found.append(patch)
        return found

    def _some(self, items: Sequence[int], groups: Sequence[str], purpose: str) -> list[int]:
        """Positions of one item of each group, in an order that depends on seed, purpose and group names."""
        first = {group: i for i, group in reversed(list(enumerate(groups)))}
        if not first:
            return []
        # Not the whole paths: the same data in another folder must give the same result.
        names = dict(zip(first, without_common_folder(list(first)), strict=True))
        return [first[group] for group in sorted(first, key=lambda g: random_key(self.seed, f"{purpose} {names[g]}"))]

    def _patch(self, clip: Clip) -> Tensor | None:
        try:
            return middle_patch(self.backbone, clip)
        except NotWaveformsError:
            raise
        except InputError:
            return None  # a clip that cannot be read was reported when its activations were extracted

    def _logits(self, inputs: Tensor) -> Tensor:
        parts = [
            self.backbone.gradients(batch, self.backbone.layers[:1], [], self.pool).logits.float().cpu()
            for batch in inputs.split(self.batch_size)
        ]
        self.patches += len(inputs)
        return torch.cat(parts)[:, self.targets]


def check_added_sound(
    views: Sequence[LayerView], rises: AddedSoundEffects, seed: int, progress: Progress | None
) -> list[Check]:
    """Whether adding the sound of concepts with a significant positive effect raises the class more than other sound.

    Returns:
        one check for each layer.
    """
    wanted = {view.layer: significant_pairs(view) for view in views}
    names = list(dict.fromkeys(cell.concept for pairs in wanted.values() for cell in pairs))
    for number, concept in enumerate(names, 1):
        try:
            rises(concept)
        except InputError as error:
            return [impossible(NAME, view.layer, str(error), MEASURED) for view in views]
        if progress is not None:
            progress("adding sounds", number, len(names))
    level = FALSE_ALARM / len(views)
    return [_verdict(view, wanted[view.layer], rises, seed, level) for view in views]


def _verdict(view: LayerView, pairs: list[SignificantPair], rises: AddedSoundEffects, seed: int, level: float) -> Check:
    if not pairs:
        return impossible(NAME, view.layer, "no concept is significant with a positive effect", MEASURED)
    measured, spread = {cell: rises(cell.concept) for cell in pairs}, rises.spread
    usable = [cell for cell in pairs if measured[cell] is not None and spread[cell.target] > 0]
    if not usable:
        return impossible(NAME, view.layer, f"fewer than {MIN_DONORS} groups of any significant concept", MEASURED)
    values = {cell: np.asarray(measured[cell])[:, cell.target] / spread[cell.target] for cell in usable}
    means = np.array([value.mean() for value in values.values()])
    observed = float(means.mean())
    # Under the null a concept's donor and its control can be swapped; a swap concerns all classes of the concept.
    generator = np.random.default_rng([seed, 0xADD])
    totals, own = np.zeros(N_PERMUTATIONS), {}
    for cell, value in values.items():
        if cell.concept not in own:
            own[cell.concept] = generator.choice([-1.0, 1.0], size=(N_PERMUTATIONS, len(value)))
        totals += own[cell.concept] @ value / len(value)
    permuted = totals / len(values)
    p_value = float((1 + (permuted >= observed).sum()) / (1 + N_PERMUTATIONS))
    error = 1.96 * float(permuted.std())
    passed = p_value <= level and observed > 0
    sentence = (
        f"Adding the sound of concepts with a positive effect on a class raises it by {observed:+.2f} standard "
        f"deviations more than adding other sound of the same loudness (p = {p_value:.2g}); "
        f"{np.mean(means > 0):.0%} of "
        f"{len(values)} pairs of concept and class rise."
    )
    if not passed and observed > 0 and len(own) < MIN_CONCEPTS:
        rose = f"the class rises by {observed:+.2f}, p = {p_value:.2g}"
        reason = f"{len(own)} significant concepts are too few to tell ({rose})"
        return impossible(NAME, view.layer, reason, MEASURED)
    if not passed:
        sentence += " Concepts with a positive effect in the explanation do not raise the class."
    details: dict[str, Any] = {
        "p": p_value,
        "by concept and class": {
            f"{cell.concept} > {view.targets[cell.target]}": round(float(value.mean()), 3)
            for cell, value in values.items()
        },
    }
    verdict = "passed" if passed else "failed"
    bound = f"above 0 (p <= {level:.2g})"
    return Check(
        NAME, view.layer, verdict, MEASURED, observed, observed - error, observed + error, bound, sentence, details
    )
