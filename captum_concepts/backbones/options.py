"""Arguments that all backbones take: class names, targets, lengths, devices and the handling of short clips."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import torch

from captum_concepts.audio.patches import Short
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr, suggest


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of a model's outputs as text.

    Args:
        classes: names, or numbers, one for each output.

    Returns:
        the names in the same order.

    Raises:
        InputError: two outputs have one name, so that their rows in the results would be ambiguous.

    Example:
        >>> class_names(["blues", 1])
        ('blues', '1')
    """
    names = tuple(map(str, classes))
    name, times = next(iter(Counter(names).most_common(1)), ("", 0))
    if times > 1:
        raise InputError(f"classes: {short_repr(name)} is given {times} times; give each output a name of its own")
    return names


def whole_samples(option: str, seconds: float, rate: int) -> int:
    """A length in samples.

    Args:
        option: the argument's name, for the message.
        seconds: the length.
        rate: Hz.

    Returns:
        the nearest number of samples, at least 1.

    Raises:
        InputError: ``seconds`` is not a positive number, or less than half a sample.

    Example:
        >>> whole_samples("patch_seconds", 0.5, 16000)
        8000
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"{option}={short_repr(seconds)}: must be positive and finite; give seconds")
    samples = round(seconds * rate)
    if samples < 1:
        raise InputError(
            f"{option}={short_repr(seconds)}: is shorter than one sample at {rate} Hz; give more than {1 / rate:.2g}"
        )
    return samples


def check_targets(targets: Sequence[int], outputs: int, name: str) -> None:
    """Raise InputError unless all targets are numbers of a model's outputs; ``name`` is the backbone's."""
    for target in targets:
        if not hasattr(target, "__index__"):
            raise InputError(
                f"target={short_repr(target)}: is not a whole number; {name} has outputs 0 to {outputs - 1}"
            )
        if not 0 <= target < outputs:
            raise InputError(f"target={short_repr(target)}: is out of range; {name} has outputs 0 to {outputs - 1}")


def check_short(short: str) -> None:
    """Raise InputError unless ``short`` is a way to handle clips shorter than one patch."""
    if short not in get_args(Short):
        raise InputError(f"short={short_repr(short)}: is not known; use {', '.join(get_args(Short))}")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to compute on.

    Args:
        device: "cpu", "cuda", "cuda:1", ..., or "auto": CUDA where there is one, else the CPU.

    Returns:
        a device on which a tensor could be made.

    Raises:
        InputError: an unknown device, or CUDA where there is none.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device={short_repr(device)}: is not a device; use auto, cpu or cuda") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={short_repr(str(device))}: PyTorch sees no CUDA GPU here; use device='cpu'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device={short_repr(str(device))}: there are {torch.cuda.device_count()} GPUs; count them from 0"
        )
    try:
        torch.zeros(1, device=chosen).item()  # "meta" gives no values
    except (RuntimeError, NotImplementedError, AssertionError):
        raise InputError(f"device={short_repr(str(device))}: cannot compute here; use auto, cpu or cuda") from None
    return chosen


def target_index(backbone: Backbone, target: str | int) -> int:
    """Index of a class given by name or number.

    Args:
        backbone: one with classes.
        target: the class's name, or its number from 0.

    Returns:
        the column of its logits.

    Raises:
        InputError: no such class; the message suggests the nearest names.

    Example:
        >>> from captum_concepts.backbones import EmbeddingBackbone
        >>> model = EmbeddingBackbone(abs, 8000, 1.0, head=torch.nn.Linear(2, 2), classes=["blues", "jazz"])
        >>> target_index(model, "jazz")
        1
        >>> target_index(model, "Jazz")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: target='Jazz': is not a class of embedding; did you mean 'jazz'? classes: \
jazz, blues
    """
    classes = list(backbone.classes)
    if not classes:
        raise InputError(f"target={short_repr(target)}: {backbone.name} has no classes; give no target")
    if not isinstance(target, str | bool):
        try:
            number = operator.index(target)  # NumPy's integers too
        except TypeError:
            raise InputError(f"target={short_repr(target)}: is no class; give a class's name or number") from None
        if 0 <= number < len(classes):
            return number
        raise InputError(f"target={number}: is out of range; {backbone.name} has classes 0 to {len(classes) - 1}")
    if target in classes:
        return classes.index(str(target))
    raise InputError(
        f"target={short_repr(target)}: is not a class of {backbone.name}; {suggest(target, classes, 'classes')}"
    )
