"""Recordings of a data set: files, names, labels, and the split into training and held-out parts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_concepts.audio import find_audio
from captum_concepts.errors import InputError
from captum_concepts.seeding import random_key, without_common_folder
from captum_concepts.text import short_repr

LAYOUTS = ("auto", "folder", "dcase", "gtzan")
_SETUP = "evaluation_setup"
_EVALUATE = "evaluate.txt"  # lists the challenge's evaluation set; the development set has lists of folds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of audio.

    Attributes:
        path: the file.
        name: what people call it, unique among the recordings it comes with.
        label: its class; "" where there is none.
        group: what it was cut from (track, session); an opposite is never of the anchor's group, and a split never
            parts a group.
    """

    path: str
    name: str
    label: str
    group: str

    @property
    def identity(self) -> str:
        """What it is known by wherever its folder lies: its session or track, else its name."""
        return self.name if self.group == self.path else self.group


def folder_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """All audio below a folder; where it has subfolders with audio, each is a class.

    Files beside the subfolders have no label. The group of a file is itself.

    Raises:
        InputError: no folder, or no audio in it.
    """
    paths = find_audio(root)
    if not paths:
        raise InputError(f"{short_repr(str(root), 200)}: no audio in this folder; give one with recordings")
    recordings = []
    for path in paths:
        name = os.path.relpath(path, root)
        first, _, rest = name.partition(os.sep)
        recordings.append(Recording(path, name, first if rest else "", path))
    return recordings


@dataclass(frozen=True)
class Split:
    """Recordings to learn from and others to judge by; no group is in both.

    Of DCASE's evaluation set, which is not for training, ``train`` is empty.
    """

    train: list[Recording]
    evaluate: list[Recording]


def dcase_recordings(root: str | os.PathLike[str], fold: int = 1) -> Split:
    """One fold of DCASE 2018 task 5 (SINS), as the challenge's development set is laid out.

    ``meta.txt`` has a line ``audio/NAME.wav<TAB>label<TAB>session`` per file; ``evaluation_setup/fold<N>_train.txt``
    and ``fold<N>_evaluate.txt`` have the files of each part, the further columns repeating meta.txt. A session is one
    uninterrupted recording that the 10 s files were cut from: it is the group.

    Args:
        root: the folder that holds meta.txt, evaluation_setup/ and audio/.
        fold: 1 to 4 in the published set.

    Raises:
        InputError: a file or line is missing or wrong, or a session is in both parts.
    """
    root = Path(root)
    meta = _dcase_meta(root / "meta.txt")
    parts = []
    for part in ("train", "evaluate"):
        path = root / _SETUP / f"fold{fold}_{part}.txt"
        names = _known_names(path, [fields[0] for _, fields in _lines(path)], meta)
        parts.append([_dcase_recording(root, name, *meta[name]) for name in names])
    train, evaluate = parts
    both = sorted({recording.group for recording in train} & {recording.group for recording in evaluate})
    if both:
        raise InputError(
            f"{short_repr(str(root), 200)}: session {short_repr(both[0])} is in fold {fold}'s train and evaluate "
            "files; "
            "a session belongs to one of them"
        )
    return Split(train, evaluate)


def dcase_evaluation_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """The evaluation set of DCASE 2018 task 5, by which the challenge compared its systems; it is all to judge by.

    ``evaluation_setup/evaluate.txt`` has a line ``audio/NUMBER.wav<TAB>label<TAB>session`` per file; where it lacks a
    column, ``meta.txt`` has all three. Its sessions are others than the development set's, although they count from 1
    too.

    Args:
        root: the folder that holds evaluation_setup/ and audio/.

    Raises:
        InputError: a file or a line of it is missing or wrong.
    """
    root = Path(root)
    path = root / _SETUP / _EVALUATE
    lines = [fields for _, fields in _lines(path)]
    meta = _dcase_meta(path if all(len(fields) == 3 for fields in lines) else root / "meta.txt")
    names = _known_names(path, [fields[0] for fields in lines], meta)
    return [_dcase_recording(root, name, meta[name][0], f"evaluation {meta[name][1]}") for name in names]


def _known_names(path: Path, names: list[str], meta: dict[str, tuple[str, str]]) -> list[str]:
    """Each name once; all are in meta.txt."""
    unknown = [name for name in names if name not in meta]
    if unknown:
        raise InputError(
            f"{short_repr(str(path), 200)}: {short_repr(unknown[0])} is not in meta.txt; add its line there"
        )
    return list(dict.fromkeys(names))


def _dcase_meta(path: Path) -> dict[str, tuple[str, str]]:
    meta: dict[str, tuple[str, str]] = {}
    for number, fields in _lines(path):
        if len(fields) != 3 or not all(fields):
            raise InputError(
                f"{short_repr(str(path), 200)}: line {number} has {len(fields)} fields; "
                "give file, label and session with a tab between"
            )
        if meta.setdefault(fields[0], (fields[1], fields[2])) != (fields[1], fields[2]):
            raise InputError(
                f"{short_repr(str(path), 200)}: line {number} says otherwise of {short_repr(fields[0])}; keep one"
            )
    return meta


