"""Weights on disk: our own safetensors files, and ``state_dict``s of AudioConcept's networks. No file runs code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from captum_concepts.backbones import class_names
from captum_concepts.errors import InputError
from captum_concepts.storage import write_weights
from captum_concepts.text import short_repr
from captum_concepts_gtzan.dataset import GENRES
from captum_concepts_gtzan.models import MODELS, GenreModel, GtzanCNN, build_model

FORMAT = "captum-concepts-gtzan 1"
#: Where training scripts and Lightning put the weights among other things.
_INSIDE = ("state_dict", "model_state_dict", "model")


def save_checkpoint(path: str | PathLike[str], model: GenreModel, classes: Sequence[str]) -> None:
    """Write weights, classes and options as one safetensors file; a crash leaves the file that was there.

    Raises:
        InputError: ``classes`` are not one name per output.
    """
    names = class_names(classes)
    if len(names) != model.options["n_classes"]:
        raise InputError(f"classes: {len(names)} names for {model.options['n_classes']} outputs of {model.name}")
    metadata = {
        "format": FORMAT,
        "model": model.name,
        "classes": json.dumps(names),
        "options": json.dumps(model.options, sort_keys=True),
    }
    write_weights(path, model.state_dict(), metadata)


def load_checkpoint(
    path: str | PathLike[str], name: str, classes: Sequence[str] = (), **options: Any
) -> tuple[GenreModel, tuple[str, ...]]:
    """A network with the weights of a file, in evaluation mode, and its classes.

    Read are what `save_checkpoint` wrote, and a ``state_dict`` (safetensors, or `torch.save` read with
    ``weights_only=True``) with our names or AudioConcept's, by itself or under "state_dict" or "model" with any
    prefix, as Lightning and DataParallel write them. Tensors outside the prefix (a loss's weights) are not the
    network's and are left alone.

    Args:
        path: the file.
        name: one of ``models.MODELS``.
        classes: names of the outputs, where the file does not hold them; GTZAN's ten genres for ten outputs.
        options: of the network, where the file does not hold them (``seconds``, ``n_mels``).

    Raises:
        InputError: no such file, a file of another network or format, one that asks for code to be run, options that
            contradict the file, values that are not finite, or no class names.
    """
    where = f"weights={short_repr(str(path), 200)}"
    tensors, metadata = _read(path, where)
    if metadata:
        options = _stated(metadata, name, options, where)
        classes = classes or _json(metadata, "classes", list, where)
    names = audio_concept_names(MODELS[name])
    tensors = _renamed(tensors, names, name, where)
    options = _inferred(tensors, name) | options
    with torch.device("meta"):  # shapes are compared before anything is allocated for them
        expected = build_model(name, **options)
    _check(expected.state_dict(), tensors, name, where)
    model = build_model(name, **options)
    _check_frontend(model, tensors, where)
    model.load_state_dict({key: tensors[key] for key in model.state_dict()})
    outputs = model.options["n_classes"]
    chosen = class_names(classes or (GENRES if outputs == len(GENRES) else ()))
    if len(chosen) != outputs:
        raise InputError(f"{where}: {len(chosen)} class names for {outputs} outputs; give classes, one per output")
    return model.eval(), chosen


def _read(path: str | PathLike[str], where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{where}: cannot be opened ({error.strerror}); check the path") from None
    if head[8:] == b"{":
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(f"{where}: not a whole safetensors file ({_line(error)}); get it again") from None
    try:
        with warnings.catch_warnings():  # of unusual pickle protocols
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file may raise anything
        raise InputError(
            f"{where}: refused, nothing in it was run: it is not a plain state_dict ({_line(error)}); save "
            "model.state_dict(), best as safetensors"
        ) from None
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: holds {type(found).__name__}, not a state_dict; save model.state_dict()")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}, {}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _stated(metadata: Mapping[str, str], name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options a file of ours states, and those of the user that it may be read with."""
    if metadata.get("format") != FORMAT:
        return dict(options)
    if metadata.get("model") != name:
        raise InputError(f"{where}: of {short_repr(metadata.get('model'))}, not of {name}; load it under its own name")
    stated = _json(metadata, "options", dict, where)
    for option, value in options.items():
        # Only the CNN's weights do not depend on the length of a chunk.
        if option in stated and stated[option] != value and not (option == "seconds" and name == GtzanCNN.name):
            raise InputError(
                f"{where}: was trained with {option}={short_repr(stated[option])}, not {short_repr(value)}; leave "
                "the option out"
            )
    return {**stated, **options}


def _json(metadata: Mapping[str, str], key: str, kind: type, where: str) -> Any:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        if metadata.get("format") != FORMAT:
            return kind()
        raise InputError(f"{where}: its {key} cannot be read; write the file again with save_checkpoint")
    return value


def audio_concept_names(model: type[GenreModel]) -> dict[str, str]:
    """AudioConcept's name of each module with parameters -> ours."""
    if model.name == "gtzan-cnn":
        pairs = {"input_bn": "input_norm", "dense1": "dense", "dense_bn": "dense_norm", "dense2": "output"}
        for number in range(1, 6):
            pairs |= {f"layer{number}.conv": f"block{number}.conv", f"layer{number}.bn": f"block{number}.norm"}
        return pairs
    if model.name == "gtzan-cnn2":
        pairs = {"fcBlock1.0": "hidden1.dense", "fcBlock2.0": "hidden2.dense", "output.0": "output"}
        for number in range(1, 5):
            pairs |= {f"convBlock{number}.0": f"block{number}.conv", f"convBlock{number}.1": f"block{number}.norm"}
        return pairs
    pairs = {"input_bn": "input_norm", "fcs.0": "hidden1.dense", "fcs.3": "hidden2.dense", "fcs.6": "output"}
    index = 0
    for number, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        for place in range(1, convolutions + 1):
            pairs |= {f"conv_layers.{index}": f"block{number}.conv{place}"}
            pairs |= {f"conv_layers.{index + 1}": f"block{number}.norm{place}"}
            index += 3
        index += 1
    return pairs


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], name: str, where: str) -> dict[str, Tensor]:
    """The network's tensors under our names, without the prefix they have in common."""
    theirs = next(old for old, new in names.items() if new == "output")
    for last in ("output.weight", f"{theirs}.weight"):
        prefixes = [key[: -len(last)] for key in tensors if key == last or key.endswith(f".{last}")]
        if len(prefixes) == 1:
            inside = {key[len(prefixes[0]) :]: value for key, value in tensors.items() if key.startswith(prefixes[0])}
            renamed = {}
            for key, value in inside.items():
                module, _, parameter = key.rpartition(".")
                renamed[f"{names.get(module, module)}.{parameter}"] = value
            return renamed
    raise InputError(
        f"{where}: not weights of {name}: it has no {theirs}.weight or output.weight; check which it is of"
    )


