"""A hierarchy written as GraphML, GEXF, Newick and indented text.

Every function takes the ``networkx.DiGraph`` of a :class:`ConceptHierarchy`: nodes in concept order, edges parent ->
child with ``weight`` and ``support``.
"""

from __future__ import annotations

import math
import re

import networkx as nx

from captum_concepts.errors import InputError
from captum_concepts.text import escape, one_line, short_repr

# Everything that XML 1.0 cannot carry, and the carriage return, which its parsers turn into a newline.
_NOT_XML = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def graphml(graph: nx.DiGraph) -> str:
    """GraphML: node ids n0, n1, ... in concept order, the name as ``label``; an unknown support is left out."""
    lines = nx.generate_graphml(_numbered(graph), prettyprint=True)
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', *lines]) + "\n"


def gexf(graph: nx.DiGraph) -> str:
    """GEXF 1.2 for Gephi: ids and labels as in :func:`graphml`, directed edges, no date."""
    text = "\n".join(nx.generate_gexf(_numbered(graph)))
    text = re.sub(r'(<meta)\s+lastmodifieddate="[^"]*"', r"\1", text, count=1)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + text + "\n"


def newick(graph: nx.DiGraph) -> str:
    """Newick with quoted labels; every concept labels its node. Several roots are children of one unnamed node.

    Raises:
        InputError: a concept has several parents, which Newick cannot say.
    """
    several = next((name for name in graph if graph.in_degree(name) > 1), None)
    if several is not None:
        raise InputError(f"newick: {short_repr(several)} has several parents, which the format cannot say; use GraphML")
    written: dict[str, str] = {}
    for name in reversed(list(nx.topological_sort(graph))):
        below = ",".join(written.pop(child) for child in _children(graph)[name])
        written[name] = (f"({below})" if below else "") + "'" + one_line(name).replace("'", "''") + "'"
    roots = [written[root] for root in _roots(graph)]
    return (roots[0] if len(roots) == 1 else f"({','.join(roots)})") + ";"


def indented_text(graph: nx.DiGraph, max_depth: int | None = None) -> str:
    """One concept a line, indented below its parent; a concept with several parents is listed under each of them.

    The descendants of such a concept are listed once; elsewhere the line says ``(above)``. Below ``max_depth`` links
    only the number of hidden concepts is given.
    """
    children = _children(graph)
    lines: list[str] = []
    listed: set[str] = set()
    stack = [(root, "", "", 0) for root in reversed(_roots(graph))]
    while stack:
        name, lead, below, depth = stack.pop()
        hidden = children[name] and max_depth is not None and depth >= max_depth
        repeated = children[name] and name in listed
        note = " (above)" if repeated else f" (+{len(nx.descendants(graph, name))})" if hidden else ""
        lines.append(lead + one_line(name) + note)
        if not hidden and not repeated:
            listed.add(name)
            for child in reversed(children[name]):
                branch = ("└─ ", "   ") if child == children[name][-1] else ("├─ ", "│  ")
                stack.append((child, below + branch[0], below + branch[1], depth + 1))
    return "\n".join(lines)


def _children(graph: nx.DiGraph) -> dict[str, list[str]]:
    """Direct children of every concept, in concept order."""
    index = {name: i for i, name in enumerate(graph)}
    return {name: sorted(graph.succ[name], key=index.__getitem__) for name in graph}


def _roots(graph: nx.DiGraph) -> list[str]:
    return [name for name in graph if graph.in_degree(name) == 0]


def _numbered(graph: nx.DiGraph) -> nx.DiGraph:
    """For XML: ids n0, n1, ... and the name as ``label``, so that no name can break a file."""
    index = {name: i for i, name in enumerate(graph)}
    depths: dict[str, int] = {}
    for name in nx.topological_sort(graph):
        depths[name] = 1 + max((depths[parent] for parent in graph.pred[name]), default=-1)
    numbered = nx.DiGraph()
    for name, i in index.items():
        numbered.add_node(f"n{i}", label=_NOT_XML.sub(escape, name), depth=depths[name])
    for parent, child, data in sorted(graph.edges(data=True), key=lambda edge: (index[edge[1]], index[edge[0]])):
        known = {"weight": data["weight"]} if math.isnan(data["support"]) else dict(data)
        numbered.add_edge(f"n{index[parent]}", f"n{index[child]}", **known)
    return numbered
