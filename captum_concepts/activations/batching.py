"""Forward and backward passes over clips: decoded ahead in a thread, batched, results returned clip by clip."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from captum_concepts.audio.clips import AudioError, Clip, ClipError
from captum_concepts.audio.patches import Patches
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

READ_AHEAD = 8


@dataclass(frozen=True)
class Problem:
    """A clip that could not be used.

    Attributes:
        path: its file.
        status: the kind of fault, see ``audio.AudioError``; "refused" for a fault without a kind.
        message: the full message.
        reason: the message without the file's name; "" where it is not known apart.

    Example:
        >>> Problem("a.wav", "empty", "'a.wav': empty: no audio", "empty: no audio").moved("b.wav").message
        "'b.wav': empty: no audio"
    """

    path: str
    status: str
    message: str
    reason: str = ""

    def moved(self, path: str) -> Problem:
        """The same fault in another file with the same bytes.

        Args:
            path: of the other file.

        Returns:
            the problem with that file's name in its message, where the message is known without the name.
        """
        message = f"{short_repr(path, 200)}: {self.reason}" if self.reason else self.message
        return Problem(path, self.status, message, self.reason)


@dataclass(frozen=True)
class ArrayNames:
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


def problem_of(clip: Clip, error: InputError) -> Problem:
    """What is reported of a clip that raised an error."""
    status = error.status if isinstance(error, AudioError) else "refused"
    reason = error.reason if isinstance(error, ClipError) and error.path == clip.path else ""
    return Problem(clip.path, status, str(error), reason)


@dataclass
class _PartialRows:
    """The rows of a clip that is not complete yet."""

    spans: list[dict[str, Tensor]] = field(default_factory=list)
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    waiting: int = 0
    ended: bool = False

    def rows(self) -> dict[str, Tensor]:
        return _joined(self.parts) | _joined(self.spans)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _append(parts: list[dict[str, Tensor]], part: dict[str, Tensor]) -> None:
    """Append, and join neighbours of similar size: n parts become about log2(n).

    Thousands of small tensors, each in the memory that a block of audio has just left, would keep the next block from
    using it again: a long file would take as much memory as all its patches.
    """
    parts.append(part)
    while len(parts) > 1 and _length(parts[-2]) <= _length(parts[-1]):
        parts[-2:] = [_joined(parts[-2:])]


def _length(part: dict[str, Tensor]) -> int:
    return len(next(iter(part.values())))


def extracted(
    backbone: Backbone, clips: Sequence[Clip], todo: Sequence[int], names: ArrayNames, batch_size: int
) -> Generator[tuple[int, dict[str, Tensor] | Problem], None, None]:
    """Each clip of ``todo`` with its rows or its problem, in no particular order.

    Patches of several clips share a batch; a clip that turns out bad halfway gives a problem and no rows.
    """
    pending: dict[int, _PartialRows] = {}
    blocks: deque[tuple[int, Tensor]] = deque()

    def run(size: int) -> Iterator[int]:
        """One pass over the first ``size`` patches; gives the clips that are complete."""
        batch: list[tuple[int, Tensor]] = []
        while blocks and size:
            i, inputs = blocks.popleft()
            batch.append((i, inputs[:size]))
            if len(inputs) > size:
                blocks.appendleft((i, inputs[size:]))
            size -= len(batch[-1][1])
        found = _forward(backbone, torch.cat([inputs for _, inputs in batch]), names)
        start = 0
        for i, inputs in batch:
            end = start + len(inputs)
            _append(pending[i].parts, {name: values[start:end] for name, values in found.items()})
            pending[i].waiting -= len(inputs)
            start = end
        for i in dict.fromkeys(i for i, _ in batch):
            if pending[i].ended and not pending[i].waiting:
                yield i

    def result(i: int) -> tuple[int, dict[str, Tensor] | Problem]:
        return i, _checked(clips[i], pending.pop(i).rows())

    with contextlib.closing(_read_ahead(backbone, clips, todo)) as blocks_read:
        for i, item in blocks_read:
            if isinstance(item, Patches):
                partial = pending.setdefault(i, _PartialRows())
                partial.waiting += len(item.inputs)
                _append(partial.spans, {"span": torch.from_numpy(np.stack([item.starts, item.ends], 1))})
                blocks.append((i, item.inputs))
                while sum(len(inputs) for _, inputs in blocks) >= batch_size:
                    yield from map(result, run(batch_size))
            elif isinstance(item, Problem):
                blocks = deque((j, inputs) for j, inputs in blocks if j != i)
                pending.pop(i, None)
                yield i, item
            else:
                pending[i].ended = True
                if not pending[i].waiting:
                    yield result(i)
    while blocks:
        yield from map(result, run(batch_size))


def _checked(clip: Clip, rows: dict[str, Tensor]) -> dict[str, Tensor] | Problem:
    bad = [name for name, values in rows.items() if not torch.isfinite(values).all()]
    if not bad:
        return rows
    error = ClipError(clip.path, f"the model gave NaN or infinite values ({bad[0]}); check weights and audio")
    return replace(problem_of(clip, error), status="not finite")


def _forward(backbone: Backbone, inputs: Tensor, names: ArrayNames) -> dict[str, Tensor]:
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


# Marks the end of a clip's blocks.
_END = object()


def _read_ahead(
    backbone: Backbone, clips: Sequence[Clip], todo: Sequence[int]
) -> Generator[tuple[int, Patches | Problem | object], None, None]:
    """Blocks of patches of each clip, then ``_END``, or a ``Problem``; decoded in a thread while the model computes."""
    blocks: queue.Queue[tuple[int, Patches | Problem | object] | None] = queue.Queue(maxsize=READ_AHEAD)
    stop = threading.Event()
    failure: list[BaseException] = []

    def offer(item: tuple[int, Patches | Problem | object] | None) -> bool:
        while not stop.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read(indices: Iterable[int]) -> None:
        try:
            for i in indices:
                extracted = False
                try:
                    for block in backbone.read(clips[i]):
                        extracted = extracted or len(block.inputs) > 0
                        if not offer((i, block)):
                            return
                    if not extracted:
                        raise AudioError(
                            clips[i].path, "too short", "no patch could be cut from it", "give a longer clip"
                        )
                    offer((i, _END))
                except InputError as error:
                    offer((i, problem_of(clips[i], error)))
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
