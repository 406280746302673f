"""Lists of similar names, for messages about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from captum_concepts_essentia.graphdef.functions import FlatNode

MAX_LISTED = 20
MAX_LENGTH, MAX_COMPARED = 200, 4000  # what is compared: comparing takes time with the square of a name's length


def computed(nodes: Iterable[FlatNode]) -> list[str]:
    """Names of the nodes that compute something."""
    return [node.name for node in nodes if node.op not in ("Const", "Placeholder", "NoOp")]


def choices(wanted: str, names: list[str]) -> str:
    """Names as one text, those like ``wanted`` first, then from the last to the first."""
    comparable = [name for name in names[-MAX_COMPARED:] if len(name) <= MAX_LENGTH]
    near = difflib.get_close_matches(wanted[:MAX_LENGTH], comparable, n=5, cutoff=0.5)
    rest = [name for name in reversed(names[-2 * MAX_LISTED :]) if name not in near]
    listed = [name[:MAX_LENGTH] for name in (near + rest)[:MAX_LISTED]]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return ", ".join(listed) + more
