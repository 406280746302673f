"""The CAVs of ``BatchedTCAV``: fitted all at once, or one by one as in Captum; used again only where they fit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from captum._utils.av import AV
from captum.attr import LayerAttribution
from captum.concept import CAV, TCAV, Classifier, Concept
from captum.concept._utils.common import concepts_to_str
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captum_concepts.backbones.layers import find_layer
from captum_concepts.errors import InputError
from captum_concepts.tcav.captum_sgd import CaptumSGD
from captum_concepts.tcav.cav_store import CAVCopy, CavStore
from captum_concepts.tcav.concept_activations import ConceptRows, ObjectTokens, cache_key
from captum_concepts.tcav.layer_activations import device_of
from captum_concepts.tcav.set_fits import METHODS, PRECISIONS, Blocks, SetFits, fit_sets, held_out
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

MODES = ("fast", "exact")
ExperimentalSets = Sequence[Sequence[Concept]]
Missing = Mapping[str, list[int]]
_log = logging.getLogger(__name__)
_MIN_SHARD = 2**20  # bytes; each one waits for the disk
_LONGEST_NAME = 255  # bytes of a file name, on all file systems in use


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
        precision: str = "float32",
        batch_size: int | None = None,
        chunk_bytes: int = 2**28,
        temperature: float | None = None,
        progress: Progress | None = None,
        **classifier_kwargs: Any,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"mode={short_repr(mode)} is not known; use {' or '.join(MODES)}")
        if method not in METHODS:
            raise InputError(f"method={short_repr(method)} is not known; use {', '.join(METHODS)}")
        if precision not in PRECISIONS:
            raise InputError(f"precision={short_repr(precision)} is not known; use {', '.join(PRECISIONS)}")
        if precision != "float32" and (mode != "fast" or classifier is not None):
            raise InputError(f"precision={precision!r} is an option of mode='fast' without a classifier of your own")
        if temperature is not None and not temperature > 0:
            raise InputError(f"temperature={short_repr(temperature)} must be positive, or None for no smooth score")
        super().__init__(
            model,
            [layers] if isinstance(layers, str) else list(dict.fromkeys(layers)),
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
        self.precision = precision
        self.batch_size = batch_size if batch_size is not None or mode == "exact" else 32
        self.chunk_bytes = chunk_bytes
        self.temperature = temperature
        self.progress = progress
        self._given_method = layer_attr_method
        self._default = self.classifier if classifier is None else None
        self._stand_ins = ObjectTokens()
        self._unfitted = self._left = ""  # keys of the classifier before and after its own last fits
        folder = Path(self.save_path) / model_id / "store"
        self._rows = ConceptRows(folder)
        self._shelf = CavStore(self._rows.store)
        self._made: dict[tuple[str, str], str] = {}
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}

    @property
    def _batched(self) -> bool:
        return self.mode == "fast" and self.classifier is self._default

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
        for concept in concept_layers:
            if not _is_folder_name(concept.identifier):
                raise InputError(
                    f"concept {short_repr(concept.name)}: cannot be the name of a folder, where activation files "
                    "were asked "
                    f"for; give it a name without slashes, of at most {_LONGEST_NAME} bytes with its id"
                )
        self._write_files(concept_layers)

    def _write_files(self, concept_layers: Mapping[Concept, Sequence[str]]) -> None:
        namespace = self._namespace()
        # All layers at once, as an iterator can be read only once.
        wanted = {concept: [*dict.fromkeys([*self.layers, *layers])] for concept, layers in concept_layers.items()}
        self._rows.ensure(self.model, namespace, wanted)
        for concept, layers in concept_layers.items():
            for layer in layers:
                folder = Path(self.save_path, AV.AV_DIR_NAME, self.model_id, concept.identifier, layer)
                if folder.is_dir():
                    for stale in folder.glob("*.pt"):
                        stale.unlink()
                for number, rows in enumerate(self._rows.batches(namespace, layer, concept)):
                    AV.save(self.save_path, self.model_id, concept.identifier, layer, rows.clone(), str(number))

    def _namespace(self) -> str:
        """Of the activations: by all that decides what the model computes."""
        self._rows.of_input, self._rows.evaluate = self.attribute_to_layer_input, self.mode == "fast"
        training = [module.training for module in self.model.modules()] if self.mode == "exact" else []
        return cache_key(self._stand_ins, self.model, self.attribute_to_layer_input, training)

    # CAVs -----------------------------------------------------------------------------------------------------

    def load_cavs(self, concepts: list[Concept]) -> tuple[list[str], dict[Concept, list[str]]]:
        """Take the CAVs of one set from the folder, where they are there for these data.

        Returns:
            the layers without a CAV, and for each concept the layers at which it is then needed.
        """
        namespace = self._namespace()
        layers: Sequence[str] = self.layers
        self._rows.ensure(self.model, namespace, dict.fromkeys(concepts, layers))
        missing = self._recall([concepts], namespace, self._settings())
        left = [layer for layer in self.layers if missing[layer]]
        return left, {concept: list(left) for concept in concepts} if left else {}

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
            accuracy) and, with the classifiers of this package, "biases" (C,); it is a copy.

        Raises:
            AssertionError: two concepts of the sets have the same id (as in Captum).
            InputError: no set, a set of fewer than two concepts or with one twice, a concept without data, or
                activations that the classifier cannot take.
        """
        concepts = self._register(experimental_sets)
        if force_train:
            self._rows.forget(concepts)
            self._stand_ins = ObjectTokens()
        namespace, settings = self._namespace(), self._settings()
        layers: Sequence[str] = self.layers
        self._rows.ensure(self.model, namespace, dict.fromkeys(concepts, layers), self.progress)
        missing: Missing = {layer: list(range(len(experimental_sets))) for layer in self.layers}
        if not force_train:
            missing = self._recall(experimental_sets, namespace, settings)
        if self._batched:
            self._fit_batched(experimental_sets, missing, namespace, settings)
        else:
            self._fit_each(experimental_sets, missing, namespace, settings)
            self._left = self._key_of(self.classifier)
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
                raise InputError(f"experimental_sets: {short_repr(members)} needs at least two concepts, each once")
        others = {concept for concept in self.concepts if concept.id not in owner}
        self.concepts: set[Concept] = others | set(owner.values())
        return list(owner.values())

    def _key_of(self, *settings: object) -> str:
        return cache_key(self._stand_ins, "cavs", *settings)

    def _settings(self) -> str:
        """Hash of the classifier and its options as they are now.

        Of a classifier what counts is what it was before this object fitted it: a fit leaves its result there.
        """
        if self._batched:
            return self._key_of("batched", self.method, self.seed, self.precision, self.classifier_kwargs)
        now = self._key_of(self.classifier)
        if now != self._left:
            self._unfitted = now
        return self._key_of(self._unfitted, self.classifier_kwargs)

    def _keys(self, experimental_sets: ExperimentalSets, layer: str, settings: str) -> list[str]:
        """Of each set's CAV at a layer: the hash of data, names, classifier and settings."""
        concepts = dict.fromkeys(concept for members in experimental_sets for concept in members)
        parts = {c: f"{c.id}\0{c.name}\0{self._rows.digest(c)}" for c in concepts}
        context = settings + layer
        if self._batched and self.method == "lda":  # its covariance is that of all rows of the call
            context += " ".join(sorted(parts.values()))
        start = hashlib.sha256(context.encode("utf-8", "surrogatepass")).hexdigest()
        texts = ("\0\0".join([start, *(parts[concept] for concept in members)]) for members in experimental_sets)
        return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]

    def _recall(self, experimental_sets: ExperimentalSets, namespace: str, settings: str) -> Missing:
        """Put the CAVs that memory or the folder has for these data into ``self.cavs``; the sets that lack one."""
        names = [concepts_to_str(members) for members in experimental_sets]
        missing: dict[str, list[int]] = {}
        for layer in self.layers:
            keys = self._keys(experimental_sets, layer, settings)
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
        self.cavs[name][layer] = CAVCopy(stats, list(members), layer, None, self.save_path, self.model_id)
        self._kept[name, layer], self._made[name, layer] = stats, made

    def _fit_each(self, experimental_sets: ExperimentalSets, missing: Missing, namespace: str, settings: str) -> None:
        """One fit after the other, in Captum's order: sets outside, layers inside."""
        lacking = {(number, layer) for layer, numbers in missing.items() for number in numbers}
        order = [(n, layer) for n in range(len(experimental_sets)) for layer in self.layers if (n, layer) in lacking]
        if not isinstance(self.classifier, CaptumSGD):
            asked = dict.fromkeys(concept for n, _ in order for concept in experimental_sets[n])
            unnamed = [concept.name for concept in asked if not _is_folder_name(concept.identifier)]
            if unnamed:
                _log.info("no activation files for %s: not names of folders", ", ".join(map(short_repr, unnamed)))
            self._write_files({concept: self.layers for concept in asked if concept.name not in unnamed})
        keys = {layer: self._keys(experimental_sets, layer, settings) for layer in self.layers}
        fresh: dict[str, dict[str, dict[str, Any]]] = {layer: {} for layer in self.layers}
        for done, (number, layer) in enumerate(order, 1):
            stats = self._fit_one(experimental_sets[number], layer, namespace)
            fresh[layer][keys[layer][number]] = stats
            self._keep(experimental_sets[number], layer, stats, namespace + keys[layer][number])
            self._tell("fitting CAVs", done, len(order))
        for layer, found in fresh.items():
            self._shelf.put(_shelf_name(namespace, layer), found)

    def _fit_batched(
        self, experimental_sets: ExperimentalSets, missing: Missing, namespace: str, settings: str
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
            _check_rows(rows, counts, concepts, layer)
            held = held_out([concept.identifier for concept in concepts], counts, ratio, self.seed)
            blocks = Blocks(rows.to(device_of(self.model)), counts, held)
            sets = [[place[concept] for concept in members] for members in chosen]
            keys = self._keys(experimental_sets, layer, settings)
            done = held_bytes = 0
            fresh: dict[str, dict[str, Any]] = {}
            for found in self._fits(blocks, sets, options):
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
                done += len(found.numbers)
                held_bytes += weights.nbytes
                if held_bytes >= max(self.chunk_bytes // 4, _MIN_SHARD) or done == len(lacking):
                    self._shelf.put(_shelf_name(namespace, layer), fresh)
                    held_bytes, fresh = 0, {}
                self._tell(f"fitting CAVs of {layer}", done, len(lacking))

    def _fits(self, blocks: Blocks, sets: Sequence[Sequence[int]], options: Mapping[str, Any]) -> Iterator[SetFits]:
        return fit_sets(blocks, sets, self.method, chunk_bytes=self.chunk_bytes, precision=self.precision, **options)

    def _fit_one(self, members: Sequence[Concept], layer: str, namespace: str) -> dict[str, Any]:
        device = device_of(self.model)
        parts = [
            (rows.to(device), torch.full((len(rows),), concept.id, device=device), concept)
            for concept in members
            for rows in self._rows.batches(namespace, layer, concept)
        ]
        classifier = cast(Classifier, self.classifier)
        if isinstance(classifier, CaptumSGD):
            for rows, _, concept in parts:
                _check_rows(rows, [len(rows)], [concept], layer)
                if rows.dtype == torch.bfloat16:
                    raise InputError(
                        f"concept {short_repr(concept.name)}, layer {short_repr(layer)}: activations in bfloat16, "
                        "which "
                        "scikit-learn does not take; use mode='fast'"
                    )
            labels = torch.cat([labels for _, labels, _ in parts])
            stats = classifier.fit([rows for rows, _, _ in parts], labels, **self.classifier_kwargs)
            stats["biases"] = classifier.biases()
        else:
            batches = [(rows, labels) for rows, labels, _ in parts]
            loader: DataLoader = DataLoader(batches, collate_fn=lambda items: items[0])  # type: ignore[arg-type]
            stats = classifier.train_and_eval(loader, **self.classifier_kwargs) or {}
        weights, classes = classifier.weights(), classifier.classes()
        if weights is None or not len(weights) or classes is None or not len(classes):
            raise InputError(f"classifier {type(classifier).__name__} gave no weights or no classes")
        # A copy, as its next fit may write into the same tensor.
        weights = weights.detach().clone()
        return {"weights": weights, "classes": list(getattr(classes, "tolist", lambda: classes)()), **stats}


def _check_rows(rows: Tensor, counts: Sequence[int], concepts: Sequence[Concept], layer: str) -> None:
    if torch.isfinite(rows).all():
        return
    for part, concept in zip(rows.split(list(counts)), concepts, strict=True):
        if not torch.isfinite(part).all():
            bad = int((~torch.isfinite(part)).any(1).sum())
            raise InputError(
                f"concept {short_repr(concept.name)}, layer {short_repr(layer)}: NaN or infinite activations in "
                f"{bad} of "
                f"{len(part)} rows; drop the examples they come from"
            )


def _is_folder_name(name: str) -> bool:
    """Whether a path with this name in it leads one folder down, and not elsewhere."""
    one = len(Path(name).parts) == 1 and name not in (".", "..") and "\0" not in name
    return one and len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME


def _shelf_name(namespace: str, layer: str) -> str:
    return "cavs-" + hashlib.sha256(f"{namespace} {layer}".encode("utf-8", "surrogatepass")).hexdigest()
