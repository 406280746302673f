"""The one pass over audio: activations of all layers, or logits and gradients of all targets, clip by clip.

With a store, earlier results are reused: a clip is identified by the hash of its file's bytes and its seconds, the
model by ``Backbone.fingerprint``. Results are committed every ``COMMIT_CLIPS`` clips or ``COMMIT_SECONDS``, and when a
run is interrupted, so that it can be resumed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_concepts.activations.batching import ArrayNames, Problem, extracted, problem_of
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.files import file_digest
from captum_concepts.backbones.base import patch_length
from captum_concepts.backbones.layers import check_pooling
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.text import short_repr
from captum_concepts.types import Progress

logger = logging.getLogger(__name__)
COMMIT_CLIPS = 128
COMMIT_SECONDS = 10.0


@dataclass
class Extraction:
    """The results of one pass over audio.

    Attributes:
        clips: the clips that could be used, in the caller's order.
        kept: (len(clips),) int, their positions in the caller's list.
        counts: (len(clips),) int, patches of each.
        spans: (patches, 2) float64, start and end seconds of each patch in its file.
        activations: layer -> (patches, D) float32.
        logits: (patches, C), or None if no target was asked for.
        gradients: layer -> (patches, T, D) float32; empty if no target was asked for.
        problems: the clips that could not be used.
        short: number of clips shorter than one patch.
        digests: path -> sha256 of the file.
        computed: number of clips that went through the model in this call; the others came from the store.
    """

    clips: tuple[Clip, ...]
    kept: np.ndarray
    counts: np.ndarray
    spans: np.ndarray
    activations: dict[str, Tensor]
    logits: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    short: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    computed: int = 0

    @property
    def rows(self) -> np.ndarray:
        """(patches,) int: which of ``clips`` each patch belongs to."""
        return np.repeat(np.arange(len(self.clips)), self.counts)

    @property
    def order(self) -> np.ndarray:
        """(patches,) int: the place of each patch by path and time, whatever the order of ``clips``."""
        paths = np.unique(np.array([clip.path for clip in self.clips], dtype=object), return_inverse=True)[1]
        place = np.empty(len(self.spans), dtype=np.int64)
        place[np.lexsort((self.spans[:, 1], self.spans[:, 0], paths[self.rows]))] = np.arange(len(place))
        return place


def extract(
    backbone: Backbone,
    clips: Sequence[Clip],
    layers: Sequence[str],
    *,
    targets: Sequence[int] = (),
    pool: str = "time",
    store: ActivationStore | None = None,
    batch_size: int = 32,
    on_error: str = "skip",
    progress: Progress | None = None,
    stage: str = "listening",
) -> Extraction:
    """Run every clip through the backbone once.

    Args:
        backbone: see ``backbones.Backbone``.
        clips: those of the same sound (content, start and end) go through the model once.
        layers: layer names; all are collected in the same pass.
        targets: class numbers. Without targets one forward pass gives activations; with targets one forward and one
            backward per target give logits, activations and gradients of all layers.
        pool: "time", "none" or "time_freq".
        store: where results are kept and found again; None keeps nothing.
        batch_size: patches per pass. Results do not depend on it beyond float32 rounding.
        on_error: "skip" leaves out clips that cannot be used and reports them in ``problems``; "refuse" raises.
        progress: called with (stage, clips done, clips in all).
        stage: name for ``progress``.

    Returns:
        Extraction, on the CPU.

    Raises:
        InputError: unknown layer, pooling or option; no usable clip; with ``on_error="refuse"`` the first bad clip.
    """
    if on_error not in ("skip", "refuse"):
        raise InputError(f"on_error={short_repr(on_error)}: is not known; use skip or refuse")
    if batch_size < 1:
        raise InputError(f"batch_size={short_repr(batch_size)}: must be at least 1; give a positive whole number")
    check_pooling(pool)
    backbone.check_layers(layers)
    if not clips:
        raise InputError("clips: none given; pass at least one clip")
    problems: dict[int, Problem] = {}
    digests, keys = _identify(clips, problems, on_error)
    names = ArrayNames(tuple(dict.fromkeys(layers)), tuple(dict.fromkeys(targets)), pool)
    rows = _Rows(store, backbone.fingerprint() if store is not None else None, names)
    identified = [i for i in range(len(clips)) if i not in problems]
    groups = _same_sound(identified, keys, rows.absent([keys[i] for i in identified]))

    def report(done: int) -> None:
        if progress is not None:
            progress(stage, done, len(clips))

    _compute(backbone, clips, groups, names, batch_size, keys, rows, problems, on_error, report)
    for problem in problems.values():
        logger.info("left out: %s", problem.message)
    usable = [i for i in identified if i not in problems]
    if not usable:
        first = problems[min(problems)]
        raise InputError(f"clips: none of {len(clips)} could be used; the first: {first.message}")
    arrays, counts = rows.take([keys[i] for i in usable])
    return Extraction(
        clips=tuple(clips[i] for i in usable),
        kept=np.array(usable, dtype=np.int64),
        counts=counts,
        spans=arrays["span"].numpy(),
        activations={layer: arrays[names.activation(layer)] for layer in names.layers},
        logits=arrays.get("logits"),
        gradients={
            layer: torch.stack([arrays[names.gradient(layer, t)] for t in targets], 1)
            for layer in (names.layers if targets else ())
        },
        problems=[problems[i] for i in sorted(problems)],
        short=_short(backbone, arrays["span"].numpy(), counts),
        digests=digests,
        computed=sum(i not in problems for same in groups for i in same),
    )


def _same_sound(identified: Sequence[int], keys: Mapping[int, str], absent: set[str]) -> list[list[int]]:
    """The clips that have to be computed, those of the same sound together: the first of them is computed."""
    groups: dict[str, list[int]] = {}
    for i in identified:
        if keys[i] in absent:
            groups.setdefault(keys[i], []).append(i)
    return list(groups.values())


def _compute(
    backbone: Backbone,
    clips: Sequence[Clip],
    groups: Sequence[Sequence[int]],
    names: ArrayNames,
    batch_size: int,
    keys: Mapping[int, str],
    rows: _Rows,
    problems: dict[int, Problem],
    on_error: str,
    report: Callable[[int], None],
) -> None:
    """Compute the rows of the first clip of each group, and note the problems of all of them."""
    group_of = {same[0]: same for same in groups}
    done = len(clips) - sum(map(len, groups))
    report(done)
    try:
        with contextlib.closing(extracted(backbone, clips, list(group_of), names, batch_size)) as results:
            for i, result in results:
                for j in group_of[i]:
                    if isinstance(result, Problem):
                        _refuse_or_keep(problems, j, result.moved(clips[j].path), on_error)
                if not isinstance(result, Problem):
                    rows.add(keys[i], result)
                done += len(group_of[i])
                report(done)
    finally:
        rows.commit()


def _short(backbone: Backbone, spans: np.ndarray, counts: np.ndarray) -> int:
    """Clips with one patch that holds less sound than the patch is long (read from the spans: these are cached)."""
    length = patch_length(backbone) or 0.0
    first = np.cumsum(counts) - counts
    return int(((counts == 1) & (spans[first, 1] - spans[first, 0] < length - 1e-3)).sum())


def shard_of(clips: Sequence[Clip], number: int, total: int) -> list[Clip]:
    """Every ``total``-th clip, beginning with the ``number``-th (counted from 1), of the clips in sorted order.

    Args:
        clips: all clips, in any order.
        number: which shard, from 1.
        total: number of shards.

    Returns:
        the shard's clips; the shards together hold each clip once.

    Raises:
        InputError: not 1 <= number <= total.

    Example:
        >>> [clip.path for clip in shard_of([Clip("c.wav"), Clip("a.wav"), Clip("b.wav")], 1, 2)]
        ['a.wav', 'c.wav']
    """
    if not 1 <= number <= total:
        raise InputError(f"shard={number}/{total}: is out of range; give a first number between 1 and the second")
    ordered = sorted(clips, key=lambda c: (c.path, c.start, np.inf if c.end is None else c.end, c.group))
    return ordered[number - 1 :: total]


def _identify(
    clips: Sequence[Clip], problems: dict[int, Problem], on_error: str
) -> tuple[dict[str, str], dict[int, str]]:
    """sha256 of every file, and the key of every clip: content, seconds and the file's ending, never the path.

    What an ending promises is part of whether a file can be used, so the same sound under another one is another clip.
    """
    digests: dict[str, str] = {}
    faults: dict[str, Problem] = {}
    keys: dict[int, str] = {}
    for i, clip in enumerate(clips):
        if clip.path not in digests and clip.path not in faults:
            try:
                digests[clip.path] = file_digest(clip.path)
            except InputError as error:
                faults[clip.path] = problem_of(clip, error)
        if clip.path in faults:
            _refuse_or_keep(problems, i, faults[clip.path], on_error)
        else:
            end = None if clip.end is None else float(clip.end)
            keys[i] = f"{digests[clip.path]}{Path(clip.path).suffix.lower()} {float(clip.start)!r} {end!r}"
    return digests, keys


class _Rows:
    """The rows of one call: in a store where there is one and the backbone has a fingerprint, else in memory."""

    def __init__(self, store: ActivationStore | None, namespace: str | None, names: ArrayNames):
        self._store = store if namespace is not None else None
        self._namespace = namespace or ""
        self._names = names.all
        self._lacking: dict[str, set[str]] = {}
        self._rows: dict[str, dict[str, Tensor]] = {}
        self._committed = time.monotonic()

    def absent(self, keys: Sequence[str]) -> set[str]:
        """Which clips have to go through the model."""
        if self._store is None:
            self._lacking = {name: set(keys) for name in self._names}
        else:
            self._lacking = {name: set(self._store.missing(self._namespace, [name], keys)) for name in self._names}
        return set().union(*self._lacking.values())

    def add(self, key: str, rows: Mapping[str, Tensor]) -> None:
        # Only what is not there yet: of two copies that differ by rounding, either might be read back.
        fresh = {name: values for name, values in rows.items() if key in self._lacking[name]}
        for name in fresh:
            self._lacking[name].discard(key)
        if fresh:
            self._rows[key] = fresh
        if len(self._rows) >= COMMIT_CLIPS or time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        if self._store is not None and self._rows:
            rows, self._rows = self._rows, {}
            self._store.put(self._namespace, rows)
        self._committed = time.monotonic()

    def take(self, keys: Sequence[str]) -> tuple[dict[str, Tensor], np.ndarray]:
        """Array name -> (patches, ...) of the clips one after the other, and the patches of each clip."""
        if self._store is None:
            arrays = {name: torch.cat([self._rows[key][name] for key in keys]) for name in self._names}
            return arrays, np.array([len(self._rows[key]["span"]) for key in keys], dtype=np.int64)
        found = {name: self._store.get(self._namespace, name, keys) for name in self._names}
        return {name: values for name, (values, _) in found.items()}, np.asarray(found["span"][1], dtype=np.int64)


def _refuse_or_keep(problems: dict[int, Problem], i: int, problem: Problem, on_error: str) -> None:
    if on_error == "refuse":
        raise InputError(problem.message)
    problems[i] = problem
