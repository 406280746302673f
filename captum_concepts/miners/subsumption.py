"""Sanderson & Croft's subsumption: a concept stands above those whose clips it nearly all shows too.

Which links are kept depends on those kept before, so the links are taken one by one; what makes this fast is that
ancestors and descendants are sets of bits, and that a link within what is known already costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.text import short_repr

_ROWS = 512  # concepts at a time when the whole matrix is read
_LINKS = 4096  # links at a time when they are looked up


def subsumption(similarity: Tensor, names: Sequence[str], *, threshold: float = 0.8) -> ConceptHierarchy:
    """Sanderson & Croft (SIGIR 1999): p is above c if ``S[p, c] >= threshold`` and ``S[p, c] > S[c, p]``.

    With the similarity "overlap", ``S[p, c]`` is the share of c's clips that show p too, so this reads the labels, not
    the model. A concept may have several parents; links that lead around another one are left out (a above b above c
    needs no a above c). In a similarity where links could run in a circle, the stronger ones are kept (equal: the
    earlier child, then the earlier parent).

    At most O(K^3 / 64) word operations, K^2 / 4 bytes beside the links.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold={short_repr(threshold)}: out of range; give a number from 0 to 1")
    parents, children, strengths = _links(similarity, threshold)
    kept = _Ancestry(len(names)).add_all(parents, children)
    edges = zip(parents[kept].tolist(), children[kept].tolist(), strengths[kept].tolist(), strict=True)
    return ConceptHierarchy.from_edges(names, [(names[p], names[c], strength) for p, c, strength in edges])


def _links(similarity: Tensor, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parents, children and float64 strengths of all links, strongest first; equal: by child, then by parent."""
    similarity = similarity.detach().cpu()
    found = []
    for start in range(0, len(similarity), _ROWS):
        some = slice(start, start + _ROWS)
        incoming = similarity[:, some].T.double()
        outgoing = similarity[some].double()
        child, parent = ((incoming >= threshold) & (incoming > outgoing)).nonzero(as_tuple=True)
        found.append((parent.int(), (child + start).int(), incoming[child, parent]))
    parents, children, strengths = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    order = np.argsort(-strengths, kind="stable")
    return parents[order], children[order], strengths[order]


class _Ancestry:
    """Who stands above and below whom: one row of bits per concept, uint8 (K, K / 8)."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.above = np.zeros((k, (k + 7) // 8), dtype=np.uint8)
        self.below = np.zeros_like(self.above)

    def add_all(self, parents: np.ndarray, children: np.ndarray) -> np.ndarray:
        """Add the links in their order, but for those that close a circle; positions of those no other way implies."""
        new = []
        for start in range(0, len(parents), _LINKS):
            some = slice(start, start + _LINKS)
            related = _has(self.above, children[some], parents[some]) | _has(self.above, parents[some], children[some])
            for at in (np.flatnonzero(~related) + start).tolist():
                if self._add(int(parents[at]), int(children[at])):
                    new.append(at)
        added = np.array(new, dtype=np.int64)
        direct = [np.zeros(0, dtype=np.int64)]
        for part in np.array_split(added, len(added) // _LINKS + 1):
            between = self.above[children[part]] & self.below[parents[part]]
            direct.append(part[~between.any(1)])
        return np.concatenate(direct)

    def _add(self, parent: int, child: int) -> bool:
        """Whether the link says something new; one within a known line, or against it, does not."""
        if self._is_above(parent, child) or self._is_above(child, parent):
            return False
        upper, lower = self.above[parent].copy(), self.below[child].copy()
        upper[parent >> 3] |= 1 << (parent & 7)
        lower[child >> 3] |= 1 << (child & 7)
        # those on the far side that have the link's other end already have all that lies behind it too
        heads, tails = self._members(lower & ~self.below[parent]), self._members(upper & ~self.above[child])
        self.above[heads] |= upper
        self.below[tails] |= lower
        return True

    def _is_above(self, upper: int, lower: int) -> bool:
        return bool(self.above[lower, upper >> 3] >> (upper & 7) & 1)

    def _members(self, bits: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.unpackbits(bits, count=self.k, bitorder="little"))


def _has(rows: np.ndarray, row: np.ndarray, member: np.ndarray) -> np.ndarray:
    return (rows[row, member >> 3] >> (member & 7).astype(np.uint8) & 1).astype(bool)
