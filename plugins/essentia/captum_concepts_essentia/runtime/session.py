"""Run graphs that cannot be imported in Essentia itself, protected from its known faults.

Essentia's own output format loses values: an output whose rank TensorFlow does not know comes back as one
number per row, and only four axes fit. So a copy of the graph is run that has a few nodes more, which give every
output as one flat row, beside its shape. Audio is decoded and prepared by captum_concepts, never by ``MonoLoader``,
which ends the process on Opus files.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.graphdef.functions import split_reference
from captum_concepts_essentia.graphdef.listing import choices
from captum_concepts_essentia.graphdef.protobuf import Graph, read_graph

INSTALL = "pip install 'captum-concepts-essentia[runtime]'"
ROWS_PER_CALL = 256
MAX_BATCH = 4096
_PREFIX = "captum_concepts"
_loaded_in: int | None = None  # the process that imported essentia


def load_essentia() -> ModuleType:
    """``essentia.standard``, with its logging off: it writes a warning for every patch.

    Raises:
        InputError: essentia is not installed, or this process was forked from one that had imported it, in which
            TensorFlow would hang.
    """
    global _loaded_in
    if _loaded_in is not None and _loaded_in != os.getpid():
        raise InputError(
            "essentia was imported before this process was forked, and would hang: start processes by 'spawn', or use "
            "threads"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import essentia

        essentia.log.infoActive = essentia.log.warningActive = False
        from essentia import standard
    except ImportError:
        raise InputError(f"this graph runs only in Essentia, which is not installed; {INSTALL}") from None
    _loaded_in = os.getpid()
    loaded: ModuleType = standard
    return loaded


class Session:
    """A frozen graph in ``TensorflowPredict``. May be called from several threads, which then wait for each other.

    Graphs frozen for a number of rows (EffNet for 64) are given as many, the last one repeated, and take others so.

    Args:
        path: the ``.pb`` file.
        input: node to start from, an inner one too.
        outputs: "node" or "node:k", of float values.

    Raises:
        InputError: see `load_essentia`; not a frozen graph, no such node, or one that TensorFlow cannot run.
    """

    def __init__(self, path: str | PathLike[str], input: str, outputs: Sequence[str]) -> None:
        self._where = short_repr(fspath(path), 200)
        standard = load_essentia()
        graph = read_graph(path)
        for name in (input, *outputs):
            if split_reference(name)[0] not in graph.nodes:
                known = [node.name for node in graph.nodes.values() if node.op != "Const"]
                raise InputError(
                    f"{self._where}: TensorFlow has no node {short_repr(name)} outside of functions; it has "
                    f"{choices(name, known)}"
                )
        self.input = input
        self.outputs = tuple(dict.fromkeys(outputs))
        self._batch = _fixed_batch(graph)
        self._lock = threading.Lock()
        nodes = [f"{_PREFIX}/{what}_{i}" for i in range(len(self.outputs)) for what in ("value", "shape")]
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "graph.pb"
            copy.write_bytes(Path(path).read_bytes() + _flattening(self.outputs))
            try:
                self._run = {
                    squeeze: standard.TensorflowPredict(
                        graphFilename=str(copy), inputs=[input], outputs=nodes, squeeze=squeeze
                    )
                    for squeeze in (True, False)
                }
            except RuntimeError as error:
                raise InputError(f"{self._where}: Essentia cannot load it ({_one_line(error)})") from None

    def __call__(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Output -> its value.

        Args:
            x: the input node's value, of two to four axes, the first of them rows.

        Raises:
            InputError: no rows, another number of axes, or TensorFlow refuses the values.
        """
        x = np.ascontiguousarray(x, np.float32)
        if not 2 <= x.ndim <= 4 or not x.size:
            raise InputError(f"{self._where}: an input of shape {x.shape}; give at least one row, and 2 to 4 axes")
        if x.ndim < 4 and 1 in x.shape[1:]:
            raise InputError(f"{self._where}: an input of shape {x.shape}: Essentia would drop the axis of size 1")
        rows = self._batch or ROWS_PER_CALL
        missing = -len(x) % self._batch if self._batch else 0
        padded = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x
        parts = [self._called(padded[start : start + rows]) for start in range(0, len(padded), rows)]
        return {name: np.concatenate([part[name] for part in parts])[: len(x)] for name in self.outputs}

    def _called(self, x: np.ndarray) -> dict[str, np.ndarray]:
        if _loaded_in != os.getpid():
            load_essentia()  # says why not
        from essentia import Pool

        pool = Pool()
        pool.set(self.input, x.reshape(len(x), *[1] * (4 - x.ndim), *x.shape[1:]))
        try:
            with self._lock:
                found = self._run[x.ndim < 4](pool)
        except RuntimeError as error:
            raise InputError(
                f"{self._where}: TensorFlow refuses an input of shape {x.shape} ({_one_line(error)})"
            ) from None
        values = {}
        for i, name in enumerate(self.outputs):
            shape = np.asarray(found[f"{_PREFIX}/shape_{i}"]).ravel().astype(int)
            values[name] = np.asarray(found[f"{_PREFIX}/value_{i}"]).ravel().reshape(shape)
            if not shape.size or shape[0] != len(x):
                raise InputError(
                    f"{self._where}: {short_repr(name)} has shape {tuple(shape)} for {len(x)} rows; choose another"
                )
        return values


def _fixed_batch(graph: Graph) -> int | None:
    """The number of rows that a graph was frozen for, as its Placeholder states it; None for any number.

    Nodes behind it may reshape to as many, so that TensorFlow takes no others; Essentia fills up batches, too.
    """
    shapes = [node.attributes.shapes.get("shape") for node in graph.nodes.values() if node.op == "Placeholder"]
    stated = {shape[0] for shape in shapes if shape and len(shape) > 1 and 0 < shape[0] <= MAX_BATCH}
    return stated.pop() if len(stated) == 1 else None


def _flattening(outputs: Sequence[str]) -> bytes:
    """Nodes that give each output as (1, 1, 1, n) and its shape as (1, 1, 1, rank), to put behind a GraphDef's."""
    graph = GraphBuilder()
    number, index = np.dtype("float32"), np.dtype("int32")
    flat = graph.constant(f"{_PREFIX}/flat", np.array([1, 1, 1, -1], np.int32))
    for i, output in enumerate(outputs):
        settings: dict[str, Any] = {"T": number, "Tshape": index}
        graph.add("Reshape", f"{_PREFIX}/value_{i}", output, flat, **settings)
        sizes = graph.add("Shape", f"{_PREFIX}/sizes_{i}", output, T=number, out_type=index)
        as_floats = graph.add("Cast", f"{_PREFIX}/floats_{i}", sizes, SrcT=index, DstT=number, Truncate=False)
        graph.add("Reshape", f"{_PREFIX}/shape_{i}", as_floats, flat, **settings)
    return graph.content


def _one_line(error: Exception) -> str:
    return short_repr(" ".join(str(error).split()), 200)
