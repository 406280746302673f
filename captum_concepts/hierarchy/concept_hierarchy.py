"""A hierarchy of concepts: a forest, or a graph without cycles, whose nodes are concept names.

Everything a reader sees is in one fixed order: concepts in the order of ``names``, parents by falling weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx

from captum_concepts.errors import InputError
from captum_concepts.hierarchy import formats
from captum_concepts.text import one_line, short_repr

SCHEMA = 1


@dataclass(frozen=True, repr=False, eq=False)
class ConceptHierarchy:
    """Concepts and which of them stands above which.

    Attributes:
        graph: ``networkx.DiGraph``; nodes are the concept names, edges run parent -> child and carry
            ``weight`` (float, the similarity that made the link; 1.0 where none is known) and ``support``
            (float in [0, 1], the share of bootstrap samples that have the edge; NaN until bootstrapped).
        names: all concepts in concept order. Every one is a node, linked or not; default: the graph's own order.

    A concept without a parent is a root; there is no artificial root node.

    Raises:
        InputError: duplicate or empty names, an edge to an unknown concept, a self-loop, a cycle, a weight that is
            not finite, a support outside [0, 1].
    """

    graph: nx.DiGraph
    names: tuple[str, ...] = ()
    _index: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.names) or tuple(self.graph.nodes)
        _check_names(names)
        index = {name: i for i, name in enumerate(names)}
        unknown = next((node for node in self.graph.nodes if node not in index), None)
        if unknown is not None:
            raise InputError(
                f"hierarchy: the graph has {short_repr(unknown)}, which is not among the names; add it there"
            )
        ordered = nx.DiGraph()
        ordered.add_nodes_from(names)
        edges = sorted(self.graph.edges(data=True), key=lambda edge: (index[edge[1]], index[edge[0]]))
        for parent, child, data in edges:
            weight, support = _edge_numbers(parent, child, data)
            ordered.add_edge(parent, child, weight=weight, support=support)
        _check_acyclic(ordered)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "graph", ordered)
        object.__setattr__(self, "_index", index)

    @classmethod
    def from_edges(cls, names: Iterable[str], edges: Iterable[tuple]) -> ConceptHierarchy:
        """From ``(parent, child[, weight[, support]])`` tuples; every end must be among ``names``."""
        names = tuple(names)
        graph = nx.DiGraph()
        known = set(names)
        for edge in edges:
            parent, child = edge[:2]
            weight = edge[2] if len(edge) > 2 else 1.0
            support = edge[3] if len(edge) > 3 else math.nan
            for end in (parent, child):
                if end not in known:
                    raise InputError(
                        f"hierarchy: an edge names the unknown concept {short_repr(end)}; add it to the names"
                    )
            graph.add_edge(parent, child, weight=weight, support=support)
        return cls(graph, names) if names else cls(graph)

    @classmethod
    def from_parents(cls, parents: Mapping[str, str | None]) -> ConceptHierarchy:
        """From a mapping child -> parent; None or "" marks a root. Parents that are no keys are roots too.

        Raises:
            InputError: a parent that is no name (for several parents give :meth:`from_edges` the links).
        """
        for child, parent in parents.items():
            if parent is not None and not isinstance(parent, str):
                raise InputError(
                    f"parents: {short_repr(child)} has {short_repr(parent)}; give one name, or a networkx.DiGraph "
                    "for several"
                )
        names = dict.fromkeys(parents)
        names.update(dict.fromkeys(parent for parent in parents.values() if parent))
        return cls.from_edges(names, ((parent, child) for child, parent in parents.items() if parent))

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, concept: object) -> bool:
        return concept in self._index

    def _known(self, concept: str) -> str:
        if concept not in self._index:
            raise InputError(f"hierarchy: no concept {short_repr(concept)}; it has {len(self.names)}, see .names")
        return concept

    def _in_order(self, concepts: Iterable[str]) -> list[str]:
        return sorted(concepts, key=self._index.__getitem__)

    @property
    def edges(self) -> list[tuple[str, str, float, float]]:
        """``(parent, child, weight, support)``, ordered by child, then by parent, in concept order."""
        rows = ((p, c, d["weight"], d["support"]) for p, c, d in self.graph.edges(data=True))
        return sorted(rows, key=lambda row: (self._index[row[1]], self._index[row[0]]))

    def parents(self, concept: str) -> list[str]:
        """Direct parents, strongest link first (ties: concept order)."""
        found = self.graph.pred[self._known(concept)]
        return sorted(found, key=lambda p: (-found[p]["weight"], self._index[p]))

    def children(self, concept: str) -> list[str]:
        """Direct children in concept order."""
        return self._in_order(self.graph.succ[self._known(concept)])

    def ancestors(self, concept: str) -> list[str]:
        """All concepts above, in concept order, without the concept itself."""
        return self._in_order(nx.ancestors(self.graph, self._known(concept)))

    def descendants(self, concept: str) -> list[str]:
        """All concepts below, in concept order, without the concept itself."""
        return self._in_order(nx.descendants(self.graph, self._known(concept)))

    @property
    def roots(self) -> list[str]:
        """Concepts without a parent."""
        return [name for name in self.names if self.graph.in_degree(name) == 0]

    @property
    def leaves(self) -> list[str]:
        """Concepts without a child; a concept without any link is both root and leaf."""
        return [name for name in self.names if self.graph.out_degree(name) == 0]

    @property
    def is_tree(self) -> bool:
        """True where exactly one concept is a root and every other has exactly one parent."""
        return len(self.roots) == 1 and self.is_forest

    @property
    def is_forest(self) -> bool:
        """True where no concept has more than one parent."""
        return all(degree <= 1 for _, degree in self.graph.in_degree())

    @property
    def depths(self) -> dict[str, int]:
        """Every concept's :meth:`depth`, in concept order."""
        depths: dict[str, int] = {}
        for name in nx.topological_sort(self.graph):
            depths[name] = 1 + max((depths[parent] for parent in self.graph.pred[name]), default=-1)
        return {name: depths[name] for name in self.names}

    def depth(self, concept: str) -> int:
        """Links on the longest way down from a root; 0 for a root. A child is always deeper than its parents."""
        return self.depths[self._known(concept)]

    def lca(self, a: str, b: str) -> str | None:
        """The deepest concept at or above both (ties: concept order); None where they share no root."""
        above_a = nx.ancestors(self.graph, self._known(a)) | {a}
        common = above_a & (nx.ancestors(self.graph, self._known(b)) | {b})
        depths = self.depths
        return min(common, key=lambda c: (-depths[c], self._index[c]), default=None)

    # ------------------------------------------------------------------ changing

    def subtree(self, concept: str) -> ConceptHierarchy:
        """The concept and all below it, with the links among them."""
        keep = {concept, *self.descendants(concept)}
        return ConceptHierarchy(self.graph.subgraph(keep), tuple(name for name in self.names if name in keep))

    def relabel(self, mapping: Mapping[str, str]) -> ConceptHierarchy:
        """The same hierarchy under other names; concepts that the mapping leaves out keep theirs."""
        for name in mapping:
            self._known(name)
        names = tuple(mapping.get(name, name) for name in self.names)
        _check_names(names)
        return ConceptHierarchy(nx.relabel_nodes(self.graph, dict(zip(self.names, names, strict=True))), names)

    def restrict(self, concepts: Iterable[str]) -> ConceptHierarchy:
        """Only these concepts, each under its nearest kept ancestors (weight 1.0 where links were joined).

        A joined link is not made where it would lead around another parent; links that were there stay.
        """
        keep = {self._known(concept) for concept in concepts}
        above: dict[str, set[str]] = {}
        over: dict[str, set[str]] = {}  # all kept ancestors
        for name in nx.topological_sort(self.graph):
            parents = self.graph.pred[name]
            near = set().union(*({p} if p in keep else above[p] for p in parents))
            over[name] = near.union(*(over[p] for p in near))
            around = set().union(*(over[p] for p in near))
            above[name] = {p for p in near if p not in around or p in parents}
        names = tuple(name for name in self.names if name in keep)
        graph = nx.DiGraph()
        graph.add_nodes_from(names)
        for child in names:
            for parent in above[child]:
                graph.add_edge(parent, child, **self.graph.get_edge_data(parent, child, {"weight": 1.0}))
        return ConceptHierarchy(graph, names)

    def cut(self, k: int) -> dict[str, str]:
        """Concept -> head of its branch, for exactly ``k`` branches.

        Starts from the roots; then, as long as branches are missing, takes the largest branch and detaches from it
        the largest subtree of a child (ties: concept order). With several parents a concept goes with its strongest.

        Raises:
            InputError: ``k`` is below the number of roots or above the number of concepts.
        """
        if not len(self.roots) <= k <= len(self.names):
            raise InputError(f"cut: k = {k} branches; give a number from {len(self.roots)} to {len(self.names)}")
        parent = {name: self.parents(name)[0] for name in self.names if self.graph.in_degree(name)}
        order = list(nx.topological_sort(self.graph))
        heads = self.roots
        while True:
            head_of: dict[str, str] = {}
            for name in order:
                head_of[name] = name if name in heads else head_of[parent[name]]
            if len(heads) == k:
                return {name: head_of[name] for name in self.names}
            below = dict.fromkeys(self.names, 1)
            for name in reversed(order):
                if name not in heads:
                    below[parent[name]] += below[name]
            largest = min((h for h in heads if below[h] > 1), key=lambda h: (-below[h], self._index[h]))
            children = [c for c in self.names if parent.get(c) == largest and c not in heads]
            heads = [*heads, min(children, key=lambda c: (-below[c], self._index[c]))]

    # ------------------------------------------------------------------ writing

    def to_dict(self) -> dict:
        """JSON-ready: ``{"schema": 1, "names": [...], "edges": [[parent index, child index, weight, support], ...]}``.

        A support that is not known is None.
        """
        rows = [[self._index[p], self._index[c], w, None if math.isnan(s) else s] for p, c, w, s in self.edges]
        return {"schema": SCHEMA, "names": list(self.names), "edges": rows}

    @classmethod
    def from_dict(cls, data: Mapping) -> ConceptHierarchy:
        """The inverse of :meth:`to_dict`."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise InputError(f"hierarchy: schema must be {SCHEMA}, got {short_repr(data)}; write it with to_dict()")
        try:
            names = [str(name) for name in data["names"]]
            edges = [
                (names[_position(p, names)], names[_position(c, names)], float(w), math.nan if s is None else float(s))
                for p, c, w, s in data["edges"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"hierarchy: damaged record ({error!r}); write it with to_dict()") from None
        return cls.from_edges(names, edges)

    def to_graphml(self, path: str | Path) -> None:
        """Write GraphML: node ids n0.., attribute ``label``; an unknown support is left out.

        Characters that XML cannot carry are written as their Python escapes, e.g. ``\\x00``.
        """
        Path(path).write_text(formats.graphml(self.graph), "utf-8")

    def to_gexf(self, path: str | Path) -> None:
        """Write GEXF 1.2 for Gephi: ids and labels as in :meth:`to_graphml`, directed edges, no date in the file."""
        Path(path).write_text(formats.gexf(self.graph), "utf-8")

    def to_newick(self) -> str:
        """Newick with quoted labels; every concept labels its node. Several roots are children of one unnamed node.

        Raises:
            InputError: a concept has several parents, which Newick cannot say.
        """
        return formats.newick(self.graph)

    # ------------------------------------------------------------------ showing

    def to_text(self, max_depth: int | None = None) -> str:
        """An indented tree, one concept a line; see :func:`formats.indented_text`."""
        return formats.indented_text(self.graph, max_depth)

    def diff(self, other: ConceptHierarchy) -> str:
        """What changed from this hierarchy to another, one concept a line, in the order of ``names``.

        Concepts that one side lacks come first; the others are compared by their parents.
        """
        lines = [f"- {one_line(name)}: only in the first" for name in self.names if name not in other]
        lines += [f"+ {one_line(name)}: only in the second" for name in other.names if name not in self]
        for name in self.names:
            if name in other:
                old, new = set(self.parents(name)), set(other.parents(name))
                if old != new:
                    lines.append(f"~ {one_line(name)}: {self._under(old)} -> {other._under(new)}")
        return "\n".join(lines)

    def _under(self, parents: set[str]) -> str:
        return "under " + " and ".join(map(one_line, self._in_order(parents))) if parents else "root"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConceptHierarchy):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        kind = "tree" if self.is_tree else "forest" if self.is_forest else "graph"
        depth = max(self.depths.values(), default=0)
        return (
            f"ConceptHierarchy({kind} of {len(self.names)} concepts, {self.graph.number_of_edges()} links, "
            f"{len(self.roots)} roots, depth {depth})"
        )


def _check_names(names: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"names: {short_repr(name)} is no concept name; names are non-empty strings")
        if name in seen:
            raise InputError(f"names: {short_repr(name)} occurs twice; make the names unique")
        seen.add(name)


def _edge_numbers(parent: str, child: str, data: Mapping) -> tuple[float, float]:
    if parent == child:
        raise InputError(f"hierarchy: {short_repr(child)} is its own parent; remove that link")
    weight, support = float(data.get("weight", 1.0)), float(data.get("support", math.nan))
    if not math.isfinite(weight):
        raise InputError(
            f"hierarchy: weight {weight} on {short_repr(parent)} -> {short_repr(child)}; give a finite number"
        )
    if not (math.isnan(support) or 0 <= support <= 1):
        raise InputError(
            f"hierarchy: support {support} on {short_repr(parent)} -> {short_repr(child)}; give a share in [0, 1]"
        )
    return weight, support


def _check_acyclic(graph: nx.DiGraph) -> None:
    if nx.is_directed_acyclic_graph(graph):
        return
    cycle = [edge[0] for edge in nx.find_cycle(graph)]
    text = " -> ".join(short_repr(name, 30) for name in (*cycle[:4], *(["..."] if len(cycle) > 4 else []), cycle[0]))
    raise InputError(f"hierarchy: the links run in a circle ({text}); remove one of them")


def _position(value: object, names: list[str]) -> int:
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise ValueError(f"index {value!r} of {len(names)} names")
    return value
