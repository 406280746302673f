"""``BatchedTCAV``: Captum's ``TCAV``, with the same constructor, calls and results, without its waste and its faults.

What is the same, what differs and which of Captum's issues are avoided: docs/explanation/coming-from-captum.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from captum.concept._utils.common import concepts_to_str
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.tcav.batched_cavs import BatchedCAVs, ExperimentalSets
from captum_concepts.tcav.layer_activations import (
    InputBatch,
    evaluation,
    input_batches,
    layer_gradients,
    layer_rows,
    method_gradients,
)
from captum_concepts.tcav.scores import Stack, Totals, stacks

Scores = dict[str, dict[str, dict[str, Tensor]]]
PerInput = dict[str, dict[str, Tensor]]


class _Taken(NamedTuple):
    """CAVs of one layer: ``stats`` of each set, and the ids of its concepts in the caller's order."""

    stats: list[dict[str, Any]]
    ids: list[list[int]]


class BatchedTCAV(BatchedCAVs):
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
        method: of the fast mode: "logistic", "pattern" or "lda", see ``tcav.fit_sets``.
        seed: of the rows that the fast mode holds out; not used by the exact mode, as Captum has none.
        precision: of inner products of rows in the fast mode's "logistic": "float32", "float64" or "bfloat16" (faster
            on a GPU; cosine to the exact direction better than 0.999 on well-scaled rows).
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

    def interpret(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        target: Any = None,
        additional_forward_args: Any = None,
        processes: int | None = None,
        *,
        force_train: bool = False,
        **kwargs: Any,
    ) -> Scores:
        """Scores of one target, as Captum's ``TCAV.interpret`` gives them.

        Args:
            inputs: (N, ...) or a tuple of such, one per argument of the model.
            experimental_sets: lists of concepts.
            target: as in Captum: an int, a tuple, or one per input in a list or tensor; None for one output.
            additional_forward_args: passed to the model after the inputs.
            processes, force_train: as in ``compute_cavs``.
            kwargs: passed to the ``layer_attr_method`` given to the constructor.

        Returns:
            {"0-1": {layer: {"sign_count": (C,), "magnitude": (C,)}}}, float32 on the model's device (float64 for a
            model in double precision), keys and columns in the caller's order; with a ``temperature`` also "smooth"
            (C,).

        Raises:
            AssertionError, InputError: as in ``compute_cavs``; a target that the output lacks or that does not depend
                on a layer.
        """
        given = (additional_forward_args, processes)
        return self.interpret_targets(inputs, experimental_sets, [target], *given, force_train=force_train, **kwargs)[0]

    def interpret_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        experimental_sets: ExperimentalSets,
        targets: Sequence[Any],
        additional_forward_args: Any = None,
        processes: int | None = None,
        *,
        force_train: bool = False,
        **kwargs: Any,
    ) -> list[Scores]:
        """What ``interpret`` gives for each of the targets, from one forward pass for all of them.

        Args:
            targets: each as in ``interpret``.

        Returns:
            One result for each target, in their order.
        """
        self._check_call(targets, kwargs)
        self.compute_cavs(experimental_sets, force_train, processes)
        taken = self._taken(experimental_sets)
        names = [concepts_to_str(members) for members in experimental_sets]
        results: list[Scores] = [{name: {} for name in names} for _ in targets]
        totals = {layer: Totals(self.temperature) for layer in self.layers}
        most: dict[str, int] = {}
        for _, gradients in self._gradient_blocks(inputs, targets, additional_forward_args, kwargs):
            for layer, values in gradients.items():
                totals[layer].begin(values.shape[1])
                # The first block is the largest: cut by it, the stacks are the same ones in every block.
                rows = most.setdefault(layer, values.shape[0] * values.shape[1])
                for position, stack in enumerate(self._stacks(taken[layer], values, rows)):
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

        CAVs that are there already are used as they are; only missing ones are fitted. They are taken once, before the
        first block.

        Args:
            inputs, experimental_sets, targets, additional_forward_args, kwargs: as in ``interpret_targets``.

        Yields:
            the inputs (a slice) and {"0-1": {layer: (inputs, T, C)}}, whose means over the inputs are the magnitudes.
        """
        self._check_call(targets, kwargs)
        self.compute_cavs(experimental_sets)
        taken = self._taken(experimental_sets)
        names = [concepts_to_str(members) for members in experimental_sets]
        for rows, gradients in self._gradient_blocks(inputs, targets, additional_forward_args, kwargs):
            found: PerInput = {name: {} for name in names}
            for layer, values in gradients.items():
                for stack in self._stacks(taken[layer], values):
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
        taken = self._taken(experimental_sets)
        names = [concepts_to_str(members) for members in experimental_sets]
        blocks = []
        for batch in input_batches(inputs, (), None, self.batch_size):
            with evaluation(self.model, self.mode == "fast"):
                found = layer_rows(self.model, batch.inputs, self.layers, of_input=self.attribute_to_layer_input)
            block: PerInput = {name: {} for name in names}
            for layer, rows in found.items():
                for stack in self._stacks(taken[layer], rows[None]):
                    logits = stack.along(rows[None])[0]
                    for place, number in enumerate(stack.numbers):
                        bias = self._bias(taken[layer].stats[number]).to(logits)[stack.columns[place]]
                        block[names[number]][layer] = torch.sigmoid(logits[:, place] + bias)
            blocks.append(block)
        return _joined(blocks)

    def _bias(self, stats: Mapping[str, Any]) -> Tensor:
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
            raise InputError("attribute_to_layer_input is an argument of the constructor, for CAVs as for scores")
        if options and self._given_method is None:
            raise InputError(f"{next(iter(options))}: the default layer_attr_method takes no options")

    def _taken(self, experimental_sets: ExperimentalSets) -> dict[str, _Taken]:
        """The CAVs of the sets as they are now, by layer."""
        names = [concepts_to_str(members) for members in experimental_sets]
        ids = [[concept.id for concept in members] for members in experimental_sets]
        return {layer: _Taken([self._kept[name, layer] for name in names], ids) for layer in self.layers}

    def _stacks(self, taken: _Taken, values: Tensor, rows: int | None = None) -> Iterator[Stack]:
        rows = values.shape[0] * values.shape[1] if rows is None else rows
        return stacks(taken.stats, taken.ids, rows, values, self.chunk_bytes)

    def _gradient_blocks(
        self, inputs: Any, targets: Sequence[Any], additional_forward_args: Any, options: Mapping[str, Any]
    ) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Gradients {layer: (T, N, F)} of as many batches of inputs as fit into ``chunk_bytes``."""
        start = stop = held = 0
        parts: list[dict[str, Tensor]] = []

        def joined() -> tuple[slice, dict[str, Tensor]]:
            return slice(start, stop), {layer: torch.cat([part[layer] for part in parts], 1) for layer in self.layers}

        for batch in input_batches(inputs, targets, additional_forward_args, self.batch_size, options):
            found = self._gradients(batch)
            stop = batch.rows.stop
            held += sum(values.nbytes for values in found.values())
            parts.append(found)
            if held >= self.chunk_bytes:
                yield joined()
                start, held, parts = stop, 0, []
        if parts:
            yield joined()

    def _gradients(self, batch: InputBatch) -> dict[str, Tensor]:
        of_input = self.attribute_to_layer_input
        with evaluation(self.model, self.mode == "fast"):
            if self._given_method is None:
                rows = layer_gradients(
                    self.model, batch.inputs, self.layers, batch.targets, batch.more, of_input=of_input
                )
                return {layer: torch.stack(values) for layer, values in rows.items()}
            inputs = batch.inputs if len(batch.inputs) > 1 else batch.inputs[0]
            found: dict[str, Tensor] = {}
            for layer in self.layers:
                settled = (self.layer_attr_method, self.model, inputs, layer)
                values = [
                    method_gradients(*settled, target, batch.more, of_input=of_input, **batch.options)
                    for target in batch.targets
                ]
                found[layer] = torch.stack(values)
            return found


def _joined(blocks: Sequence[PerInput]) -> PerInput:
    return {
        name: {layer: torch.cat([block[name][layer] for block in blocks]) for layer in layers}
        for name, layers in blocks[0].items()
    }
