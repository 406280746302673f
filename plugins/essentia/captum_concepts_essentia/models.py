"""Read the files of a model: a graph, its card and, if there is one, a head on it."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from captum_concepts.backbones import class_names
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.cards import ModelCard, find_card
from captum_concepts_essentia.frontends import PATCHES
from captum_concepts_essentia.graphdef.functions import FlatNode, Reference, join, split_reference
from captum_concepts_essentia.importer.graph_module import GraphModule, flat_graph

SITE = "https://essentia.upf.edu/models"
LICENCE = "CC BY-NC-SA 4.0"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """What a backbone's name stands for: a file to ask for, the algorithm that its card must name, its address."""

    file: str
    algorithm: str | None
    address: str


KINDS: Mapping[str, Kind] = {
    "essentia": Kind("any of Essentia's models (.pb)", None, f"{SITE}.html"),
    "essentia-musicnn": Kind(
        "e.g. msd-musicnn-1.pb", "TensorflowPredictMusiCNN", f"{SITE}/feature-extractors/musicnn/"
    ),
    "essentia-vggish": Kind("e.g. audioset-vggish-3.pb", "TensorflowPredictVGGish", f"{SITE}.html#VGGish"),
    "essentia-effnet-discogs": Kind(
        "e.g. discogs-effnet-bs64-1.pb", "TensorflowPredictEffnetDiscogs", f"{SITE}/feature-extractors/discogs-effnet/"
    ),
    "essentia-maest": Kind("e.g. discogs-maest-30s-pw-1.pb", "TensorflowPredictMAEST", f"{SITE}.html#MAEST"),
}


@dataclass(frozen=True)
class Model:
    """Files read: a graph from patches to ``output``, and how patches are made.

    Attributes:
        path: the file of the graph that takes the patches.
        nodes: that graph, and a head's, with functions inlined.
        input, output, embedding: names of nodes; None where nothing tells.
        algorithm: Essentia's, which makes the patches.
        classes: names of the output's columns; empty if nothing tells.
        head: the head alone, if one is part of it.
        sample_rate: Hz that the card states; None if it states none.
        listed: whether a card says what the outputs are, so that one that it leaves out is not meant.
    """

    path: Path
    nodes: dict[str, FlatNode]
    input: str | None
    output: str | None
    embedding: str | None
    algorithm: str
    classes: tuple[str, ...]
    head: GraphModule | None
    sample_rate: int | None
    listed: bool


def read_model(kind: str, weights: str | PathLike[str] | None, **options: Any) -> Model:
    """The model in a user's files; ``options`` as in `captum_concepts_essentia.backbones.essentia_backbone`.

    Raises:
        InputError: a file is missing or no such model, a card does not fit, or nothing names a node that is needed.
    """
    path = _file(kind, weights)
    own = find_card(path, options.get("card"))
    if own is not None and own.embedding_model and options.get("head") is None:
        below = _embedding_file(options.get("embedding_weights"), path, own)
        as_head = {"head": path, "head_card": options.get("card"), "card": None, "embedding_weights": None}
        return read_model(kind, below, **options | as_head)
    head = None if options.get("head") is None else _file("essentia", options["head"])
    card = None if head is None else find_card(head, options.get("head_card"))
    algorithm = _algorithm(kind, path, options.get("algorithm"), own, card)
    given = {"input": options.get("input"), "embeddings": options.get("embedding")}
    if head is None:
        given["predictions"] = options.get("output")
    named = own.named(**given) if own else {}
    input, output, embedding = (given.get(key) or named.get(key) for key in ("input", "predictions", "embeddings"))
    nodes = flat_graph(path, input)
    if own is not None:
        own.check(named, nodes, path.name)
    classes = class_names(_names(options.get("classes") or ())) or (own.classes if own else ())
    rate = own.sample_rate if own else None
    if head is None:
        return Model(path, nodes, input, output, embedding, algorithm, classes, None, rate, own is not None)
    if embedding is None:
        raise InputError(
            f"{path.name}: nothing names the embedding that {head.name} takes; put its card {path.stem}.json beside "
            "it, or give embedding="
        )
    above, nodes = _with_head(path, nodes, split_reference(embedding), own, head, card, options.get("output"))
    classes = class_names(_names(options.get("classes") or ())) or (card.classes if card else ())
    output = f"head/{above.output_name}"
    return Model(path, nodes, input, output, embedding, algorithm, classes, above, rate, card is not None)


