"""The sanity battery: does an explanation of this model, of these concepts and clips, deserve to be believed?

Checks that a broken model, method or data set fails, each with a figure and the bound it is held against:

| check | what is done | what must happen |
|---|---|---|
| randomised weights | all weights of a copy of the model are drawn anew | other effects of concepts on classes |
| randomised head | the last weights of a copy are drawn anew | the same, with the layer as it was |
| permuted labels | which groups show a concept is drawn at random | uniform p-values |
| added sound | the concept's sound is mixed into the explained clips | what speaks for a class raises it |
| second negative pool | the negatives are cut in two halves | both halves rank the concepts alike |

After Adebayo et al. (NeurIPS 2018) for the weights, Ramaswamy et al. (CVPR 2023) for the pool.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from captum_concepts.activations.extraction import Extraction, extract
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import as_clips
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.backbones.randomize import copy_of_model, head_of, randomise
from captum_concepts.cavs.methods import CavMethod, FitFunction, resolve_method
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.errors import InputError
from captum_concepts.report.sanity_page import check_html, check_markdown
from captum_concepts.results.plain import plain_value, versions
from captum_concepts.sanity.added_sound import AddedSoundEffects, check_added_sound
from captum_concepts.sanity.checks import (
    Check,
    LayerView,
    check_negative_pool,
    check_permuted_labels,
    check_randomised,
    impossible,
)
from captum_concepts.significance.null_concepts import NullPlan
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.types import Progress

MIN_PERMUTATIONS = 100
MAX_CLASSES = 20  # taken without being named


@dataclass(frozen=True)
class Settings:
    """What ``sanity_check`` was asked for; see there."""

    cav: str
    cav_options: dict[str, Any]
    pool: str
    n_nulls: int
    min_groups: int
    randomisations: int
    permutations: int
    seed: int


@dataclass
class SanityReport:
    """What the battery found.

    Attributes:
        backbone, layers, targets, concepts: what was checked; ``concepts`` are those with enough groups.
        checks: one for each check and layer.
        left_out: concepts with too few groups.
        seconds: stage -> time it took.
        provenance: versions, fingerprint of the model, settings, patches heard.
    """

    backbone: str
    layers: tuple[str, ...]
    targets: tuple[str, ...]
    concepts: tuple[str, ...]
    checks: list[Check]
    left_out: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no check failed; one that is not possible here does not count against the model."""
        return not any(check.verdict == "failed" for check in self.checks)

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        counts = {kind: sum(c.verdict == kind for c in self.checks) for kind in ("passed", "failed", "not possible")}
        return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)

    def table(self) -> pd.DataFrame:
        """One row per check and layer: check, layer, verdict, measured, value, low, high, bound."""
        rows = [asdict(check) for check in self.checks]
        columns = ["check", "layer", "verdict", "measured", "value", "low", "high", "bound"]
        return pd.DataFrame(rows)[columns]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; NaN is None."""
        return plain_value(_without_nan(asdict(self) | {"passed": self.passed}))

    def as_page(self) -> dict[str, Any]:
        """All fields with ``passed`` and ``verdict``: what ``report.sanity_page`` writes."""
        return asdict(self) | {"passed": self.passed, "verdict": self.verdict}

    def save(self, folder: str | Path) -> Path:
        """Write ``check.html``, ``check.md`` and ``check.json``; the path of the page.

        Raises:
            InputError: the folder cannot be written.
        """
        folder, page = Path(folder), self.as_page()
        files = {
            "check.json": json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n",
            "check.md": check_markdown(page),
            "check.html": check_html(page),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another folder"
            ) from None
        return folder / "check.html"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def sanity_check(
    backbone: Backbone,
    clips: Sequence[Clip | str | Path] | str | Path,
    concepts: ConceptSet,
    targets: Sequence[str | int] | str | int | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    cav: str | FitFunction = "pattern",
    cav_options: dict[str, Any] | None = None,
    pool: str = "time",
    n_nulls: int = 999,
    min_groups: int = 5,
    randomisations: int = 5,
    permutations: int = 400,
    seed: int = 0,
    store: ActivationStore | str | Path | None = None,
    batch_size: int = 32,
    on_error: str = "skip",
    progress: Progress | None = None,
) -> SanityReport:
    """Put a model, its concepts and clips through the sanity battery.

    The audio is heard once as ``explain`` hears it (and found in the same store), once more for every copy with
    randomised weights, and a few hundred patches for the sounds that are mixed. The rest reuses activations. The
    user's model is never changed: copies are.

    Args:
        backbone, clips, concepts, targets: as in ``ConceptHierarchyExplainer.explain``; default targets: all classes.
        layers, cav, cav_options, pool, min_groups, seed, store, batch_size, on_error: as in
            ``ConceptHierarchyExplainer``.
        n_nulls: pseudo-concepts per concept size.
        randomisations: copies with weights drawn anew, at least 3.
        permutations: draws of labels at random, at least 100.
        progress: called with (stage, done, in all).

    Returns:
        SanityReport.

    Raises:
        InputError: a model without classes, an option out of range, no usable clip, no concept with enough groups.
    """
    for name, value, least in (
        ("n_nulls", n_nulls, 99),
        ("min_groups", min_groups, 2),
        ("randomisations", randomisations, 3),
        ("permutations", permutations, MIN_PERMUTATIONS),
    ):
        if value < least:
            raise InputError(f"{name}={value} must be at least {least}")
    label = cav if isinstance(cav, str) else getattr(cav, "__name__", "custom")
    settings = Settings(label, dict(cav_options or {}), pool, n_nulls, min_groups, randomisations, permutations, seed)
    hearing = {"pool": pool, "batch_size": batch_size, "on_error": on_error, "progress": progress}
    shelf = ActivationStore(store) if isinstance(store, (str, Path)) else store
    return _Battery(backbone, clips, concepts, targets, layers, resolve_method(cav), settings, hearing).run(shelf)


class _Battery:
    """One run of the battery: what is asked for, and how it is heard."""

    def __init__(
        self,
        backbone: Backbone,
        clips: Sequence[Clip | str | Path] | str | Path,
        concepts: ConceptSet,
        targets: Sequence[str | int] | str | int | None,
        layers: str | Sequence[str] | None,
        fit: FitFunction,
        settings: Settings,
        hearing: dict[str, Any],
    ):
        if not backbone.classes:
            raise InputError(f"backbone {backbone.name} has no classes, so there are no scores to check; add a head")
        chosen = backbone.layers if layers is None else (layers,) if isinstance(layers, str) else layers
        self.layers = tuple(dict.fromkeys(chosen))
        backbone.check_layers(self.layers)
        asked = [targets] if isinstance(targets, (str, int)) else targets
        if asked is None and len(backbone.classes) > MAX_CLASSES:
            raise InputError(
                f"no target given: {backbone.name} has {len(backbone.classes)} classes; name those to check"
            )
        wanted = range(len(backbone.classes)) if asked is None else (target_index(backbone, t) for t in asked)
        self.targets = list(dict.fromkeys(wanted))
        few = concepts.check(settings.min_groups)
        kept = [name for name in concepts.names if name not in few]
        if not kept:
            raise InputError(f"concepts: none of {len(concepts)} has {settings.min_groups} groups; give more examples")
        concepts.negative_mask()
        self.backbone, self.settings = backbone, settings
        self.hearing, self.progress = hearing, hearing["progress"]
        self.concepts, self.left_out = concepts, tuple(few)
        self.columns = [concepts.names.index(name) for name in kept]
        self.names = tuple(kept)
        self.plan = NullPlan(
            CavMethod(fit, settings.cav_options),
            settings.n_nulls,
            settings.seed,
            rest=concepts.negatives == "rest",
            own=concepts.negatives == "in-domain",
        )
        self.clips = [replace(clip, path=os.path.abspath(clip.path)) for clip in as_clips(clips)]
        self.heard_patches = 0

    def run(self, store: ActivationStore | None) -> SanityReport:
        seconds: dict[str, float] = {}
        begun = time.monotonic()
        extracted = self._hear_concepts(self.backbone, "", store)
        explained = self._hear_clips(self.backbone, "", store)
        views = self._views(extracted, explained)
        seconds["listening"] = time.monotonic() - begun
        checks: list[Check] = []
        stages: dict[str, Callable[[], list[Check]]] = {
            "randomised weights": lambda: self._random_weights(views),
            "randomised head": lambda: self._random_head(views),
            "permuted labels": lambda: self._each(check_permuted_labels, views),
            "added sound": lambda: self._added(views, explained),
            "second negative pool": lambda: self._each(check_negative_pool, views),
        }
        for name, stage in stages.items():
            begun = time.monotonic()
            checks += stage()
            seconds[name] = time.monotonic() - begun
        return SanityReport(
            backbone=self.backbone.name,
            layers=self.layers,
            targets=tuple(self.backbone.classes[t] for t in self.targets),
            concepts=self.names,
            checks=checks,
            left_out=self.left_out,
            seconds=seconds,
            provenance={
                "versions": versions(),
                "fingerprint": self.backbone.fingerprint(),
                "settings": asdict(self.settings),
                "negatives": plain_value(self.concepts.negatives),
                "groups of concept clips": len(set(self.concepts.groups)),
                "explained clips": len(explained.clips),
                "patches through the model": self.heard_patches,
            },
        )

    def _hear_concepts(self, backbone: Backbone, prefix: str, store: ActivationStore | None) -> Extraction:
        placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in self.concepts.clips]
        stage = f"{prefix}listening to concepts"
        extracted = extract(backbone, placed, self.layers, store=store, stage=stage, **self.hearing)
        self.heard_patches += int(extracted.counts.sum())
        return extracted

    def _hear_clips(self, backbone: Backbone, prefix: str, store: ActivationStore | None) -> Extraction:
        stage = f"{prefix}explaining clips"
        explained = extract(
            backbone, self.clips, self.layers, targets=self.targets, store=store, stage=stage, **self.hearing
        )
        self.heard_patches += int(explained.counts.sum())
        return explained

    def _views(self, extracted: Extraction, explained: Extraction) -> list[LayerView]:
        kept, rows = extracted.kept, extracted.rows
        return [
            LayerView(
                layer=layer,
                names=self.names,
                targets=tuple(self.backbone.classes[t] for t in self.targets),
                activations=extracted.activations[layer].to(self.backbone.device),
                positives=self.concepts.positives()[kept][rows][:, self.columns],
                negatives=self.concepts.negative_mask()[kept][rows][:, self.columns],
                groups=self.concepts.groups[kept][rows],
                order=extracted.order,
                gradients=_of_clips(explained, layer),
                clip_groups=[clip.group for clip in explained.clips],
                plan=self.plan,
            )
            for layer in self.layers
        ]

    def _each(self, function: Callable[[LayerView, int, int], Check], views: list[LayerView]) -> list[Check]:
        found = []
        for number, view in enumerate(views, 1):
            found.append(function(view, self.settings.permutations, len(views)))
            if self.progress is not None:
                self.progress(found[-1].check, number, len(views))
        return found

    def _copies(self) -> Iterator[tuple[int, Backbone]]:
        """Copies of the backbone whose weights may be changed, and the seed of each."""
        for number in range(1, self.settings.randomisations + 1):
            yield self.settings.seed * 1000 + number, copy_of_model(self.backbone)

    def _random_weights(self, views: list[LayerView]) -> list[Check]:
        name = "randomised weights"
        copies: list[list[LayerView]] = []
        try:
            for number, (seed, twin) in enumerate(self._copies(), 1):
                randomise(twin, None, seed)
                prefix = f"random weights {number}: "
                # Nothing of a random model is worth keeping, and its fingerprint is not what is asked here.
                extracted, explained = self._hear_concepts(twin, prefix, None), self._hear_clips(twin, prefix, None)
                copies.append(self._views(extracted, explained))
        except InputError as error:
            return [impossible(name, view.layer, str(error)) for view in views]
        return [check_randomised(name, view, of) for view, of in zip(views, zip(*copies, strict=True), strict=True)]

    def _random_head(self, views: list[LayerView]) -> list[Check]:
        """As above with the last weights only: the layers are as they were, so concepts need not be heard again."""
        name = "randomised head"
        copies: list[list[LayerView]] = []
        try:
            head = head_of(self.backbone, self.layers, self.clips, self.settings.pool)
            for number, (seed, twin) in enumerate(self._copies(), 1):
                randomise(twin, head, seed)
                explained = self._hear_clips(twin, f"random head {number}: ", None)
                copies.append([replace(view, gradients=_of_clips(explained, view.layer)) for view in views])
        except InputError as error:
            return [impossible(name, view.layer, str(error)) for view in views]
        return [check_randomised(name, view, of) for view, of in zip(views, zip(*copies, strict=True), strict=True)]

    def _added(self, views: list[LayerView], explained: Extraction) -> list[Check]:
        rises = AddedSoundEffects(
            self.backbone,
            self.concepts,
            explained,
            self.targets,
            pool=self.settings.pool,
            batch_size=self.hearing["batch_size"],
            seed=self.settings.seed,
        )
        found = check_added_sound(views, rises, self.settings.seed, self.progress)
        self.heard_patches += rises.patches
        return found


def _of_clips(explained: Extraction, layer: str) -> torch.Tensor:
    return clip_means(explained.gradients[layer], torch.from_numpy(explained.counts))
