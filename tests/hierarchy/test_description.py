"""Tests of the description of a concept's place in a hierarchy."""

from __future__ import annotations

import numpy as np
import pytest

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.description import describe


def test_describe_says_why_in_words() -> None:
    tree = ConceptHierarchy.from_edges("abcd", [("a", "b", 0.9, 0.75), ("b", "c", 0.5)])
    points = np.array([[1.0, 0], [1, 0.1], [1, 1], [0, 0]])
    assert describe(tree, "c").splitlines()[0] == "c is under b: similarity 0.50."
    text = describe(tree, "c", points @ points.T, candidates=1).splitlines()
    assert text == [
        "c is under b: similarity 0.77.",  # on one scale with the next line, whatever the miner wrote on the link
        "Most similar to it: b 0.77.",
        "It is number 3 of 3 in generality, how near it lies to the mean of all clips.",  # 1.00, 1.01, 2.00; d is noise
        "The way up: c < b < a.",
        "Below it: 0 concepts, 0 of them next.",
    ]
    assert "found in 75% of the resamples" in describe(tree, "b")
    assert "than noise does" in describe(tree, "d", points @ points.T)
    with pytest.raises(InputError, match="no concept 'x'"):
        describe(tree, "x")
    with pytest.raises(InputError, match="candidates = 0; give at least 1"):
        describe(tree, "c", points @ points.T, candidates=0)
    with pytest.raises(InputError, match="similarity: NaN or infinity"):
        describe(tree, "c", points @ points.T * np.nan)
    with pytest.raises(InputError, match="shape"):
        describe(tree, "a", np.eye(3))


def test_describe_names_what_could_have_stood_above() -> None:
    """Nearest to a root is mostly what hangs below it, which says nothing of why it is one."""
    tree = ConceptHierarchy.from_edges("abcd", [("a", "b"), ("b", "c")])
    points = np.array([[1.0, 0], [2, 0.1], [2, 1], [0.1, 3]])
    lines = describe(tree, "a", points @ points.T, stability=0.4).splitlines()
    assert lines[:3] == [
        "a is a root: nothing stands above it.",
        "It has no parent in 40% of the resamples.",
        "Most similar of what is not below it: d 0.03.",
    ]
    assert lines[3].startswith("It is number 1 of 4 in generality")
    assert "this parent and no other in 40%" in describe(tree, "b", stability=0.4)
    several = ConceptHierarchy.from_edges("abc", [("a", "c"), ("b", "c")])
    assert "these parents and no others in 40%" in describe(several, "c", stability=0.4)
    chain = ConceptHierarchy.from_edges("ab", [("a", "b")])
    assert "no other concept to stand above it" in describe(chain, "a", np.array([[1, 0.5], [0.5, 1]]))


def test_describe_takes_what_is_not_symmetric_as_it_is() -> None:
    """Of the paper's S the parent's row and the child's column count, and no scale is taken out."""
    s = np.array([[0.9, 0.3, 0.2], [0.8, 0.5, 0.1], [0.6, 0.4, 0.9]])
    lines = describe(ConceptHierarchy.from_edges("abc", [("c", "b", 0.4)]), "b", s).splitlines()
    assert lines[0] == "b is under c: similarity 0.40."
    assert lines[1] == "Most similar to it: c 0.40, a 0.30."
    # the columns' means without the diagonal: a 0.7, b 0.35, c 0.15
    assert lines[2] == "It is number 2 of 3 in generality, how similar the others are to it on average."
