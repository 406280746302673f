"""Read concepts from folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from captum_concepts.audio.clips import AudioError, Clip
from captum_concepts.audio.files import file_digest, find_audio
from captum_concepts.concepts.collect import Collected, LabelledClips
from captum_concepts.concepts.names import Skipped, concept_name
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

POOL_FOLDER = "random"


def read_folders(
    root: str | Path,
    *,
    pool: str | Path | None,
    group: str | Callable[[str], str],
) -> LabelledClips:
    """See :meth:`captum_concepts.ConceptSet.from_folders`."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{short_repr(str(root), 200)}: no such folder; give one with a subfolder per concept")
    if not callable(group) and group not in ("file", "folder"):
        raise InputError(f"group={short_repr(group)}: use 'file', 'folder' or a function from path to group")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    pools = [folder for folder in folders if folder.name == POOL_FOLDER]
    if pool is not None:
        chosen = root / pool if (root / pool).is_dir() else Path(pool)
        if not chosen.is_dir():
            known = ", ".join(short_repr(folder.name, 30) for folder in folders[:20])
            raise InputError(
                f"pool={short_repr(str(pool))}: no such folder, by itself or in {short_repr(str(root), 200)}, which "
                f"has {known}"
            )
        pools.append(chosen)
    pool_paths = {folder.resolve() for folder in pools}
    collected = Collected()
    loose = [path for path in find_audio(root) if Path(path).parent == root]
    collected.skipped += [(path, "no concept", "not in a subfolder; a subfolder is a concept") for path in loose]
    merged = _one_path_per_sound()
    names: dict[str, str] = {}
    for folder in [*(f for f in folders if f.resolve() not in pool_paths), *dict.fromkeys(pools)]:
        name = concept_name(folder.name)
        rows = {collected.add(_grouped(path, group)) for path in map(merged, _audio_in(folder, collected.skipped))}
        if folder.resolve() in pool_paths:
            collected.pool |= rows
        elif rows:
            names[name] = name
            collected.members[name] |= rows
    return collected.labelled(names, str(root))


def _audio_in(folder: Path, skipped: list[Skipped]) -> list[str]:
    found = []
    for path in find_audio(folder):
        if os.path.isfile(path):
            found.append(path)
        else:
            skipped.append((path, "missing", "a link to no file"))
    if not found:
        skipped.append((str(folder), "empty", "no audio in this folder"))
    return found


def _grouped(path: str, group: str | Callable[[str], str]) -> Clip:
    if callable(group):
        return Clip(path, group=str(group(path)))
    return Clip(path, group=os.path.dirname(path) if group == "folder" else path)


def _one_path_per_sound() -> Callable[[str], str]:
    """A function that maps links to one file, and copies of it under the same file name, to the first path.

    Only files of the same name and size are compared, as everything else would mean reading all audio.
    """
    first_of_file: dict[str, str] = {}
    lone: dict[tuple[str, int], str] = {}
    first_of_bytes: dict[tuple[str, str], str] = {}

    def same_bytes(path: str) -> str:
        name = os.path.basename(path)
        first = lone.setdefault((name, os.path.getsize(path)), path)
        if first == path:
            return path
        try:
            first_of_bytes.setdefault((name, file_digest(first)), first)
            return first_of_bytes.setdefault((name, file_digest(path)), path)
        except AudioError:  # what cannot be read is reported when its activations are extracted
            return path

    def merged(path: str) -> str:
        real = os.path.realpath(path)
        if real not in first_of_file:
            first_of_file[real] = same_bytes(path)
        return first_of_file[real]

    return merged
