"""What the page shows, as plain JSON: everything is keyed by index, never by label."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pandas as pd

from captum_concepts.audio.clips import Clip
from captum_concepts.choices import ALPHA
from captum_concepts.errors import InputError
from captum_concepts.report.diagnostics import checks
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts.results.explanation_data import ExplanationData
    from captum_concepts.results.timeline import Timeline

logger = logging.getLogger(__name__)
EXAMPLES_PER_CONCEPT = 3
EXAMPLE_SECONDS = 8.0
TIMELINE_SECONDS = 30.0
TIMELINE_BYTES = 6_000_000
LONGEST_LIST = 64
NUMBERS = {
    "score": "score",
    "magnitude": "magnitude",
    "low": "low",
    "high": "high",
    "p": "p_unconditional",
    "q": "q_value",
    "groups": "n_groups",
    "auc": "cav_auc",
}
SHARES = {"share": "share", "branch": "branch", "error": "error", "branchError": "branch_error"}
QUALITY = {"auc": "auc", "low": "low", "high": "high", "groups": "n_positive_groups"}


@dataclass
class PageData:
    """``content`` is the page's JSON; ``spans[i]`` is the audio (clip, longest seconds) of ``content["clips"][i]``.

    The spans come in order of importance: explained clips, then the best example of every concept, the second best ...
    """

    content: dict[str, Any]
    spans: list[tuple[Clip, float]] = field(default_factory=list)

    def clip(self, clip: Clip, longest: float) -> int:
        """The index of a clip in the page, added when new."""
        span = (clip, longest)
        if span not in self._known:
            self._known[span] = len(self.spans)
            self.spans.append(span)
            end = None if clip.end is None else number(min(clip.end, clip.start + longest))
            shown_clip: dict[str, Any] = {"name": Path(clip.path).name, "start": number(clip.start), "end": end}
            if clip.group != clip.path:
                shown_clip["group"] = clip.group
            self.content["clips"].append(shown_clip)
        return self._known[span]

    def __post_init__(self) -> None:
        self._known: dict[tuple[Clip, float], int] = {}


def page_data(explanation: ExplanationData) -> PageData:
    """Everything that the page shows, without the sound.

    Raises:
        InputError: a hierarchy has a cycle.
    """
    names = list(explanation.concepts)
    for hierarchy in explanation.hierarchies.values():
        known = set(names)
        names.extend(str(node) for node in hierarchy.graph.nodes if node not in known)
    index = {name: i for i, name in enumerate(names)}
    statuses = ["ok"]
    page = PageData(
        {
            "model": explanation.backbone,
            "layers": list(explanation.layers),
            "targets": list(explanation.targets),
            "names": names,
            "scored": len(explanation.concepts),
            "alpha": ALPHA,
            "trees": [_tree(explanation, layer, index) for layer in explanation.layers],
            "quality": [_quality(explanation, layer, index) for layer in explanation.layers],
            "scores": _scores(explanation, statuses),
            "shares": _shares(explanation, names),
            "statuses": statuses,
            "clips": [],
            "timelines": [],
            "examples": [],
            "warnings": list(explanation.warnings),
            "checks": checks(explanation, index),
            "provenance": _summarised(plain(explanation.provenance)),
        }
    )
    page.content["timelines"] = [_timeline(explanation, page, line) for line in _kept(explanation.timelines)]
    page.content["examples"] = _examples(explanation, page, index)
    return page


def number(value: Any) -> float | int | None:
    """A JSON number of four significant digits; None for what is not a finite number."""
    try:
        real = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(real):
        return None
    rounded = float(f"{real:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def plain(value: Any) -> Any:
    """Provenance as JSON: mappings, lists, numbers, text; anything else as its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(item) for item in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(value)
    return value.item() if isinstance(value, np.generic) else str(value)


def _summarised(value: Any) -> Any:
    """Provenance with long lists (a hash for every file) given by their size and one hash over all."""
    if isinstance(value, (dict, list)) and len(value) > LONGEST_LIST:
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        return f"{len(value):,} entries, sha256 over all {digest}"
    if isinstance(value, dict):
        return {key: _summarised(item) for key, item in value.items()}
    return [_summarised(item) for item in value] if isinstance(value, list) else value


def _tree(explanation: ExplanationData, layer: str, index: dict[str, int]) -> dict[str, Any]:
    """Edges (parents before children, large subtrees first) and the number of distinct concepts below each node."""
    below = [0] * len(index)
    if layer not in explanation.hierarchies:
        return {"parent": [], "child": [], "weight": [], "support": [], "below": below, "members": []}
    graph: nx.DiGraph = explanation.hierarchies[layer].graph
    if not nx.is_directed_acyclic_graph(graph):
        raise InputError(f"layer={short_repr(layer)}: its hierarchy has a cycle; mine it again or remove an edge")
    reach: dict[int, int] = {}  # descendants as bits of one integer: exact in a DAG, fast at thousands of nodes
    for name in reversed(list(nx.topological_sort(graph))):
        node = index[str(name)]
        reach[node] = 0
        for child in graph.successors(name):
            reach[node] |= reach[index[str(child)]] | 1 << index[str(child)]
        below[node] = reach[node].bit_count()
    edges = sorted(
        ((index[str(parent)], index[str(child)], edge) for parent, child, edge in graph.edges(data=True)),
        key=lambda item: (item[0], -below[item[1]], item[1]),
    )
    return {
        "parent": [parent for parent, _, _ in edges],
        "child": [child for _, child, _ in edges],
        "weight": [number(edge.get("weight")) for _, _, edge in edges],
        "support": [number(edge.get("support")) for _, _, edge in edges],
        "below": below,
        "members": sorted(reach),
    }