def _dcase_recording(root: Path, name: str, label: str, session: str) -> Recording:
    path = os.path.normpath(root / name)
    if not path.startswith(os.path.normpath(root) + os.sep):
        raise InputError(
            f"{short_repr(str(root), 200)}: {short_repr(name)} in its lists lies outside this folder; correct the line"
        )
    return Recording(path, name, label, session)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines of a table without head, cut at tabs."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            f"{short_repr(str(path), 200)}: cannot be read ({reason}); DCASE 2018 task 5 has meta.txt and in "
            "evaluation_setup/ fold1_train.txt and fold1_evaluate.txt, or evaluate.txt in its evaluation set"
        ) from error
    lines = [(number, line.strip().split("\t")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{short_repr(str(path), 200)}: the file has no lines; fetch it again")
    return lines


def split_by_group(recordings: Sequence[Recording], share: float, seed: int) -> Split:
    """Part recordings by group, drawn by hashes of seed and name: the same however the recordings are ordered.

    Args:
        recordings: at least two groups.
        share: of the groups of each label that go to ``evaluate``, 0 < share < 1; at least one group goes there, and at
            least two of four or more.
        seed: another seed is another draw.

    Raises:
        InputError: fewer than two groups, or the share is out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"share={short_repr(share)}: give a number between 0 and 1")
    label_of = {recording.group: recording.label for recording in recordings}
    groups = sorted(label_of)
    if len(groups) < 2:
        raise InputError(f"{len(groups)} recording or session: a split needs two; add recordings")
    keys = dict(zip(groups, (random_key(seed, name) for name in without_common_folder(groups)), strict=True))
    apart: set[str] = set()
    owed = 0.0
    for label in sorted(set(label_of.values())):
        members = sorted((group for group in groups if label_of[group] == label), key=keys.__getitem__)
        owed += share * len(members)
        taken = min(len(members) - 1, round(owed)) if len(members) > 1 else 0
        apart.update(members[:taken])
        owed -= taken
    # A held-out triplet needs two groups.
    lacking = max(0, (2 if len(groups) > 3 else 1) - len(apart))
    apart.update(sorted(set(groups) - apart, key=keys.__getitem__)[:lacking])
    train = [recording for recording in recordings if recording.group not in apart]
    return Split(train, [recording for recording in recordings if recording.group in apart])


def gtzan_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """GTZAN in any of its layouts, found by the plugin captum-concepts-gtzan.

    Raises:
        InputError: the plugin is not installed, or it finds no tracks.
    """
    try:
        from captum_concepts_gtzan.dataset import find_tracks
    except ModuleNotFoundError:
        raise InputError(
            "layout='gtzan': needs the plugin captum-concepts-gtzan, which is not installed; install it, or give the "
            "folder of genres with layout folder"
        ) from None
    found = find_tracks(root)
    for line in found.skipped:
        logger.warning("left out: %s", line)
    return [Recording(track.path, track.track_id, track.genre, track.track_id) for track in found.tracks]


def layout_of(root: str | os.PathLike[str], layout: str = "auto") -> str:
    """ "folder", "dcase" or "gtzan"; "auto" is dcase where there is a meta.txt or evaluation_setup/, else folder.

    Raises:
        InputError: unknown layout, or DCASE data a folder deeper.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout={short_repr(layout)}: give {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
    if layout != "auto":
        return layout
    if (Path(root) / "meta.txt").is_file() or (Path(root) / _SETUP).is_dir():
        return "dcase"
    inside = sorted(Path(root).glob(f"*/{_SETUP}"))
    if inside:  # else the data sets in it would be taken for classes
        raise InputError(
            f"{short_repr(str(root), 200)}: holds DCASE data in {short_repr(inside[0].parent.name)}; give that "
            "folder, or "
            "layout folder if its subfolders are classes"
        )
    return "folder"


def recordings_from(
    root: str | os.PathLike[str], layout: str = "auto", fold: int = 1, share: float = 0.2, seed: int = 0
) -> Split:
    """Recordings of any supported layout, in two parts.

    Args:
        root: the folder.
        layout: see `layout_of`.
        fold: of DCASE's development set.
        share: of the groups that are held out; DCASE has its own parts.
        seed: of that draw.

    Raises:
        InputError: see `all_recordings`, `dcase_recordings`, `split_by_group`.
    """
    if layout_of(root, layout) != "dcase":
        return split_by_group(all_recordings(root, layout), share, seed)
    if _is_evaluation_set(Path(root)):
        return Split([], dcase_evaluation_recordings(root))
    return dcase_recordings(root, fold)


def all_recordings(root: str | os.PathLike[str], layout: str = "auto", fold: int = 1) -> list[Recording]:
    """Recordings of any supported layout, in one part.

    Raises:
        InputError: see `folder_recordings`, `dcase_recordings`, `dcase_evaluation_recordings`, `gtzan_recordings`.
    """
    kind = layout_of(root, layout)
    if kind == "gtzan":
        return gtzan_recordings(root)
    if kind == "folder":
        return folder_recordings(root)
    split = recordings_from(root, kind, fold)
    return [*split.train, *split.evaluate]


def _is_evaluation_set(root: Path) -> bool:
    return (root / _SETUP / _EVALUATE).is_file() and not (root / _SETUP / "fold1_train.txt").is_file()
