"""Concepts as named sets of clips, with their negatives and the groups that are resampled as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.collect import LabelledClips
from captum_concepts.concepts.folders import read_folders
from captum_concepts.concepts.folds import stratified_parts
from captum_concepts.concepts.groups import LabelledGroups
from captum_concepts.concepts.matching import clip_properties, imbalance_lines, matched
from captum_concepts.concepts.names import Skipped, concept_name
from captum_concepts.concepts.overlap import Overlap, shared
from captum_concepts.concepts.playlists import read_playlists
from captum_concepts.concepts.reference import read_parents
from captum_concepts.concepts.review import (
    check_arguments,
    columns_of,
    dropped_lines,
    known_negatives,
    overlap_lines,
    skipped_lines,
    too_few_groups,
)
from captum_concepts.concepts.tables import read_table, table_columns
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


@dataclass(frozen=True, eq=False, repr=False)
class ConceptSet(LabelledGroups):
    """K concepts over N clips.

    A clip is a positive of any number of concepts. The *group* of a clip (track, artist, recording) is the unit of
    resampling: :meth:`folds` and :meth:`split` never divide a group, and a clip is never a negative of a concept that
    another clip of its group has.

    Attributes:
        names: K distinct names, normalised by :func:`concept_name`. Any other text is kept as data.
        clips: N distinct clips.
        labels: bool (N, K), whether the clip has the concept.
        pool: bool (N,), clips of the random pool: they have none of the concepts.
        negatives: what each concept is compared with: ``"random"``, the pool; ``"rest"``, every clip that does not
            have it, the pool included; ``"in-domain"``, clips outside the pool that do not have it, as long and as
            loud as those that do (their audio is read for that, see :mod:`captum_concepts.concepts.matching`); or
            ``{concept: [concepts]}``, the clips of the named concepts, where a concept without an entry gets the
            default. Default: ``"random"`` if there is a pool, else ``"rest"``.
        parents: child -> parent (None for a root), a reference tree that is used for evaluation only.
        skipped: (path, status, message) of every row or file that could not be used.

    Raises:
        InputError: names, clips, labels and pool do not fit together, or ``negatives`` names an unknown concept.

    Example:
        >>> clips = [Clip("a.wav"), Clip("b.wav"), Clip("c.wav")]
        >>> concepts = ConceptSet(("flute", "saxophone"), clips, [[1, 0], [0, 1], [0, 0]], pool=[0, 0, 1])
        >>> concepts.n_groups().tolist(), concepts.negatives
        ([1, 1], 'random')
        >>> concepts.subset(["saxophon"])
        Traceback (most recent call last):
        captum_concepts.errors.InputError: subset: no concept 'saxophon'; did you mean 'saxophone'? concepts: \
