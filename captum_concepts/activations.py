"""The one pass over audio: activations of all layers, or logits and gradients of all targets, clip by clip.

With a store, what was computed before is reused: a clip is known by the hash of its file's bytes and its seconds, the
model by ``Backbone.fingerprint``. What is computed is committed every ``COMMIT_CLIPS`` clips, so a killed run goes on
where it was.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio import AudioError, Clip, Patches, file_digest
from captum_concepts.backbones import Backbone
from captum_concepts.errors import InputError, shown
from captum_concepts.layers import check_pooling
from captum_concepts.store import ActivationStore

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
COMMIT_CLIPS = 128
READ_AHEAD = 8


@dataclass(frozen=True)
class Problem:
    """A clip that could not be used: its file, what kind of fault (see ``audio.AudioError``), and the full message."""

    path: str
    status: str
    message: str


@dataclass
class Extraction:
    """What one pass gave.

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


def extract(
    backbone: Backbone,
    clips: Sequence[Clip],
    layers: Sequence[str],
    *,
    targets: Sequence[int] = (),
    pool: str = "time",
    store: ActivationStore | None = None,
    batch_size: int = 32,
    on_bad: str = "skip",
    progress: Progress | None = None,
    stage: str = "listening",
) -> Extraction:
    """Run every clip through the backbone once.

    Args:
        backbone: see ``backbones.Backbone``.
        clips: distinct clips.
        layers: layer names; all are collected in the same pass.
        targets: class numbers. Without targets one forward pass gives activations; with targets one forward and one
            backward per target give logits, activations and gradients of all layers.
        pool: "time", "none" or "time_freq".
        store: where results are kept and found again; None keeps nothing.
        batch_size: patches per pass. Results do not depend on it beyond float32 rounding.
        on_bad: "skip" leaves out clips that cannot be used and reports them in ``problems``; "refuse" raises the first.
        progress: called with (stage, clips done, clips in all).
        stage: name for ``progress``.

    Returns:
        Extraction, on the CPU.

    Raises:
        InputError: unknown layer, pooling or option; no usable clip; with ``on_bad="refuse"`` the first bad clip.
    """
    if on_bad not in ("skip", "refuse"):
        raise InputError(f"on_bad={shown(on_bad)} is not known; use skip or refuse")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    check_pooling(pool)
    backbone.check_layers(layers)
    if not clips:
        raise InputError("clips: none given; pass at least one clip")
    problems: dict[int, Problem] = {}
    digests, keys = _identify(clips, problems, on_bad)
    namespace = backbone.fingerprint() if store is not None else None
    names = _Names(tuple(layers), tuple(targets), pool)
    rows: dict[int, dict[str, Tensor]] = {}
    wanted = [i for i in range(len(clips)) if i not in problems]
    todo = wanted
    lacking: dict[str, set[str]] = {}
    if store is not None and namespace is not None:
        asked = [keys[i] for i in wanted]
        lacking = {name: set(store.missing(namespace, [name], asked)) for name in names.all}
        todo = [i for i in wanted if any(keys[i] in absent for absent in lacking.values())]
    done = len(clips) - len(todo)
    if progress is not None:
        progress(stage, done, len(clips))
    pending: dict[str, dict[str, Tensor]] = {}
    for i, result in _computed(backbone, clips, todo, names, batch_size):
        done += 1
        if isinstance(result, Problem):
            _refuse_or_keep(problems, i, result, on_bad)
        elif store is not None and namespace is not None:
            # Only what is not there yet: of two copies that differ by rounding, either might be read back.
            fresh = {name: values for name, values in result.items() if keys[i] in lacking[name]}
            for name in fresh:
                lacking[name].discard(keys[i])
            if fresh:
                pending[keys[i]] = fresh
            if len(pending) >= COMMIT_CLIPS:
                store.put(namespace, pending)
                pending = {}
        else:
            rows[i] = result
        if progress is not None:
            progress(stage, done, len(clips))
    usable = [i for i in wanted if i not in problems]
    if store is not None and namespace is not None:
        if pending:
            store.put(namespace, pending)
        arrays, counts = _gather(store, namespace, names, [keys[i] for i in usable])
    else:
        arrays = {name: torch.cat([rows[i][name] for i in usable]) for name in names.all} if usable else {}
        counts = np.array([len(rows[i]["span"]) for i in usable], dtype=np.int64)
    for problem in problems.values():
        logger.info("left out: %s", problem.message)
    if not usable:
        first = next(iter(problems.values()))
        raise InputError(f"clips: none of {len(clips)} could be used; the first: {first.message}")
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
        computed=sum(i not in problems for i in todo),
    )


