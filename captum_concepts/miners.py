"""Miners: from a similarity matrix to a :class:`ConceptHierarchy`.

A miner is a plain function ``(similarity: Tensor (K, K), names: tuple[str, ...], **options) -> ConceptHierarchy``.
``similarity[p, c]`` speaks for the link p -> c (p above c). :func:`mine` checks the input and calls the miner.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_concepts.arborescence import optimum_arborescence
from captum_concepts.centrality import betweenness
from captum_concepts.errors import InputError, shown
from captum_concepts.hierarchy import ConceptHierarchy
from captum_concepts.several_parents import add_parents, check_parent_options
from captum_concepts.subsumption import subsumption

Miner = Callable[..., ConceptHierarchy]

LARGEST = 1e100
ROUNDING = 1e-12  # relative; between concepts of equal betweenness sums leave about 1e-15


def mine(
    similarity: Tensor | np.ndarray,
    names: Sequence[str],
    miner: str | Miner = "spanning_tree",
    *,
    max_parents: int = 1,
    parent_margin: float = 0.1,
    **options: object,
) -> ConceptHierarchy:
    """Mine a hierarchy.

    Args:
        similarity: (K, K), finite; row p, column c speaks for the link p -> c. The diagonal is never used as a link.
        names: K unique names, in the order of the rows.
        miner: a name in :data:`MINERS`, or a function with a miner's signature.
        max_parents, parent_margin: above 1, concepts get further parents; see ``several_parents.add_parents``.
        options: passed to the miner.

    Raises:
        InputError: no concept, a matrix of another shape, NaN, infinity or what is no number, duplicate names, an
            unknown miner or option, an option that is NaN, or a matrix that is not symmetric for a miner that needs it.
    """
    names = tuple(names)
    similarity = _checked(similarity, names)
    check_parent_options(max_parents, parent_margin)
    for option, value in options.items():
        if isinstance(value, float) and np.isnan(value):  # every comparison with it would be false
            raise InputError(f"{option} = nan; give a number")
    function = _miner(miner)
    try:
        inspect.signature(function).bind(similarity, names, **options)
    except TypeError as error:
        raise InputError(f"miner {shown(miner)}: {error}; see its documentation for the options") from None
    if len(names) == 1:
        return ConceptHierarchy.from_edges(names, [])
    mined = function(similarity, names, **options)
    if not isinstance(mined, ConceptHierarchy) or mined.names[: len(names)] != names:
        raise InputError(f"miner {shown(miner)}: must return a ConceptHierarchy over all {len(names)} names in order")
    if max_parents > 1:
        if len(mined) > len(names):
            raise InputError("max_parents: needs a hierarchy whose nodes are all concepts; leave out inner='unnamed'")
        return add_parents(mined, similarity, max_parents=max_parents, margin=parent_margin)
    return mined


def _miner(miner: str | Miner) -> Miner:
    if callable(miner):
        return miner
    from captum_concepts.plugins import lookup

    found: Miner = lookup("miners", miner).factory
    return found


def _checked(similarity: Tensor | np.ndarray, names: tuple[str, ...]) -> Tensor:
    if not names:
        raise InputError("names: no concepts; a hierarchy needs at least one")
    ConceptHierarchy.from_edges(names, [])  # complains about empty and duplicate names
    try:
        similarity = similarity if isinstance(similarity, Tensor) else torch.from_numpy(np.array(similarity))
    except (TypeError, ValueError) as error:
        raise InputError(f"similarity: {shown(str(error))}; give a matrix of numbers") from None
    if similarity.shape != (len(names), len(names)):
        raise InputError(
            f"similarity: shape {tuple(similarity.shape)} for {len(names)} names; give ({len(names)}, {len(names)})"
        )
    if similarity.is_complex():
        raise InputError("similarity: complex numbers; give real ones")
    similarity = similarity.detach() if similarity.is_floating_point() else similarity.double()
    bad = (~torch.isfinite(similarity)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise InputError(
            f"similarity: {similarity[row, column].item()} at {shown(names[row])}, {shown(names[column])}"
            f" ({len(bad)} such entries); leave out concepts without a usable vector"
        )
    if similarity.abs().amax() > LARGEST:
        raise InputError(f"similarity: beyond {LARGEST:g}, where squares are infinite; divide it by its largest entry")
    return similarity


def _symmetric(similarity: Tensor, miner: str) -> None:
    scale = float(similarity.abs().max())
    if float((similarity - similarity.T).abs().max()) > 1e-5 * scale:
        raise InputError(f"miner {shown(miner)}: needs a symmetric similarity; give (S + S.T) / 2 or another miner")


# ---------------------------------------------------------------------- the paper's miner


def heymann(
    similarity: Tensor,
    names: Sequence[str],
    *,
    threshold: float = 0.5,
    min_sim: float = 0.2,
    parents_per_node: int = 1,
    additional_threshold: float = 0.2,
    max_children_per_node: int = 20,
    centrality: str | Tensor | np.ndarray = "betweenness",
) -> ConceptHierarchy:
    """The Heymann & Garcia-Molina variant of Afchar, Hennequin & Guigue (ISMIR 2022), step by step.

    The diagonal becomes ``min(S) - 0.1``. Concepts are taken by falling centrality in the undirected graph with an
    edge where ``S > threshold`` in either direction; equal centrality (of betweenness, equal but for rounding, 1e-12
    relative): the later concept first. Candidates for the parent of c are the concepts already placed that have fewer
    than ``max_children_per_node`` children; the ``parents_per_node`` best by ``S[p, c]`` are considered (equal: the
    earlier concept first), and p is linked if ``S[p, c] > min_sim`` and ``S[p, c] > best - additional_threshold``. A
    concept without a link is a root (the paper's ``<root>`` is no node here). All comparisons are strict and made in
    float64.

    Args:
        similarity: (K, K); the paper's S: row p = whose tracks, column c = whose CAV.
        centrality: "betweenness", or one number per concept.

    Raises:
        InputError: an option out of range, or a centrality of the wrong length or with NaN.
    """
    for option, value in (("parents_per_node", parents_per_node), ("max_children_per_node", max_children_per_node)):
        if value < 1 or value % 1:
            raise InputError(f"heymann: {option} = {value}; give a whole number of at least 1")
    order = np.argsort(_centrality(similarity, centrality, threshold), kind="stable")[::-1]
    incoming = _incoming(similarity)
    open_nodes = np.zeros(len(names), dtype=bool)
    n_children = np.zeros(len(names), dtype=np.int64)
    edges = []
    for child in order:
        candidates = np.flatnonzero(open_nodes)
        best = _largest(incoming[child, candidates], parents_per_node)
        chosen = [(p, incoming[child, p]) for p in candidates[best]]
        for parent, strength in chosen:
            if strength > min_sim and strength > chosen[0][1] - additional_threshold:
                edges.append((names[parent], names[child], float(strength)))
                n_children[parent] += 1
                open_nodes[parent] = n_children[parent] < max_children_per_node
        open_nodes[child] = True
    return ConceptHierarchy.from_edges(names, edges)


def _double(similarity: Tensor, transposed: bool = False) -> np.ndarray:
    """A float64 copy on the CPU, of the matrix or of its transpose."""
    matrix = similarity.detach()
    copy = torch.empty(matrix.shape, dtype=torch.float64)
    return copy.copy_(matrix.T if transposed else matrix).numpy()


def _incoming(similarity: Tensor) -> np.ndarray:
    """``[c, p]`` = ``similarity[p, c]``; the diagonal is the paper's, 0.1 below the smallest entry of the matrix."""
    incoming = _double(similarity, transposed=True)
    np.fill_diagonal(incoming, incoming.min() - 0.1)
    return incoming


def _centrality(similarity: Tensor, centrality: str | Tensor | np.ndarray, threshold: float) -> np.ndarray:
    if isinstance(centrality, str):
        if centrality != "betweenness":
            raise InputError(f"centrality: no {shown(centrality)}; give 'betweenness' or one number per concept")
        linked = similarity.detach().double() > threshold
        linked = linked | linked.T
        linked.fill_diagonal_(False)
        return _levels(betweenness(linked).cpu().numpy())
    return _per_concept("centrality", centrality, len(similarity))


def _levels(values: np.ndarray) -> np.ndarray:
    """(K,) the rank of each value; what differs by rounding alone is equal, so that no machine's sums set the order."""
    order = np.argsort(values, kind="stable")
    rising = values[order]
    levels = np.empty(len(values), dtype=np.int64)
    levels[order] = np.cumsum(np.diff(rising, prepend=rising[:1]) > ROUNDING * rising)
    return levels


def _per_concept(what: str, values: Tensor | np.ndarray | Sequence[float], k: int) -> np.ndarray:
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: {shown(values)}; give one finite number for each of {k} concepts") from None
    if array.shape != (k,) or not np.isfinite(array).all():
        raise InputError(f"{what}: shape {array.shape} for {k} concepts; give one finite number for each")
    return array


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest, falling; equal values: the earlier first."""
    if count == 1:
        return np.array([values.argmax()]) if len(values) else np.zeros(0, dtype=np.int64)
    return np.argsort(-values, kind="stable")[:count]


# ---------------------------------------------------------------------- generality


def null_threshold(similarity: Tensor) -> float:
    """What an unrelated pair reaches: median plus one robust standard deviation of the off-diagonal entries."""
    off = _off_diagonal(similarity)
    median = np.median(off, overwrite_input=True)
    off -= median
    return float(median + 1.4826 * np.median(np.abs(off, out=off), overwrite_input=True))


def estimated_generality(similarity: Tensor) -> np.ndarray:
    """(K,) mean off-diagonal column: how strongly the other concepts' clips speak for this concept's CAV.

    A guess that stands in for true set sizes; where these are known, give them to the miner instead.
    """
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    return (sim.sum(0) - sim.diagonal()) / max(len(sim) - 1, 1)


def _off_diagonal(similarity: Tensor) -> np.ndarray:
    """(K * (K - 1),) float64, a copy, row by row."""
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    k = len(sim)
    # without its first entry the matrix has the diagonal at the end of every K + 1 entries
    return np.ascontiguousarray(sim).reshape(-1)[1:].reshape(k - 1, k + 1)[:, :-1].flatten()


def attach_by_generality(
    similarity: Tensor,
    names: Sequence[str],
    *,
    generality: Tensor | np.ndarray | Sequence[float] | None = None,
    min_sim: float | None = None,
) -> ConceptHierarchy:
    """From the most general concept down, each under the most similar one that is more general.

    Args:
        similarity: (K, K); ``similarity[p, c]`` speaks for p above c.
        generality: (K,), larger is more general, e.g. set sizes; None: :func:`estimated_generality`. Equal
            generality or similarity: the earlier concept first.
        min_sim: a link must exceed it, else the concept is a root; None: :func:`null_threshold`.
    """
    values = estimated_generality(similarity) if generality is None else generality
    order = np.argsort(-_per_concept("generality", values, len(names)), kind="stable")
    floor = null_threshold(similarity) if min_sim is None else min_sim
    incoming = _incoming(similarity)
    unplaced = np.ones(len(names), dtype=bool)
    edges = []
    for above, child in itertools.pairwise(order.tolist()):
        unplaced[above] = False
        parent = int(np.where(unplaced, -np.inf, incoming[child]).argmax())
        if incoming[child, parent] > floor:
            edges.append((names[parent], names[child], float(incoming[child, parent])))
    return ConceptHierarchy.from_edges(names, edges)


# ---------------------------------------------------------------------- spanning tree


def spanning_tree(similarity: Tensor, names: Sequence[str], *, root_factor: float = 1.3) -> ConceptHierarchy:
    """The minimum spanning tree of the concepts and the origin, read from the origin outwards.

    Takes the similarity as inner products: concepts i and j are ``S[i, i] + S[j, j] - 2 S[i, j]`` apart, and concept i
    is ``root_factor * S[i, i]`` from the origin, which stands for all clips alike. The mean of a parent's clips lies
    between the means of its children and nearer to the origin than they do, so the tree links them through it, and no
    guess of which concept is the more general is needed. Concepts linked to the origin are roots; so are those with
    ``S[i, i] <= 0``, which noise alone may have moved, and they take no children. The weight of a link is
    ``S[p, c] / sqrt(S[p, p] S[c, c])``, within [-1, 1].

    Args:
        similarity: (K, K), symmetric: "discriminant", or cosines (diagonal 1).
        root_factor: 1 treats the origin like a concept; above 1 makes fewer roots. With cosines a link from a root
            needs more than ``1 - root_factor / 2``.

    Prim's algorithm, O(K^2). Equal distances: the origin first, then the earlier concept.
    """
    if not 0 < root_factor < np.inf:
        raise InputError(f"spanning_tree: root_factor = {root_factor}; give a number above 0")
    _symmetric(similarity, "spanning_tree")
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    sim = (sim + sim.T) / 2
    own = sim.diagonal()
    nearest = root_factor * own
    parent = np.full(len(names), -1)
    waiting = own > 0
    while waiting.any():
        new = int(np.where(waiting, nearest, np.inf).argmin())
        waiting[new] = False
        distance = own[new] + own - 2 * sim[new]
        nearer = waiting & (distance < nearest)
        nearest = np.where(nearer, distance, nearest)
        parent[nearer] = new
    edges = []
    for child, above in enumerate(parent):
        if above >= 0:
            cosine = sim[above, child] / np.sqrt(own[child] * own[above])
            edges.append((names[above], names[child], float(np.clip(cosine, -1, 1))))
    return ConceptHierarchy.from_edges(names, edges)


# ---------------------------------------------------------------------- optimum branching


def branching(
    similarity: Tensor,
    names: Sequence[str],
    *,
    generality: Tensor | np.ndarray | Sequence[float] | None = None,
    tilt: float = 1.0,
    min_sim: float | None = None,
) -> ConceptHierarchy:
    """The forest with the largest total weight (Edmonds' optimum branching, exact).

    The weight of p -> c is ``similarity[p, c] + tilt * spread * (rank(p) - rank(c))``, where rank is the generality's
    rank scaled to [0, 1] and spread the standard deviation of the off-diagonal similarities: a symmetric similarity
    alone cannot say which end is the parent. A root weighs ``min_sim``, and wins against a link that weighs no more.

    Args:
        similarity: (K, K); ``similarity[p, c]`` speaks for p above c.
        generality: (K,), larger is more general; None: :func:`estimated_generality`.
        tilt: how much generality counts; 0: the similarity alone.
        min_sim: weight of making a concept a root; None: :func:`null_threshold`.
    """
    k = len(names)
    values = _per_concept("generality", estimated_generality(similarity) if generality is None else generality, k)
    _, tied = np.unique(values, return_inverse=True)
    rank = tied / max(tied.max(), 1)
    lean = tilt * _off_diagonal(similarity).std()
    floor = null_threshold(similarity) if min_sim is None else min_sim
    weights = np.full((k + 1, k), np.nextafter(floor, np.inf))
    weights[:k] = _double(similarity)
    for parent in range(k):
        weights[parent] += lean * (rank[parent] - rank)
    parents = optimum_arborescence(weights)
    edges = [(names[p], names[c], float(similarity[p, c])) for c, p in enumerate(parents) if p < k]
    return ConceptHierarchy.from_edges(names, edges)


# ---------------------------------------------------------------------- agglomeration


def agglomerative(
    similarity: Tensor,
    names: Sequence[str],
    *,
    linkage: str = "average",
    min_sim: float | None = None,
    inner: str = "medoid",
) -> ConceptHierarchy:
    """Cluster from the leaves up; every merged cluster is headed by one of the two heads that it joins.

    The head with the larger mean similarity to the joined cluster (equal, as for any two single concepts: the one
    with the larger mean similarity to all concepts, then the earlier one) stays on top, the other becomes its child,
    so that every node is a concept. With ``inner="unnamed"`` the head and the other both become children of a new node
    that is no concept, called after the head and the number of concepts in it; concepts are then the leaves, and the
    weight of a link to a cluster is the similarity at which it was merged.

    Args:
        similarity: (K, K), symmetric.
        linkage: a method of ``scipy.cluster.hierarchy.linkage`` for given distances: "average", "complete", "single"
            or "weighted".
        min_sim: clusters whose linkage similarity does not exceed it stay apart; None: :func:`null_threshold`.
        inner: "medoid" or "unnamed". Unnamed nodes stand behind the concepts in the hierarchy's names.
    """
    from scipy.cluster import hierarchy as clustering
    from scipy.spatial.distance import squareform

    if linkage not in ("average", "complete", "single", "weighted"):
        raise InputError(f"agglomerative: no linkage {shown(linkage)}; use average, complete, single or weighted")
    if inner not in ("medoid", "unnamed"):
        raise InputError(f"agglomerative: inner = {shown(inner)}; give 'medoid' or 'unnamed'")
    _symmetric(similarity, "agglomerative")
    floor = null_threshold(similarity) if min_sim is None else min_sim
    sim = similarity.detach().to("cpu", torch.float64).numpy()
    sim = (sim + sim.T) / 2
    top = sim.max()
    distance = top - sim
    np.fill_diagonal(distance, 0.0)
    merges = clustering.linkage(squareform(distance, checks=False), method=linkage)
    np.fill_diagonal(sim, 0.0)
    overall = sim.sum(1)
    members = {i: np.array([i]) for i in range(len(names))}
    heads = {i: i for i in range(len(names))}
    nodes, taken = dict(enumerate(names)), set(names)
    edges = []
    for step, (left, right, height, _) in enumerate(merges, start=len(names)):
        if top - height <= floor:
            break  # the merges come by falling similarity
        joined = np.concatenate([members.pop(int(left)), members.pop(int(right))])
        pair = (heads.pop(int(left)), heads.pop(int(right)))
        child, head = sorted(pair, key=lambda i: (sim[i, joined].sum(), overall[i], -i))
        if inner == "medoid":
            edges.append((names[head], names[child], float(sim[head, child])))
        else:
            nodes[step] = _cluster_name(names[head], len(joined), taken)
            edges += [(nodes[step], nodes[int(part)], float(top - height)) for part in (left, right)]
        members[step], heads[step] = joined, head
    return ConceptHierarchy.from_edges(nodes.values(), edges)


def _cluster_name(head: str, size: int, taken: set[str]) -> str:
    name = f"{head} and {size - 1} more"
    while name in taken:  # a concept may be called so
        name += "\N{PRIME}"
    taken.add(name)
    return name


MINERS: dict[str, Miner] = {
    "spanning_tree": spanning_tree,
    "heymann": heymann,
    "subsumption": subsumption,
    "generality": attach_by_generality,
    "branching": branching,
    "agglomerative": agglomerative,
}