saxophone, flute
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
        check_arguments(names, clips, labels, pool)
        pool &= ~labels.any(axis=1)
        labels.flags.writeable = pool.flags.writeable = False
        for name, value in (("names", names), ("clips", clips), ("labels", labels), ("pool", pool)):
            object.__setattr__(self, name, value)
        negatives = known_negatives(self.negatives, self._default_negatives, bool(pool.any()), self._column_of)
        object.__setattr__(self, "negatives", negatives)

    @property
    def _default_negatives(self) -> Literal["random", "rest"]:
        return "random" if self.pool.any() else "rest"

    def _columns(self, names: Iterable[str], argument: str) -> list[int]:
        return columns_of(names, self._column_of, argument)

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

    # Positives and negatives ----------------------------------------------------------------------------------

    def positives(self) -> np.ndarray:
        """bool (N, K), the clips that have each concept."""
        return self.labels

    def negative_mask(self) -> np.ndarray:
        """The negatives of each concept.

        A clip whose group has the concept is never among them; :meth:`dropped_negatives` counts those left out.
        With ``"in-domain"`` the clips are read at the first call, and a concept without similar clips has no
        negatives: :meth:`check` names it.

        Returns:
            bool (N, K).

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
        """int64 (K,), clips that would be negatives but are of a group that has the concept."""
        mask = self._candidates(self.labels, self.pool)
        mask &= self.group_labels[self.group_index]
        mask &= ~self.labels
        return np.asarray(mask.sum(axis=0))

    def _candidates(self, labels: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """For clips or for groups: the negatives of each concept, before those that have it are left out."""
        default = self._default_negatives if isinstance(self.negatives, dict) else self.negatives
        rows = pool if default == "random" else ~pool if default == "in-domain" else np.ones(len(labels), dtype=bool)
        mask: np.ndarray = np.broadcast_to(rows[:, None], labels.shape).copy()
        if isinstance(self.negatives, dict):
            for concept, against in self.negatives.items():
                columns = self._columns(against, "negatives")
                mask[:, self._column_of[concept]] = labels[:, columns].any(axis=1)
        return mask

    def check(self, min_groups: int = 2) -> dict[str, str]:
        """The concepts with too few groups.

        Args:
            min_groups: groups that positives and negatives need each.

        Returns:
            {name: reason}.
        """
        group_pool = self._by_group(self.pool[:, None])[:, 0]
        if self.negatives == "in-domain":
            negatives = self._by_group(self._matched).sum(axis=0)
        else:
            negatives = (self._candidates(self.group_labels, group_pool) & ~self.group_labels).sum(axis=0)
        return too_few_groups(self.names, self.n_groups(), negatives, min_groups)

    # Splits ---------------------------------------------------------------------------------------------------

    def folds(self, k: int, seed: int = 0) -> np.ndarray:
        """Divide the groups into ``k`` folds of similar size, each concept spread as evenly as possible.

        The folds depend neither on the order of clips and concepts nor on the folder of the data
        (see :func:`captum_concepts.concepts.folds.stratified_parts`).

        Args:
            k: number of folds.
            seed: decides between equally good folds.

        Returns:
            int64 (N,), the fold of each clip; clips of one group share it.

        Raises:
            InputError: ``k`` is below 2 or above the number of groups.
        """
        if not 2 <= k <= len(self.group_names):
            raise InputError(
                f"k={short_repr(k)}: folds are between 2 and the {len(self.group_names)} groups; give another number"
            )
        return self._parts([1 / k] * k, seed)

    def split(self, fraction: float, seed: int = 0) -> np.ndarray:
        """Divide the groups into two parts.

        Args:
            fraction: of the groups of each concept that the first part gets, nearly.
            seed: decides between equally good parts.

        Returns:
            bool (N,), True for the clips of the first part.

        Raises:
            InputError: ``fraction`` is not between 0 and 1, or there are fewer than 2 groups.
        """
        if not 0 < fraction < 1:
            raise InputError(
                f"fraction={short_repr(fraction)}: a split needs a number between 0 and 1; give one, such as 0.8"
            )
        if len(self.group_names) < 2:
            raise InputError("split: all clips are of one group, which cannot be divided; give more groups")
        return np.asarray(self._parts([fraction, 1 - fraction], seed) == 0)

    def _parts(self, shares: list[float], seed: int) -> np.ndarray:
        labels = np.concatenate([self.group_labels, self._by_group(self.pool[:, None])], axis=1)
        # An empty name cannot be a concept's, so it stands for the pool.
        parts = stratified_parts(self.group_names, labels, [*self.names, ""], shares, seed)
        return np.asarray(parts[self.group_index])

    # What is shared -------------------------------------------------------------------------------------------

    def overlap(self) -> Overlap:
        """Clips and groups that every two concepts share."""
        return Overlap(self.names, shared(self.labels), shared(self.group_labels))

    def warnings(self, share: float = 0.5) -> list[str]:
        """One line for everything that a reader of the results should know about the examples.

        Args:
            share: pairs of concepts are named, largest overlap first, when the groups that they share are at least
                this share of the groups that have either (Jaccard index): these examples cannot separate them.

        Returns:
            the lines.
        """
        lines = skipped_lines(self.skipped) + dropped_lines(self.names, self.dropped_negatives())
        if self.negatives == "in-domain":
            lines += imbalance_lines(self.names, self.labels, self._matched, self.properties)
        return lines + overlap_lines(self.overlap(), share)

    # Others like it -------------------------------------------------------------------------------------------

    def subset(self, names: Sequence[str]) -> ConceptSet:
        """The named concepts only, in that order, with the same positives and negatives as here.

        Clips that are neither for any of them are left out; with negatives ``"rest"`` and ``"in-domain"`` none are.

        Args:
            names: in the order wanted.

        Returns:
            a new set.

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
                        f"subset: {short_repr(concept)} is compared with {short_repr(lost[0])}; keep that one too"
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
        """The same concepts with other negatives.

        Args:
            negatives: see :class:`ConceptSet`.

        Returns:
            a new set.

        Raises:
            InputError: they are not known.
        """
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

        A file that is in several of them (a link, or a copy under the same name) is one clip with several
        concepts.

        Args:
            root: the folder of the concepts' folders.
            pool: a further folder of clips that have none of the concepts, by path or as a subfolder of ``root``.
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
            path: the table. Text is UTF-8, with or without a byte order mark, its columns separated by ``,``, ``;``
                or a tab, whichever the header has most of. Files are relative to the table's folder.
            column: the column or columns that hold concepts. A clip has the concepts that its rows name in any of
                them; a clip with nothing in all of them is of the random pool. The same value in several columns is
                one concept if it marks the same clips there; if not, several, each called ``column=value``.
            group: the column with the track, artist or recording each clip was cut from. Default, and where the
                cell is empty: the file.
            file: the column of the files; default: the first of file, path, filename, audio that is there.
            start, end: the columns with seconds; default: ``start`` and ``end`` if they are there. An empty cell is
                the beginning or the end of the file.
            separator: separates several concepts in one cell; None where names hold it as a character.
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

        Args:
            playlists: concept -> paths or Clips.
            pool: paths or Clips that have none of the concepts.
            negatives: see :class:`ConceptSet`.
            parents: see :func:`captum_concepts.concepts.reference.read_parents`.

        Returns:
            the set.

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

        Args:
            text: path of the folder or table.
            column: see :meth:`from_table`.
            options: of :meth:`from_folders` or :meth:`from_table`; those that are None are left out.

        Returns:
            the set.

        Raises:
            InputError: neither a folder nor a file, or a table without ``column``.
        """
        options = {name: value for name, value in options.items() if value is not None}
        if Path(text).is_dir():
            return cls.from_folders(text, **options)
        if not Path(text).is_file():
            raise InputError(f"concepts={short_repr(str(text), 200)}: is neither a folder nor a table; check the path")
        if not column:
            raise InputError(
                f"column=None: {short_repr(str(text), 200)} is a table; say which column holds concepts; there are "
                f"{table_columns(text)}"
            )
        return cls.from_table(text, column=column, **options)
