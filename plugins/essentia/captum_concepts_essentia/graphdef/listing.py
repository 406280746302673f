"""Names to choose from, for messages about a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from captum_concepts_essentia.graphdef.functions import FlatNode

_SHOWN = 20
_LONG, _MANY = 200, 4000  # what is compared: comparing takes time with the square of a name's length


def computed(nodes: Iterable[FlatNode]) -> list[str]:
    """Names of the nodes that compute something."""
    return [node.name for node in nodes if node.op not in ("Const", "Placeholder", "NoOp")]


def choices(wanted: str, names: list[str]) -> str:
    """Names as one text, those like ``wanted`` first, then from the last to the first."""
    comparable = [name for name in names[-_MANY:] if len(name) <= _LONG]
    near = difflib.get_close_matches(wanted[:_LONG], comparable, n=5, cutoff=0.5)
    rest = [name for name in reversed(names[-2 * _SHOWN :]) if name not in near]
    listed = [name[:_LONG] for name in (near + rest)[:_SHOWN]]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more
