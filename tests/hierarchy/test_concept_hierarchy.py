"""ConceptHierarchy: reading, changing, writing and reopening, hostile names."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy

TREE = ConceptHierarchy.from_edges(
    ["music", "rock", "metal", "punk", "jazz", "bebop"],
    [
        ("music", "rock", 0.9),
        ("music", "jazz", 0.8, 0.5),
        ("rock", "metal", 0.7),
        ("rock", "punk", 0.6),
        ("jazz", "bebop", 0.5),
    ],
)
GRAPH = ConceptHierarchy.from_edges(
    "abcde", [("a", "b", 1.0), ("a", "c", 0.2), ("b", "d", 0.3), ("c", "d", 0.9), ("b", "c", 0.1)]
)
HOSTILE = [
    "plain",
    "\x00null",
    "bell\x07 & <b>\"q\" 'a' ]]> --",
    "two\nlines\tand\rreturn",
    "日本語 🎵",
    "\ud800 alone",
    "x" * 10_000,
    "</script>",
    "n0",
    " ",
    "\ufffe",
    "(a,b):1;[c]",
]


def test_reading_a_tree() -> None:
    assert TREE.roots == ["music"] and TREE.leaves == ["metal", "punk", "bebop"]
    assert TREE.parents("punk") == ["rock"] and TREE.children("rock") == ["metal", "punk"]
    assert TREE.ancestors("punk") == ["music", "rock"] and TREE.descendants("rock") == ["metal", "punk"]
    assert TREE.depth("punk") == 2 and TREE.depths["music"] == 0
    assert TREE.lca("metal", "punk") == "rock" and TREE.lca("metal", "bebop") == "music"
    assert TREE.lca("rock", "punk") == "rock" == TREE.lca("rock", "rock")
    assert TREE.is_tree and TREE.is_forest and len(TREE) == 6 and "jazz" in TREE and "ska" not in TREE
    assert repr(TREE) == "ConceptHierarchy(tree of 6 concepts, 5 links, 1 roots, depth 2)"


def test_reading_a_graph_with_several_parents() -> None:
    assert GRAPH.parents("d") == ["c", "b"]  # the stronger link first
    assert GRAPH.depth("d") == 3  # the longest way down
    assert GRAPH.lca("d", "c") == "c" and GRAPH.lca("a", "e") is None
    assert not GRAPH.is_tree and not GRAPH.is_forest and GRAPH.roots == ["a", "e"]
    with pytest.raises(InputError, match="several parents"):
        GRAPH.to_newick()


def test_text() -> None:
    assert TREE.to_text() == "music\n├─ rock\n│  ├─ metal\n│  └─ punk\n└─ jazz\n   └─ bebop"
    assert TREE.to_text(1) == "music\n├─ rock (+2)\n└─ jazz (+1)"
    assert GRAPH.to_text() == "a\n├─ b\n│  ├─ c\n│  │  └─ d\n│  └─ d\n└─ c (above)\ne"
    assert "\n" not in ConceptHierarchy.from_edges(["a\nb\x07"], []).to_text()


def test_every_concept_is_a_node_and_names_give_the_order() -> None:
    hierarchy = ConceptHierarchy(nx.DiGraph([("b", "a")]), ("c", "a", "b"))
    assert list(hierarchy.graph.nodes) == ["c", "a", "b"] and hierarchy.roots == ["c", "b"]
    assert hierarchy.edges[0][:3] == ("b", "a", 1.0) and math.isnan(hierarchy.edges[0][3])


def test_order_of_edges_does_not_matter() -> None:
    again = ConceptHierarchy.from_edges(GRAPH.names, reversed(GRAPH.edges))
    assert again == GRAPH and list(again.graph.edges) == list(GRAPH.graph.edges)
    assert again != TREE and ConceptHierarchy.from_edges(GRAPH.names, GRAPH.edges[1:]) != GRAPH


def test_subtree_relabel_restrict() -> None:
    rock = TREE.subtree("rock")
    assert rock.names == ("rock", "metal", "punk") and rock.roots == ["rock"]
    swapped = TREE.relabel({"rock": "jazz", "jazz": "rock"})
    assert swapped.children("jazz") == ["metal", "punk"] and swapped.names[1] == "jazz"
    kept = TREE.restrict(["music", "punk", "bebop", "jazz"])
    assert [edge[:3] for edge in kept.edges] == [
        ("music", "punk", 1.0),
        ("music", "jazz", 0.8),
        ("jazz", "bebop", 0.5),
    ]


def test_cut() -> None:
    assert set(TREE.cut(1).values()) == {"music"}
    assert TREE.cut(2) == {
        "music": "music",
        "rock": "rock",
        "metal": "rock",
        "punk": "rock",
        "jazz": "music",
        "bebop": "music",
    }
    for k in range(1, 7):
        assert len(set(TREE.cut(k).values())) == k
    for k in (0, 7):
        with pytest.raises(InputError, match="from 1 to 6"):
            TREE.cut(k)


def test_json_and_back() -> None:
    for hierarchy in (TREE, GRAPH, ConceptHierarchy.from_edges(HOSTILE, [(HOSTILE[0], HOSTILE[1])])):
        assert ConceptHierarchy.from_dict(json.loads(json.dumps(hierarchy.to_dict(), allow_nan=False))) == hierarchy


@pytest.mark.parametrize(
    "record",
    [
        {},
        None,
        {"schema": 1},
        {"schema": 2, "names": [], "edges": []},
        {"schema": 1, "names": ["a"], "edges": [[0, 1, 1.0, None]]},
        {"schema": 1, "names": ["a", "b"], "edges": [[0, -1, 1.0, None]]},
        {"schema": 1, "names": ["a", "b"], "edges": [[0, 1]]},
    ],
)
def test_damaged_json(record: object) -> None:
    with pytest.raises(InputError, match="to_dict"):
        ConceptHierarchy.from_dict(record)


@pytest.mark.parametrize("kind", ["graphml", "gexf"])
def test_hostile_names_survive_xml(kind: str, tmp_path: Path) -> None:
    edges = [(HOSTILE[0], name, 0.25 * i) for i, name in enumerate(HOSTILE) if i]
    edges[2] = (*edges[2], 0.75)
    hierarchy = ConceptHierarchy.from_edges(HOSTILE, edges)
    path = tmp_path / f"h.{kind}"
    getattr(hierarchy, f"to_{kind}")(path)
    ElementTree.parse(path)
    again = getattr(nx, f"read_{kind}")(path)
    assert again.is_directed() and list(again.nodes) == [f"n{i}" for i in range(len(HOSTILE))]
    labels = [again.nodes[node]["label"] for node in again]
    assert labels[0] == "plain" and labels[4] == "日本語 🎵" and labels[6] == HOSTILE[6] and labels[9] == " "
    assert labels[1] == "\\x00null" and labels[3] == "two\nlines\tand\\rreturn" and labels[5] == "\\ud800 alone"
    assert len(set(labels)) == len(HOSTILE)
    assert again.edges["n0", "n4"]["weight"] == 1.0
    assert again.edges["n0", "n3"]["support"] == 0.75 and "support" not in again.edges["n0", "n4"]
    before = path.read_bytes()
    getattr(hierarchy, f"to_{kind}")(path)
    assert path.read_bytes() == before and b"nan" not in before


def test_newick() -> None:
    assert TREE.to_newick() == "(('metal','punk')'rock',('bebop')'jazz')'music';"
    assert ConceptHierarchy.from_edges(["a'b", "c"], []).to_newick() == "('a''b','c');"
    assert "\n" not in ConceptHierarchy.from_edges(HOSTILE, []).to_newick()


def test_a_chain_of_thousands_needs_no_recursion(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(3000)]
    chain = ConceptHierarchy.from_edges(names, itertools.pairwise(names))
    assert chain.depth("c2999") == 2999
    assert chain.to_newick().count("(") == 2999
    assert chain.to_text(2) == "c0\n└─ c1\n   └─ c2 (+2997)"
    chain.to_graphml(tmp_path / "chain.graphml")


@pytest.mark.parametrize(
    ("names", "edges", "message"),
    [
        (["a", "a"], [], "'a' occurs twice"),
        (["a", ""], [], "non-empty"),
        (["a", 3], [], "no concept name"),
        (["a"], [("a", "b")], "unknown concept 'b'"),
        (["a"], [("a", "a")], "its own parent"),
        (["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "a")], "in a circle"),
        (["a", "b"], [("a", "b", math.nan)], "weight nan"),
        (["a", "b"], [("a", "b", 1.0, 1.5)], "support 1.5"),
    ],
)
def test_bad_input(names: list, edges: list, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ConceptHierarchy.from_edges(names, edges)
    assert "\n" not in str(caught.value)


def test_unknown_concepts() -> None:
    for ask in (TREE.parents, TREE.depth, TREE.subtree, lambda name: TREE.lca("rock", name)):
        with pytest.raises(InputError, match="no concept 'ska'"):
            ask("ska")
    with pytest.raises(InputError, match="occurs twice"):
        TREE.relabel({"rock": "jazz"})
    with pytest.raises(InputError, match="not among the names"):
        ConceptHierarchy(nx.DiGraph([("a", "b")]), ("a",))


def test_restricting_leads_around_no_parent() -> None:
    graph = ConceptHierarchy.from_edges("abcx", [("a", "b"), ("b", "c"), ("a", "x"), ("x", "c")])
    assert set(graph.restrict("abc").graph.edges) == {("a", "b"), ("b", "c")}
    given = ConceptHierarchy.from_edges("abcx", [("a", "b"), ("b", "c"), ("a", "c"), ("x", "c")])
    assert set(given.restrict("abc").graph.edges) == {("a", "b"), ("b", "c"), ("a", "c")}  # it was there


def test_several_parents_in_a_mapping_are_refused() -> None:
    with pytest.raises(InputError, match=r"'c' has \['a', 'b'\]; give one name"):
        ConceptHierarchy.from_parents({"c": ["a", "b"]})


def test_diff_names_what_moved() -> None:
    old = ConceptHierarchy.from_edges("abcd", [("a", "b"), ("b", "c"), ("a", "d")])
    new = ConceptHierarchy.from_edges("abce", [("a", "b"), ("a", "c"), ("b", "e")])
    assert old.diff(new).splitlines() == [
        "- d: only in the first",
        "+ e: only in the second",
        "~ c: under b -> under a",
    ]
    assert old.diff(old) == ""
    assert "~ b: under a -> root" in old.diff(ConceptHierarchy.from_edges("abcd", []))
