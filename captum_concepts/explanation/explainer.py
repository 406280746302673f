"""``ConceptHierarchyExplainer``: from clips, concepts and targets to an ``Explanation``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from captum.concept import Concept, ConceptInterpreter
from torch import Tensor

from captum_concepts.activations.extraction import Extraction, extract
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import as_clips
from captum_concepts.backbones.base import check_backbone, model_of
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.contributions.completeness import check_groups, contributions_of_layers
from captum_concepts.diagnostics.leakage import shared_with_explained
from captum_concepts.errors import InputError
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.explanation.layer import LayerInput, LayerResult, explain_layer
from captum_concepts.explanation.options import ExplainOptions
from captum_concepts.explanation.provenance import provenance
from captum_concepts.explanation.timeline import timelines
from captum_concepts.explanation.warnings import concept_warnings, lost_warnings, pass_warnings
from captum_concepts.plugins.registry import get_plugin_manager
from captum_concepts.results.diagnostics import Diagnostics
from captum_concepts.results.tables import empty_scores, empty_shares
from captum_concepts.significance.layer_nulls import check_nulls
from captum_concepts.similarities.api import find_measure
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.tcav.interpret import interpret_concepts
from captum_concepts.text import short_repr
from captum_concepts.types import Progress


class ConceptHierarchyExplainer(ConceptInterpreter):
    """Explains an audio classifier by a hierarchy of concepts.

    Args:
        backbone: see ``backbones.Backbone``.
        layers: layer names; default: the backbone's own.
        seed: of folds, null concepts and bootstrap. Same seed, same bytes.
        store: an ``ActivationStore``, a folder for one, or None to keep nothing.
        batch_size: patches per pass.
        on_error: "skip" reports clips that cannot be used and goes on; "refuse" stops at the first.
        progress: called with (stage, done, total).
        options: fields of ``FitOptions`` (cav, cav_options, pool, min_groups), ``SignificanceOptions`` (n_nulls,
            correction, bootstrap) and ``HierarchyOptions`` (similarity, miner, miner_options, support, max_parents,
            shares).

    Raises:
        InputError: unknown layer, method, option or pooling: all that can be known before any pass over audio.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: str | Sequence[str] | None = None,
        *,
        seed: int = 0,
        store: ActivationStore | str | Path | None = None,
        batch_size: int = 32,
        on_error: str = "skip",
        progress: Progress | None = None,
        **options: Any,
    ):
        super().__init__(model_of(backbone))
        check_backbone(backbone)
        self.options = ExplainOptions.of(options)
        chosen = backbone.layers if layers is None else (layers,) if isinstance(layers, str) else layers
        self.layers = tuple(dict.fromkeys(chosen))
        backbone.check_layers(self.layers)
        self.backbone = backbone
        self.seed = seed
        self.store = ActivationStore(store) if isinstance(store, (str, Path)) else store
        self.batch_size = batch_size
        self.on_error = on_error
        self.progress = progress

    def explain(
        self,
        clips: Sequence[Clip | str | Path] | str | Path,
        concepts: ConceptSet,
        targets: Sequence[str | int] | str | int | None = None,
    ) -> Explanation:
        """Explain the backbone's decisions on ``clips``.

        Args:
            clips: clips, files, or a folder that is searched for audio.
            concepts: see ``concepts.ConceptSet``.
            targets: class names or numbers; default: all classes if there are at most 20. A backbone without a head
                takes none: the explanation then has concepts, their quality and the hierarchy, but no scores.

        Returns:
            Explanation. A layer at which no concept is testable has no hierarchy, and a warning says so.

        Raises:
            InputError: no usable clip, unknown target, no concept with enough groups or with negatives (both before
                any pass over audio), no concept that is testable at any layer.
        """
        chosen = self._targets(targets)
        to_explain = self._check(clips, concepts, chosen)
        extracted = self._pass(concepts.clips, (), "listening to concepts")
        explained = self._pass(to_explain, tuple(chosen.values()), "explaining clips") if chosen else None
        results = {
            layer: explain_layer(
                LayerInput(self.backbone, layer, concepts, extracted, explained, tuple(chosen), self.seed), self.options
            )
            for layer in self.layers
        }
        if not any(result.hierarchy for result in results.values()):
            raise InputError(
                f"concepts: none of {len(concepts)} can be told apart on held-out groups at {', '.join(self.layers)}; "
                "give more or clearer examples, or other layers"
            )
        explanation = self._join(results, concepts, extracted, explained, chosen)
        get_plugin_manager().hook.captum_concepts_explanation_ready(explanation=explanation)
        return explanation

    def _check(
        self, clips: Sequence[Clip | str | Path] | str | Path, concepts: ConceptSet, targets: dict[str, int]
    ) -> list[Clip]:
        """Refuse what no pass over audio can mend; the clips to explain."""
        hierarchy, min_groups = self.options.hierarchy, self.options.fit.min_groups
        if not targets and "gradients" in find_measure(hierarchy.similarity).needs:
            raise InputError(
                f"similarity {short_repr(hierarchy.similarity)}: needs classes, and {self.backbone.name} has none"
            )
        to_explain = as_clips(clips) if targets else []
        if hierarchy.shares and targets:
            check_groups([clip.group for clip in to_explain])
        concepts.negative_mask()
        few = concepts.check(min_groups)
        if len(few) == len(concepts):
            name, why = next(iter(few.items()))
            raise InputError(
                f"concepts: none of {len(few)} has enough groups ({short_repr(name)}: {why}); give more examples"
            )
        if targets:
            tests = self.options.tests
            check_nulls(tests.n_nulls, len(concepts) - len(few), tests.correction)
        return to_explain

    def _join(
        self,
        results: dict[str, LayerResult],
        concepts: ConceptSet,
        extracted: Extraction,
        explained: Extraction | None,
        targets: dict[str, int],
    ) -> Explanation:
        """One explanation from the layers' results."""
        min_groups = self.options.fit.min_groups
        banks = {layer: result.bank for layer, result in results.items()}
        hierarchies = {layer: result.hierarchy for layer, result in results.items() if result.hierarchy is not None}
        warnings = [
            *concept_warnings(concepts, min_groups),
            *pass_warnings(extracted, explained),
            *lost_warnings(concepts, extracted, min_groups),
            *(line for result in results.values() for line in result.warnings),
        ]
        scores, shares, lines = empty_scores(), empty_shares(), []
        if explained is not None:
            scores = pd.concat([result.scores for result in results.values()], ignore_index=True)
            lines = timelines(self.layers, tuple(targets.values()), tuple(targets), explained, banks)
            if self.options.hierarchy.shares:
                shares, lost = contributions_of_layers(
                    banks, hierarchies, explained, targets, seed=self.seed, progress=self.progress
                )
                warnings += lost
        elif self.backbone.classes == ():
            warnings.append(f"{short_repr(self.backbone.name)} has no classes, so there are no scores")
        return Explanation(
            backbone=self.backbone.name,
            layers=self.layers,
            targets=tuple(targets),
            concepts=concepts.names,
            scores=scores,
            hierarchies=hierarchies,
            banks=banks,
            similarities={layer: result.similarity for layer, result in results.items()},
            sensitivities={
                layer: result.sensitivities for layer, result in results.items() if result.sensitivities is not None
            },
            clips=explained.clips if explained else (),
            examples={layer: result.examples for layer, result in results.items()},
            timelines=lines,
            warnings=warnings,
            diagnostics=_diagnostics(results, concepts, extracted, explained),
            shares=shares,
            supports={layer: result.support for layer, result in results.items() if result.support is not None},
            provenance=provenance(
                self.backbone,
                self.layers,
                self.options,
                {"seed": self.seed, "on_error": self.on_error, "batch_size": self.batch_size},
                concepts,
                extracted,
                explained,
                {layer: result.n_nulls for layer, result in results.items()},
            ),
        )

    def interpret(
        self,
        inputs: Tensor,
        experimental_sets: Sequence[Sequence[Concept]],
        target: str | int | None = None,
    ) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Scores in the shape Captum's ``TCAV.interpret`` gives them, for Captum ``Concept`` objects.

        Each concept of a set is compared with the other concepts of that set; results and keys follow the caller's
        order.

        Args:
            inputs: (N, ...), what the backbone's ``activations`` takes (waveforms, where there is a front-end).
            experimental_sets: lists of at least two concepts with data iterators of such inputs (tensors, or lists
                whose first item is one).
            target: class name or number; may be left out where the model has one output.

        Returns:
            {"0-1": {layer: {"sign_count": (C,), "magnitude": (C,)}}}. CAVs have unit length, so that magnitudes can be
            compared; Captum's have not.

        Raises:
            InputError: no set, an empty set, a concept without data, identifiers used twice, or no target where the
                model has several outputs.
        """
        return interpret_concepts(
            self.backbone,
            self.layers,
            inputs,
            experimental_sets,
            target,
            method=self.options.fit.method,
            pool=self.options.fit.pool,
            batch_size=self.batch_size,
        )

    def _targets(self, targets: Sequence[str | int] | str | int | None) -> dict[str, int]:
        """Name -> number of the classes to explain."""
        classes = self.backbone.classes
        if targets is None:
            if len(classes) > 20:
                raise InputError(
                    f"no target given: {self.backbone.name} has {len(classes)} classes; name those to explain "
                    "(--target NAME; in Python targets=)"
                )
            return {name: number for number, name in enumerate(classes)}
        given = targets if isinstance(targets, Iterable) and not isinstance(targets, str) else [targets]
        numbers = dict.fromkeys(target_index(self.backbone, target) for target in given)
        return {classes[number]: number for number in numbers}

    def _pass(self, clips: Sequence[Clip], targets: Sequence[int], stage: str) -> Extraction:
        # Absolute, so that what is saved still finds its sounds from another folder; groups keep their names.
        placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in clips]
        return extract(
            self.backbone,
            placed,
            self.layers,
            targets=targets,
            pool=self.options.fit.pool,
            store=self.store,
            batch_size=self.batch_size,
            on_error=self.on_error,
            progress=self.progress,
            stage=stage,
        )


def _diagnostics(
    results: dict[str, LayerResult], concepts: ConceptSet, extracted: Extraction, explained: Extraction | None
) -> Diagnostics:
    """The tables of all layers, and the groups that are both examples and explained."""
    diagnostics = Diagnostics()
    if explained is not None:
        shared = shared_with_explained(concepts, explained.clips, extracted.digests, explained.digests)
        diagnostics.append("shared", shared)
    for result in results.values():
        for name, table in result.diagnostics.items():
            diagnostics.append(name, table)
    return diagnostics
