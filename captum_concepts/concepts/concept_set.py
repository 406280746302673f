"""Concepts: named sets of clips, what counts as their opposite, and which clips may not be parted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.choices import NEGATIVES
from captum_concepts.concepts.collect import LabelledClips
from captum_concepts.concepts.folders import read_folders
from captum_concepts.concepts.folds import stratified_parts
from captum_concepts.concepts.matching import clip_properties, imbalance_lines, matched
from captum_concepts.concepts.names import Skipped, concept_name
from captum_concepts.concepts.overlap import Overlap, shared
from captum_concepts.concepts.playlists import read_playlists
from captum_concepts.concepts.reference import read_parents
from captum_concepts.concepts.tables import read_table, table_columns
from captum_concepts.errors import InputError
from captum_concepts.text import pluralize, short_repr

Negatives: TypeAlias = "Literal['random', 'rest', 'in-domain'] | dict[str, list[str]]"
_NEGATIVES_REMEDY = "use 'random', 'rest', 'in-domain' or {concept: [concepts]}"


@dataclass(frozen=True, eq=False, repr=False)
class ConceptSet:
    """K concepts over N clips.

    A clip shows any number of the concepts. The *group* of a clip (track, artist, recording) is the unit of
    resampling: groups are never cut by :meth:`folds` or :meth:`split`, and a clip is never a negative of a
    concept that another clip of its group shows.

    Attributes:
        names: K distinct names, normalised by :func:`concept_name`. Any other text is kept as data.
        clips: N distinct clips.
        labels: bool (N, K), clip shows concept.
        pool: bool (N,), clips of the random pool: they show none of the concepts.
        negatives: what each concept is held against: ``"random"``, the pool; ``"rest"``, every clip that does not
            show it, the pool included; ``"in-domain"``, clips outside the pool that do not show it, as long and as
            loud as those that do (their audio is read for that, see :mod:`captum_concepts.concepts.matching`); or
            ``{concept: [concepts]}``, the clips of the named concepts, where a concept without an entry gets the
            default. Default: ``"random"`` if there is a pool, else ``"rest"``.
        parents: child -> parent (None for a root), a reference tree; for evaluation only, nothing else looks at it.
        skipped: (path, status, message) of every row or file that could not be used.

    Raises:
        InputError: names, clips, labels and pool do not fit together, or ``negatives`` names an unknown concept.
    """

    names: tuple[str, ...]
    clips: tuple[Clip, ...]
    labels: np.ndarray
    pool: np.ndarray = None  # type: ignore[assignment]
    negatives: Any = None
    parents: dict[str, str | None] | None = None
    skipped: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = tuple(concept_name(name) for name in self.names)
        clips = tuple(self.clips)
        labels = np.array(self.labels, dtype=bool)
        pool = np.zeros(len(clips), dtype=bool) if self.pool is None else np.array(self.pool, dtype=bool)
        _check_names(names)
        if not clips:
            raise InputError("no clips: a set of concepts needs at least one")
        if len({(clip.path, clip.start, clip.end) for clip in clips}) < len(clips):
            raise InputError("clips: the same clip is given twice; give it one row of labels that has all its concepts")
        if labels.shape != (len(clips), len(names)):
            raise InputError(f"labels: shape {labels.shape}, but {len(clips)} clips x {len(names)} concepts are given")
        if pool.shape != (len(clips),):
            raise InputError(f"pool: shape {pool.shape}, but there are {len(clips)} clips")
        pool &= ~labels.any(axis=1)
        labels.flags.writeable = pool.flags.writeable = False
        for name, value in (("names", names), ("clips", clips), ("labels", labels), ("pool", pool)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "negatives", self._known_negatives(self.negatives))

    def _known_negatives(self, negatives: Any) -> Negatives:
        if negatives is None:
            return self._default_negatives
        if negatives == "random" and not self.pool.any():
            raise InputError("negatives='random': there is no random pool; add clips that show none of the concepts")
        if isinstance(negatives, str):
            if negatives not in NEGATIVES:
                raise InputError(f"negatives={short_repr(negatives)}: {_NEGATIVES_REMEDY}")
            return negatives  # type: ignore[return-value]
        if not isinstance(negatives, Mapping):
            raise InputError(f"negatives={short_repr(negatives)}: {_NEGATIVES_REMEDY}")
        known: dict[str, list[str]] = {}
        for concept, against in negatives.items():
            if isinstance(against, str):
                against = [against]
            known[concept_name(concept)] = [concept_name(name) for name in against]
        self._columns([*known, *(name for against in known.values() for name in against)], "negatives")
        return known

    @property
    def _default_negatives(self) -> Literal["random", "rest"]:
        return "random" if self.pool.any() else "rest"

    def _columns(self, names: Iterable[str], argument: str) -> list[int]:
        columns = []
        for name in names:
            if concept_name(name) not in self._column_of:
                known = ", ".join(short_repr(other, 30) for other in self.names[:20])
                more = "" if len(self.names) <= 20 else f" and {len(self.names) - 20} more"
                raise InputError(f"{argument}: no concept {short_repr(name)}; there are {known}{more}")
            columns.append(self._column_of[concept_name(name)])
        return columns

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        few = ", ".join(short_repr(name, 24) for name in self.names[:6]) + (", …" if len(self.names) > 6 else "")
        negatives = self.negatives if isinstance(self.negatives, str) else "named"
        return (
            f"ConceptSet({len(self.names)} concepts, {len(self.clips)} clips in {len(self.group_names)} groups, "
            f"pool {int(self.pool.sum())}, negatives {negatives}, skipped {len(self.skipped)}: {few})"
        )

    # Groups ---------------------------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of each clip: (N,) of str (dtype object, as group names can be of any length)."""
        groups = np.empty(len(self.clips), dtype=object)
        groups[:] = [clip.group for clip in self.clips]
        return groups

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """The G distinct groups in the order in which they appear."""
        return tuple(dict.fromkeys(clip.group for clip in self.clips))

    @cached_property
    def group_index(self) -> np.ndarray:
        """int64 (N,), the place of each clip's group in :attr:`group_names`."""
        place = {group: index for index, group in enumerate(self.group_names)}
        return np.fromiter((place[clip.group] for clip in self.clips), dtype=np.int64, count=len(self.clips))

    @cached_property
    def group_labels(self) -> np.ndarray:
        """bool (G, K), whether any clip of the group shows the concept."""
        return self._by_group(self.labels)

    def _by_group(self, mask: np.ndarray) -> np.ndarray:
        result = np.zeros((len(self.group_names), mask.shape[1]), dtype=bool)
        rows, columns = np.nonzero(mask)
        result[self.group_index[rows], columns] = True
        return result

    def n_groups(self) -> np.ndarray:
        """int64 (K,), in how many groups each concept is shown: its number of independent examples."""
        return np.asarray(self.group_labels.sum(axis=0))

    # Positives and negatives ----------------------------------------------------------------------------------

    def positives(self) -> np.ndarray:
        """bool (N, K), the clips that show each concept."""
        return self.labels

    def negative_mask(self) -> np.ndarray:
        """bool (N, K), the clips each concept is held against.

        A clip whose group shows the concept is never among them; :meth:`dropped_negatives` counts those left out.
        With ``"in-domain"`` the clips are read at the first call, and a concept that no other clips are like has no
        negatives: :meth:`check` names it.

        Raises:
            InputError: a concept (with ``"in-domain"``: every concept) has no negatives.
        """
        in_domain = self.negatives == "in-domain"
        mask = self._matched.copy() if in_domain else self._allowed()
        without = np.flatnonzero(~mask.any(axis=0))
        if len(without) == len(self.names) or (len(without) and not in_domain):
            which = ", ".join(short_repr(self.names[column], 30) for column in without[:5])
            raise InputError(
                f"negatives: {len(without)} of {len(self.names)} concepts have none ({which}); "
                "give a random pool, name their negatives, or leave these concepts out (in Python: subset())"
            )
        return mask

    def _allowed(self) -> np.ndarray:
        """bool (N, K), the clips that may be negatives."""
        mask = self._candidates(self.labels, self.pool)
        in_group = self.group_labels[self.group_index]
        mask &= np.logical_not(in_group, out=in_group)
        return mask

    @cached_property
    def properties(self) -> np.ndarray:
        """float64 (N, 2), seconds and loudness of each clip, read from its file; see ``matching.clip_properties``."""
        return clip_properties(self.clips)

    @cached_property
    def _matched(self) -> np.ndarray:
        keys = [f"{clip.path} {clip.start!r} {clip.end!r}" for clip in self.clips]
        return matched(self.labels, self._allowed(), self.properties, keys)

    def dropped_negatives(self) -> np.ndarray:
        """int64 (K,), clips that would be negatives but are of a group that shows the concept."""
        mask = self._candidates(self.labels, self.pool)
        mask &= self.group_labels[self.group_index]
        mask &= ~self.labels
        return np.asarray(mask.sum(axis=0))

    def _candidates(self, shows: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """For clips or for groups, given what they show: those a concept is held against unless they show it."""
        default = self._default_negatives if isinstance(self.negatives, dict) else self.negatives
        rows = pool if default == "random" else ~pool if default == "in-domain" else np.ones(len(shows), dtype=bool)
        mask: np.ndarray = np.broadcast_to(rows[:, None], shows.shape).copy()
        if isinstance(self.negatives, dict):
            for concept, against in self.negatives.items():
                columns = self._columns(against, "negatives")
                mask[:, self._column_of[concept]] = shows[:, columns].any(axis=1)
        return mask

    def check(self, min_groups: int = 2) -> dict[str, str]:
        """The concepts that cannot be judged: {name: why}, for fewer than ``min_groups`` groups on either side."""
        group_pool = self._by_group(self.pool[:, None])[:, 0]
        if self.negatives == "in-domain":
            against = self._by_group(self._matched).sum(axis=0)
        else:
            against = (self._candidates(self.group_labels, group_pool) & ~self.group_labels).sum(axis=0)
        problems = {}
        for name, shows, opposite in zip(self.names, self.n_groups(), against, strict=True):
            if shows < min_groups:
                problems[name] = f"shown in {pluralize(int(shows), 'group')}, {min_groups} needed"
            elif opposite < min_groups:
                problems[name] = f"negatives in {pluralize(int(opposite), 'group')}, {min_groups} needed"
        return problems

    # Splits ---------------------------------------------------------------------------------------------------

    def folds(self, k: int, seed: int = 0) -> np.ndarray:
        """Cut the groups into ``k`` folds of like size in which every concept is spread as evenly as can be.

        The same groups get the same folds in whatever order clips and concepts come, and wherever the data lies
        (see :func:`captum_concepts.concepts.folds.stratified_parts`).

        Returns:
            int64 (N,), the fold of each clip; clips of one group share it.

        Raises:
            InputError: ``k`` is below 2 or above the number of groups.
        """
        if not 2 <= k <= len(self.group_names):
            raise InputError(
                f"folds: k={short_repr(k)}, but it must be between 2 and the {len(self.group_names)} groups"
            )
        return self._parts([1 / k] * k, seed)

    def split(self, fraction: float, seed: int = 0) -> np.ndarray:
        """Cut the groups in two: bool (N,), True for the clips of about ``fraction`` of the groups of each concept.

        Raises:
            InputError: ``fraction`` is not between 0 and 1, or there are fewer than 2 groups.
        """
        if not 0 < fraction < 1:
            raise InputError(f"split: fraction={short_repr(fraction)}, but it must lie between 0 and 1")
        if len(self.group_names) < 2:
            raise InputError("split: all clips are of one group, which cannot be cut; give more groups")
        return np.asarray(self._parts([fraction, 1 - fraction], seed) == 0)

    def _parts(self, shares: list[float], seed: int) -> np.ndarray:
        shows = np.concatenate([self.group_labels, self._by_group(self.pool[:, None])], axis=1)
        # An empty name cannot be a concept's, so it stands for the pool.
        parts = stratified_parts(self.group_names, shows, [*self.names, ""], shares, seed)
        return np.asarray(parts[self.group_index])

    # What is shared -------------------------------------------------------------------------------------------

    def overlap(self) -> Overlap:
        """Clips and groups that every two concepts share."""
        return Overlap(self.names, shared(self.labels), shared(self.group_labels))

    def warnings(self, share: float = 0.5) -> list[str]:
        """One line for everything a reader of the results should know about the examples.

        Pairs of concepts are named, most alike first, when the groups they share are at least ``share`` of the
        groups that show either (Jaccard): such concepts cannot be told apart by these examples.
        """
        lines = []
        if self.skipped:
            path, status, message = self.skipped[0]
            lines.append(
                f"{len(self.skipped)} rows or files skipped, the first {short_repr(path)}: {status} ({message})"
            )
        dropped = self.dropped_negatives()
        for column in np.flatnonzero(dropped):
            lines.append(
                f"{short_repr(self.names[column])}: {dropped[column]} negative clips left out, "
                "because another clip of their group shows the concept"
            )
        if self.negatives == "in-domain":
            lines += imbalance_lines(self.names, self.labels, self._matched, self.properties)
        overlap = self.overlap()
        jaccard = np.triu(overlap.group_jaccard, 1)
        firsts, seconds = np.nonzero(jaccard >= share)
        for pair in np.argsort(-jaccard[firsts, seconds], kind="stable"):
            i, j = firsts[pair], seconds[pair]
            lines.append(
                f"{short_repr(self.names[i])} and {short_repr(self.names[j])} share "
                f"{pluralize(int(overlap.groups[i, j]), 'group')}, {jaccard[i, j]:.0%} of those that show either"
            )
        return lines

    # Others like it -------------------------------------------------------------------------------------------

    def subset(self, names: Sequence[str]) -> ConceptSet:
        """The named concepts only, in that order, with the same positives and negatives as here.

        Clips that are neither for any of them are left out; with negatives ``"rest"`` and ``"in-domain"`` none are.

        Raises:
            InputError: an unknown name, or a named negative of a kept concept is not kept.
        """
        columns = self._columns(dict.fromkeys(concept_name(name) for name in names), "subset")
        kept = tuple(self.names[column] for column in columns)
        negatives = self.negatives
        if isinstance(negatives, dict):
            negatives = {concept: against for concept, against in negatives.items() if concept in kept}
            for concept, against in negatives.items():
                lost = [name for name in against if name not in kept]
                if lost:
                    raise InputError(
                        f"subset: {short_repr(concept)} is held against {short_repr(lost[0])}; keep that one too"
                    )
        needed = (self._candidates(self.labels, self.pool)[:, columns] | self.labels[:, columns]).any(
            axis=1
        ) | self.pool
        rows = np.flatnonzero(needed)
        return ConceptSet(
            kept,
            tuple(self.clips[row] for row in rows),
            self.labels[rows][:, columns],
            self.pool[rows],
            negatives,
            self.parents,
            self.skipped,
        )

    def with_negatives(self, negatives: Any) -> ConceptSet:
        """The same concepts held against something else; see :class:`ConceptSet`."""
        return replace(self, negatives=negatives)

    # Where they come from -------------------------------------------------------------------------------------

    @classmethod
    def from_folders(
        cls,
        root: str | Path,
        *,
        pool: str | Path | None = None,
        negatives: Any = None,
        group: str | Callable[[str], str] = "file",
        parents: Any = None,
    ) -> ConceptSet:
        """One subfolder per concept, searched through all its folders for audio.

        A file that lies in several of them (a link, or a copy under the same name) is one clip with several
        concepts.

        Args:
            root: the folder of the concepts' folders.
            pool: a further folder of clips that show none of the concepts, by path or as a subfolder of ``root``.
                A subfolder called ``random`` is always such a pool.
            negatives: see :class:`ConceptSet`.
            group: ``"file"``, every file its own group; ``"folder"``, the files of one folder (an album) are one;
                or a function from path to group.
            parents: see :func:`captum_concepts.concepts.reference.read_parents`.

        Raises:
            InputError: no such folder, or no audio in it.
        """
        return cls._from_labelled(read_folders(root, pool=pool, group=group), negatives, parents)

    @classmethod
    def from_table(
        cls,
        path: str | Path,
        *,
        column: str | Sequence[str],
        group: str | None = None,
        file: str | None = None,
        start: str | None = None,
        end: str | None = None,
        separator: str | None = "|",
        negatives: Any = None,
        parents: Any = None,
    ) -> ConceptSet:
        """A table of clips: csv, tsv, or parquet where pyarrow is installed.

        Args:
            path: the table. Text is UTF-8, with or without a byte order mark, its columns parted by ``,``, ``;``
                or a tab, whichever the header has most of. Files are relative to the table's folder.
            column: the column or columns that hold concepts. A clip shows what its rows name in any of them; a clip
                with nothing in all of them is of the random pool. The same value in several columns is one concept
                if it marks the same clips there; if not, it becomes several, each called ``column=value``.
            group: the column with the track, artist or recording each clip was cut from. Default, and where the
                cell is empty: the file.
            file: the column of the files; default: the first of file, path, filename, audio that is there.
            start, end: the columns with seconds; default: ``start`` and ``end`` if they are there. An empty cell is
                the beginning or the end of the file.
            separator: parts several concepts in one cell; None where names hold it as a character.
            negatives: see :class:`ConceptSet`.
            parents: see :func:`captum_concepts.concepts.reference.read_parents`.

        Raises:
            InputError: no such table or column, none of its files is there, or a clip is given two groups.
        """
        found = read_table(path, column=column, group=group, file=file, start=start, end=end, separator=separator)
        return cls._from_labelled(found, negatives, parents)

    @classmethod
    def from_playlists(
        cls,
        playlists: Mapping[str, Iterable[str | Path | Clip]],
        *,
        pool: Iterable[str | Path | Clip] = (),
        negatives: Any = None,
        parents: Any = None,
    ) -> ConceptSet:
        """``{concept: its tracks}``; a track may be in many playlists, and is its own group unless a Clip says more.

        Paths of files that are not there are skipped; Clips are taken as they are.

        Raises:
            InputError: no playlist has a track that is there.
        """
        return cls._from_labelled(read_playlists(playlists, pool=pool), negatives, parents)

    @classmethod
    def _from_labelled(cls, found: LabelledClips, negatives: Any, parents: Any) -> ConceptSet:
        reference = read_parents(parents)
        return cls(found.names, found.clips, found.labels, found.pool, negatives, reference, found.skipped)

    @classmethod
    def from_spec(cls, text: str | Path, *, column: str | Sequence[str] | None = None, **options: Any) -> ConceptSet:
        """What ``--concepts`` takes: a folder with one subfolder per concept, or a table with ``column``.

        ``options`` go to :meth:`from_folders` or :meth:`from_table`; those that are None are left out.

        Raises:
            InputError: neither a folder nor a file, or a table without ``column``.
        """
        options = {name: value for name, value in options.items() if value is not None}
        if Path(text).is_dir():
            return cls.from_folders(text, **options)
        if not Path(text).is_file():
            raise InputError(f"concepts: {short_repr(str(text), 200)} is neither a folder nor a table; check the path")
        if not column:
            raise InputError(
                f"{short_repr(str(text), 200)}: say which column holds concepts; there are {table_columns(text)}"
            )
        return cls.from_table(text, column=column, **options)


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError("no concepts: give at least one name")
    seen = set()
    for name in names:
        if not name:
            raise InputError("names: a concept has an empty name; give it one")
        if name in seen:
            raise InputError(f"names: {short_repr(name)} is given twice; join the two columns of labels")
        seen.add(name)
