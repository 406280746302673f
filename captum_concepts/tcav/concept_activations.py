"""Activations of Captum ``Concept`` objects: each example goes through the model once, and is found again on disk."""

from __future__ import annotations

import hashlib
import logging
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from captum.concept import Concept
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from captum_concepts.backbones.fingerprint import Unhashable, fingerprint
from captum_concepts.errors import InputError
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.tcav.layer_activations import as_inputs, evaluation, layer_rows
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

_log = logging.getLogger(__name__)
COMMIT_BATCHES = 128
COMMIT_BYTES = 2**28


class ObjectTokens:
    """Names for objects whose state cannot be read, each good for as long as this object lives and nowhere else."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._met: dict[int, tuple[int, object]] = {}  # kept, as an id is unique only among living objects

    def __call__(self, value: object) -> str:
        return f"{self._name} {self._met.setdefault(id(value), (len(self._met), value))[0]}"


def cache_key(stand_ins: ObjectTokens, *settings: object) -> str:
    """sha256 of all that decides what ``settings`` (modules, callables, values) compute.

    Objects that cannot be read count as the objects they are, so that such a key is good within this process only. All
    else counts by its content still. What cannot be read even so gives another key each time.
    """
    try:
        return fingerprint("captum_concepts 3", *settings)
    except Unhashable as reason:
        _log.info("no fingerprint, so CAVs are of no use to later runs: %s", reason)
    try:
        return fingerprint("captum_concepts unreadable 2", *settings, stand_in=stand_ins)
    except Unhashable:
        return uuid.uuid4().hex


@dataclass
class _Reading:
    """What is known of one concept's data.

    Attributes:
        source: the ``data_iter`` that gave them.
        state: of the tensors behind it when they were read.
        batches: sha256 of each batch.
        done: layers whose rows of these batches are in the store, by namespace.
    """

    source: Any
    state: list[object]
    batches: list[str]
    done: dict[str, set[str]]


class ConceptRows:
    """The activations of concepts at layers, computed once for each batch that a concept's loader gives.

    Rows are kept in an ``ActivationStore`` under the fingerprint of the model and the sha256 of the batch. The data of
    a ``Concept`` object are read once, and again after ``forget``, with another ``data_iter``, or when the tensors of a
    ``TensorDataset`` or of a list behind it have changed. Data of any other kind are not looked at again.

    Args:
        folder: of the store.

    Attributes:
        of_input: rows are the layers' inputs instead of their outputs.
        evaluate: put the model into evaluation mode for the pass.
    """

    def __init__(self, folder: Path):
        self.store = ActivationStore(folder)
        self.of_input = False
        self.evaluate = True
        self._readings: dict[Concept, _Reading] = {}

    def forget(self, concepts: Sequence[Concept]) -> None:
        """Read the data of these concepts anew when they are next needed."""
        for concept in concepts:
            self._readings.pop(concept, None)

    def ensure(
        self,
        model: nn.Module,
        namespace: str,
        wanted: Mapping[Concept, Sequence[str]],
        progress: Progress | None = None,
    ) -> None:
        """Compute what is missing of some layers of some concepts, reading the data of each at most once.

        Raises:
            InputError: a concept without data or without examples.
        """
        fresh: dict[str, dict[str, Tensor]] = {}
        try:
            for number, (concept, layers) in enumerate(wanted.items(), 1):
                reading = self._readings.get(concept)
                if reading is not None and _changed(reading, concept):
                    reading = None
                done = set() if reading is None else reading.done.get(namespace, set())
                if reading is None or not done.issuperset(layers):
                    # All layers of one reading, as a loader that shuffles gives other batches the next time.
                    self._hear(model, namespace, list(dict.fromkeys([*layers, *sorted(done)])), concept, fresh)
                held = sum(rows.nbytes for found in fresh.values() for rows in found.values())
                if len(fresh) >= COMMIT_BATCHES or held >= COMMIT_BYTES:
                    self._commit(namespace, fresh)
                if progress is not None:
                    progress("listening to concepts", number, len(wanted))
        finally:
            self._commit(namespace, fresh)

    def _commit(self, namespace: str, fresh: dict[str, dict[str, Tensor]]) -> None:
        self.store.put(namespace, fresh)
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
            raise InputError(f"concept {short_repr(concept.name)} has no data_iter; give it a DataLoader of inputs")
        state = _state(concept.data_iter)
        keys: list[str] = []
        for batch in concept.data_iter:
            key = _digest(batch)
            keys.append(key)
            lacking = [layer for layer in layers if layer not in fresh.get(key, {})]
            if lacking and self.store.missing(namespace, lacking, [key]):
                lacking = [layer for layer in lacking if self.store.missing(namespace, [layer], [key])]
                with evaluation(model, self.evaluate):
                    found = layer_rows(model, batch, lacking, of_input=self.of_input)
                fresh.setdefault(key, {}).update(found)
        if not keys:
            once = iter(concept.data_iter) is concept.data_iter
            why = "can be read only once, and was; give it a DataLoader or a list" if once else "is empty"
            raise InputError(f"concept {short_repr(concept.name)} gives no examples; its data_iter {why}")
        before = self._readings.get(concept)
        done = before.done if before is not None and before.batches == keys else {}
        done.setdefault(namespace, set()).update(layers)
        self._readings[concept] = _Reading(concept.data_iter, state, keys, done)

    def digest(self, concept: Concept) -> str:
        """sha256 of the concept's data, batch by batch, as last read."""
        return hashlib.sha256(" ".join(self._readings[concept].batches).encode()).hexdigest()

    def batches(self, namespace: str, layer: str, concept: Concept) -> Iterator[Tensor]:
        """The rows (B, F) of each batch of the concept's loader, in its order, on the CPU."""
        keys = self._readings[concept].batches
        rows, counts = self.store.get(namespace, layer, keys)
        yield from rows.split(counts.tolist())

    def rows(self, namespace: str, layer: str, concepts: Sequence[Concept]) -> tuple[Tensor, list[int]]:
        """Rows of some concepts one after the other (N, F), on the CPU, and how many each has."""
        keys = [key for concept in concepts for key in self._readings[concept].batches]
        rows, counts = self.store.get(namespace, layer, keys)
        left = iter(counts.tolist())
        return rows, [sum(next(left) for _ in self._readings[concept].batches) for concept in concepts]


