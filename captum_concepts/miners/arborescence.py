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
    incoming = np.empty((k, k + 1))  # row c, column p: the best link from place p into place c
    incoming[:] = weights.T
    incoming[np.arange(k), np.arange(k)] = -np.inf
    growth = _Growth(incoming)
    for start in range(k):
        path = [start] if growth.state[start] == _NEW else []
        while path:
            top = path[-1]
            growth.state[top] = _ON_PATH
            source = growth.choose(top)
            if source == k or growth.state[source] == _DONE:
                growth.state[path] = _DONE
                break
            if growth.state[source] == _NEW:
                path.append(source)
                continue
            cycle = path[path.index(source) :]
            del path[len(path) - len(cycle) + 1 :]
            growth.contract(cycle)
    return growth.expand()


_NEW, _ON_PATH, _DONE, _GONE = range(4)


class _Growth:
    """Vertices (concepts, then contracted cycles) and the places of the matrix that they live in.

    Beside the best link between two places stands which link between two concepts it is, as one number: parent * K +
    child.
    """

    def __init__(self, incoming: np.ndarray) -> None:
        self.k = k = len(incoming)
        self.incoming = incoming
        self.link_of = np.empty((k, k + 1), dtype=np.int32 if k * (k + 1) < 2**31 else np.int64)
        self.link_of[:] = np.arange(k)[:, None] + k * np.arange(k + 1)
        self.state = np.full(k, _NEW)
        self.vertex = list(range(k))  # the vertex living in each place
        self.members: dict[int, list[int]] = {}
        self.link: dict[int, int] = {}
        self.strength: dict[int, float] = {}

    def choose(self, place: int) -> int:
        """Take the best link into a place; returns where it comes from."""
        source = int(self.incoming[place].argmax())
        vertex = self.vertex[place]
        self.link[vertex] = int(self.link_of[place, source])
        self.strength[vertex] = self.incoming[place, source]
        return source

    def contract(self, cycle: list[int]) -> None:
        """Merge the vertices in these places into a new one in the first place."""
        incoming, link_of = self.incoming, self.link_of
        members = [self.vertex[place] for place in cycle]
        first, rest = cycle[0], cycle[1:]
        gains = incoming[cycle] - np.array([self.strength[m] for m in members])[:, None]
        into = gains.argmax(0)[None]
        leaving = incoming[:, cycle]
        out_of = leaving.argmax(1)[:, None]
        link_of[:, first] = np.take_along_axis(link_of[:, cycle], out_of, 1)[:, 0]
        link_of[first] = np.take_along_axis(link_of[cycle], into, 0)[0]
        incoming[:, first] = np.take_along_axis(leaving, out_of, 1)[:, 0]
        incoming[:, rest] = -np.inf
        incoming[first] = np.take_along_axis(gains, into, 0)[0]
        incoming[first, cycle] = -np.inf
        self.state[rest] = _GONE
        vertex = self.k + 1 + len(self.members)
        self.members[vertex] = members
        self.vertex[first] = vertex

    def expand(self) -> np.ndarray:
        parents = np.full(self.k, -1)
        alive = [self.vertex[place] for place in range(self.k) if self.state[place] == _DONE]
        above = {member: vertex for vertex, members in self.members.items() for member in members}
        stack = [(vertex, self.link[vertex]) for vertex in alive]
        while stack:
            vertex, link = stack.pop()
            tail, head = divmod(link, self.k)
            parents[head] = tail
            # the entered concept's line of cycles up to the vertex gives up its own links, all others keep theirs
            inner = head
            while inner != vertex:
                cycle = above[inner]
                stack += [(member, self.link[member]) for member in self.members[cycle] if member != inner]
                inner = cycle
        return parents
