"""``ConceptHierarchyExplainer``: from clips, concepts and targets to an ``Explanation``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.concept import Concept, ConceptInterpreter
from torch import Tensor

from captum_concepts.activations.extraction import Extraction, extract
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import as_clips
from captum_concepts.backbones.inference import unpooled_shapes
from captum_concepts.backbones.layers import check_pooling
from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.methods import FitFunction, resolve_method
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.contributions.completeness import check_groups, contributions_of_layers
from captum_concepts.diagnostics.layer_diagnostics import ConceptRows, diagnose
from captum_concepts.diagnostics.leakage import shared_with_explained
from captum_concepts.errors import InputError
from captum_concepts.explanation.examples import examples
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.explanation.provenance import TESTS, concept_record, pass_record
from captum_concepts.explanation.timeline import timelines
from captum_concepts.explanation.warnings import concept_warnings, lost_warnings, pass_warnings
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.api import mine
from captum_concepts.miners.bootstrap import ResampledDiscriminant, ResampledSimilarity, bootstrap_support
from captum_concepts.miners.several_parents import check_parent_options
from captum_concepts.plugins.registry import get_plugin_manager, lookup
from captum_concepts.results.plain import plain_value, versions
from captum_concepts.results.tables import empty_scores
from captum_concepts.significance.corrections import CORRECTIONS, check_correction
from captum_concepts.significance.layer_nulls import check_nulls, layer_nulls
from captum_concepts.significance.null_concepts import LayerData, NullPlan
from captum_concepts.significance.scores import score_layer
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.similarities.api import find_measure
from captum_concepts.similarities.api import similarity as compute_similarity
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.tcav.relative_scores import relative_directions, relative_scores
from captum_concepts.text import short_repr
from captum_concepts.types import Progress


class ConceptHierarchyExplainer(ConceptInterpreter):
    """Explains an audio classifier by a hierarchy of concepts.

    Args:
        backbone: see ``backbones.Backbone``.
        layers: layer names; default: the backbone's own.
        cav: CAV method, a registered name or a function like ``discriminants.fit_pattern``.
        similarity: a registered measure or a callable, see ``similarity.similarity``.
        miner: a registered miner or a callable, see ``miners.mine``.
        pool: pooling of activations: "time", "none" or "time_freq".
        cav_options, miner_options: passed on.
        n_nulls: pseudo-concepts per concept size in the rank test; default: as many as the family of tests needs,
            between 1,999 and 9,999.
        correction: of the p-values within a layer and target: "bh", "by", "holm", "bonferroni" or "hierarchical", see
            ``corrections.CORRECTIONS``. "hierarchical" mines the hierarchy on one half of the concepts' groups, and
            fits, tests and walks it down on the other.
        bootstrap: samples for the intervals.
        support: bootstrap samples for the support of every link, see ``support.bootstrap_support``; 0: none. Cheap with
            the similarity "discriminant"; with another one every sample fits all CAVs again.
        max_parents: of one concept in the hierarchy; above 1 it is a DAG, see ``several_parents.add_parents``.
        shares: whether to share out each class along the hierarchy, see ``completeness``; seconds to minutes.
        min_groups: concepts with fewer groups of positives or negatives are not fitted.
        seed: of folds, pseudo-concepts and bootstrap. Same seed, same bytes.
        store: an ``ActivationStore``, a folder for one, or None to keep nothing.
        batch_size: patches per pass.
        on_error: "skip" reports clips that cannot be used and goes on; "refuse" stops at the first.
        progress: called with (stage, done, in all).

    Raises:
        InputError: unknown layer, method, option or pooling: all that can be known before audio is heard.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: str | Sequence[str] | None = None,
        *,
        cav: str | FitFunction = "pattern",
        similarity: str | Callable[..., Tensor] = "discriminant",
        miner: str | Callable[..., ConceptHierarchy] = "spanning_tree",
        pool: str = "time",
        cav_options: dict[str, Any] | None = None,
        miner_options: dict[str, Any] | None = None,
        n_nulls: int | None = None,
        correction: str = "bh",
        bootstrap: int = 1000,
        support: int = 0,
        max_parents: int = 1,
        shares: bool = False,
        min_groups: int = 5,
        seed: int = 0,
        store: ActivationStore | str | Path | None = None,
        batch_size: int = 32,
        on_error: str = "skip",
        progress: Progress | None = None,
    ):
        super().__init__(getattr(backbone, "model", None))
        # Not isinstance(): that reads every attribute, and the number of classes can cost a pass.
        if not all(callable(getattr(backbone, name, None)) for name in ("read", "activations", "gradients")):
            raise InputError(
                f"backbone={short_repr(backbone)} is none; wrap a model in TorchBackbone or EmbeddingBackbone"
            )
        check_pooling(pool)
        chosen = backbone.layers if layers is None else (layers,) if isinstance(layers, str) else layers
        self.layers = tuple(dict.fromkeys(chosen))
        backbone.check_layers(self.layers)
        for name, value, least in (
            ("bootstrap", bootstrap, 100),
            ("min_groups", min_groups, 2),
            ("n_nulls", n_nulls, 19),
        ):
            if value is not None and value < least:
                raise InputError(f"{name}={value} must be at least {least}")
        self.backbone = backbone
        self.cav, self.cav_options = cav, dict(cav_options or {})
        self.similarity = similarity
        self.miner, self.miner_options = miner, dict(miner_options or {})
        self.pool = pool
        self.n_nulls = n_nulls
        self.correction = check_correction(correction)
        self.bootstrap = bootstrap
        self.support = support
        if support < 0:
            raise InputError(f"support={support}: give 0 for none, or a number of bootstrap samples")
        check_parent_options(max_parents, 0)
        self.max_parents = max_parents
        self.shares = shares
        self.min_groups = min_groups
        self.seed = seed
        self.store = ActivationStore(store) if isinstance(store, (str, Path)) else store
        self.batch_size = batch_size
        self.on_error = on_error
        self.progress = progress
        self._fit = resolve_method(cav)
        _check_options("cav_options", self._fit, 4, self.cav_options)
        _check_options(
            "miner_options", miner if callable(miner) else lookup("miners", miner).factory, 2, self.miner_options
        )
        find_measure(similarity)

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
            Explanation. A layer at which no concept can be told apart has no hierarchy, and a warning says so.

        Raises:
            InputError: no usable clip, unknown target, no concept with enough groups or with negatives (both before
                anything is heard), no concept that can be told apart at any layer.
        """
        chosen = self._targets(targets)
        if not chosen and "gradients" in find_measure(self.similarity).needs:
            raise InputError(
                f"similarity {short_repr(self.similarity)}: needs classes, and {self.backbone.name} has none"
            )
        to_explain = as_clips(clips) if chosen else []
        if self.shares and chosen:
            check_groups([clip.group for clip in to_explain])
        concepts.negative_mask()
        few = concepts.check(self.min_groups)
        if len(few) == len(concepts):
            name, why = next(iter(few.items()))
            raise InputError(
                f"concepts: none of {len(few)} has enough groups ({short_repr(name)}: {why}); give more examples"
            )
        if chosen:
            check_nulls(self.n_nulls, len(concepts) - len(few), self.correction)
        extracted = self._pass(concepts.clips, (), "listening to concepts")
        explained = self._pass(to_explain, chosen, "explaining clips") if chosen else None
        result = Explanation(
            backbone=self.backbone.name,
            layers=self.layers,
            targets=tuple(self.backbone.classes[t] for t in chosen),
            concepts=concepts.names,
            scores=empty_scores(),
            hierarchies={},
            banks={},
            similarities={},
            sensitivities={},
            clips=explained.clips if explained else (),
            warnings=[
                *concept_warnings(concepts, self.min_groups),
                *pass_warnings(extracted, explained),
                *lost_warnings(concepts, extracted, self.min_groups),
            ],
            provenance=self._provenance(concepts, extracted, explained),
        )
        if explained is not None:
            shared = shared_with_explained(concepts, explained.clips, extracted.digests, explained.digests)
            result.diagnostics.append("shared", shared)
        tables = [self._explain_layer(layer, concepts, extracted, explained, result) for layer in self.layers]
        if not result.hierarchies:
            raise InputError(
                f"concepts: none of {len(concepts)} can be told apart on held-out groups at {', '.join(self.layers)}; "
                "give more or clearer examples, or other layers"
            )
        if explained is not None:
            result.scores = pd.concat(tables, ignore_index=True)
            result.timelines = timelines(self.layers, chosen, result.targets, explained, result.banks)
            if self.shares:
                result.shares, lost = contributions_of_layers(
                    result.banks,
                    result.hierarchies,
                    explained,
                    dict(zip(result.targets, chosen, strict=True)),
                    seed=self.seed,
                    progress=self.progress,
                )
                result.warnings += lost
        elif self.backbone.classes == ():
            result.warnings.append(f"{short_repr(self.backbone.name)} has no classes, so there are no scores")
        get_plugin_manager().hook.captum_concepts_explanation_ready(explanation=result)
        return result

    def interpret(
        self,
        inputs: Tensor,
        experimental_sets: Sequence[Sequence[Concept]],
        target: str | int | None = None,
    ) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Scores in the shape Captum's ``TCAV.interpret`` gives them, for Captum ``Concept`` objects.

        Each concept of a set is held against the other concepts of that set; results and keys follow the caller's
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
        unique = _unique_concepts(experimental_sets)
        wanted = 0 if target is None else target_index(self.backbone, target) if isinstance(target, str) else target
        found: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for batch in inputs.split(self.batch_size):
            logits, _, gradients = self.backbone.gradients(batch, self.layers, [wanted], self.pool)
            if target is None and logits.shape[1] > 1:
                raise InputError(f"target is missing: the model has {logits.shape[1]} outputs; name one or number it")
            for layer in self.layers:
                found[layer].append(gradients[layer][:, 0])
        pushes = {layer: torch.cat(parts) for layer, parts in found.items()}
        rows = {identity: self._concept_rows(concept) for identity, concept in unique.items()}
        sets = [[concept.id for concept in members] for members in experimental_sets]
        names = ["-".join(map(str, members)) for members in sets]
        results: dict[str, dict[str, dict[str, Tensor]]] = {name: {} for name in names}
        for layer in self.layers:
            parts = {identity: found_rows[layer] for identity, found_rows in rows.items()}
            directions = relative_directions(parts, sets, self._fit, self.cav_options)
            for name, scores in zip(names, relative_scores(directions, sets, pushes[layer]), strict=True):
                results[name][layer] = scores
        return results

    def _concept_rows(self, concept: Concept) -> dict[str, Tensor]:
        if concept.data_iter is None:
            raise InputError(f"concept {short_repr(concept.name)} has no data_iter; give it a DataLoader of inputs")
        parts: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for batch in concept.data_iter:
            batch = batch[0] if isinstance(batch, (list, tuple)) else batch
            for layer, values in self.backbone.activations(batch, self.layers, self.pool).items():
                parts[layer].append(values)
        if not parts[self.layers[0]]:
            raise InputError(f"concept {short_repr(concept.name)} gives no examples; its data_iter is empty")
        return {layer: torch.cat(values) for layer, values in parts.items()}

    def _targets(self, targets: Sequence[str | int] | str | int | None) -> list[int]:
        classes = self.backbone.classes
        if targets is None:
            if len(classes) > 20:
                raise InputError(
                    f"no target given: {self.backbone.name} has {len(classes)} classes; name those to explain "
                    "(--target NAME; in Python targets=)"
                )
            return list(range(len(classes)))
        given = targets if isinstance(targets, Iterable) and not isinstance(targets, str) else [targets]
        return list(dict.fromkeys(target_index(self.backbone, target) for target in given))

    def _pass(self, clips: Sequence[Clip], targets: Sequence[int], stage: str) -> Extraction:
        # Absolute, so that what is saved still finds its sounds from another folder; groups keep their names.
        placed = [replace(clip, path=os.path.abspath(clip.path)) for clip in clips]
        return extract(
            self.backbone,
            placed,
            self.layers,
            targets=targets,
            pool=self.pool,
            store=self.store,
            batch_size=self.batch_size,
            on_error=self.on_error,
            progress=self.progress,
            stage=stage,
        )

    def _explain_layer(
        self, layer: str, concepts: ConceptSet, extracted: Extraction, explained: Extraction | None, result: Explanation
    ) -> pd.DataFrame:
        """Fill in what ``result`` says of one layer; the layer's scores."""
        kept, rows = extracted.kept, extracted.rows
        data = LayerData(
            activations=extracted.activations[layer].to(self.backbone.device),
            positives=concepts.positives()[kept][rows],
            negatives=concepts.negative_mask()[kept][rows],
            groups=concepts.groups[kept][rows],
            order=extracted.order,
        )
        mined = data
        if self.correction == "hierarchical":
            half = concepts.split(0.5, self.seed)[kept][rows]
            mined, data = data.part(half), data.part(~half)
        bank = self._fit_bank(layer, concepts, data)
        result.banks[layer] = bank
        usable = [name for name, status in zip(bank.names, bank.quality["status"], strict=True) if status == "ok"]
        result.similarities[layer] = np.full((len(bank), len(bank)), np.nan, dtype=np.float32)
        result.examples[layer] = examples(
            bank, usable, extracted, extracted.activations[layer], concepts.positives()[kept][rows]
        )
        tree = bank if mined is data else self._fit_bank(layer, concepts, mined)
        alike = [name for name, status in zip(tree.names, tree.quality["status"], strict=True) if status == "ok"]
        result.warnings += diagnose(
            result.diagnostics,
            tree,
            mined.activations,
            ConceptRows(mined.positives, mined.negatives, mined.groups),
            self._fit,
            self.cav_options,
            concepts.overlap(),
            self.seed,
            unpooled_shapes(self.backbone, (layer,), self.pool).get(layer),
        )
        if explained is None:
            gradients = data.activations.new_zeros(1, 0, data.activations.shape[1])
        else:
            gradients = clip_means(explained.gradients[layer], torch.from_numpy(explained.counts))
        if alike:
            self._mine_layer(layer, tree, alike, mined, gradients, result)
        else:
            result.warnings.append(
                f"{short_repr(layer)}: no concept can be told apart on held-out groups, so no hierarchy"
            )
        return self._score_layer(layer, bank, data, concepts.negatives, gradients, explained, result)

    def _fit_bank(self, layer: str, concepts: ConceptSet, data: LayerData) -> ConceptBank:
        return fit_cavs(
            data.activations,
            data.positives,
            self.cav,
            data.groups,
            negatives=data.negatives,
            names=concepts.names,
            layer=layer,
            min_groups=self.min_groups,
            seed=self.seed,
            **self.cav_options,
        ).to("cpu")

    def _score_layer(
        self,
        layer: str,
        bank: ConceptBank,
        data: LayerData,
        negatives: object,
        gradients: Tensor,
        explained: Extraction | None,
        result: Explanation,
    ) -> pd.DataFrame:
        rest, in_domain = (negatives == kind for kind in ("rest", "in-domain"))
        plan = NullPlan(self._fit, self.cav_options, self.n_nulls, self.seed, rest, in_domain)
        nulls = layer_nulls(bank, data, gradients.mean(0), plan, self.correction)
        bank.quality["p_value"] = nulls.quality_p_values(bank)
        result.provenance["tests"]["smallest p_value"][layer] = 1 / (1 + nulls.count)
        if explained is None:
            return empty_scores()
        groups = [clip.group for clip in explained.clips]
        walked = result.hierarchies.get(layer)
        correction = "bh" if walked is None and self.correction == "hierarchical" else self.correction
        table, per_clip, warnings = score_layer(
            bank, data, gradients, groups, result.targets, plan, self.bootstrap,
            correction=correction, hierarchy=walked, nulls=nulls,
        )  # fmt: skip
        result.sensitivities[layer] = per_clip.numpy()
        result.warnings += warnings
        return table

    def _mine_layer(
        self,
        layer: str,
        bank: ConceptBank,
        usable: list[str],
        data: LayerData,
        gradients: Tensor,
        result: Explanation,
    ) -> None:
        columns = [bank.names.index(name) for name in usable]
        positives, weights = data.positives[:, columns], group_weights(data.groups)
        matrix = compute_similarity(
            bank.subset(usable).to(data.activations.device),
            self.similarity,
            activations=data.activations,
            labels=positives,
            weights=weights,
            groups=data.groups,
            gradients=gradients if gradients.numel() else None,
        ).cpu()
        result.similarities[layer][np.ix_(columns, columns)] = matrix.numpy()
        options = {**self.miner_options, "max_parents": self.max_parents}
        hierarchy = mine(matrix, usable, self.miner, **options)
        if self.support:
            resampled: ResampledDiscriminant | ResampledSimilarity
            if self.similarity == "discriminant":
                resampled = ResampledDiscriminant(
                    data.activations, positives, weights, data.groups, self.support, self.seed
                )
            else:
                resampled = ResampledSimilarity(
                    self.similarity, self._fit, self.cav_options, data.activations, positives,
                    data.negatives[:, columns], weights, data.groups, gradients, self.support, self.seed,
                )  # fmt: skip
            result.supports[layer] = bootstrap_support(hierarchy, resampled, self.miner, **options)
            hierarchy = result.supports[layer].hierarchy
        get_plugin_manager().hook.captum_concepts_hierarchy_mined(hierarchy=hierarchy)
        result.hierarchies[layer] = hierarchy

    def _provenance(self, concepts: ConceptSet, extracted: Extraction, explained: Extraction | None) -> dict[str, Any]:
        names = (
            "similarity",
            "miner",
            "cav",
            "cav_options",
            "miner_options",
            "pool",
            "n_nulls",
            "correction",
            "bootstrap",
            "support",
            "max_parents",
            "shares",
        )
        more = ("min_groups", "on_error", "batch_size", "layers")
        return {
            "versions": versions(),
            "backbone": {
                "name": self.backbone.name,
                "fingerprint": self.backbone.fingerprint(),
                "device": str(self.backbone.device),
            },
            "seed": self.seed,
            "options": {
                **{name: plain_value(getattr(self, name)) for name in (*names, *more)},
                "negatives": plain_value(concepts.negatives),
            },
            "tests": {**TESTS, "correction": CORRECTIONS[self.correction], "smallest p_value": {}},
            **pass_record(extracted, explained),
            "concepts": concept_record(concepts),
            "reference": concepts.parents,
        }


def _check_options(argument: str, function: Callable[..., Any], positional: int, options: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some callables written in C do not tell
        return
    try:
        signature.bind(*[None] * positional, **options)
    except TypeError as error:
        raise InputError(f"{argument}={short_repr(options)}: {error}") from None


def _unique_concepts(experimental_sets: Sequence[Sequence[Concept]]) -> dict[int, Concept]:
    """Concepts by their id, each set checked."""
    if not experimental_sets:
        raise InputError("experimental_sets: empty; give at least one set of two concepts")
    unique = {concept.id: concept for members in experimental_sets for concept in members}
    for members in experimental_sets:
        if len({concept.id for concept in members}) < max(2, len(members)):
            raise InputError("experimental_sets: every set needs at least two concepts with ids of their own")
        if any(unique[concept.id] is not concept for concept in members):
            raise InputError("experimental_sets: two different concepts have the same id; give each its own")
    return unique
