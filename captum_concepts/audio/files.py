"""Find audio files, measure their duration and hash them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from captum_concepts.audio.clips import Clip
from captum_concepts.audio.decoding import FORMATS, file_frames, open_audio, require_file
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio in a file.

    Args:
        path: of an audio file.

    Returns:
        frames / sample rate.

    Raises:
        AudioError: the file cannot be read.
    """
    with open_audio(str(path)) as file:
        return file_frames(str(path), file) / int(file.samplerate)


def file_digest(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes.

    Args:
        path: of any file.

    Returns:
        64 hexadecimal digits.

    Raises:
        AudioError: the file cannot be read.
    """
    digest = hashlib.sha256()
    require_file(str(path))
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_audio(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of all audio files below a folder, sorted, by extension; hidden files are left out.

    Links to folders are followed, each folder is entered once.

    Args:
        folder: where to search.

    Returns:
        the paths; they begin with ``folder``.

    Raises:
        InputError: ``folder`` is not a folder.

    Example:
        >>> find_audio("no/such/folder")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: folder='no/such/folder': is not a folder; give a folder with audio files
    """
    if not os.path.isdir(folder):
        raise InputError(f"folder={short_repr(str(folder), 200)}: is not a folder; give a folder with audio files")
    found: list[str] = []
    entered: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (name for name in files if not name.startswith(".") and Path(name).suffix.lower() in FORMATS)
        found.extend(os.path.join(where, name) for name in names)
    return sorted(found)


def as_clips(clips: Sequence[Clip | str | Path] | str | Path) -> list[Clip]:
    """Clips from clips, file names or a folder (searched for audio); each file is its own group.

    Args:
        clips: clips and paths of files, or one path of a file or folder.

    Returns:
        the clips, each once, in the given order; those of a folder sorted by path.

    Raises:
        InputError: nothing given, or a folder without audio.

    Example:
        >>> [clip.path for clip in as_clips(["b.wav", Clip("a.wav"), "b.wav"])]
        ['b.wav', 'a.wav']
    """
    if isinstance(clips, (str, Path)):
        path = Path(clips)
        clips = find_audio(path) if path.is_dir() else [path]
        if not clips:
            raise InputError(f"clips={short_repr(str(path), 200)}: no audio file in it; give a folder that holds some")
    found = list(dict.fromkeys(clip if isinstance(clip, Clip) else Clip(str(clip)) for clip in clips))
    if not found:
        raise InputError("clips=[]: none given; pass files or a folder")
    return found
