"""Clips, and what can go wrong when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

Channels = Literal["mono", "all"]
Status = Literal["unreadable", "empty", "silent", "nan", "too short", "truncated", "mislabelled"]


@dataclass(frozen=True, order=True, slots=True)
class Clip:
    """A piece of audio with an identity.

    Attributes:
        path: the file.
        start: seconds from the beginning of the file.
        end: seconds; None is the end of the file.
        group: the track, artist or recording it was cut from: the unit of resampling. Defaults to ``path``.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if not self.group:
            object.__setattr__(self, "group", self.path)


class AudioError(InputError):
    """Audio that cannot be used as it is: ``path`` says which, ``status`` what is wrong with it."""

    def __init__(self, path: str, status: Status, what: str, remedy: str) -> None:
        self.path = path
        self.status: Status = status
        super().__init__(f"{short_repr(path, 200)}: {status}: {what}; {remedy}")
