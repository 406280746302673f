"""Shares along the hierarchy: laws of Owen values, and independent references."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from captum_concepts.completeness import (
    FOLDS,
    SHARE_COLUMNS,
    Completeness,
    Union,
    branch_shares,
    coalitions,
    owen_values,
)
from captum_concepts.errors import InputError
from captum_concepts.hierarchy import ConceptHierarchy

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


# ------------------------------------------------------------------ Owen values


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


def test_shap_agrees_on_a_binary_tree():
    """SHAP's PartitionExplainer shares out Owen values along a scipy linkage, whose inner nodes are no players."""
    shap = pytest.importorskip("shap")
    linkage = np.array([[0, 1, 1.0, 2], [2, 3, 1.0, 2], [4, 5, 2.0, 4]])
    worth = random_game(7)

    def model(rows):
        return np.array([worth(frozenset(np.flatnonzero(row).tolist())) for row in rows])

    masker = shap.maskers.Partition(np.zeros((1, 4)), clustering=linkage)
    theirs = shap.explainers.Partition(model, masker)(np.ones((1, 4)), max_evals=2000).values[0]
    pair = [Union((i,), head=i) for i in range(4)]
    halves = Union((0, 1), (pair[0], pair[1])), Union((2, 3), (pair[2], pair[3]))
    np.testing.assert_allclose(values(worth, Union((0, 1, 2, 3), halves)), theirs, atol=1e-6)


def test_a_concept_belongs_to_the_branch_of_its_strongest_parent():
    hierarchy = ConceptHierarchy.from_edges("abc", [("a", "c", 0.2), ("b", "c", 0.9)])
    union = coalitions(hierarchy, ("c", "a", "b"))
    assert [part.players for part in union.parts] == [(1,), (2, 0)]
    with pytest.raises(InputError, match="its concepts are not those"):
        coalitions(hierarchy, ("a", "b"))


# ------------------------------------------------------------------ completeness


