"""Laws that every miner keeps, and the input that mine() refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.similarities import named, random_similarity

from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.miners.api import mine
from captum_concepts.miners.builtin import MINERS


@pytest.mark.parametrize("miner", MINERS)
def test_every_miner_keeps_the_laws(miner: str) -> None:
    sim = random_similarity(25, 4, symmetric=True)
    names = named(25)
    found = mine(sim, names, miner)
    assert found.names == tuple(names) and (found.is_forest or miner == "subsumption")
    assert found == mine(sim.numpy(), names, miner)
    order = np.random.default_rng(5).permutation(25)
    shuffled = mine(sim[order][:, order], [names[i] for i in order], miner)
    # centralities are sums in another order, so only the links themselves are compared
    assert {edge[:2] for edge in shuffled.edges} == {edge[:2] for edge in found.edges}


@pytest.mark.parametrize("miner", MINERS)
def test_identical_concepts_and_small_sets(miner: str) -> None:
    assert mine(torch.ones(1, 1), ["only"], miner).roots == ["only"]
    for k in (2, 6):
        assert len(mine(torch.ones(k, k), named(k), miner)) == k


def test_a_users_function_is_a_miner() -> None:
    def star(similarity: torch.Tensor, names: tuple[str, ...], centre: int = 0) -> ConceptHierarchy:
        return ConceptHierarchy.from_edges(names, [(names[centre], n) for n in names if n != names[centre]])

    assert mine(torch.eye(3), named(3), star, centre=1).roots == ["c1"]
    with pytest.raises(InputError, match="must return a ConceptHierarchy"):
        mine(torch.eye(3), named(3), lambda similarity, names: None)


@pytest.mark.parametrize(
    ("similarity", "names", "options", "message"),
    [
        (torch.zeros(0, 0), [], {}, "no concepts"),
        (torch.zeros(2, 3), ["a", "b"], {}, r"shape \(2, 3\) for 2 names"),
        (torch.zeros(2, 2), ["a", "a"], {}, "occurs twice"),
        (torch.tensor([[0, float("nan")], [0, 0]]), ["a", "b"], {}, "nan at 'a', 'b'"),
        (torch.tensor([[0, float("inf")], [0, 0]]), ["a", "b"], {}, "inf at"),
        (torch.tensor([[0, 1.0], [0, 0]]), ["a", "b"], {"miner": "agglomerative"}, "symmetric"),
        (torch.zeros(2, 2), ["a", "b"], {"miner": "nothing"}, "unknown miner 'nothing'; known: .*heymann"),
        (torch.zeros(2, 2), ["a", "b"], {"branches": 3}, "branches"),
        (torch.zeros(2, 2, dtype=torch.complex64), ["a", "b"], {}, "complex"),
    ],
)
def test_bad_input_is_one_clear_line(similarity: torch.Tensor, names: list[str], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        mine(similarity, names, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("miner", "option"),
    [("heymann", "min_sim"), ("heymann", "threshold"), ("branching", "tilt"), ("agglomerative", "min_sim")],
)
def test_no_option_is_nan(miner: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{option}=nan: not a number; give a number"):
        mine(random_similarity(4, 0, symmetric=True), named(4), miner, **{option: float("nan")})


@pytest.mark.parametrize("miner", sorted(MINERS))
def test_views_lists_and_bools_are_matrices(miner: str) -> None:
    sim = random_similarity(5, 0, symmetric=True).numpy()
    assert mine(sim[::-1, ::-1], named(5), miner) == mine(sim[::-1, ::-1].copy(), named(5), miner)
    assert mine(sim.tolist(), named(5), miner) == mine(sim, named(5), miner)
    assert len(mine(sim > 0.5, named(5), miner)) == 5
    assert mine(torch.from_numpy(sim).requires_grad_(), named(5), miner) == mine(sim, named(5), miner)
    for wrong, message in (
        ("abc", "matrix of numbers"),
        (3.0, "shape"),
        ([[1, "x"], [0, 1]], "matrix of numbers"),
        ([[1], [0, 1]], "matrix of"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            mine(wrong, ["a", "b"], miner)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="beyond 1e"):
        mine(sim * 1e200, named(5), miner)
