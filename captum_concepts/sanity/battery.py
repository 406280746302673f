"""The sanity battery: checks that a broken model, method or data set fails, each with a figure and its bound.

| check | what is done | what must happen |
|---|---|---|
| randomised weights | all weights of a copy of the model are randomised | effects of concepts on classes change |
| randomised head | the last weights of a copy are randomised | the same, with the explained layer unchanged |
| permuted labels | labels of groups are permuted at random | p-values are uniform |
| added sound | the concept's sound is mixed into the explained clips | positive effects raise the class |
| second negative pool | the negatives are split into two halves | both give similar ranks of the concepts |

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
from captum_concepts.choices import MAX_DEFAULT_TARGETS
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
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

MIN_PERMUTATIONS = 100


@dataclass(frozen=True)
class Settings:
    """Options of ``sanity_check``; see there."""

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
    """Results of the battery.

    Attributes:
        backbone, layers, targets, concepts: the checked ones; ``concepts`` are those with enough groups.
        checks: one for each check and layer.
        left_out: concepts with too few groups.
        seconds: stage -> time it took.
        provenance: versions, fingerprint of the model, settings, patches through the model.
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
        """Whether no check failed; checks that were not possible do not count."""
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
        """All fields as JSON values; NaN becomes None."""
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
                f"folder={short_repr(str(folder), 200)}: cannot be written ({error.strerror or error}); give another"
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
    """Run the sanity battery on a model, its concepts and clips.

    Needs one pass over the audio, as ``explain`` does (with the same store), one more for every copy with randomised
    weights, and a few hundred patches for added sounds. The rest reuses activations. Only copies of the model are
    changed, never the model itself.

    Args:
        backbone, clips, concepts, targets: as in ``ConceptHierarchyExplainer.explain``; default targets: all classes.
        layers, cav, cav_options, pool, min_groups, seed, store, batch_size, on_error: as in
            ``ConceptHierarchyExplainer``.
        n_nulls: null concepts per concept size.
        randomisations: copies with randomised weights, at least 3.
        permutations: random permutations of labels, at least 100.
        progress: called with (stage, done, total).

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
            raise InputError(f"{name}={value}: too few; give at least {least}")
    label = cav if isinstance(cav, str) else getattr(cav, "__name__", "custom")
    settings = Settings(label, dict(cav_options or {}), pool, n_nulls, min_groups, randomisations, permutations, seed)
    extraction = {"pool": pool, "batch_size": batch_size, "on_error": on_error, "progress": progress}
    opened = ActivationStore(store) if isinstance(store, (str, Path)) else store
    return _Battery(backbone, clips, concepts, targets, layers, resolve_method(cav), settings, extraction).run(opened)


class _Battery:
    """One run of the battery."""

    def __init__(
        self,
        backbone: Backbone,
        clips: Sequence[Clip | str | Path] | str | Path,
        concepts: ConceptSet,
        targets: Sequence[str | int] | str | int | None,
        layers: str | Sequence[str] | None,
        fit: FitFunction,
        settings: Settings,
        extraction: dict[str, Any],
    ):
        if not backbone.classes:
            raise InputError(f"backbone={backbone.name}: no classes, so there are no scores to check; add a head")
        chosen = backbone.layers if layers is None else (layers,) if isinstance(layers, str) else layers
        self.layers = tuple(dict.fromkeys(chosen))
        backbone.check_layers(self.layers)
        asked = [targets] if isinstance(targets, (str, int)) else targets
        if asked is None and len(backbone.classes) > MAX_DEFAULT_TARGETS:
            raise InputError(f"targets=None: {backbone.name} has {len(backbone.classes)} classes; give those to check")
        wanted = range(len(backbone.classes)) if asked is None else (target_index(backbone, t) for t in asked)
        self.targets = list(dict.fromkeys(wanted))
        few = concepts.check(settings.min_groups)
        kept = [name for name in concepts.names if name not in few]
        if not kept:
            raise InputError(f"concepts={len(concepts)}: none has {settings.min_groups} groups; give more examples")
        concepts.negative_mask()
        self.backbone, self.settings = backbone, settings
        self.extraction, self.progress = extraction, extraction["progress"]
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
        self.patches = 0

    def run(self, store: ActivationStore | None) -> SanityReport:
        seconds: dict[str, float] = {}
        begun = time.monotonic()
        extracted = self._extract_concepts(self.backbone, "", store)
        explained = self._extract_clips(self.backbone, "", store)
        views = self._views(extracted, explained)
        seconds["extraction"] = time.monotonic() - begun
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
                "patches through the model": self.patches,
            },
        )

    def _extract_concepts(self, backbone: Backbone, prefix: str, store: ActivationStore | None) -> Extraction:
        placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in self.concepts.clips]
        stage = f"{prefix}extracting concepts"
        extracted = extract(backbone, placed, self.layers, store=store, stage=stage, **self.extraction)
        self.patches += int(extracted.counts.sum())
        return extracted

    def _extract_clips(self, backbone: Backbone, prefix: str, store: ActivationStore | None) -> Extraction:
        stage = f"{prefix}explaining clips"
        explained = extract(
            backbone, self.clips, self.layers, targets=self.targets, store=store, stage=stage, **self.extraction
        )
        self.patches += int(explained.counts.sum())
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
            for number, (seed, copy) in enumerate(self._copies(), 1):
                randomise(copy, None, seed)
                prefix = f"random weights {number}: "
                # Activations of a random model are not kept in the store.
                extracted, explained = (
                    self._extract_concepts(copy, prefix, None),
                    self._extract_clips(copy, prefix, None),
                )
                copies.append(self._views(extracted, explained))
        except InputError as error:
            return [impossible(name, view.layer, str(error)) for view in views]
        return [check_randomised(name, view, of) for view, of in zip(views, zip(*copies, strict=True), strict=True)]

    def _random_head(self, views: list[LayerView]) -> list[Check]:
        """As above with the last weights only: the layers are unchanged, so activations of concepts are reused."""
        name = "randomised head"
        copies: list[list[LayerView]] = []
        try:
            head = head_of(self.backbone, self.layers, self.clips, self.settings.pool)
            for number, (seed, copy) in enumerate(self._copies(), 1):
                randomise(copy, head, seed)
                explained = self._extract_clips(copy, f"random head {number}: ", None)
                copies.append([replace(view, gradients=_of_clips(explained, view.layer)) for view in views])
        except InputError as error:
            return [impossible(name, view.layer, str(error)) for view in views]
        return [check_randomised(name, view, of) for view, of in zip(views, zip(*copies, strict=True), strict=True)]

    def _added(self, views: list[LayerView], explained: Extraction) -> list[Check]:
        effects = AddedSoundEffects(
            self.backbone,
            self.concepts,
            explained,
            self.targets,
            pool=self.settings.pool,
            batch_size=self.extraction["batch_size"],
            seed=self.settings.seed,
        )
        found = check_added_sound(views, effects, self.settings.seed, self.progress)
        self.patches += effects.patches
        return found


def _of_clips(explained: Extraction, layer: str) -> torch.Tensor:
    return clip_means(explained.gradients[layer], torch.from_numpy(explained.counts))
