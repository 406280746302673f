"""The CAVs of ``BatchedTCAV``: fitted all at once, or one by one as in Captum; used again only where they fit."""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from captum._utils.av import AV
from captum.attr import LayerAttribution
from captum.concept import CAV, TCAV, Classifier, Concept
from captum.concept._utils.common import concepts_to_str
from torch import nn
from torch.utils.data import DataLoader

from captum_concepts.captum_sgd import CaptumSGD
from captum_concepts.cav_shelf import CavShelf
from captum_concepts.concept_rows import ConceptRows, Progress, model_key
from captum_concepts.errors import InputError, shown
from captum_concepts.fingerprints import Unhashable, fingerprint
from captum_concepts.layer_rows import (
    device_of,
)
from captum_concepts.layers import find_layer
from captum_concepts.resampling import METHODS, Blocks, fit_sets, held_out

MODES = ("fast", "exact")
ExperimentalSets = Sequence[Sequence[Concept]]


class BatchedCAVs(TCAV):
    """Activations and CAVs of ``BatchedTCAV``, which documents the arguments."""

    def __init__(
        self,
        model: nn.Module,
        layers: str | list[str],
        model_id: str = "default_model_id",
        classifier: Classifier | None = None,
        layer_attr_method: LayerAttribution | None = None,
        attribute_to_layer_input: bool = False,
        save_path: str = "./cav/",
        *,
        mode: str = "fast",
        method: str = "logistic",
        seed: int = 0,
        batch_size: int | None = None,
        chunk_bytes: int = 2**28,
        temperature: float | None = None,
        progress: Progress | None = None,
        **classifier_kwargs: Any,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"mode={shown(mode)} is not known; use {' or '.join(MODES)}")
        if method not in METHODS:
            raise InputError(f"method={shown(method)} is not known; use {', '.join(METHODS)}")
        if temperature is not None and not temperature > 0:
            raise InputError(f"temperature={shown(temperature)} must be positive, or None for no smooth score")
        super().__init__(
            model,
            list(layers) if not isinstance(layers, str) else layers,
            model_id,
            classifier if classifier is not None else CaptumSGD(),
            layer_attr_method,
            attribute_to_layer_input,
            str(save_path),
            **classifier_kwargs,
        )
        for layer in self.layers:
            find_layer(model, layer)
        self.mode = mode
        self.method = method
        self.seed = seed
        self.batch_size = batch_size if batch_size is not None or mode == "exact" else 32
        self.chunk_bytes = chunk_bytes
        self.temperature = temperature
        self.progress = progress
        self._given_method = layer_attr_method
        self._batched = mode == "fast" and classifier is None
        self._classifier_key = self._key_of(classifier)
        folder = Path(self.save_path) / model_id / "store"
        self._rows = ConceptRows(folder, of_input=attribute_to_layer_input, evaluate=mode == "fast")
        self._shelf = CavShelf(self._rows.store)
        self._made: dict[tuple[str, str], str] = {}

    # Activations ----------------------------------------------------------------------------------------------

    def generate_all_activations(self) -> None:
        """Compute the activations of all ``self.concepts`` at all layers, and write them where Captum's ``AV`` looks.

        The files are plain tensors for other tools; this class never reads them.
        """
        self._export({concept: list(self.layers) for concept in self.concepts})

    def generate_activation(self, layers: str | list[str], concept: Concept) -> None:
        """As ``generate_all_activations``, for one concept and some layers."""
        self._export({concept: [layers] if isinstance(layers, str) else layers})

    def generate_activations(self, concept_layers: dict[Concept, list[str]]) -> None:
        """As ``generate_all_activations``, for some concepts and the layers given for each."""
        self._export(concept_layers)

    def _export(self, concept_layers: Mapping[Concept, Sequence[str]]) -> None:
        namespace = self._namespace()
        self._rows.ensure(self.model, namespace, concept_layers)
        for concept, layers in concept_layers.items():
            # Captum makes a folder of the name; what is removed and written there must lie below ``save_path``.
            if len(Path(concept.identifier).parts) != 1 or concept.identifier in (".", ".."):
                raise InputError(
                    f"concept {shown(concept.name)}: cannot be the name of a folder, where activation files were asked "
                    "for; give it a name without slashes"
                )
            for layer in layers:
                folder = Path(self.save_path, AV.AV_DIR_NAME, self.model_id, concept.identifier, layer)
                if folder.is_dir():
                    for stale in folder.glob("*.pt"):
                        stale.unlink()
                for number, rows in enumerate(self._rows.batches(namespace, layer, concept)):
                    AV.save(self.save_path, self.model_id, concept.identifier, layer, rows.clone(), str(number))

    def _namespace(self) -> str:
        """Of the activations: by all that decides what the model computes."""
        training = [module.training for module in self.model.modules()] if self.mode == "exact" else []
        return model_key(self.model, self.attribute_to_layer_input, training)

    # CAVs -----------------------------------------------------------------------------------------------------

    def load_cavs(self, concepts: list[Concept]) -> tuple[list[str], dict[Concept, list[str]]]:
        """Take the CAVs of one set from the folder, where they are there for these data.

        Returns:
            the layers without a CAV, and for each concept the layers at which it is then needed.
        """
        namespace = self._namespace()
        self._rows.ensure(self.model, namespace, dict.fromkeys(concepts, ()))
        missing = self._recall([concepts], namespace)
        layers = [layer for layer in self.layers if missing[layer]]
        return layers, {concept: list(layers) for concept in concepts} if layers else {}

    def compute_cavs(
        self,
        experimental_sets: ExperimentalSets,
        force_train: bool = False,
        processes: int | None = None,
    ) -> dict[str, dict[str, CAV]]:
        """Fit the CAVs that are not there yet.

        Args:
            experimental_sets: lists of concepts, at least two in each.
            force_train: read all data anew and fit all CAVs again.
            processes: accepted and not used; in Captum results depend on it.

        Returns:
            {"0-1": {layer: CAV}}, all CAVs so far. ``stats`` has "weights" (C, F), "classes" (C ids), "accs" (held-out
            accuracy) and, with the classifiers of this package, "biases" (C,).

        Raises:
            AssertionError: two concepts of the sets have the same id (as in Captum).
            InputError: no set, a set of fewer than two concepts or with one twice, a concept without data.
        """
        concepts = self._register(experimental_sets)
        if force_train:
            self._rows.forget(concepts)
        namespace = self._namespace()
        # Data first: what the CAVs depend on. Activations are computed only where a CAV is missing.
        self._rows.ensure(self.model, namespace, dict.fromkeys(concepts, ()))
        everything = range(len(experimental_sets))
        missing = {layer: list(everything) for layer in self.layers}
        if not force_train:
            missing = self._recall(experimental_sets, namespace)
        wanted: dict[Concept, list[str]] = defaultdict(list)
        for layer, numbers in missing.items():
            for concept in dict.fromkeys(c for number in numbers for c in experimental_sets[number]):
                wanted[concept].append(layer)
        self._rows.ensure(self.model, namespace, wanted, self.progress)
        if self._batched:
            self._fit_batched(experimental_sets, missing, namespace)
        else:
            self._fit_each(experimental_sets, missing, namespace)
        return self.cavs

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)

    def _register(self, experimental_sets: ExperimentalSets) -> list[Concept]:
        """The concepts of the sets, each once; a new object takes the place of an older one with its id."""
        if not len(experimental_sets):
            raise InputError("experimental_sets: empty; give at least one set of two concepts")
        owner: dict[int, Concept] = {}
        for members in experimental_sets:
            for concept in members:
                assert owner.setdefault(concept.id, concept) is concept, (  # noqa: S101 - what Captum raises
                    f"two concepts have the id {concept.id}; give each its own, and reuse the Concept object"
                )
            ids = {concept.id for concept in members}
            if len(ids) < len(members) or (len(ids) < 2 and isinstance(self.classifier, CaptumSGD)):
                raise InputError(f"experimental_sets: {shown(members)} needs at least two concepts, each once")
        others = {concept for concept in self.concepts if concept.id not in owner}
        self.concepts: set[Concept] = others | set(owner.values())
        return list(owner.values())

    @staticmethod
    def _key_of(*settings: object) -> str:
        """Of settings as they are now (of a classifier: before any fit); unique where they cannot be read."""
        try:
            return fingerprint("captum_concepts cavs 2", *settings)
        except Unhashable:
            return uuid.uuid4().hex

    def _keys(self, experimental_sets: ExperimentalSets, layer: str) -> list[str]:
        """Of each set's CAV at a layer: the hash of data, names, classifier and settings."""
        concepts = dict.fromkeys(concept for members in experimental_sets for concept in members)
        parts = {c: f"{c.id}\0{c.name}\0{self._rows.digest(c)}" for c in concepts}
        own = (self.method, self.seed) if self._batched else ()
        context = self._classifier_key + self._key_of(self._batched, own, self.classifier_kwargs) + layer
        if self._batched and self.method == "lda":  # its covariance is that of all rows of the call
            context += " ".join(sorted(parts.values()))
        start = hashlib.sha256(context.encode("utf-8", "surrogatepass")).hexdigest()
        texts = ("\0\0".join([start, *(parts[concept] for concept in members)]) for members in experimental_sets)
        return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]

    def _recall(self, experimental_sets: ExperimentalSets, namespace: str) -> dict[str, list[int]]:
        """Put the CAVs that memory or the folder has for these data into ``self.cavs``; the sets that lack one."""
        names = [concepts_to_str(members) for members in experimental_sets]
        missing: dict[str, list[int]] = {}
        for layer in self.layers:
            keys = self._keys(experimental_sets, layer)
            absent = [
                number
                for number, (name, key) in enumerate(zip(names, keys, strict=True))
                if self._made.get((name, layer)) != namespace + key or layer not in self.cavs.get(name, {})
            ]
            kept = self._shelf.get(_shelf_name(namespace, layer), [keys[number] for number in absent])
            for number in absent:
                if keys[number] in kept:
                    self._keep(experimental_sets[number], layer, kept[keys[number]], namespace + keys[number])
            missing[layer] = [number for number in absent if keys[number] not in kept]
        return missing

    def _keep(self, members: Sequence[Concept], layer: str, stats: dict[str, Any], made: str) -> None:
        name = concepts_to_str(members)
        self.cavs[name][layer] = CAV(list(members), layer, stats, self.save_path, self.model_id)
        self._made[name, layer] = made

    def _fit_each(self, experimental_sets: ExperimentalSets, missing: Mapping[str, list[int]], namespace: str) -> None:
        """One fit after the other, in Captum's order: sets outside, layers inside."""
        lacking = {(number, layer) for layer, numbers in missing.items() for number in numbers}
        order = [(n, layer) for n in range(len(experimental_sets)) for layer in self.layers if (n, layer) in lacking]
        if not isinstance(self.classifier, CaptumSGD):
            self._export({concept: self.layers for n, _ in order for concept in experimental_sets[n]})
        keys = {layer: self._keys(experimental_sets, layer) for layer in self.layers}
        fresh: dict[str, dict[str, dict[str, Any]]] = {layer: {} for layer in self.layers}
        for done, (number, layer) in enumerate(order, 1):
            stats = self._fit_one(experimental_sets[number], layer, namespace)
            fresh[layer][keys[layer][number]] = stats
            self._keep(experimental_sets[number], layer, stats, namespace + keys[layer][number])
            self._tell("fitting CAVs", done, len(order))
        for layer, found in fresh.items():
            self._shelf.put(_shelf_name(namespace, layer), found)

    def _fit_batched(
        self, experimental_sets: ExperimentalSets, missing: Mapping[str, list[int]], namespace: str
    ) -> None:
        """All sets of a layer at once, layer after layer."""
        options = dict(self.classifier_kwargs)
        ratio = options.pop("test_split_ratio", 0.33)
        for layer, lacking in missing.items():
            if not lacking:
                continue
            chosen = [sorted(experimental_sets[number], key=lambda concept: concept.id) for number in lacking]
            context = experimental_sets if self.method == "lda" else chosen
            concepts = sorted({c for members in context for c in members}, key=lambda concept: concept.id)
            place = {concept: number for number, concept in enumerate(concepts)}
            rows, counts = self._rows.rows(namespace, layer, concepts)
            held = held_out([concept.identifier for concept in concepts], counts, ratio, self.seed)
            blocks = Blocks(rows.to(device_of(self.model)), counts, held)
            sets = [[place[concept] for concept in members] for members in chosen]
            keys = self._keys(experimental_sets, layer)
            done = 0
            for found in fit_sets(blocks, sets, self.method, chunk_bytes=self.chunk_bytes, **options):
                fresh: dict[str, dict[str, Any]] = {}
                # On the CPU, as those are that come from the folder.
                weights, biases, accuracy = found.weights.cpu(), found.biases.cpu(), found.accuracy.cpu()
                for position, number in enumerate(found.numbers):
                    stats = {
                        "weights": weights[position],
                        "classes": [concept.id for concept in chosen[number]],
                        "biases": biases[position],
                        "accs": accuracy[position],
                    }
                    key = keys[lacking[number]]
                    fresh[key] = stats
                    self._keep(experimental_sets[lacking[number]], layer, stats, namespace + key)
                self._shelf.put(_shelf_name(namespace, layer), fresh)
                done += len(found.numbers)
                self._tell(f"fitting CAVs of {layer}", done, len(lacking))

    def _fit_one(self, members: Sequence[Concept], layer: str, namespace: str) -> dict[str, Any]:
        device = device_of(self.model)
        parts = [
            (rows.to(device), torch.full((len(rows),), concept.id, device=device))
            for concept in members
            for rows in self._rows.batches(namespace, layer, concept)
        ]
        classifier = cast(Classifier, self.classifier)
        if isinstance(classifier, CaptumSGD):
            labels = torch.cat([labels for _, labels in parts])
            stats = classifier.fit([rows for rows, _ in parts], labels, **self.classifier_kwargs)
            stats["biases"] = classifier.biases()
        else:
            loader: DataLoader = DataLoader(parts, collate_fn=lambda items: items[0])  # type: ignore[arg-type]
            stats = classifier.train_and_eval(loader, **self.classifier_kwargs) or {}
        weights, classes = classifier.weights(), classifier.classes()
        if weights is None or not len(weights) or classes is None or not len(classes):
            raise InputError(f"classifier {type(classifier).__name__} gave no weights or no classes")
        return {"weights": weights, "classes": getattr(classes, "tolist", lambda: classes)(), **stats}


def _shelf_name(namespace: str, layer: str) -> str:
    return "cavs-" + hashlib.sha256(f"{namespace} {layer}".encode("utf-8", "surrogatepass")).hexdigest()