def planted(clips: int = 120, seed: int = 0):
    """Activations (clips, 10), logits of two classes made of features 0 to 3, groups of two clips each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(clips, 10))
    y = np.stack([2 * x[:, 0] + x[:, 1], x[:, 2] - 3 * x[:, 3]], 1) + 0.3 * rng.normal(size=(clips, 2))
    groups = [f"g{i // 2}" for i in range(clips)]
    return torch.from_numpy(x), torch.from_numpy(y), groups


def test_worths_equal_those_of_scikit_learn():
    x, y, groups = planted()
    v = torch.nn.functional.normalize(
        torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    found = Completeness(x, y, v, groups)
    order = [2, 0, 3, 1]
    worths = found.along(torch.tensor([order]))[0]
    for target in range(2):
        ridge = found._ridges[target]

        def explained(features, target=target, ridge=ridge):
            lost = total = 0.0
            for number in range(FOLDS):
                out, inside = np.flatnonzero(found.folds == number), np.flatnonzero(found.folds != number)
                model = Ridge(alpha=ridge * len(inside)).fit(features[inside], y[inside, target])
                lost += ((y[out, target] - model.predict(features[out])) ** 2).sum() / 2
                total += ((y[out, target] - y[inside, target].mean()) ** 2).sum() / 2
            return 1 - lost / total

        full = explained(x.numpy())
        assert float(found.explained[target]) == pytest.approx(float(full), abs=1e-8)
        for size in range(1, 5):
            basis = np.linalg.qr(v[order[:size]].numpy().T)[0]
            assert float(worths[size, target]) == pytest.approx(float(explained(x.numpy() @ basis) / full), abs=1e-6)
        assert float(worths[0, target]) == pytest.approx(0, abs=1e-12)


def test_all_directions_together_are_complete():
    x, y, groups = planted()
    whole = Completeness(x, y, torch.eye(10, dtype=torch.float64), groups)
    assert (whole.explained > 0.95).all()
    np.testing.assert_allclose(whole.along(torch.arange(10)[None])[0, -1].numpy(), 1, atol=1e-6)


def test_causes_get_their_share_and_what_is_orthogonal_nothing():
    x, y, groups = planted()
    x[:, 9] = 0
    v = torch.eye(10, dtype=torch.float64)[[0, 1, 2, 3, 9]]
    parents = {"first": None, "second": "first", "third": None, "fourth": "third", "nothing": "third"}
    hierarchy = ConceptHierarchy.from_parents(parents)
    table = branch_shares("l", ["one", "two"], tuple(parents), Completeness(x, y, v, groups), hierarchy)
    assert tuple(table.columns) == SHARE_COLUMNS
    shares = table.set_index(["target", "concept"])
    # Variances 4 and 1, then 1 and 9, of sums 5 and 10; 120 clips leave some noise.
    for target, concept, true in (
        ("one", "first", 0.8), ("one", "second", 0.2), ("one", "third", 0.0), ("two", "third", 0.1),
        ("two", "fourth", 0.9), ("two", "second", 0.0),
    ):  # fmt: skip
        assert shares.loc[(target, concept), "share"] == pytest.approx(true, abs=0.06)
    assert shares.xs("nothing", level="concept")["share"].to_numpy() == pytest.approx([0, 0], abs=1e-9)
    for target, rows in table.groupby("target"):
        assert rows["share"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)
        own = shares.loc[target]
        assert own.loc["first", "branch"] == pytest.approx(own.loc[["first", "second"], "share"].sum(), abs=1e-9)
        assert own.loc["fourth", "branch"] == own.loc["fourth", "share"]
        assert own.loc[["first", "third"], "branch"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)
    assert (table[["error", "branch_error"]] == 0).all().all()


def test_duplicates_share_and_change_nothing_for_the_others():
    x, y, groups = planted()
    v = torch.eye(10, dtype=torch.float64)[[0, 1, 0]]
    found = Completeness(x, y, v, groups)
    draws, _ = owen_values(found.along, flat(3))
    exact = draws[0, :, 0].numpy()
    assert exact[0] == pytest.approx(exact[2], abs=1e-9)
    single, _ = owen_values(Completeness(x, y, v[:2], groups).along, flat(2))
    assert exact.sum() == pytest.approx(float(single[0, :, 0].sum()), abs=1e-6)


def test_more_concepts_than_dimensions_are_sampled_and_still_add_up():
    x, y, groups = planted()
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(40, 10, dtype=torch.float64, generator=generator)
    names = tuple(str(i) for i in range(40))
    hierarchy = ConceptHierarchy.from_parents({name: None if i < 20 else names[i - 20] for i, name in enumerate(names)})
    table = branch_shares("l", ["one", "two"], names, Completeness(x, y, v, groups), hierarchy, orders=100)
    assert (table["error"] > 0).all()
    for _, rows in table.groupby("target"):
        assert rows["completeness"].iloc[0] == pytest.approx(1, abs=1e-4)
        assert rows["share"].sum() == pytest.approx(rows["completeness"].iloc[0], abs=1e-9)


def test_order_of_clips_and_of_concepts_does_not_matter():
    x, y, groups = planted()
    v = torch.nn.functional.normalize(
        torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    )
    draws, _ = owen_values(Completeness(x, y, v, groups).along, flat(5))
    mixed, turned = torch.randperm(len(x), generator=torch.Generator().manual_seed(4)), torch.tensor([3, 1, 4, 0, 2])
    other = Completeness(x[mixed], y[mixed], v[turned], [groups[i] for i in mixed])
    torch.testing.assert_close(owen_values(other.along, flat(5))[0], draws[:, turned], rtol=0, atol=1e-9)


def test_a_class_that_the_layer_does_not_tell_has_no_shares():
    x, y, groups = planted()
    y = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    game_of_noise = Completeness(x, y, torch.eye(10, dtype=torch.float64)[:2], groups)
    assert (game_of_noise.explained < 0.1).all()
    table = branch_shares("l", ["one", "two"], ("a", "b"), game_of_noise, ConceptHierarchy.from_parents({"b": "a"}))
    for target, explained in zip(("one", "two"), game_of_noise.explained.tolist(), strict=True):
        assert table[table["target"] == target]["share"].isna().all() == (explained <= 0)


def test_too_few_groups_are_refused():
    x, y, _ = planted(18)
    with pytest.raises(InputError, match=f"9 groups of explained clips; give at least {2 * FOLDS}"):
        Completeness(x, y, torch.eye(10, dtype=torch.float64)[:2], [f"g{i // 2}" for i in range(18)])