def _shares(explanation: ExplanationData, names: list[str]) -> list[list[dict[str, Any] | None]]:
    """[layer][target] -> contributions of each node and its subtree to the class; None where there are none."""
    tables: dict[Any, Any] = {}
    if len(explanation.shares):
        tables = dict(iter(explanation.shares.groupby(["layer", "target"], sort=False)))

    def table(layer: str, target: str) -> dict[str, Any] | None:
        rows = tables.get((layer, target))
        if rows is None or not rows["completeness"].notna().any():
            return None
        frame = rows.drop_duplicates("concept").set_index("concept").reindex(names)
        whole = {key: number(rows[key].iloc[0]) for key in ("completeness", "explained")}
        return {**_numbers(frame, SHARES), **whole}

    return [[table(layer, target) for target in explanation.targets] for layer in explanation.layers]


def _numbers(frame: pd.DataFrame, columns: dict[str, str]) -> dict[str, list[float | int | None]]:
    return {key: [number(v) for v in frame[column]] for key, column in columns.items() if column in frame}


def _scores(explanation: ExplanationData, statuses: list[str]) -> list[list[dict[str, Any] | None]]:
    """[layer][target] -> columns over concepts; a status is an index into ``statuses``, None where there is no row."""
    frames = {}
    if len(explanation.scores):
        frames = dict(iter(explanation.scores.groupby(["layer", "target"], sort=False)))
    codes = {"ok": 0}

    def code(status: Any) -> int | None:
        if pd.isna(status):
            return None
        if status not in codes:
            codes[status] = len(statuses)
            statuses.append(str(status))
        return codes[status]

    def table(layer: str, target: str) -> dict[str, Any] | None:
        if (layer, target) not in frames:
            return None
        frame = frames[layer, target].drop_duplicates("concept").set_index("concept")
        present = frame.index
        frame = frame.reindex(list(explanation.concepts))
        given = frame["status"] if "status" in frame else pd.Series(["ok"] * len(frame), index=frame.index)
        rows = zip(frame.index.isin(present), given, strict=True)
        return {**_numbers(frame, NUMBERS), "status": [code(status) if here else None for here, status in rows]}

    return [[table(layer, target) for target in explanation.targets] for layer in explanation.layers]


def _quality(explanation: ExplanationData, layer: str, index: dict[str, int]) -> dict[str, Any]:
    """Quality of each CAV on held-out groups; missing columns are left out."""
    frame = getattr(explanation.banks.get(layer), "quality", None)
    if frame is None or not len(frame):
        return {}
    if "concept" in frame:
        frame = frame.set_index("concept")
    frame = frame[~frame.index.duplicated()].reindex(list(index))
    return _numbers(frame, QUALITY)


def _kept(timelines: list[Timeline]) -> list[Timeline]:
    """The first clip of every layer and target, then the second ..., as many as ``TIMELINE_BYTES`` numbers allow."""
    seen: Counter[tuple[str, str]] = Counter()
    ranks = []
    for line in timelines:
        ranks.append(seen[line.layer, line.target])
        seen[line.layer, line.target] += 1
    kept: list[Timeline] = []
    room = TIMELINE_BYTES
    for i in sorted(range(len(timelines)), key=ranks.__getitem__):
        room -= np.size(timelines[i].sensitivity) * (1 if timelines[i].presence is None else 2)
        if room < 0:
            logger.warning("%d of %d timelines left out of the report", len(timelines) - len(kept), len(timelines))
            break
        kept.append(timelines[i])
    return kept


def _timeline(explanation: ExplanationData, page: PageData, line: Timeline) -> dict[str, Any]:
    """Sensitivity and presence along one clip: (P, K) values as bytes, concept by concept; sensitivities are scaled."""
    sensitivity = np.nan_to_num(np.asarray(line.sensitivity, dtype=np.float64))
    scale = np.abs(sensitivity).max(axis=0, initial=0.0)
    steps = np.rint(sensitivity / np.where(scale > 0, scale, 1.0) * 127).astype(np.int8)
    # A timeline that the user asked for comes with the sound of the whole track.
    longest = max(TIMELINE_SECONDS, float(line.ends[-1] - line.clip.start)) if line.close else TIMELINE_SECONDS
    presence = None if line.presence is None else np.rint(np.nan_to_num(line.presence) * 255).astype(np.uint8)
    return {
        "layer": explanation.layers.index(line.layer),
        "target": explanation.targets.index(line.target),
        "clip": page.clip(line.clip, longest),
        "close": line.close,
        "starts": [number(v) for v in line.starts],
        "ends": [number(v) for v in line.ends],
        "scale": [number(v) for v in scale],
        "push": _packed(steps),
        "presence": None if presence is None else _packed(presence),
    }


def _packed(values: np.ndarray) -> str:
    """(P, K) bytes, concept by concept, as base64."""
    return base64.b64encode(np.ascontiguousarray(values.T).tobytes()).decode("ascii")


def _examples(explanation: ExplanationData, page: PageData, index: dict[str, int]) -> list[dict[str, list[int]]]:
    """[layer] -> concept index -> indices of its clips, best first."""
    found: list[dict[str, list[int]]] = [{} for _ in explanation.layers]
    for rank in range(EXAMPLES_PER_CONCEPT):  # all best examples before the first second-best: see PageData
        for layer, per_concept in zip(explanation.layers, found, strict=True):
            for name, clips in explanation.examples.get(layer, {}).items():
                if name in index and rank < len(clips):
                    per_concept.setdefault(str(index[name]), []).append(page.clip(clips[rank], EXAMPLE_SECONDS))
    return found
