"""The spanning arborescence with the largest total weight, on dense graphs."""

from __future__ import annotations

import numpy as np


def optimum_arborescence(weights: np.ndarray) -> np.ndarray:
    """Parents (K,) of the spanning arborescence with the largest total weight; K stands for the root.

    Args:
        weights: (K + 1, K) float64, ``weights[p, c]`` for p -> c; the last row holds the root's links. The diagonal
            is not used.

    Edmonds' algorithm in the path-growing form for dense graphs (Gabow, Galil, Spencer & Tarjan 1986): every cycle
    is contracted into the place of its first vertex, O(K^2) in all. Equal weights: the earlier place first.
    """
    k = weights.shape[1]
    incoming = np.full((k, k + 1), -np.inf)  # row c, column p: the best link from place p into place c
    incoming[:] = weights.T
    incoming[np.arange(k), np.arange(k)] = -np.inf
    growth = _Growth(k)
    for start in range(k):
        path = [start] if growth.state[start] == _NEW else []
        while path:
            top = path[-1]
            growth.state[top] = _ON_PATH
            source = int(incoming[top].argmax())
            growth.choose(top, source, incoming[top, source])
            if source == k or growth.state[source] == _DONE:
                growth.state[path] = _DONE
                break
            if growth.state[source] == _NEW:
                path.append(source)
                continue
            cycle = path[path.index(source) :]
            del path[len(path) - len(cycle) + 1 :]
            growth.contract(cycle, incoming)
    return growth.expand()


_NEW, _ON_PATH, _DONE, _GONE = range(4)


class _Growth:
    """Vertices (concepts, then contracted cycles) and the places of the matrix that they live in.

    A cycle keeps, for every place, which of its members the best link into and out of it belongs to. Of two vertices
    the one made later knows where the other one was, so a link between vertices unfolds to one between concepts.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.state = np.full(k, _NEW)
        self.vertex = list(range(k + 1))  # the vertex living in each place; place k is the root
        self.place = list(range(k + 1))  # and back
        self.members: dict[int, list[int]] = {}
        self.into: dict[int, np.ndarray] = {}
        self.out_of: dict[int, np.ndarray] = {}
        self.link: dict[int, tuple[int, int]] = {}
        self.strength: dict[int, float] = {}

    def choose(self, place: int, source: int, strength: float) -> None:
        vertex = self.vertex[place]
        self.link[vertex] = self._unfold(self.vertex[source], vertex)
        self.strength[vertex] = strength

    def _unfold(self, tail: int, head: int) -> tuple[int, int]:
        while tail in self.members or head in self.members:
            if tail in self.members and (tail > head or head not in self.members):
                tail = self.members[tail][self.out_of[tail][self.place[head]]]
            else:
                head = self.members[head][self.into[head][self.place[tail]]]
        return tail, head

    def contract(self, cycle: list[int], incoming: np.ndarray) -> None:
        """Merge the vertices in these places into a new one in the first place."""
        members = [self.vertex[place] for place in cycle]
        vertex = len(self.place)
        gains = incoming[cycle] - np.array([self.strength[m] for m in members])[:, None]
        self.into[vertex] = gains.argmax(0).astype(np.int32)
        leaving = incoming[:, cycle]
        self.out_of[vertex] = np.append(leaving.argmax(1), 0).astype(np.int32)
        first, rest = cycle[0], cycle[1:]
        incoming[:, first] = leaving.max(1)
        incoming[:, rest] = -np.inf
        incoming[first] = gains.max(0)
        incoming[first, cycle] = -np.inf
        self.state[rest] = _GONE
        self.members[vertex] = members
        self.vertex[first] = vertex
        self.place.append(first)

    def expand(self) -> np.ndarray:
        parents = np.full(self.k, -1)
        alive = [self.vertex[place] for place in range(self.k) if self.state[place] == _DONE]
        above = {member: vertex for vertex, members in self.members.items() for member in members}
        stack = [(vertex, self.link[vertex]) for vertex in alive]
        while stack:
            vertex, (tail, head) = stack.pop()
            parents[head] = tail
            # the entered concept's line of cycles up to the vertex gives up its own links, all others keep theirs
            inner = head
            while inner != vertex:
                cycle = above[inner]
                stack += [(member, self.link[member]) for member in self.members[cycle] if member != inner]
                inner = cycle
        return parents
