"""Read a reference tree of concepts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from captum_concepts.concepts.names import concept_name
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


def read_parents(parents: Any) -> dict[str, str | None] | None:
    """A reference tree as child -> parent; roots that have no children either stand in it with None.

    Args:
        parents: None; a JSON file; or a dict: child -> parent (None or "" for a root),
            ``{"parent": {child: parent}}``, or a nested tree ``{"strings": {"bowed": ["violin", "cello"]}}``.

    Returns:
        child -> parent, roots without children with None; None for None.

    Raises:
        InputError: not such a file or dict, a name twice in one JSON object, a name with two parents, or a circle.

    Example:
        >>> read_parents({"strings": ["violin", "cello"]})
        {'violin': 'strings', 'cello': 'strings'}
    """
    if parents is None:
        return None
    source = "parents"
    if isinstance(parents, (str, Path)):
        source = str(parents)
        try:
            parents = json.loads(Path(parents).read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{short_repr(source, 200)}: cannot read the map of parents: {' '.join(str(error).split())}"
            ) from None
    if isinstance(parents, Mapping) and isinstance(parents.get("parent"), Mapping):
        parents = parents["parent"]
    if not isinstance(parents, Mapping):
        raise InputError(f"{short_repr(source, 200)}: {short_repr(parents)} is not a map from child to parent")
    if all(isinstance(parent, str) or parent is None for parent in parents.values()):
        pairs = [(child, parent) for child, parent in parents.items() if parent is not None and parent.strip()]
    else:
        pairs = list(_nested_pairs(parents, source))
    found: dict[str, str] = {}
    for child, parent in pairs:
        child, parent = concept_name(child), concept_name(parent)
        if found.setdefault(child, parent) != parent:
            raise InputError(
                f"{short_repr(source, 200)}: {short_repr(child)} has two parents, {short_repr(found[child])} and "
                f"{short_repr(parent)}"
            )
    _refuse_circles(found, source)
    linked = {*found, *found.values()}
    return {**found, **{name: None for name in map(concept_name, parents) if name not in linked}}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names all differ; by itself the reader would keep the last of those that are the same."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{short_repr(twice)} stands in it twice; give each name once")
    return found


def _nested_pairs(tree: Any, source: str) -> Iterable[tuple[str, str]]:
    waiting = [tree]
    while waiting:
        for parent, children in waiting.pop().items():
            children = [children] if isinstance(children, str) else children or []
            if not isinstance(children, (Mapping, list, tuple)) or not all(isinstance(c, str) for c in children):
                raise InputError(
                    f"{short_repr(source, 200)}: {short_repr(children)} under {short_repr(parent)} is neither names "
                    "nor a tree"
                )
            yield from ((child, parent) for child in children)
            if isinstance(children, Mapping):
                waiting.append(children)


def _refuse_circles(parents: Mapping[str, str], source: str) -> None:
    clear: set[str] = set()
    for start in parents:
        path: dict[str, None] = {}
        node = start
        while node in parents and node not in clear:
            if node in path:
                raise InputError(f"{short_repr(source, 200)}: {short_repr(node)} is its own ancestor")
            path[node] = None
            node = parents[node]
        clear.update(path)
