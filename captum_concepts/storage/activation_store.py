"""Store rows of named arrays per clip on disk, so that each is computed once.

Layout: ``<folder>/<namespace>/<id>.safetensors`` (a shard) and ``<id>.json`` (its entry). A shard is written under a
temporary name, flushed to the disk and renamed, then its entry likewise; the renaming of the entry is the commit.
Readers trust entries only, so that a writer killed at any moment leaves whole shards or nothing. Names are unique, so
that any number of writers share a folder without locks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.storage.safetensors_files import sync_folder
from captum_concepts.text import short_repr

FORMAT = 1
STALE_SECONDS = 86_400.0
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
logger = logging.getLogger(__name__)


class _Unusable(Exception):
    """The reason why an entry cannot be used."""


class _Damage(_Unusable):
    """The damage in an entry or its shard."""


@dataclass(frozen=True)
class _Array:
    tensor: str
    dtype: str
    shape: tuple[int, int]
    rows: dict[str, tuple[int, int]]  # clip key -> first row, number of rows


@dataclass(frozen=True)
class _Entry:
    id: str
    size: int
    sha256: str
    arrays: dict[str, _Array]


@dataclass
class _Namespace:
    """What one process knows of one namespace."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    verified: set[str] = field(default_factory=set)
    holder: dict[str, dict[str, str]] = field(default_factory=dict)  # array -> clip key -> id of its entry

    def add(self, entry: _Entry) -> None:
        self.entries[entry.id] = entry
        for name, array in entry.arrays.items():
            holder = self.holder.setdefault(name, {})
            for key in array.rows:
                # Of two writers' rows for one clip everybody takes the same.
                holder[key] = min(holder.get(key, entry.id), entry.id)

    def drop(self, ids: Iterable[str]) -> None:
        gone = set(ids)
        kept = [entry for id, entry in self.entries.items() if id not in gone]
        self.verified -= gone
        self.entries, self.holder = {}, {}
        for entry in kept:
            self.add(entry)


