"""The explanation of one layer: from labelled rows and gradients to CAVs, a hierarchy and scores.

Each stage takes values and returns values; :func:`explain_layer` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_concepts.activations.extraction import Extraction
from captum_concepts.audio.clips import Clip
from captum_concepts.backbones.inference import unpooled_shapes
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.diagnostics.layer_diagnostics import LayerChecks
from captum_concepts.explanation.examples import examples
from captum_concepts.explanation.options import ExplainOptions, FitOptions, HierarchyOptions
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.support import Support
from captum_concepts.miners.api import mine
from captum_concepts.miners.bootstrap import ResampledDiscriminant, ResampledSimilarity, bootstrap_support
from captum_concepts.plugins.registry import get_plugin_manager
from captum_concepts.results.tables import empty_scores
from captum_concepts.significance.layer_nulls import layer_nulls
from captum_concepts.significance.null_concepts import NullPlan
from captum_concepts.significance.scores import score_layer
from captum_concepts.significance.sensitivity import clip_means
from captum_concepts.similarities.api import similarity
from captum_concepts.text import short_repr


@dataclass(frozen=True)
class LayerInput:
    """What the explanation of a layer is made from.

    Attributes:
        backbone: the explained model.
        layer: the layer's name.
        concepts: with negatives.
        extracted: the pass over the concepts' clips.
        explained: the pass over the clips to explain; None where the model has no classes.
        targets: names of the classes that ``explained`` has gradients of.
        seed: of folds, null concepts and bootstrap samples.
    """

    backbone: Backbone
    layer: str
    concepts: ConceptSet
    extracted: Extraction
    explained: Extraction | None
    targets: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class LayerResult:
    """What is found at one layer.

    Attributes:
        bank: CAVs with their quality.
        examples: concept -> its own clips that lie farthest along its CAV.
        similarity: (K, K) float32; NaN where a concept is not testable.
        hierarchy: None where no concept is testable.
        support: None where it was not asked for.
        scores: one row per target and concept; no rows where nothing was explained.
        sensitivities: (clips, targets, concepts) float32; None where nothing was explained.
        diagnostics: name of a table of ``Diagnostics`` -> its rows for this layer.
        n_nulls: null concepts of each size.
        warnings: one line each.
    """

    bank: ConceptBank
    examples: dict[str, list[Clip]]
    similarity: np.ndarray
    hierarchy: ConceptHierarchy | None
    support: Support | None
    scores: pd.DataFrame
    sensitivities: np.ndarray | None
    diagnostics: dict[str, pd.DataFrame]
    n_nulls: int
    warnings: list[str]


def explain_layer(given: LayerInput, options: ExplainOptions) -> LayerResult:
    """Explain one layer.

    Args:
        given: passes over audio, concepts and targets.
        options: how to fit, test and mine.

    Returns:
        LayerResult; without a hierarchy where no concept is separated on held-out groups, which a warning says.

    Raises:
        InputError: what the CAV method, the measure, the miner or the tests refuse.
    """
    rows = labelled_rows(given)
    mined = rows
    if options.tests.correction == "hierarchical":
        half = given.concepts.split(0.5, given.seed)[given.extracted.kept][given.extracted.rows]
        mined, rows = rows.part(half), rows.part(~half)
    bank = fit_bank(given, rows, options.fit)
    bank_to_mine = bank if mined is rows else fit_bank(given, mined, options.fit)
    tables, warnings = diagnose_layer(given, bank_to_mine, mined, options.fit)
    gradients = mean_gradients(given, rows)
    matrix, hierarchy, support = mine_layer(given, bank_to_mine, mined, gradients, options)
    if hierarchy is None:
        warnings.append(f"{short_repr(given.layer)}: no concept can be told apart on held-out groups, so no hierarchy")
    bank, n_nulls, scores, sensitivities, more = score_concepts(given, bank, rows, gradients, hierarchy, options)
    usable = testable(bank)
    positives = given.concepts.positives()[given.extracted.kept][given.extracted.rows]
    return LayerResult(
        bank=bank,
        examples=examples(bank, usable, given.extracted, given.extracted.activations[given.layer], positives),
        similarity=matrix,
        hierarchy=hierarchy,
        support=support,
        scores=scores,
        sensitivities=sensitivities,
        diagnostics=tables,
        n_nulls=n_nulls,
        warnings=warnings + more,
    )


def labelled_rows(given: LayerInput) -> LabelledRows:
    """The concepts' activations at the layer, on the backbone's device, with their labels and groups."""
    kept, rows = given.extracted.kept, given.extracted.rows
    return LabelledRows(
        activations=given.extracted.activations[given.layer].to(given.backbone.device),
        positives=given.concepts.positives()[kept][rows],
        negatives=given.concepts.negative_mask()[kept][rows],
        groups=given.concepts.groups[kept][rows],
        order=given.extracted.order,
    )


def fit_bank(given: LayerInput, rows: LabelledRows, options: FitOptions) -> ConceptBank:
    """The CAVs of all concepts, on the CPU."""
    return fit_cavs(
        rows.activations,
        rows.positives,
        options.cav,
        rows.groups,
        negatives=rows.negatives,
        names=given.concepts.names,
        layer=given.layer,
        min_groups=options.min_groups,
        seed=given.seed,
        **options.cav_options,
    ).to("cpu")


def testable(bank: ConceptBank) -> list[str]:
    """The concepts that the layer separates from their negatives on held-out groups."""
    return [name for name, status in zip(bank.names, bank.quality["status"], strict=True) if status == "ok"]


def diagnose_layer(
    given: LayerInput, bank: ConceptBank, rows: LabelledRows, options: FitOptions
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Tables of diagnostics of the layer's concepts, and warnings."""
    checks = LayerChecks(rows, options.method, given.concepts.overlap(), given.seed)
    shape = unpooled_shapes(given.backbone, (given.layer,), options.pool).get(given.layer)
    return checks.check(bank, shape)


