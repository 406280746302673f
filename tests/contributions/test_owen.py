"""Owen values: laws, brute force, and SHAP as an independent reference."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_concepts.contributions.owen import Union, coalitions, owen_values
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy

TREE = {"a": None, "b": "a", "c": "a", "d": "c", "e": "c", "f": None}
NAMES = tuple(TREE)


def structure(parents=TREE) -> Union:
    return coalitions(ConceptHierarchy.from_parents(parents), tuple(parents))


def flat(k: int) -> Union:
    return structure({str(i): None for i in range(k)})


def game(worth):
    """A game given by the worth of a set, in the form that ``owen_values`` takes."""

    def along(orders: Tensor) -> Tensor:
        rows = [[worth(frozenset(row[:m])) for m in range(len(row) + 1)] for row in orders.tolist()]
        return torch.tensor(rows, dtype=torch.float64)[..., None]

    return along


def values(worth, union: Union, **options) -> np.ndarray:
    draws, weights = owen_values(game(worth), union, **options)
    return torch.einsum("r,rkt->kt", weights, draws)[:, 0].numpy()


def random_game(seed: int):
    worths: dict[frozenset[int], float] = {frozenset(): 0.0}
    rng = np.random.default_rng(seed)
    return lambda subset: worths.setdefault(subset, float(rng.normal()))


def by_enumeration(worth, parents) -> np.ndarray:
    """The mean over all orders in which every branch stays together: brute force over all orders of the players."""
    names = list(parents)
    branches = []
    for head in names:
        found = {head}
        while more := {n for n in names if parents[n] in found} - found:
            found |= more
        branches.append({names.index(n) for n in found})
    totals, count = np.zeros(len(names)), 0
    for order in permutations(range(len(names))):
        place = {player: at for at, player in enumerate(order)}
        spans = [[place[p] for p in branch] for branch in branches]
        if any(max(span) - min(span) + 1 != len(span) for span in spans):
            continue
        count += 1
        for at, player in enumerate(order):
            totals[player] += worth(frozenset(order[: at + 1])) - worth(frozenset(order[:at]))
    return totals / count


@pytest.mark.parametrize("seed", range(3))
def test_exact_values_equal_brute_force(seed):
    worth = random_game(seed)
    np.testing.assert_allclose(values(worth, structure()), by_enumeration(worth, TREE), atol=1e-12)
    np.testing.assert_allclose(values(worth, flat(5)), by_enumeration(worth, {str(i): None for i in range(5)}))


def test_an_additive_game_gives_everyone_its_own_worth():
    own = np.array([3.0, -1.0, 0.5, 0.0, 2.0, 7.0])
    for union in (structure(), flat(6)):
        np.testing.assert_allclose(values(lambda s: sum(own[list(s)]), union), own, atol=1e-12)
        np.testing.assert_allclose(values(lambda s: sum(own[list(s)]), union, most_exact=0, orders=4), own, atol=1e-12)


def test_a_branch_gets_what_it_gets_as_one_player():
    worth = random_game(4)
    found = values(worth, structure())
    branch, alone = (0, 1, 2, 3, 4), 5
    quotient = (worth(frozenset(branch)) + worth(frozenset([*branch, alone])) - worth(frozenset([alone]))) / 2
    assert found[list(branch)].sum() == pytest.approx(quotient)


def test_sampled_values_lie_within_their_error_and_add_up():
    worth = random_game(5)
    exact = values(worth, structure())
    draws, weights = owen_values(game(worth), structure(), most_exact=0, orders=2000, seed=1)
    mean, error = draws[..., 0].mean(0).numpy(), (draws[..., 0].std(0) / len(draws) ** 0.5).numpy()
    assert weights.sum() == pytest.approx(1)
    assert (np.abs(mean - exact) <= 4 * error + 1e-12).all()
    assert (error < 0.1).all()
    whole = worth(frozenset(range(6)))
    np.testing.assert_allclose(draws[..., 0].sum(1).numpy(), whole, atol=1e-12)
    assert exact.sum() == pytest.approx(whole)


def test_the_same_seed_gives_the_same_orders():
    worth = random_game(6)
    first, second, other = (
        owen_values(game(worth), structure(), most_exact=0, orders=20, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.slow  # importing it takes most of the time
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_shap_agrees_on_a_binary_tree():
    """SHAP's PartitionExplainer shares out Owen values along a scipy linkage, whose inner nodes are no players."""
    shap = pytest.importorskip("shap")
    linkage = np.array([[0, 1, 1.0, 2], [2, 3, 1.0, 2], [4, 5, 2.0, 4]])
    worth = random_game(7)

    def model(rows):
        return np.array([worth(frozenset(np.flatnonzero(row).tolist())) for row in rows])

    masker = shap.maskers.Partition(np.zeros((1, 4)), clustering=linkage)
    theirs = shap.explainers.Partition(model, masker)(np.ones((1, 4)), max_evals=2000).values[0]
    pair = [Union((i,)) for i in range(4)]
    halves = Union((0, 1), (pair[0], pair[1])), Union((2, 3), (pair[2], pair[3]))
    np.testing.assert_allclose(values(worth, Union((0, 1, 2, 3), halves)), theirs, atol=1e-6)


def test_a_concept_belongs_to_the_branch_of_its_strongest_parent():
    hierarchy = ConceptHierarchy.from_edges("abc", [("a", "c", 0.2), ("b", "c", 0.9)])
    union = coalitions(hierarchy, ("c", "a", "b"))
    assert [part.players for part in union.parts] == [(1,), (2, 0)]
    with pytest.raises(InputError, match="nowhere"):
        coalitions(hierarchy, ("a", "nowhere"))