def _short(backbone: Backbone, spans: np.ndarray, counts: np.ndarray) -> int:
    """Clips with one patch that holds less sound than the patch is long (read from the spans: these are cached)."""
    length = getattr(backbone, "patch_seconds", 0.0)
    first = np.cumsum(counts) - counts
    return int(((counts == 1) & (spans[first, 1] - spans[first, 0] < length - 1e-3)).sum())


def shard_of(clips: Sequence[Clip], number: int, total: int) -> list[Clip]:
    """Every ``total``-th clip, beginning with the ``number``-th (counted from 1), of the clips in sorted order.

    Raises:
        InputError: not 1 <= number <= total.
    """
    if not 1 <= number <= total:
        raise InputError(f"shard={number}/{total}: the first number must be between 1 and the second")
    return sorted(clips, key=lambda clip: (clip.path, clip.start, np.inf if clip.end is None else clip.end))[
        number - 1 :: total
    ]


@dataclass(frozen=True)
class _Names:
    """Names of the arrays of one clip in the store."""

    layers: tuple[str, ...]
    targets: tuple[int, ...]
    pool: str

    def activation(self, layer: str) -> str:
        return f"activation {self.pool} {layer}"

    def gradient(self, layer: str, target: int) -> str:
        return f"gradient {self.pool} {target} {layer}"

    @property
    def all(self) -> list[str]:
        names = ["span", *map(self.activation, self.layers)]
        if self.targets:
            names.append("logits")
            names += [self.gradient(layer, target) for layer in self.layers for target in self.targets]
        return names


def _identify(
    clips: Sequence[Clip], problems: dict[int, Problem], on_bad: str
) -> tuple[dict[str, str], dict[int, str]]:
    """sha256 of every file, and the key of every clip: content and seconds, never the path."""
    digests: dict[str, str] = {}
    faults: dict[str, Problem] = {}
    keys: dict[int, str] = {}
    for i, clip in enumerate(clips):
        if clip.path not in digests and clip.path not in faults:
            try:
                digests[clip.path] = file_digest(clip.path)
            except InputError as error:
                faults[clip.path] = _problem(clip, error)
        if clip.path in faults:
            _refuse_or_keep(problems, i, faults[clip.path], on_bad)
        else:
            keys[i] = f"{digests[clip.path]} {clip.start!r} {clip.end!r}"
    return digests, keys


def _problem(clip: Clip, error: InputError) -> Problem:
    status = error.status if isinstance(error, AudioError) else "refused"
    return Problem(clip.path, status, str(error))


def _refuse_or_keep(problems: dict[int, Problem], i: int, problem: Problem, on_bad: str) -> None:
    if on_bad == "refuse":
        raise InputError(problem.message)
    problems[i] = problem


def _gather(
    store: ActivationStore, namespace: str, names: _Names, keys: list[str]
) -> tuple[dict[str, Tensor], np.ndarray]:
    arrays: dict[str, Tensor] = {}
    counts = np.zeros(0, dtype=np.int64)
    for name in names.all if keys else ():
        arrays[name], found = store.get(namespace, name, keys)
        counts = np.asarray(found, dtype=np.int64)
    return arrays, counts