class ActivationStore:
    """Rows of named arrays per clip, in safetensors shards with a manifest.

    A *namespace* is the caller's fingerprint of everything the rows depend on (weights, front-end, pooling, patches);
    a *clip key* says which audio (digest of its content, start and end). A shard is checked against the sha256 of its
    entry when a store object first uses it. What is damaged is logged, set aside as ``<id>.json.damaged`` and taken
    for missing, so that it is computed again; it is never used and never deleted.

    Args:
        folder: is made when something is first written.

    Raises:
        InputError: ``folder`` is a file.

    Example:
        >>> import tempfile
        >>> store = ActivationStore(tempfile.mkdtemp())
        >>> store.put("model-1", {"clip-1": {"layer4": torch.ones(3, 2)}})
        >>> store.missing("model-1", ["layer4"], ["clip-1", "clip-2"])
        ['clip-2']
        >>> values, counts = store.get("model-1", "layer4", ["clip-1"])
        >>> values.shape, counts.tolist()
        (torch.Size([3, 2]), [3])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"store={short_repr(str(folder), 200)}: not a folder; give a folder for the activations")
        self._known: dict[str, _Namespace] = {}
        self._cleaned: set[str] = set()

    # Writing --------------------------------------------------------------------------------------------------

    def put(
        self,
        namespace: str,
        rows: Mapping[str, Mapping[str, Tensor | np.ndarray]],
        meta: Mapping[str, str] | None = None,
    ) -> None:
        """Commit the rows of some clips as one shard: all of them or, if interrupted, none.

        Args:
            namespace: fingerprint: 1 to 200 letters, digits, ``.``, ``_``, ``-``.
            rows: {clip key: {array name: float (P, D)}}. P may differ from clip to clip and be 0; dtype (float64,
                float32, float16 or bfloat16) and D are the same for all rows of one array. Nothing is converted.
            meta: kept in the entry for people to read.

        Raises:
            InputError: an array of another shape or type, or the folder cannot be written to.
        """
        folder = self._namespace_folder(namespace)
        if not rows:
            return
        tensors, arrays = _joined(rows)
        data = save(tensors, metadata={"namespace": namespace, "arrays": json.dumps([a["name"] for a in arrays])})
        entry = {
            "format": FORMAT,
            "namespace": namespace,
            "arrays": arrays,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "meta": dict(meta or {}),
        }
        id = uuid.uuid4().hex
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._clean(folder)
            _write(folder / f"{id}.safetensors", data)
            _write(folder / f"{id}.json", _sealed(entry))
        except OSError as error:
            raise InputError(
                f"store={short_repr(str(self.folder), 200)}: cannot keep activations ({error.strerror}); "
                "make room there or choose another folder"
            ) from error

    def _clean(self, folder: Path) -> None:
        """Remove what killed writers left half written; what is younger than a day may still be written to."""
        if folder.name in self._cleaned:
            return
        self._cleaned.add(folder.name)
        for leftover in folder.glob("*.tmp"):
            try:
                if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                    leftover.unlink()
            except FileNotFoundError:
                continue

    # Reading --------------------------------------------------------------------------------------------------

    def missing(self, namespace: str, names: Sequence[str], clip_keys: Sequence[str]) -> list[str]:
        """The clips that lack undamaged rows of any of the arrays.

        Args:
            namespace: as in :meth:`put`.
            names: of arrays.
            clip_keys: of clips.

        Returns:
            their keys, in the given order.

        Raises:
            InputError: a namespace that :meth:`put` would refuse.
        """
        known = self._sound(namespace, names, clip_keys)
        holders = [known.holder.get(name, {}) for name in names]
        return [key for key in clip_keys if any(key not in holder for holder in holders)]

    def get(self, namespace: str, name: str, clip_keys: Sequence[str]) -> tuple[Tensor, np.ndarray]:
        """The rows of one array for some clips.

        Args:
            namespace: as in :meth:`put`.
            name: of the array.
            clip_keys: of the clips; a key may be given twice.

        Returns:
            Float tensor (P_1 + ... + P_n, D) on the CPU, the clips' rows in the order of ``clip_keys``, and
            int64 (n,), the number of rows P_i of each clip.

        Raises:
            LookupError: a clip has no undamaged rows; ask :meth:`missing` first.
            InputError: the array has another width D in some of the shards.
        """
        known = self._sound(namespace, [name], clip_keys)
        holder = known.holder.get(name, {})
        lost = [key for key in clip_keys if key not in holder]
        if lost:
            raise LookupError(
                f"no rows of {short_repr(name)} for {len(lost)} of {len(clip_keys)} clips, as {short_repr(lost[0])}"
            )
        arrays = {id: known.entries[id].arrays[name] for id in dict.fromkeys(holder[key] for key in clip_keys)}
        if len({array.shape[1] for array in arrays.values()}) > 1:
            raise InputError(
                f"name={short_repr(name)}: rows of different widths in one namespace; use a namespace of its own"
            )
        if not arrays:
            return torch.zeros(0, 0), np.zeros(0, dtype=np.int64)
        spans = np.array([arrays[holder[key]].rows[key] for key in clip_keys], dtype=np.int64)
        place = {id: index for index, id in enumerate(arrays)}
        owner = np.fromiter((place[holder[key]] for key in clip_keys), dtype=np.int64, count=len(clip_keys))
        parts = [self._open(namespace, id, array) for id, array in arrays.items()]
        return _gathered(parts, owner, spans[:, 0], spans[:, 1]), spans[:, 1].copy()

    def _open(self, namespace: str, id: str, array: _Array) -> Tensor:
        with safe_open(self.folder / namespace / f"{id}.safetensors", framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(array.tensor)  # a view of the mapped file: only rows in use are read
        return tensor

    def _sound(self, namespace: str, names: Sequence[str], clip_keys: Sequence[str]) -> _Namespace:
        """What is known of the namespace, with every shard that holds any of this checked."""
        known = self._refreshed(namespace)
        while True:
            used: set[str] = set()
            for name in names:
                holder = known.holder.get(name, {})
                used.update(holder[key] for key in clip_keys if key in holder)
            refused = []
            for id in sorted(used - known.verified):
                path = self.folder / namespace / f"{id}.safetensors"
                try:
                    _verify(path, known.entries[id])
                    known.verified.add(id)
                except _Unusable as reason:
                    _refuse(path, reason)
                    refused.append(id)
            if not refused:
                return known
            known.refused.update(refused)
            known.drop(refused)  # another shard may hold the same clips

    def _refreshed(self, namespace: str) -> _Namespace:
        folder = self._namespace_folder(namespace)
        known = self._known.setdefault(namespace, _Namespace())
        try:
            present = {name[:-5] for name in os.listdir(folder) if name.endswith(".json")}
        except FileNotFoundError:
            present = set()
        gone = known.entries.keys() - present
        if gone:
            known.drop(gone)
        for id in sorted(present - known.entries.keys() - known.refused):
            path = folder / f"{id}.json"
            try:
                known.add(_read_entry(path, namespace))
            except FileNotFoundError:
                continue  # set aside by another process since the listing
            except _Unusable as reason:
                _refuse(path, reason)
                known.refused.add(id)
        return known

    def _namespace_folder(self, namespace: str) -> Path:
        if not _NAMESPACE.fullmatch(namespace):
            raise InputError(
                f"namespace={short_repr(namespace)}: is not possible; use 1 to 200 letters, digits, '.', '_' or '-'"
            )
        return self.folder / namespace


def _joined(rows: Mapping[str, Mapping[str, Tensor | np.ndarray]]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """One tensor per array, called by its number, as safetensors reserves some names; and how to find the rows."""
    blocks: dict[str, list[tuple[str, Tensor]]] = {}
    for key, arrays in rows.items():
        for name, values in arrays.items():
            block = torch.as_tensor(values).detach().cpu()
            if block.ndim != 2 or block.dtype not in _DTYPES:
                kind = f"{tuple(block.shape)} of {block.dtype}"
                raise InputError(f"rows[{short_repr(name)}]: {kind}; give floating point numbers of shape (P, D)")
            blocks.setdefault(name, []).append((key, block))
    tensors: dict[str, Tensor] = {}
    described: list[dict[str, Any]] = []
    for number, (name, parts) in enumerate(blocks.items()):
        if len({(block.shape[1], block.dtype) for _, block in parts}) > 1:
            raise InputError(
                f"rows[{short_repr(name)}]: the clips' rows differ in width or type; give one width and type"
            )
        joined = torch.cat([block for _, block in parts]).contiguous()
        tensors[str(number)] = joined
        described.append(
            {
                "name": name,
                "dtype": _DTYPES[joined.dtype],
                "shape": list(joined.shape),
                "clips": [[key, len(block)] for key, block in parts],
            }
        )
    return tensors, described


def _sealed(entry: Mapping[str, Any]) -> bytes:
    """The entry as JSON with its own sha256, as a flipped byte in it would hand out the rows of other clips."""
    body = json.dumps(entry, sort_keys=True)
    return f'{{"entry": {body}, "seal": "{_seal(body)}"}}'.encode("ascii")


def _seal(body: str) -> str:
    return hashlib.sha256(body.encode("ascii")).hexdigest()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _read_entry(path: Path, namespace: str) -> _Entry:
    try:
        sealed = json.loads(path.read_bytes())
        entry = sealed["entry"]
        sound = sealed["seal"] == _seal(json.dumps(entry, sort_keys=True))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unusable(str(error.strerror)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Damage("broken entry") from None
    if not sound:
        raise _Damage("broken entry (sha256 differs)")
    if entry["format"] != FORMAT:
        raise _Unusable(f"format {short_repr(entry['format'])}, but this version reads {FORMAT}")
    if entry["namespace"] != namespace:
        raise _Unusable(f"belongs to namespace {short_repr(entry['namespace'])}")
    arrays = {}
    for number, array in enumerate(entry["arrays"]):
        keys = [key for key, _ in array["clips"]]
        counts = [count for _, count in array["clips"]]
        firsts = accumulate(counts, initial=0)
        rows = {key: (first, count) for key, first, count in zip(keys, firsts, counts, strict=False)}
        arrays[array["name"]] = _Array(str(number), array["dtype"], tuple(array["shape"]), rows)
    return _Entry(path.stem, entry["size"], entry["sha256"], arrays)


def _verify(path: Path, entry: _Entry) -> None:
    try:
        if path.stat().st_size != entry.size:
            raise _Damage(f"{path.stat().st_size} bytes, not {entry.size}")
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != entry.sha256:
            raise _Damage("sha256 differs")
        with safe_open(path, framework="pt") as shard:
            for array in entry.arrays.values():
                part = shard.get_slice(array.tensor)
                if tuple(part.get_shape()) != array.shape or part.get_dtype() != array.dtype:
                    raise _Damage("not the arrays of its entry")
    except (FileNotFoundError, SafetensorError) as error:
        raise _Damage(" ".join(str(error).split())) from None
    except OSError as error:  # no permission, a network that is down: says nothing about the bytes
        raise _Unusable(str(error.strerror)) from None


def _refuse(path: Path, reason: _Unusable) -> None:
    """Say that a file is not used; an entry that is damaged, or whose shard is, is renamed for every later reader."""
    logger.warning("%s: %s; its activations are not used and count as missing", path, reason)
    if isinstance(reason, _Damage):
        entry = path.with_suffix(".json")
        try:
            os.replace(entry, entry.with_name(entry.name + ".damaged"))
        except OSError as error:
            logger.warning("%s: cannot be renamed to .damaged (%s)", entry, error.strerror)


def _gathered(parts: Sequence[Tensor], owner: np.ndarray, firsts: np.ndarray, counts: np.ndarray) -> Tensor:
    """One after the other, ``counts[i]`` rows of ``parts[owner[i]]`` from row ``firsts[i]`` on."""
    before = np.cumsum(counts) - counts
    sources = np.repeat(firsts - before, counts) + np.arange(counts.sum())
    row_owner = np.repeat(owner, counts)
    by_owner = np.argsort(row_owner, kind="stable")
    bounds = np.searchsorted(row_owner[by_owner], np.arange(len(parts) + 1))
    result = torch.empty(len(sources), parts[0].shape[1], dtype=_widest(parts))
    for part, low, high in zip(parts, bounds, bounds[1:], strict=False):
        targets = by_owner[low:high]
        result[_index(targets)] = part[_index(sources[targets])].to(result.dtype)
    return result


def _index(rows: np.ndarray) -> slice | Tensor:
    """The rows as an index; as a slice, which needs no copy of its own, where they follow each other."""
    if len(rows) and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows)


def _widest(parts: Sequence[Tensor]) -> torch.dtype:
    dtype = parts[0].dtype
    for part in parts:
        dtype = torch.promote_types(dtype, part.dtype)
    return dtype
