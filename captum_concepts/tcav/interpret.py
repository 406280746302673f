"""Scores of Captum ``Concept`` objects along CAVs of any method, shaped as Captum's ``TCAV.interpret``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.concept import Concept
from torch import Tensor

from captum_concepts.backbones.options import target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.errors import InputError
from captum_concepts.tcav.relative_scores import relative_directions, relative_scores
from captum_concepts.text import short_repr


def interpret_concepts(
    backbone: Backbone,
    layers: Sequence[str],
    inputs: Tensor,
    experimental_sets: Sequence[Sequence[Concept]],
    target: str | int | None,
    *,
    method: CavMethod,
    pool: str = "time",
    batch_size: int = 32,
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Sign counts and magnitudes of sets of concepts, each concept compared with the other concepts of its set.

    Args:
        backbone, layers: the model and where its concepts are looked for.
        inputs: (N, ...), what the backbone's ``activations`` takes (waveforms, where there is a front-end).
        experimental_sets: lists of at least two concepts with data iterators of such inputs (tensors, or lists whose
            first item is one).
        target: class name or number; None where the model has one output.
        method: the CAV method.
        pool: pooling of activations.
        batch_size: inputs per pass.

    Returns:
        {"0-1": {layer: {"sign_count": (C,), "magnitude": (C,)}}} in the order of the sets and their concepts.

    Raises:
        InputError: no set, an empty set, a concept without data, identifiers used twice, or no target where the
            model has several outputs.
    """
    unique = _unique_concepts(experimental_sets)
    wanted = 0 if target is None else target_index(backbone, target) if isinstance(target, str) else target
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for batch in inputs.split(batch_size):
        logits, _, gradients = backbone.gradients(batch, layers, [wanted], pool)
        if target is None and logits.shape[1] > 1:
            raise InputError(f"target is missing: the model has {logits.shape[1]} outputs; name one or number it")
        for layer in layers:
            found[layer].append(gradients[layer][:, 0])
    gradients_at = {layer: torch.cat(parts) for layer, parts in found.items()}
    rows = {identity: _activations_of(concept, backbone, layers, pool) for identity, concept in unique.items()}
    sets = [[concept.id for concept in members] for members in experimental_sets]
    names = ["-".join(map(str, members)) for members in sets]
    results: dict[str, dict[str, dict[str, Tensor]]] = {name: {} for name in names}
    for layer in layers:
        parts = {identity: found_rows[layer] for identity, found_rows in rows.items()}
        directions = relative_directions(parts, sets, method)
        for name, scores in zip(names, relative_scores(directions, sets, gradients_at[layer]), strict=True):
            results[name][layer] = scores
    return results


def _activations_of(concept: Concept, backbone: Backbone, layers: Sequence[str], pool: str) -> dict[str, Tensor]:
    if concept.data_iter is None:
        raise InputError(f"concept {short_repr(concept.name)} has no data_iter; give it a DataLoader of inputs")
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for batch in concept.data_iter:
        batch = batch[0] if isinstance(batch, (list, tuple)) else batch
        for layer, values in backbone.activations(batch, layers, pool).items():
            parts[layer].append(values)
    if not parts[layers[0]]:
        raise InputError(f"concept {short_repr(concept.name)} gives no examples; its data_iter is empty")
    return {layer: torch.cat(values) for layer, values in parts.items()}


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