def _computed(
    backbone: Backbone, clips: Sequence[Clip], todo: Sequence[int], names: _Names, batch_size: int
) -> Iterator[tuple[int, dict[str, Tensor] | Problem]]:
    """Each clip of ``todo`` with its rows or its problem, in no particular order.

    Patches of several clips share a batch; a clip that turns out bad halfway gives a problem and no rows.
    """
    parts: dict[int, list[dict[str, Tensor]]] = {}
    spans: dict[int, list[Tensor]] = {}
    remaining: dict[int, int] = {}
    ended: set[int] = set()
    waiting: list[tuple[int, Tensor]] = []

    def finished(i: int) -> Iterator[tuple[int, dict[str, Tensor] | Problem]]:
        if i in ended and remaining.get(i, 0) == 0:
            rows = {name: torch.cat([part[name] for part in parts[i]]) for name in parts[i][0]}
            rows["span"] = torch.cat(spans.pop(i))
            del parts[i]
            bad = [name for name, values in rows.items() if not torch.isfinite(values).all()]
            if bad:
                message = f"{clips[i].path}: the model gave NaN or infinite values ({bad[0]}); check weights and audio"
                yield i, Problem(clips[i].path, "not finite", message)
            else:
                yield i, rows

    def run(size: int) -> Iterator[tuple[int, dict[str, Tensor] | Problem]]:
        batch = waiting[:size]
        del waiting[:size]
        results = _forward(backbone, torch.stack([patch for _, patch in batch]), names)
        start = 0
        while start < len(batch):
            i = batch[start][0]
            end = start
            while end < len(batch) and batch[end][0] == i:
                end += 1
            if i in parts:
                parts[i].append({name: values[start:end] for name, values in results.items()})
                remaining[i] -= end - start
                yield from finished(i)
            start = end

    for i, item in _read_ahead(backbone, clips, todo):
        if isinstance(item, Patches):
            parts.setdefault(i, [])
            remaining[i] = remaining.get(i, 0) + len(item.inputs)
            spans.setdefault(i, []).append(torch.from_numpy(np.stack([item.starts, item.ends], 1)))
            waiting.extend((i, patch) for patch in item.inputs)
            while len(waiting) >= batch_size:
                yield from run(batch_size)
        elif isinstance(item, Problem):
            waiting = [(j, patch) for j, patch in waiting if j != i]
            parts.pop(i, None)
            spans.pop(i, None)
            yield i, item
        else:
            ended.add(i)
            yield from finished(i)
    while waiting:
        yield from run(batch_size)


def _forward(backbone: Backbone, inputs: Tensor, names: _Names) -> dict[str, Tensor]:
    """Rows of all arrays but "span" for one batch, on the CPU."""
    if not names.targets:
        found = backbone.activations(inputs, names.layers, names.pool)
        return {names.activation(layer): values.float().cpu() for layer, values in found.items()}
    logits, activations, gradients = backbone.gradients(inputs, names.layers, names.targets, names.pool)
    rows = {names.activation(layer): values.float().cpu() for layer, values in activations.items()}
    rows["logits"] = logits.float().cpu()
    for layer, values in gradients.items():
        for position, target in enumerate(names.targets):
            rows[names.gradient(layer, target)] = values[:, position].float().cpu()
    return rows


# What follows the last block of a clip.
_END = object()


def _read_ahead(
    backbone: Backbone, clips: Sequence[Clip], todo: Sequence[int]
) -> Iterator[tuple[int, Patches | Problem | object]]:
    """Blocks of patches of each clip, then ``_END``, or a ``Problem``; decoded in a thread while the model computes."""
    blocks: queue.Queue[tuple[int, Patches | Problem | object] | None] = queue.Queue(maxsize=READ_AHEAD)
    stop = threading.Event()
    failure: list[BaseException] = []

    def offer(item: tuple[int, Patches | Problem | object] | None) -> None:
        while not stop.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read(indices: Iterable[int]) -> None:
        try:
            for i in indices:
                if stop.is_set():
                    return
                heard = False
                try:
                    for block in backbone.read(clips[i]):
                        heard = heard or len(block.inputs) > 0
                        offer((i, block))
                    if not heard:
                        raise AudioError(
                            clips[i].path, "too short", "no patch could be cut from it", "give a longer clip"
                        )
                    offer((i, _END))
                except InputError as error:
                    offer((i, _problem(clips[i], error)))
        except BaseException as error:  # handed to the thread that asked, which raises it
            failure.append(error)
        finally:
            offer(None)

    thread = threading.Thread(target=read, args=(todo,), name="captum_concepts decoder", daemon=True)
    thread.start()
    try:
        while (item := blocks.get()) is not None:
            yield item
        if failure:
            raise failure[0]
    finally:
        stop.set()
        thread.join()
