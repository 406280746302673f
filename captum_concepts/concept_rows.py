"""Activations of Captum ``Concept`` objects: each example goes through the model once, and is found again on disk."""

from __future__ import annotations

import hashlib
import logging
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from captum.concept import Concept
from torch import Tensor, nn

from captum_concepts.errors import InputError, shown
from captum_concepts.fingerprints import Unhashable, fingerprint
from captum_concepts.layer_rows import as_inputs, evaluation, layer_rows
from captum_concepts.store import ActivationStore

_log = logging.getLogger(__name__)
COMMIT_BATCHES = 128
_OWNERS: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
Progress = Callable[[str, int, int], None]


def model_key(model: nn.Module, *settings: object) -> str:
    """sha256 of all that decides what the model computes; a key of its own where that cannot be read."""
    try:
        return fingerprint("captum_concepts concept rows 1", model, settings)
    except Unhashable as reason:
        _log.info("%s has no fingerprint, so its CAVs are of no use to later runs: %s", type(model).__name__, reason)
        # Within this process the parameters and this object are all there is to go by.
        owner = _OWNERS.setdefault(model, uuid.uuid4().hex)
        return fingerprint("captum_concepts unreadable model 1", owner, dict(model.state_dict()), settings)


class ConceptRows:
    """The activations of concepts at layers, computed once for each batch that a concept's loader gives.

    Rows are kept in an ``ActivationStore`` under the fingerprint of the model and the sha256 of the batch. The data of
    a ``Concept`` object are read once, until ``forget`` is called.

    Args:
        folder: of the store.
        of_input: rows are the layers' inputs instead of their outputs.
        evaluate: put the model into evaluation mode for the pass.
    """

    def __init__(self, folder: Path, *, of_input: bool, evaluate: bool):
        self.store = ActivationStore(folder)
        self.of_input = of_input
        self.evaluate = evaluate
        self._batches: dict[Concept, list[str]] = {}
        self._complete: dict[tuple[str, Concept], set[str]] = {}

    def forget(self, concepts: Sequence[Concept]) -> None:
        """Read the data of these concepts anew when they are next needed."""
        for concept in concepts:
            self._batches.pop(concept, None)
            for key in [key for key in self._complete if key[1] is concept]:
                del self._complete[key]

    def ensure(
        self,
        model: nn.Module,
        namespace: str,
        wanted: Mapping[Concept, Sequence[str]],
        progress: Progress | None = None,
    ) -> None:
        """Compute what is missing of some layers of some concepts: one pass over the data of each for all its layers.

        Without layers the data are only read, and only if they have not been read before.

        Raises:
            InputError: a concept without data or without examples.
        """
        fresh: dict[tuple[str, ...], dict[str, dict[str, Tensor]]] = {}
        try:
            for number, (concept, layers) in enumerate(wanted.items(), 1):
                done = self._complete.setdefault((namespace, concept), set())
                missing = tuple(layer for layer in layers if layer not in done)
                if missing or concept not in self._batches:
                    self._hear(model, namespace, missing, concept, fresh.setdefault(missing, {}))
                    done.update(missing)
                if sum(map(len, fresh.values())) >= COMMIT_BATCHES:
                    self._commit(namespace, fresh)
                if progress is not None:
                    progress("listening to concepts", number, len(wanted))
        finally:
            self._commit(namespace, fresh)

    def _commit(self, namespace: str, fresh: dict[tuple[str, ...], dict[str, dict[str, Tensor]]]) -> None:
        for rows in fresh.values():
            self.store.put(namespace, rows)
        fresh.clear()

    def _hear(
        self,
        model: nn.Module,
        namespace: str,
        layers: Sequence[str],
        concept: Concept,
        fresh: dict[str, dict[str, Tensor]],
    ) -> None:
        """Put the concept's rows that the store lacks into ``fresh``, by batch and layer."""
        if concept.data_iter is None:
            raise InputError(f"concept {shown(concept.name)} has no data_iter; give it a DataLoader of inputs")
        keys: list[str] = []
        for batch in concept.data_iter:
            key = _digest(batch)
            keys.append(key)
            if key in fresh or not layers:
                continue
            missing = [layer for layer in layers if self.store.missing(namespace, [layer], [key])]
            if missing:
                with evaluation(model, self.evaluate):
                    fresh[key] = layer_rows(model, batch, missing, of_input=self.of_input)
        if not keys:
            raise InputError(f"concept {shown(concept.name)} gives no examples; its data_iter is empty")
        self._batches[concept] = keys

    def digest(self, concept: Concept) -> str:
        """sha256 of the concept's data, batch by batch, as last read."""
        return hashlib.sha256(" ".join(self._batches[concept]).encode()).hexdigest()

    def batches(self, namespace: str, layer: str, concept: Concept) -> Iterator[Tensor]:
        """The rows (B, F) of each batch of the concept's loader, in its order, on the CPU."""
        keys = self._batches[concept]
        rows, counts = self.store.get(namespace, layer, keys)
        yield from rows.split(counts.tolist())

    def rows(self, namespace: str, layer: str, concepts: Sequence[Concept]) -> tuple[Tensor, list[int]]:
        """Rows of some concepts one after the other (N, F), on the CPU, and how many each has."""
        keys = [key for concept in concepts for key in self._batches[concept]]
        rows, counts = self.store.get(namespace, layer, keys)
        left = iter(counts.tolist())
        return rows, [sum(next(left) for _ in self._batches[concept]) for concept in concepts]


def _digest(batch: Any) -> str:
    digest = hashlib.sha256()
    for part in as_inputs(batch, torch.device("cpu")):
        values = part.detach().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
