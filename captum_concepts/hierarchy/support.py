"""How often bootstrap samples find the links of a hierarchy again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy


@dataclass(frozen=True, eq=False)
class Support:
    """A hierarchy and how often resampling finds it again.

    Attributes:
        hierarchy: the mined one; the ``support`` of an edge is the share of samples that have this edge.
        above: float (K, K), ``above[a, b]`` is the share of samples in which a is an ancestor of b.
        stability: concept -> share of samples in which it has the parents that the hierarchy gives it (for a root:
            none).
        samples: how many.
    """

    hierarchy: ConceptHierarchy
    above: np.ndarray
    stability: dict[str, float]
    samples: int

    def consensus(self, least: float = 0.5) -> ConceptHierarchy:
        """Every concept under its nearest ancestor that at least this share of the samples puts above it.

        Links that are not found again collapse to an ancestor rather than guess; without one, the concept is a root.
        With several parents, a link that collapses onto what stands above another of them anyway is left out.
        The support of an edge is then the share of samples in which the one is above the other.

        Raises:
            InputError: ``least`` is not in (0, 1].
        """
        if not 0 < least <= 1:
            raise InputError(f"consensus: least = {least}; give a share above 0 and at most 1")
        names = self.hierarchy.names
        index = {name: i for i, name in enumerate(names)}
        depths = self.hierarchy.depths
        kept: dict[str, set[str]] = {}  # all that the consensus puts above a concept
        edges = []
        for child in sorted(names, key=lambda name: (depths[name], index[name])):
            found: dict[str, tuple[float, float]] = {}
            front = [
                (parent, self.hierarchy.graph.edges[parent, child]["weight"])
                for parent in self.hierarchy.parents(child)
            ]
            seen = {child}
            while front:
                parent, weight = front.pop(0)
                if parent in seen:
                    continue
                seen.add(parent)
                share = float(self.above[index[parent], index[child]])
                if share >= least:
                    found[parent] = (weight, share)
                else:
                    front += [(upper, weight) for upper in self.hierarchy.parents(parent)]
            around = set().union(*(kept[parent] for parent in found))
            kept[child] = around.union(found)
            edges += [
                (parent, child, *numbers)
                for parent, numbers in found.items()
                if parent not in around or self.hierarchy.graph.has_edge(parent, child)
            ]
        return ConceptHierarchy.from_edges(names, edges)