def _changed(reading: _Reading, concept: Concept) -> bool:
    """Whether the concept would give other data than it did, as far as that can be told without reading them."""
    return concept.data_iter is not reading.source or _state(concept.data_iter) != reading.state


def _state(source: Any) -> list[object]:
    """Of the tensors behind a loader: which ones, how often PyTorch has changed them, and a checksum of their bytes."""
    return [
        (id(part), part._version, tuple(part.shape), zlib.crc32(_bytes(part)) if part.device.type == "cpu" else 0)
        for part in _tensors_behind(source)
    ]


def _tensors_behind(source: Any) -> Iterator[Tensor]:
    """Of a ``TensorDataset``, or of a list or tuple of tensors or of tuples of them, in a loader or by itself."""
    data = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(data, Subset):
        yield from _tensors_behind(data.dataset)
    elif isinstance(data, TensorDataset):
        yield from data.tensors
    elif isinstance(data, Tensor):
        yield data
    elif isinstance(data, (list, tuple)):
        for item in data:
            yield from (part for part in (item if isinstance(item, (list, tuple)) else [item]) if torch.is_tensor(part))


def _digest(batch: Any) -> str:
    digest = hashlib.sha256()
    for part in as_inputs(batch, torch.device("cpu")):
        digest.update(f"{part.dtype} {tuple(part.shape)};".encode())
        digest.update(_bytes(part))
    return digest.hexdigest()


def _bytes(values: Tensor) -> memoryview:
    return values.detach().contiguous().flatten().view(torch.uint8).numpy().data
