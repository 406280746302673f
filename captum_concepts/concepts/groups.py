"""Groups of labelled clips: the unit of resampling."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from captum_concepts.audio.clips import Clip


class LabelledGroups:
    """The groups of N clips with labels for K concepts, and which of them have which concept.

    Attributes:
        clips: N distinct clips.
        labels: bool (N, K), whether the clip has the concept.
    """

    clips: tuple[Clip, ...]
    labels: np.ndarray

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
        """bool (G, K), whether any clip of the group has the concept."""
        return self._by_group(self.labels)

    def _by_group(self, mask: np.ndarray) -> np.ndarray:
        result = np.zeros((len(self.group_names), mask.shape[1]), dtype=bool)
        rows, columns = np.nonzero(mask)
        result[self.group_index[rows], columns] = True
        return result

    def n_groups(self) -> np.ndarray:
        """int64 (K,), number of groups that have each concept: its number of independent examples."""
        return np.asarray(self.group_labels.sum(axis=0))
