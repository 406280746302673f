"""Clips, and the errors of clips that cannot be read."""

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

    Example:
        >>> Clip("music/song.wav", 30.0, 60.0).group
        'music/song.wav'
    """

    path: str
    start: float = 0.0
    end: float | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if not self.group:
            object.__setattr__(self, "group", self.path)


class ClipError(InputError):
    """A clip that cannot be used.

    Args:
        path: the clip's file.
        reason: the rest of the message, with the remedy after a semicolon.

    Attributes:
        path: the clip's file.
        reason: the message without the file's name: it is true of every file with the same bytes.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{short_repr(path, 200)}: {reason}")


class AudioError(ClipError):
    """Audio that cannot be used as it is.

    Args:
        path: the file.
        status: the kind of fault.
        what: the fault.
        remedy: what the user can do.

    Attributes:
        path: the file.
        status: the kind of fault.
        reason: the message without the file's name.

    Example:
        >>> raise AudioError("a.wav", "empty", "the file has 0 bytes", "replace the file")
        Traceback (most recent call last):
        captum_concepts.audio.clips.AudioError: 'a.wav': empty: the file has 0 bytes; replace the file
    """

    def __init__(self, path: str, status: Status, what: str, remedy: str) -> None:
        self.status: Status = status
        super().__init__(path, f"{status}: {what}; {remedy}")
