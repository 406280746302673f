"""``BatchedTCAV``: Captum's ``TCAV``, with the same constructor, calls and results, without its waste and its faults.

What is the same, what differs and which of Captum's issues are avoided: docs/explanation/coming-from-captum.md.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
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

from captum_concepts.captum_sgd import CaptumSGD
from captum_concepts.cav_shelf import CavShelf
from captum_concepts.concept_rows import ConceptRows, Progress, model_key
from captum_concepts.errors import InputError, shown
from captum_concepts.fingerprints import Unhashable, fingerprint
from captum_concepts.layer_rows import (
    device_of,
    evaluation,
    input_batches,
    layer_gradients,
    layer_rows,
    method_gradients,
)
from captum_concepts.layers import find_layer
from captum_concepts.resampling import METHODS, Blocks, fit_sets, held_out
from captum_concepts.set_scores import Stack, Totals, stacks

MODES = ("fast", "exact")
Scores = dict[str, dict[str, dict[str, Tensor]]]
PerInput = dict[str, dict[str, Tensor]]
ExperimentalSets = Sequence[Sequence[Concept]]


class BatchedTCAV(TCAV):
    """A drop-in for ``captum.concept.TCAV``.

    ``mode="fast"`` fits all classifiers of a layer at once on the model's device and draws nothing from global random
    numbers. ``mode="exact"`` gives what Captum 0.9.0 gives: its classifier, one set after the other, with the same
    random numbers, so that CAVs are equal bit by bit. A classifier given by the user is called for each set, as in
    Captum, in either mode.

    Args:
        model, layers, model_id, layer_attr_method, attribute_to_layer_input: as in Captum. ``"gru:1"`` names the second
            tensor of a layer with a tuple output.
        classifier: a Captum ``Classifier``; None takes the one of the mode.
        save_path: folder for activations and CAVs. What lies there is used again if the model, the data, the layer, the
            classifier, its settings and the seed are the same.
        mode: "fast" or "exact".
        method: of the fast mode: "logistic", "pattern" or "lda", see ``resampling.fit_sets``.
        seed: of the rows that the fast mode holds out; not used by the exact mode, as Captum has none.
        batch_size: explained inputs per pass; None is 32 in the fast mode and all at once, as Captum does, in the exact
            one.
        chunk_bytes: bound of the working memory of fits and scores, beside the activations and the CAVs themselves.
        temperature: of an added smooth score, mean of sigmoid(derivative along the unit CAV / temperature), which tends
            to the sign count as it goes to 0; None leaves the score out.
        progress: called with (stage, done, in all).
        classifier_kwargs: passed to the classifier; ``test_split_ratio`` (0.33) and, in the fast mode, ``C`` of
            "logistic" and ``shrinkage`` of "lda".

    The fast mode runs the model in evaluation mode, the exact mode, as Captum, in the mode it is in.

    Raises:
        InputError: unknown mode, method, option or layer.
    """

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
        self._settings = self._settings_key(classifier)
        folder = Path(self.save_path) / model_id / "store"
        self._rows = ConceptRows(folder, of_input=attribute_to_layer_input, evaluate=mode == "fast")
        self._shelf = CavShelf(self._rows.store)
        self._made: dict[tuple[str, str], str] = {}

    # Activations ----------------------------------------------------------------------------------------------

    def generate_all_activations(self) -> None:
        """Compute the activations of all ``self.concepts`` at all layers, and write them where Captum's ``AV`` looks.

        The files are plain tensors for other tools; this class never reads them.
        """
        self._export(dict.fromkeys(self.concepts, self.layers))

    def generate_activation(self, layers: str | list[str], concept: Concept) -> None:
        """As ``generate_all_activations``, for one concept and some layers."""
        self._export({concept: [layers] if isinstance(layers, str) else layers})

    def generate_activations(self, concept_layers: dict[Concept, list[str]]) -> None:
        """As ``generate_all_activations``, for some concepts and the layers given for each."""
        self._export(concept_layers)

    def _export(self, concept_layers: Mapping[Concept, Sequence[str]]) -> None:
        namespace = self._namespace()
        for concept, layers in concept_layers.items():
            self._rows.ensure(self.model, namespace, layers, [concept])
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
        self._rows.ensure(self.model, namespace, (), concepts)
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
        self._rows.ensure(self.model, namespace, (), concepts)
        everything = range(len(experimental_sets))
        missing = {layer: list(everything) for layer in self.layers}
        if not force_train:
            missing = self._recall(experimental_sets, namespace)
        wanted: dict[Concept, list[str]] = defaultdict(list)
        for layer, numbers in missing.items():
            for concept in dict.fromkeys(c for number in numbers for c in experimental_sets[number]):
                wanted[concept].append(layer)
        for done, (concept, layers) in enumerate(wanted.items(), 1):
            self._rows.ensure(self.model, namespace, layers, [concept])
            self._tell("listening to concepts", done, len(wanted))
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

    def _settings_key(self, classifier: Classifier | None) -> str:
        """Of the classifier as it was given, before any fit; unique where it cannot be read."""
        own = (self.method, self.seed) if self._batched else ()
        try:
            return fingerprint("captum_concepts cavs 1", self._batched, own, classifier, self.classifier_kwargs)
        except Unhashable:
            return uuid.uuid4().hex

    def _keys(self, experimental_sets: ExperimentalSets, layer: str) -> list[str]:
        """Of each set's CAV at a layer: the hash of data, names, classifier and settings."""
        concepts = dict.fromkeys(concept for members in experimental_sets for concept in members)
        parts = {c: f"{c.id}\0{c.name}\0{self._rows.digest(c)}" for c in concepts}
        context = self._settings + layer
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
                for position, number in enumerate(found.numbers):
                    stats = {
                        "weights": found.weights[position],
                        "classes": [concept.id for concept in chosen[number]],
                        "biases": found.biases[position],
                        "accs": found.accuracy[position],
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

    # Scores ---------------------------------------------------------------------------------------------------

    def interpret(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        target: Any = None,
        additional_forward_args: Any = None,
        processes: int | None = None,
        **kwargs: Any,
    ) -> Scores:
        """Scores of one target, as Captum's ``TCAV.interpret`` gives them.

        Args:
            inputs: (N, ...) or a tuple of such, one per argument of the model.
            experimental_sets: lists of concepts.
            target: as in Captum: an int, a tuple, or one per input in a list or tensor; None for one output.
            additional_forward_args: passed to the model after the inputs.
            processes: as in ``compute_cavs``.
            kwargs: passed to the ``layer_attr_method`` given to the constructor.

        Returns:
            {"0-1": {layer: {"sign_count": (C,), "magnitude": (C,)}}}, float32 on the model's device, keys and columns
            in the caller's order; with a ``temperature`` also "smooth" (C,).

        Raises:
            AssertionError, InputError: as in ``compute_cavs``; a target that does not depend on a layer.
        """
        found = self.interpret_targets(
            inputs, experimental_sets, [target], additional_forward_args, processes, **kwargs
        )
        return found[0]

    def interpret_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        targets: Sequence[Any],
        additional_forward_args: Any = None,
        processes: int | None = None,
        **kwargs: Any,
    ) -> list[Scores]:
        """What ``interpret`` gives for each of the targets, from one forward pass for all of them.

        Args:
            targets: each as in ``interpret``.

        Returns:
            One result for each target, in their order.
        """
        self._check_call(targets, kwargs)
        self.compute_cavs(experimental_sets, processes=processes)
        names = [concepts_to_str(members) for members in experimental_sets]
        results: list[Scores] = [{name: {} for name in names} for _ in targets]
        totals = {layer: Totals(self.temperature) for layer in self.layers}
        for _, gradients in self._gradient_blocks(inputs, targets, additional_forward_args, kwargs):
            for layer, values in gradients.items():
                totals[layer].begin(values.shape[1])
                for position, stack in enumerate(self._stacks(experimental_sets, layer, values)):
                    totals[layer].add(position, stack, stack.along(values))
        for layer in self.layers:
            for target, number, scores in totals[layer].means():
                results[target][names[number]][layer] = scores
        return results

    def iter_sensitivities(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        targets: Sequence[Any],
        additional_forward_args: Any = None,
        **kwargs: Any,
    ) -> Iterator[tuple[slice, PerInput]]:
        """Directional derivatives of every input, in blocks of inputs, so that memory stays bounded.

        CAVs that are there already are used as they are; only missing ones are fitted.

        Args:
            inputs, experimental_sets, targets, additional_forward_args, kwargs: as in ``interpret_targets``.

        Yields:
            the inputs (a slice) and {"0-1": {layer: (inputs, T, C)}}, whose means over the inputs are the magnitudes.
        """
        self._check_call(targets, kwargs)
        self.compute_cavs(experimental_sets)
        names = [concepts_to_str(members) for members in experimental_sets]
        for rows, gradients in self._gradient_blocks(inputs, targets, additional_forward_args, kwargs):
            found: PerInput = {name: {} for name in names}
            for layer, values in gradients.items():
                for stack in self._stacks(experimental_sets, layer, values):
                    for number, part in zip(stack.numbers, stack.along(values).unbind(2), strict=True):
                        found[names[number]][layer] = part.transpose(0, 1)
            yield rows, found

    def sensitivities(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        targets: Sequence[Any],
        additional_forward_args: Any = None,
        **kwargs: Any,
    ) -> PerInput:
        """``iter_sensitivities`` put together: {"0-1": {layer: (N, T, C)}} for all N inputs."""
        blocks = self.iter_sensitivities(inputs, experimental_sets, targets, additional_forward_args, **kwargs)
        return _joined([found for _, found in blocks])

    def presence(self, inputs: Tensor | tuple[Tensor, ...], experimental_sets: ExperimentalSets) -> PerInput:
        """How much each input shows each concept, by the classifiers behind the CAVs.

        CAVs that are there already are used as they are; only missing ones are fitted.

        Returns:
            {"0-1": {layer: (N, C)}}, sigmoid of the classifier's output: a probability for "logistic"; 0.5 lies on the
            boundary between the concepts for every method.

        Raises:
            InputError: a user's classifier, which tells no intercepts.
        """
        self.compute_cavs(experimental_sets)
        names = [concepts_to_str(members) for members in experimental_sets]
        blocks = []
        for _, batch, _, _ in input_batches(inputs, (), None, self.batch_size):
            with evaluation(self.model, self.mode == "fast"):
                found = layer_rows(self.model, batch, self.layers, of_input=self.attribute_to_layer_input)
            block: PerInput = {name: {} for name in names}
            for layer, rows in found.items():
                for stack in self._stacks(experimental_sets, layer, rows[None]):
                    logits = stack.along(rows[None])[0]
                    for place, number in enumerate(stack.numbers):
                        bias = self._bias(names[number], layer).to(logits)[stack.columns[place]]
                        block[names[number]][layer] = torch.sigmoid(logits[:, place] + bias)
            blocks.append(block)
        return _joined(blocks)

    def _bias(self, name: str, layer: str) -> Tensor:
        stats = cast(dict[str, Any], self.cavs[name][layer].stats)
        if "biases" not in stats:
            raise InputError(
                f"classifier {type(self.classifier).__name__} tells no intercepts, so there is no presence; add "
                '{"biases": (C,) tensor} to what train_and_eval returns'
            )
        return cast(Tensor, stats["biases"])

    def _check_call(self, targets: Sequence[Any], options: Mapping[str, Any]) -> None:
        if not len(targets):
            raise InputError("targets: empty; give at least one, None for a model with one output")
        if "attribute_to_layer_input" in options:
            raise InputError("attribute_to_layer_input is an argument of the constructor, for CAVs and scores alike")
        if options and self._given_method is None:
            raise InputError(f"{next(iter(options))}: the default layer_attr_method takes no options")

    def _stacks(self, experimental_sets: ExperimentalSets, layer: str, values: Tensor) -> Iterator[Stack]:
        stats = [cast(dict[str, Any], self.cavs[concepts_to_str(m)][layer].stats) for m in experimental_sets]
        ids = [[concept.id for concept in members] for members in experimental_sets]
        rows = values.shape[0] * values.shape[1]
        return stacks(stats, ids, rows, values.device, self.chunk_bytes)

    def _gradient_blocks(
        self, inputs: Any, targets: Sequence[Any], additional_forward_args: Any, options: Mapping[str, Any]
    ) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Gradients {layer: (T, N, F)} of as many batches of inputs as fit into ``chunk_bytes``."""
        start, held = 0, 0
        parts: list[dict[str, Tensor]] = []
        rows = slice(0, 0)
        for rows, batch, wanted, more in input_batches(inputs, targets, additional_forward_args, self.batch_size):
            found = self._gradients(batch, wanted, more, options)
            held += sum(values.nbytes for values in found.values())
            parts.append(found)
            if held >= self.chunk_bytes:
                yield slice(start, rows.stop), {layer: torch.cat([p[layer] for p in parts], 1) for layer in self.layers}
                start, held, parts = rows.stop, 0, []
        if parts:
            yield slice(start, rows.stop), {layer: torch.cat([p[layer] for p in parts], 1) for layer in self.layers}

    def _gradients(
        self, batch: tuple[Tensor, ...], targets: Sequence[Any], more: Any, options: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        with evaluation(self.model, self.mode == "fast"):
            if self._given_method is None:
                found = layer_gradients(
                    self.model, batch, self.layers, targets, more, of_input=self.attribute_to_layer_input
                )
                return {layer: torch.stack(values) for layer, values in found.items()}
            return {
                layer: torch.stack(
                    [
                        method_gradients(
                            self.layer_attr_method,
                            self.model,
                            batch if len(batch) > 1 else batch[0],
                            layer,
                            target,
                            more,
                            of_input=self.attribute_to_layer_input,
                            **options,
                        )
                        for target in targets
                    ]
                )
                for layer in self.layers
            }


def _shelf_name(namespace: str, layer: str) -> str:
    return "cavs-" + hashlib.sha256(f"{namespace} {layer}".encode("utf-8", "surrogatepass")).hexdigest()


def _joined(blocks: Sequence[PerInput]) -> PerInput:
    return {
        name: {layer: torch.cat([block[name][layer] for block in blocks]) for layer in layers}
        for name, layers in blocks[0].items()
    }
