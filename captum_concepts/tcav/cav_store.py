"""CAVs on disk (weights, biases, classes and accuracies in safetensors, found by a hash) and in the caller's hands."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import torch
from captum.concept import CAV
from torch import Tensor

from captum_concepts.storage.activation_store import ActivationStore

_log = logging.getLogger(__name__)
_KNOWN = {"weights", "biases", "classes", "accs"}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_MAX_EXACT = 2**53


class CAVCopy(CAV):
    """A CAV whose ``stats`` are a copy, made when first asked for, so that changing it changes no scores."""

    def __init__(self, kept: dict[str, Any], *arguments: Any) -> None:
        self._kept = kept
        self._own: dict[str, Any] | None = None
        super().__init__(*arguments)

    @property
    def stats(self) -> dict[str, Any] | None:
        if self._own is None:
            self._own = {name: _copied(value) for name, value in self._kept.items()}
        return self._own

    @stats.setter
    def stats(self, stats: dict[str, Any] | None) -> None:
        self._own = stats


def _copied(value: Any) -> Any:
    """A tensor, an array or a container of its own; the same object of any other kind."""
    return value.detach().clone() if isinstance(value, Tensor) else copy.copy(value)


class CavStore:
    """Keeps the ``stats`` of CAVs in an ``ActivationStore``.

    Only weights, biases, integer classes and accuracies are kept. CAVs of classifiers that report anything else stay in
    memory, which the log says. Of CAVs that were fitted more than once (``force_train``) the last are given.

    Args:
        store: where.
    """

    def __init__(self, store: ActivationStore):
        self._store = store

    def get(self, namespace: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """{key: stats} of those of the keys that are there."""
        latest = self._latest(namespace, keys)
        if not latest:
            return {}
        present = list(latest.values())
        weights, counts = self._store.get(namespace, "weights", present)
        facts = self._store.get(namespace, "facts", present)[0]
        result = {}
        sizes = counts.tolist()
        for key, w, f in zip(latest, weights.split(sizes), facts.split([n + 1 for n in sizes]), strict=True):
            stats: dict[str, Any] = {"weights": w, "classes": [int(value) for value in f[:-1, 0]]}
            if f[-1, 0]:
                stats["accs"] = f[-1, 1].float()
            if not f[:-1, 1].isnan().any():
                stats["biases"] = f[:-1, 1].to(w.dtype)
            result[key] = stats
        return result

    def put(self, namespace: str, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep {key: stats}; all weights are of one width and type."""
        rows = {}
        for key, stats in found.items():
            facts = _facts(stats)
            if facts is None:
                _log.info("CAVs with stats %s are not kept on disk", ", ".join(map(str, stats)))
            else:
                rows[key] = {"weights": stats["weights"], "facts": facts}
        before = self._latest(namespace, list(rows))
        self._store.put(namespace, {_after(key, before.get(key)): arrays for key, arrays in rows.items()})

    def _latest(self, namespace: str, keys: Sequence[str]) -> dict[str, str]:
        """{key: the name of its last version} of those that there are."""
        latest: dict[str, str] = {}
        left = {key: _after(key, None) for key in keys}
        while left:
            absent = set(self._store.missing(namespace, ["weights", "facts"], list(left.values())))
            left = {key: name for key, name in left.items() if name not in absent}
            latest.update(left)
            left = {key: _after(key, name) for key, name in left.items()}
        return latest


def _after(key: str, version: str | None) -> str:
    """The name of the version that follows; a store never takes back what it has."""
    return f"{key}.{0 if version is None else int(version.rpartition('.')[2]) + 1}"


def _facts(stats: Mapping[str, Any]) -> Tensor | None:
    """(C + 1, 2): class and bias (NaN: none) of each row, then whether there is an accuracy, and the accuracy.

    None if the stats are of another kind.
    """
    weights, classes = stats.get("weights"), stats.get("classes")
    if not isinstance(weights, Tensor) or weights.dim() != 2 or weights.dtype not in _FLOATS or set(stats) - _KNOWN:
        return None
    try:
        numbers = [index(value) for value in classes]  # type: ignore[union-attr]
        accuracy = float(stats.get("accs", math.nan))
        biases = stats["biases"].tolist() if "biases" in stats else [math.nan] * len(weights)
        rows = [*zip(map(float, numbers), biases, strict=True), (float("accs" in stats), accuracy)]
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if len(numbers) != len(weights) or max(map(abs, numbers)) > _MAX_EXACT:
        return None
    return torch.tensor(rows, dtype=torch.float64)