def _inferred(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Options that the shapes tell."""
    options: dict[str, Any] = {"n_classes": len(tensors["output.weight"])}
    first = tensors.get("block1.conv.weight")
    if name == GtzanCNN.name and first is not None and first.dim():
        options["channels"] = len(first)
    filters = tensors.get(_FILTERS)
    if filters is not None and filters.dim() == 2:
        options |= {"n_mels": filters.shape[1], "n_fft": 2 * (filters.shape[0] - 1)}
    return options


_FILTERS, _WINDOW = "melspec.mel_scale.fb", "melspec.spectrogram.window"


def _check(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str, where: str) -> None:
    other = f"{where}: not weights of {name} with these options"
    for key, tensor in expected.items():
        if key not in tensors:
            raise InputError(f"{other}: it has no {short_repr(key)}")
        if tensors[key].shape != tensor.shape:
            raise InputError(f"{other}: {key} is {tuple(tensors[key].shape)}, expected {tuple(tensor.shape)}")
        if not tensors[key].isfinite().all() or (key.endswith("running_var") and (tensors[key] < 0).any()):
            raise InputError(f"{where}: {key} holds NaN, infinite or impossible values; get the file again")
    if unexpected := sorted(tensors.keys() - expected.keys() - {_FILTERS, _WINDOW}):
        raise InputError(f"{other}: unexpected {short_repr(unexpected[0])}")


def _check_frontend(model: GenreModel, tensors: Mapping[str, Tensor], where: str) -> None:
    """AudioConcept's files hold mel filters and window: they must be those the model here computes with."""
    for key, ours in ((_FILTERS, model.frontend.mel), (_WINDOW, model.frontend.window)):
        theirs = tensors.get(key)
        if theirs is not None and (theirs.shape != ours.shape or not torch.allclose(theirs.float(), ours, atol=1e-6)):
            raise InputError(
                f"{where}: another mel front-end than this one ({key}); give its sample_rate, f_min, f_max"
            )
