"""What every backbone is told alike: class names, targets, lengths and the handling of short clips."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from captum_concepts.audio import Short
from captum_concepts.errors import InputError, shown


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of a model's outputs as text.

    Raises:
        InputError: two outputs have one name, so that their rows in the results could not be told apart.
    """
    names = tuple(map(str, classes))
    name, times = next(iter(Counter(names).most_common(1)), ("", 0))
    if times > 1:
        raise InputError(f"classes: {shown(name)} is there {times} times; give each output a name of its own")
    return names


def whole_samples(option: str, seconds: float, rate: int) -> int:
    """A length in samples.

    Raises:
        InputError: ``seconds`` is not a positive number, or less than a sample; ``option`` is its name.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"{option}={shown(seconds)} must be positive and finite; give seconds")
    samples = round(seconds * rate)
    if samples < 1:
        raise InputError(
            f"{option}={shown(seconds)} is shorter than one sample at {rate} Hz; give more than {1 / rate:.2g}"
        )
    return samples


def check_targets(targets: Sequence[int], outputs: int, name: str) -> None:
    for target in targets:
        if not hasattr(target, "__index__"):
            raise InputError(f"target={shown(target)} is not a whole number; {name} has outputs 0 to {outputs - 1}")
        if not 0 <= target < outputs:
            raise InputError(f"target={shown(target)} is out of range; {name} has outputs 0 to {outputs - 1}")


def check_short(short: str) -> None:
    if short not in get_args(Short):
        raise InputError(f"short={shown(short)} is not known; use {', '.join(get_args(Short))}")
