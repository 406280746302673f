"""A mined hierarchy against a reference, or against another mined one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping

import networkx as nx
import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.text import short_repr

TRIPLETS = 200_000
MAX_BRANCHES = 10


def evaluate_hierarchy(
    mined: ConceptHierarchy | nx.DiGraph,
    reference: ConceptHierarchy | nx.DiGraph | Mapping[str, str | None],
    clusters: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """How well ``mined`` agrees with ``reference``.

    Both are first restricted to the concepts they share, each concept under its nearest shared ancestors; forests and
    several parents are allowed on either side. Ratios without a denominator are NaN.

    Args:
        reference: a hierarchy, a graph parent -> child, or a mapping child -> parent (None or "" for roots).
        clusters: concept -> label, for the ``same_cluster`` figures.

    Returns:
        ``n_concepts`` compared; ``unmatched_mined``, ``unmatched_reference``: names on one side only;
        ``parent_accuracy``: mean over the concepts with a reference parent (``n_with_parent``) of the overlap
        (intersection over union) of the two sets of parents: with single parents, the share of right parents;
        ``root_precision``, ``root_recall``: of being a root;
        ``ancestor_precision, _recall, _f1`` over (ancestor, descendant) pairs (f1 is 1 if neither side has any);
        ``triplet_agreement``: of three concepts, two may be closer to each other than to the third, that is, share
        more ancestors (each concept counting as its own): the share of the triples resolved in the reference that
        mined resolves the same way; over all triples (``n_triplets`` resolved ones), or, where there are more than
        200,000, that many drawn with a fixed seed;
        ``robinson_foulds``: share of branches (a concept with all below it, 2 to n - 1 concepts, as a set) found on
        one side only, in [0, 1], 0 is best;
        ``adjusted_rand``: agreement of the branches when both are cut at as many (Hubert & Arabie 1985): the mean over
        the numbers of branches from 2 to 10 that both can be cut at; 1 is best, 0 is chance, NaN where there is none.
        Branches of one size are cut in the order of their names, which moves it by about 0.01 with 20 concepts;
        with clusters: ``same_cluster_edges``: share of mined links between two labelled concepts whose labels are
        equal, over all of ``mined``; ``same_cluster_ceiling``: the most that a forest with as many links can reach,
        or, where a concept of ``mined`` has several parents, a graph without cycles; ``same_cluster_chance``: the same
        for a random pair of the concepts.

    Raises:
        InputError: a cycle or another fault in either hierarchy, no concept in common, or a cluster that is no label.
    """
    mined, reference = _hierarchy(mined), _hierarchy(reference)
    shared = [name for name in reference.names if name in mined]
    if not shared:
        raise InputError("evaluate: mined and reference share no concept; give the same names in both")
    # what is drawn and how ties of cuts are broken must not depend on the order in which concepts were given
    ours, truth = (_by_name(hierarchy.restrict(shared)) for hierarchy in (mined, reference))
    above, above_truth = _ancestry(ours), _ancestry(truth)
    result: dict[str, object] = {
        "n_concepts": len(shared),
        "unmatched_mined": [name for name in mined.names if name not in reference],
        "unmatched_reference": [name for name in reference.names if name not in mined],
        **_parents(ours, truth),
        **_ancestors(above, above_truth),
        **_triplets(above, above_truth),
        "robinson_foulds": _robinson_foulds(above, above_truth),
        "adjusted_rand": _adjusted_rand(ours, truth),
    }
    if clusters is not None:
        result |= _same_cluster(mined, clusters)
    return result


def _hierarchy(given: ConceptHierarchy | nx.DiGraph | Mapping[str, str | None]) -> ConceptHierarchy:
    if isinstance(given, ConceptHierarchy):
        return given
    if isinstance(given, nx.DiGraph):
        return ConceptHierarchy(given)
    if isinstance(given, Mapping):
        return ConceptHierarchy.from_parents(given)
    raise InputError(f"evaluate: got {type(given).__name__}; give a hierarchy, a networkx.DiGraph or child -> parent")


def _by_name(hierarchy: ConceptHierarchy) -> ConceptHierarchy:
    return ConceptHierarchy(hierarchy.graph, tuple(sorted(hierarchy.names)))


def _ancestry(hierarchy: ConceptHierarchy) -> np.ndarray:
    """(n, n) bool: [a, b] where b is a or an ancestor of a."""
    index = {name: i for i, name in enumerate(hierarchy.names)}
    above = np.eye(len(index), dtype=bool)
    for name in nx.topological_sort(hierarchy.graph):
        for parent in hierarchy.graph.pred[name]:
            above[index[name]] |= above[index[parent]]
    return above


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _parents(mined: ConceptHierarchy, truth: ConceptHierarchy) -> dict[str, object]:
    overlaps = []
    for name in truth.names:
        right = set(truth.parents(name))
        if right:
            found = set(mined.parents(name))
            overlaps.append(len(right & found) / len(right | found))
    roots, true_roots = set(mined.roots), set(truth.roots)
    return {
        "parent_accuracy": _ratio(sum(overlaps), len(overlaps)),
        "n_with_parent": len(overlaps),
        "root_precision": _ratio(len(roots & true_roots), len(roots)),
        "root_recall": _ratio(len(roots & true_roots), len(true_roots)),
    }


def _ancestors(above: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    n = len(above)
    both, found, right = (int(a.sum()) - n for a in (above & truth, above, truth))
    return {
        "ancestor_precision": _ratio(both, found),
        "ancestor_recall": _ratio(both, right),
        "ancestor_f1": 2 * both / (found + right) if found + right else 1.0,
    }


def _triplets(above: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    n = len(above)
    if math.comb(n, 3) <= TRIPLETS:
        triples = np.array([(a, b, c) for a in range(n) for b in range(a) for c in range(b)], dtype=np.int64)
        triples = triples.reshape(-1, 3)
    else:
        drawn = np.random.default_rng(0).integers(0, n, (2 * TRIPLETS, 3))
        different = (drawn[:, 0] != drawn[:, 1]) & (drawn[:, 0] != drawn[:, 2]) & (drawn[:, 1] != drawn[:, 2])
        triples = drawn[different][:TRIPLETS]
    closest, closest_truth = _closest_pair(above, triples), _closest_pair(truth, triples)
    resolved = closest_truth >= 0
    agree = int((closest[resolved] == closest_truth[resolved]).sum())
    return {"triplet_agreement": _ratio(agree, int(resolved.sum())), "n_triplets": int(resolved.sum())}


def _closest_pair(above: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """For each triple, which of its pairs (0, 1, 2) shares the most ancestors; -1 where two pairs tie."""
    common = above.astype(np.float32) @ above.T.astype(np.float32)
    a, b, c = triples.T
    shares = np.stack([common[a, b], common[a, c], common[b, c]], axis=1)
    best = shares.max(1, initial=0)
    return np.where((shares == best[:, None]).sum(1) == 1, shares.argmax(1), -1)


def _robinson_foulds(above: np.ndarray, truth: np.ndarray) -> float:
    branches, right = _branches(above), _branches(truth)
    whole = branches.total() + right.total()
    return (whole - 2 * (branches & right).total()) / whole if whole else 0.0


def _branches(above: np.ndarray) -> Counter[bytes]:
    below = above.T
    sizes = below.sum(1)
    packed = np.packbits(below[(sizes > 1) & (sizes < len(below))], axis=1)
    return Counter(row.tobytes() for row in packed)


def _adjusted_rand(mined: ConceptHierarchy, truth: ConceptHierarchy) -> float:
    least = max(2, len(mined.roots), len(truth.roots))
    values = []
    for k in range(least, min(MAX_BRANCHES, len(truth.names) - 1) + 1):
        heads, right = mined.cut(k), truth.cut(k)
        table = Counter((heads[name], right[name]) for name in truth.names)
        pairs = sum(math.comb(n, 2) for n in table.values())
        rows, columns = (sum(math.comb(n, 2) for n in Counter(cut.values()).values()) for cut in (heads, right))
        expected = rows * columns / math.comb(len(truth.names), 2)
        values.append((pairs - expected) / ((rows + columns) / 2 - expected))
    return _ratio(sum(values), len(values))


def _same_cluster(mined: ConceptHierarchy, clusters: Mapping[str, object]) -> dict[str, float]:
    labelled = [name for name in mined.names if name in clusters]
    for name in labelled:
        if not isinstance(clusters[name], Hashable):
            raise InputError(
                f"clusters: {short_repr(name)} has {short_repr(clusters[name])}; give one label, e.g. a string"
            )
    edges = [(p, c) for p, c, _, _ in mined.edges if p in clusters and c in clusters]
    sizes = Counter(clusters[name] for name in labelled)
    n = len(labelled)
    same = sum(clusters[p] == clusters[c] for p, c in edges)
    pairs = sum(m * (m - 1) for m in sizes.values())
    most = n - len(sizes) if mined.is_forest else pairs // 2
    return {
        "same_cluster_edges": _ratio(same, len(edges)),
        "same_cluster_ceiling": _ratio(min(len(edges), most), len(edges)),
        "same_cluster_chance": _ratio(pairs, n * (n - 1)),
    }
