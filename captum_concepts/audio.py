"""Decode, resample and cut audio into patches, by random access."""

from __future__ import annotations

from dataclasses import dataclass


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
