"""Essentia's model cards: the JSON file published beside each graph, of the old and the TF2 generation."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.functions import split_reference

MAX_CARD_BYTES = 16 * 2**20
MAX_TEXT = 1000  # characters of a name or a link


@dataclass(frozen=True)
class Output:
    """An output that a card lists: the node, and its ``purpose``, "predictions", "embeddings" or ""."""

    name: str
    purpose: str


@dataclass(frozen=True)
class ModelCard:
    """What a card says, as far as running the model needs it.

    Attributes:
        name, version, link: of the model.
        classes: names of the predictions.
        algorithm: Essentia's algorithm, e.g. "TensorflowPredictMusiCNN"; "" if it is not told.
        sample_rate: Hz; None if it is not told.
        input: name of the input node; None if it is not told.
        outputs: as listed.
        embedding_model, embedding_algorithm, embedding_link: the model whose embeddings a head takes; "" for none.
        where: the card's own file, for messages.
    """

    name: str
    version: str
    link: str
    classes: tuple[str, ...]
    algorithm: str
    sample_rate: int | None
    input: str | None
    outputs: tuple[Output, ...]
    embedding_model: str = ""
    embedding_algorithm: str = ""
    embedding_link: str = ""
    where: str = "card"

    @property
    def predictions(self) -> str | None:
        """The node with the class probabilities; None if the card marks none."""
        return self._purpose("predictions")

    @property
    def embeddings(self) -> str | None:
        """The node that heads are trained on; None if the card marks none."""
        return self._purpose("embeddings")

    def named(self, **given: str | None) -> dict[str, str]:
        """Purpose ("input", "predictions", "embeddings") -> node, of those asked for that ``given`` has no name for."""
        own = {"input": self.input, "predictions": self.predictions, "embeddings": self.embeddings}
        return {purpose: name for purpose, name in own.items() if name and purpose in given and not given[purpose]}

    def check(self, named: Mapping[str, str], nodes: Container[str], graph: str) -> None:
        """Raise InputError unless the nodes that the card names (see ``named``) are in the graph."""
        for purpose, name in named.items():
            if split_reference(name)[0] not in nodes:
                raise InputError(
                    f"{self.where}: the {purpose} should be node {short_repr(name)}, which {graph} does not have: "
                    "this is "
                    "the card of another graph; give its own with card="
                )

    def _purpose(self, purpose: str) -> str | None:
        return next((output.name for output in self.outputs if output.purpose == purpose), None)


def read_card(path: str | PathLike[str]) -> ModelCard:
    """The card in a ``.json`` file.

    Raises:
        InputError: no such file, not JSON, or not a model card; the message names the key.
    """
    where = short_repr(fspath(path), 200)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_CARD_BYTES + 1)
    except (OSError, ValueError) as error:  # a zero byte in the name is no OSError
        raise InputError(f"{where}: cannot be read ({getattr(error, 'strerror', error)}); check the path") from None
    if len(content) > MAX_CARD_BYTES:
        raise InputError(f"{where}: more than {MAX_CARD_BYTES} bytes; not a model card")
    try:
        card = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not JSON; give the metadata file published beside the model") from None
    if not isinstance(card, dict) or not isinstance(card.get("schema"), dict):
        raise InputError(f"{where}: no 'schema' in it; give the metadata file published beside the model")
    return _card(card, where)


def _card(card: dict[str, Any], where: str) -> ModelCard:
    inference = _optional(card, "inference", dict, {}, where)
    head = _optional(inference, "embedding_model", dict, {}, where)
    schema = card["schema"]
    inputs = [_node(entry, where) for entry in _optional(schema, "inputs", list, [], where)]
    rate = _optional(inference, "sample_rate", (int, float), None, where)
    if rate is not None and not 0 < rate < 2**31:
        raise InputError(f"{where}: sample_rate={short_repr(rate)}: must be a positive number of Hz")
    return ModelCard(
        name=_optional(card, "name", str, "", where),
        version=str(card.get("version", ""))[:100],
        link=_optional(card, "link", str, "", where),
        classes=_classes(card, where),
        algorithm=_optional(inference, "algorithm", str, "", where),
        sample_rate=None if rate is None else int(rate),
        input=inputs[0].name if len(inputs) == 1 else None,
        outputs=tuple(_node(entry, where) for entry in _optional(schema, "outputs", list, [], where)),
        embedding_model=_optional(head, "model_name", str, "", where),
        embedding_algorithm=_optional(head, "algorithm", str, "", where),
        embedding_link=_optional(head, "link", str, "", where),
        where=where,
    )


def _classes(card: dict[str, Any], where: str) -> tuple[str, ...]:
    classes = _optional(card, "classes", list, [], where)
    if not all(isinstance(name, str) for name in classes):
        raise InputError(f"{where}: 'classes' must be a list of names, not {short_repr(classes)}")
    if len(set(classes)) < len(classes):
        raise InputError(f"{where}: 'classes' has a name twice; rename one of them")
    return tuple(classes)


def _node(entry: Any, where: str) -> Output:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise InputError(f"{where}: 'schema' has an input or output without a name: {short_repr(entry)}")
    return Output(entry["name"], _optional(entry, "output_purpose", str, "", where))


def _optional(values: dict[str, Any], key: str, kind: Any, default: Any, where: str) -> Any:
    """The value of a key that older cards lack."""
    value = values.get(key)
    if value is None:
        return default
    # Names and links are passed on in messages of one line.
    unfit = isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable())
    if not isinstance(value, kind) or isinstance(value, bool) or unfit:
        raise InputError(f"{where}: {short_repr(key)} is {short_repr(value)}, not what a model card has there")
    return value


def find_card(graph: str | PathLike[str], card: str | PathLike[str] | ModelCard | None) -> ModelCard | None:
    """The card given, else the one beside the graph; None where there is neither.

    Raises:
        InputError: see `read_card`.
    """
    if isinstance(card, ModelCard):
        return card
    beside = Path(graph).with_suffix(".json")
    if card is not None:
        return read_card(card)
    return read_card(beside) if os.path.isfile(beside) else None
