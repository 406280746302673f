"""``ConceptHierarchyExplainer``: from clips, concepts and targets to an ``Explanation``."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from captum.concept import Concept, ConceptInterpreter
from torch import Tensor

from captum_concepts.activations import Extraction, Progress, extract
from captum_concepts.audio import Clip, find_audio
from captum_concepts.backbones import Backbone, target_index
from captum_concepts.cavs import ConceptBank, FitFunction, fit_cavs, group_weights, resolve_method
from captum_concepts.concepts import ConceptSet
from captum_concepts.errors import InputError, shown
from captum_concepts.explanation import SCORE_COLUMNS, Explanation, Timeline, empty_scores
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.layers import check_pooling
from captum_concepts.miners import mine
from captum_concepts.plugins import get_plugin_manager
from captum_concepts.scoring import LayerData, NullPlan, score_layer
from captum_concepts.similarity import similarity as compute_similarity
from captum_concepts.store import ActivationStore
from captum_concepts.tcav import clip_means, magnitude, sensitivities, tcav_score

PACKAGES = ("captum-concepts", "torch", "torchaudio", "captum", "numpy", "scipy", "networkx", "soundfile")
EXAMPLES = 3


class ConceptHierarchyExplainer(ConceptInterpreter):
    """Explains an audio classifier by a hierarchy of concepts.

    Args:
        backbone: see ``backbones.Backbone``.
        layers: layer names; default: the backbone's own.
        cav: CAV method, a registered name or a function like ``cavs.fit_pattern``.
        similarity: a registered measure or a callable, see ``similarity.similarity``.
        miner: a registered miner or a callable, see ``miners.mine``.
        pool: pooling of activations: "time", "none" or "time_freq".
        cav_options, miner_options: passed on.
        n_nulls: pseudo-concepts per concept size in the rank test; default: as many as the family of tests needs,
            between 999 and 4,999.
        bootstrap: samples for the intervals.
        min_groups: concepts with fewer groups of positives or negatives are not fitted.
        seed: of folds, pseudo-concepts and bootstrap. Same seed, same bytes.
        store: an ``ActivationStore``, a folder for one, or None to keep nothing.
        batch_size: patches per pass.
        on_bad: "skip" reports clips that cannot be used and goes on; "refuse" stops at the first.
        progress: called with (stage, done, in all).

    Raises:
        InputError: unknown layer, method, pooling.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: str | Sequence[str] | None = None,
        *,
        cav: str | FitFunction = "pattern",
        similarity: str | Callable[..., Tensor] = "cosine",
        miner: str | Callable[..., ConceptHierarchy] = "heymann",
        pool: str = "time",
        cav_options: dict[str, Any] | None = None,
        miner_options: dict[str, Any] | None = None,
        n_nulls: int | None = None,
        bootstrap: int = 1000,
        min_groups: int = 5,
        seed: int = 0,
        store: ActivationStore | str | Path | None = None,
        batch_size: int = 32,
        on_bad: str = "skip",
        progress: Progress | None = None,
    ):
        super().__init__(getattr(backbone, "model", None))
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
        self.bootstrap = bootstrap
        self.min_groups = min_groups
        self.seed = seed
        self.store = ActivationStore(store) if isinstance(store, (str, Path)) else store
        self.batch_size = batch_size
        self.on_bad = on_bad
        self.progress = progress
        self._fit = resolve_method(cav)

    def explain(
        self,
        clips: Sequence[Clip | str | Path] | str | Path,
        concepts: ConceptSet,
        targets: Sequence[str | int] | str | None = None,
    ) -> Explanation:
        """Explain the backbone's decisions on ``clips``.

        Args:
            clips: clips, files, or a folder that is searched for audio.
            concepts: see ``concepts.ConceptSet``.
            targets: class names or numbers; default: all classes if there are at most 20. A backbone without a head
                takes none: the explanation then has concepts, their quality and the hierarchy, but no scores.

        Returns:
            Explanation.

        Raises:
            InputError: no usable clip, unknown target, no concept left.
        """
        chosen = self._targets(targets)
        to_explain = as_clips(clips) if chosen else []
        heard = self._pass(concepts.clips, (), "listening to concepts")
        explained = self._pass(to_explain, chosen, "explaining clips") if chosen else None
        names = tuple(self.backbone.classes[t] for t in chosen)
        result = Explanation(
            backbone=self.backbone.name,
            layers=self.layers,
            targets=names,
            concepts=concepts.names,
            scores=empty_scores(),
            hierarchies={},
            banks={},
            similarities={},
            sensitivities={},
            clips=explained.clips if explained else (),
        )
        tables = [self._explain_layer(layer, concepts, heard, explained, result) for layer in self.layers]
        if explained is not None:
            result.scores = concatenated(tables)
            result.timelines = _timelines(self.layers, chosen, names, explained, result)
        result.warnings = [*concepts.warnings(), *_pass_warnings(heard, explained, concepts), *result.warnings]
        result.provenance = self._provenance(concepts, heard, explained)
        get_plugin_manager().hook.captum_concepts_explanation_ready(explanation=result)
        return result

    def interpret(
        self, inputs: Tensor, experimental_sets: Sequence[Sequence[Concept]], target: int | None = None
    ) -> dict[str, dict[str, dict[str, Tensor]]]:
        """Scores in the shape Captum's ``TCAV.interpret`` gives them, for Captum ``Concept`` objects.

        Each concept of a set is held against the other concepts of that set; a set's keys follow the caller's order.

        Args:
            inputs: (N, ...), what the backbone's ``activations`` takes (waveforms, where there is a front-end).
            experimental_sets: lists of at least two concepts with data iterators of such inputs.
            target: class number; may be left out where the model has one output.

        Returns:
            {"0-1": {layer: {"sign_count": (C,), "magnitude": (C,)}}}. CAVs have unit length, so that magnitudes can be
            compared; Captum's have not.

        Raises:
            InputError: an empty set, a concept without data, identifiers used twice.
        """
        unique = {concept.id: concept for members in experimental_sets for concept in members}
        for members in experimental_sets:
            if len({concept.id for concept in members}) < max(2, len(members)):
                raise InputError("experimental_sets: every set needs at least two concepts with ids of their own")
            if any(unique[concept.id] is not concept for concept in members):
                raise InputError("experimental_sets: two different concepts have the same id; give each its own")
        rows = {identity: self._concept_rows(concept) for identity, concept in unique.items()}
        batches = inputs.split(self.batch_size)
        wanted = [0 if target is None else int(target)]
        found = [self.backbone.gradients(batch, self.layers, wanted, self.pool).gradients for batch in batches]
        results: dict[str, dict[str, dict[str, Tensor]]] = {}
        for members in experimental_sets:
            scores = {}
            for layer in self.layers:
                parts = [rows[concept.id][layer] for concept in members]
                x = torch.cat(parts)
                owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
                labels = owner[:, None] == torch.arange(len(parts))
                weights = torch.ones(len(x)).to(x)
                directions = self._fit(x, labels.to(x.device), ~labels.to(x.device), weights, **self.cav_options)[0]
                gradients = torch.cat([part[layer] for part in found])
                values = sensitivities(gradients, directions)[:, 0]
                scores[layer] = {"sign_count": tcav_score(values), "magnitude": magnitude(values)}
            results["-".join(str(concept.id) for concept in members)] = scores
        return results

    def _concept_rows(self, concept: Concept) -> dict[str, Tensor]:
        if concept.data_iter is None:
            raise InputError(f"concept {shown(concept.name)} has no data_iter; give it a DataLoader of inputs")
        parts: dict[str, list[Tensor]] = {layer: [] for layer in self.layers}
        for batch in concept.data_iter:
            batch = batch[0] if isinstance(batch, (list, tuple)) else batch
            for layer, values in self.backbone.activations(batch, self.layers, self.pool).items():
                parts[layer].append(values)
        if not parts[self.layers[0]]:
            raise InputError(f"concept {shown(concept.name)} gives no examples; its data_iter is empty")
        return {layer: torch.cat(values) for layer, values in parts.items()}

    def _targets(self, targets: Sequence[str | int] | str | None) -> list[int]:
        classes = self.backbone.classes
        if targets is None:
            if len(classes) > 20:
                raise InputError(f"targets: {self.backbone.name} has {len(classes)} classes; name those to explain")
            return list(range(len(classes)))
        given = [targets] if isinstance(targets, str) else targets
        return list(dict.fromkeys(target_index(self.backbone, target) for target in given))

    def _pass(self, clips: Sequence[Clip], targets: Sequence[int], stage: str) -> Extraction:
        return extract(
            self.backbone,
            clips,
            self.layers,
            targets=targets,
            pool=self.pool,
            store=self.store,
            batch_size=self.batch_size,
            on_bad=self.on_bad,
            progress=self.progress,
            stage=stage,
        )

    def _explain_layer(
        self, layer: str, concepts: ConceptSet, heard: Extraction, explained: Extraction | None, result: Explanation
    ):
        device = self.backbone.device
        kept, rows = heard.kept, heard.rows
        groups = concepts.groups[kept][rows].astype(str)
        positives, negatives = concepts.positives()[kept][rows], concepts.negative_mask()[kept][rows]
        activations = heard.activations[layer]
        bank = fit_cavs(
            activations.to(device),
            positives,
            self.cav,
            groups,
            negatives=negatives,
            names=concepts.names,
            layer=layer,
            min_groups=self.min_groups,
            seed=self.seed,
            **self.cav_options,
        ).to("cpu")
        result.banks[layer] = bank
        usable = [name for name, status in zip(bank.names, bank.quality["status"], strict=True) if status == "ok"]
        if not usable:
            raise InputError(
                f"concepts: none of {len(bank)} can be told apart at layer {layer} on held-out groups; give more or "
                "clearer examples, or another layer"
            )
        self._mine_layer(layer, bank, usable, activations, positives, groups, result)
        result.examples[layer] = _examples(bank, usable, heard, activations, positives)
        if explained is None:
            return empty_scores()
        gradients = clip_means(explained.gradients[layer], torch.from_numpy(explained.counts))
        plan = NullPlan(self._fit, self.cav_options, self.n_nulls, self.seed, rest=concepts.negatives == "rest")
        table, per_clip, warnings = score_layer(
            bank,
            LayerData(activations, positives, negatives, groups),
            gradients,
            [clip.group for clip in explained.clips],
            result.targets,
            plan,
            self.bootstrap,
        )
        result.sensitivities[layer] = per_clip.numpy()
        result.warnings += warnings
        return table

    def _mine_layer(
        self,
        layer: str,
        bank: ConceptBank,
        usable: list[str],
        activations: Tensor,
        positives: np.ndarray,
        groups: np.ndarray,
        result: Explanation,
    ) -> None:
        columns = [bank.names.index(name) for name in usable]
        matrix = compute_similarity(
            bank.subset(usable),
            self.similarity,
            activations=activations,
            labels=positives[:, columns],
            weights=group_weights(groups),
        )
        full = np.full((len(bank), len(bank)), np.nan, dtype=np.float32)
        full[np.ix_(columns, columns)] = matrix.cpu().numpy()
        result.similarities[layer] = full
        hierarchy = mine(matrix.cpu(), usable, self.miner, **self.miner_options)
        get_plugin_manager().hook.captum_concepts_hierarchy_mined(hierarchy=hierarchy)
        result.hierarchies[layer] = hierarchy

    def _provenance(self, concepts: ConceptSet, heard: Extraction, explained: Extraction | None) -> dict[str, Any]:
        passes = [heard] if explained is None else [heard, explained]
        return {
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "backbone": {"name": self.backbone.name, "fingerprint": self.backbone.fingerprint()},
            "seed": self.seed,
            "options": {
                "layers": list(self.layers),
                "cav": _label(self.cav),
                "cav_options": self.cav_options,
                "similarity": _label(self.similarity),
                "miner": _label(self.miner),
                "miner_options": self.miner_options,
                "pool": self.pool,
                "negatives": concepts.negatives,
                "n_nulls": self.n_nulls,
                "bootstrap": self.bootstrap,
                "min_groups": self.min_groups,
                "on_bad": self.on_bad,
            },
            "tests": {
                "statistic": "magnitude",
                "p_value": "rank among random concepts of the same number of groups",
                "correction": "Benjamini-Hochberg",
                "family": "targets x concepts within a layer",
                "interval": "95 % percentile bootstrap of the score over groups of explained clips",
            },
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
            "reference": concepts.parents,
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


def concatenated(tables):
    """One table of all layers' scores, columns ``SCORE_COLUMNS``."""
    import pandas as pd

    return pd.concat(tables, ignore_index=True)[list(SCORE_COLUMNS)]


def _examples(
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


def _timelines(
    layers: Sequence[str], chosen: Sequence[int], names: Sequence[str], explained: Extraction, result: Explanation
) -> list[Timeline]:
    """For each target the explained clips with the highest mean logit, and every concept's push along them."""
    per_clip = clip_means(cast(Tensor, explained.logits), torch.from_numpy(explained.counts))
    rows = explained.rows
    timelines = []
    for layer in layers:
        directions = result.banks[layer].directions
        for position, (target, name) in enumerate(zip(chosen, names, strict=True)):
            for clip in torch.argsort(-per_clip[:, target], stable=True)[:EXAMPLES].tolist():
                own = np.flatnonzero(rows == clip)
                push = sensitivities(explained.gradients[layer][own, position], directions)
                spans = explained.spans[own]
                timelines.append(Timeline(layer, name, explained.clips[clip], spans[:, 0], spans[:, 1], push.numpy()))
    return timelines


def _pass_warnings(heard: Extraction, explained: Extraction | None, concepts: ConceptSet) -> list[str]:
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
                f"{part.short} of {len(part.clips)} {what} clips are shorter than one patch; see the backbone's short="
            )
    if explained is not None:
        digests = {heard.digests[clip.path] for clip in heard.clips}
        groups = {clip.group for clip in heard.clips}
        shared = sum(clip.group in groups or explained.digests[clip.path] in digests for clip in explained.clips)
        if shared:
            lines.append(
                f"{shared} of {len(explained.clips)} explained clips share group or file with concept clips: their "
                "scores are not on unseen audio"
            )
    return lines


def _label(option: object) -> str:
    return option if isinstance(option, str) else getattr(option, "__qualname__", type(option).__qualname__)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