def _algorithm(kind: str, path: Path, given: str | None, card: ModelCard | None, head: ModelCard | None) -> str:
    """The one given, else the card's, else the one that a head's card says, else the one that goes with the name."""
    expected = KINDS[kind].algorithm
    algorithm = given or (card.algorithm if card else "") or (head.embedding_algorithm if head else "") or expected
    if not algorithm:
        missing = "its card names no algorithm" if card else f"no card {path.stem}.json beside it"
        raise InputError(f"{path.name}: {missing}; give card=, or algorithm= (one of {', '.join(PATCHES)})")
    if expected is not None and algorithm != expected:
        raise InputError(f"{path.name} is for {algorithm}, and {kind} for {expected}; use --backbone essentia")
    return algorithm


def _with_head(
    path: Path,
    nodes: dict[str, FlatNode],
    embedding: Reference,
    own: ModelCard | None,
    above: Path,
    card: ModelCard | None,
    output: str | None,
) -> tuple[GraphModule, dict[str, FlatNode]]:
    """The head, and both graphs in one."""
    if card is not None and own is not None and card.embedding_algorithm not in ("", own.algorithm):
        raise InputError(f"{above.name} takes embeddings of {card.embedding_model}, not of {path.name}; give its own")
    if card is not None and card.embedding_model and card.embedding_model != path.stem:
        logger.warning("%s was trained on embeddings of %s, not of %s", above.name, card.embedding_model, path.stem)
    head = flat_graph(above)
    named = card.named(input=None, predictions=output) if card else {}
    if card is not None:
        card.check(named, head, above.name)
    module = GraphModule(head, named.get("input"), output or named.get("predictions"), short_repr(str(above), 200))
    module.require_output()
    return module, join(nodes, embedding, head, cast(str, module.input_name))  # known where the output is


def _file(kind: str, path: str | PathLike[str] | None) -> Path:
    if path is None:
        raise InputError(f"{kind} needs your weights file, {KINDS[kind].file}; {_published(KINDS[kind].address)}")
    found = Path(path)
    if not os.path.isfile(found):  # unlike Path.is_file, false of names that no file can have
        raise InputError(f"{short_repr(fspath(path), 200)}: no such file; {_published(KINDS[kind].address)}")
    return found


def _published(address: str) -> str:
    return f"MTG publishes it and its card (.json) at {address} under {LICENCE}"


def _embedding_file(given: str | PathLike[str] | None, path: Path, card: ModelCard) -> Path:
    # A card's text must not be able to leave the folder.
    found = Path(given) if given else path.parent / Path(f"{card.embedding_model}.pb").name
    if not os.path.isfile(found):
        raise InputError(
            f"{path.name} is a head on {card.embedding_model}: put {found.name} beside it, or give embedding_weights=; "
            f"{_published(card.embedding_link or f'{SITE}.html')}"
        )
    return found


def _names(classes: Any) -> tuple[str, ...]:
    """Names from a list, or from a text with commas between them and quotes around names that have some.

    Raises:
        InputError: a text in which a quote is not closed.
    """
    if not isinstance(classes, str):
        return tuple(classes)
    try:
        return tuple(name.strip() for row in csv.reader([classes], skipinitialspace=True, strict=True) for name in row)
    except csv.Error:
        raise InputError(f'classes={short_repr(classes)}: put quotes around whole names: one, "two, three"') from None