def mean_gradients(given: LayerInput, rows: LabelledRows) -> Tensor:
    """(clips, targets, D) gradients of the logits, mean over the patches of each clip; (1, 0, D) without classes."""
    if given.explained is None:
        return rows.activations.new_zeros(1, 0, rows.activations.shape[1])
    return clip_means(given.explained.gradients[given.layer], torch.from_numpy(given.explained.counts))


def mine_layer(
    given: LayerInput, bank: ConceptBank, rows: LabelledRows, gradients: Tensor, options: ExplainOptions
) -> tuple[np.ndarray, ConceptHierarchy | None, Support | None]:
    """The similarity of all concepts (K, K), the hierarchy of the testable ones, and its bootstrap support."""
    matrix = np.full((len(bank), len(bank)), np.nan, dtype=np.float32)
    usable = testable(bank)
    if not usable:
        return matrix, None, None
    columns = [bank.names.index(name) for name in usable]
    chosen = options.hierarchy
    found = similarity(
        bank.subset(usable).to(rows.activations.device),
        chosen.similarity,
        activations=rows.activations,
        labels=rows.positives[:, columns],
        weights=group_weights(rows.groups),
        groups=rows.groups,
        gradients=gradients if gradients.numel() else None,
    ).cpu()
    matrix[np.ix_(columns, columns)] = found.numpy()
    miner_options = {**chosen.miner_options, "max_parents": chosen.max_parents}
    hierarchy, support = mine(found, usable, chosen.miner, **miner_options), None
    if chosen.support:
        samples = resampled(rows, columns, gradients, chosen, options.fit, given.seed)
        support = bootstrap_support(hierarchy, samples, chosen.miner, **miner_options)
        hierarchy = support.hierarchy
    get_plugin_manager().hook.captum_concepts_hierarchy_mined(hierarchy=hierarchy)
    return matrix, hierarchy, support


def resampled(
    rows: LabelledRows,
    columns: list[int],
    gradients: Tensor,
    options: HierarchyOptions,
    fit: FitOptions,
    seed: int,
) -> ResampledDiscriminant | ResampledSimilarity:
    """Similarities of bootstrap samples of the groups."""
    positives, weights = rows.positives[:, columns], group_weights(rows.groups)
    if options.similarity == "discriminant":
        return ResampledDiscriminant(rows.activations, positives, weights, rows.groups, options.support, seed)
    return ResampledSimilarity(
        options.similarity, fit.method, rows.activations, positives, rows.negatives[:, columns],
        weights, rows.groups, gradients, options.support, seed,
    )  # fmt: skip


def score_concepts(
    given: LayerInput,
    bank: ConceptBank,
    rows: LabelledRows,
    gradients: Tensor,
    hierarchy: ConceptHierarchy | None,
    options: ExplainOptions,
) -> tuple[ConceptBank, int, pd.DataFrame, np.ndarray | None, list[str]]:
    """The bank with p-values of its quality, number of null concepts, scores, sensitivities and warnings."""
    rest, in_domain = (given.concepts.negatives == kind for kind in ("rest", "in-domain"))
    fit, tests = options.fit, options.tests
    plan = NullPlan(fit.method, tests.n_nulls, given.seed, rest, in_domain)
    nulls = layer_nulls(bank, rows, gradients.mean(0), plan, tests.correction)
    bank = replace(bank, quality=bank.quality.assign(p_value=nulls.quality_p_values(bank)))
    if given.explained is None:
        return bank, nulls.count, empty_scores(), None, []
    correction = "bh" if hierarchy is None and tests.correction == "hierarchical" else tests.correction
    groups = [clip.group for clip in given.explained.clips]
    scores, per_clip, warnings = score_layer(
        bank, rows, gradients, groups, given.targets, plan, tests.bootstrap,
        correction=correction, hierarchy=hierarchy, nulls=nulls,
    )  # fmt: skip
    return bank, nulls.count, scores, per_clip.numpy(), warnings
