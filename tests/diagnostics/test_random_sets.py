"""Null concepts have the sizes of the concepts and the same seed gives the same sets."""

from __future__ import annotations

import numpy as np
import pytest

from captum_concepts.diagnostics.random_sets import GroupSampler, RandomSets


def masks(sizes=(6, 12), pool=40, rest=False, patches=2):
    """Concepts of so many groups each, and a pool."""
    groups = sum(sizes) + pool
    owner = np.repeat([*range(len(sizes)), -1], [*sizes, pool])
    positives = owner[:, None] == np.arange(len(sizes))
    negatives = ~positives if rest else np.repeat(owner[:, None] == -1, len(sizes), axis=1)
    names = np.array([f"g{i}" for i in range(groups)], dtype=object)
    return tuple(np.repeat(part, patches, axis=0) for part in (positives, negatives, names))


def drawn(positives, negatives, names, seed=0):
    sets = RandomSets(positives, negatives, names, range(positives.shape[1]), seed)
    batches = list(sets.batches())
    return sets, *(np.concatenate([getattr(b, part) for b in batches], axis=1) for part in ("positives", "negatives"))


def test_against_a_pool_sets_come_from_the_pool_and_keep_their_share_of_it():
    sets, own, against = drawn(*masks())
    assert set(sets.rows) == set(range(36, 116))
    assert own.shape == (80, sets.count, 2, 2) and sets.count >= 32
    counts, held = own.sum(0) / 2, against.sum(0) / 2
    assert len(np.unique(held)) == 1
    assert np.allclose(counts[..., 0] / held[..., 0], 6 / 40, atol=1 / 26)
    assert np.allclose(counts[..., 1] / held[..., 1], 12 / 40, atol=1 / 26)
    assert not (own & against).any()
    assert not (own[:, :, 0].any(2) & own[:, :, 1].any(2)).any(), "the two sets of a pair share no groups"


def test_against_the_rest_sets_come_from_all_and_have_the_concepts_sizes():
    sets, own, against = drawn(*masks(rest=True))
    assert len(sets.rows) == 116
    assert (own.sum(0) == 2 * np.array([6, 12])).all()
    assert (own ^ against).all()


def test_groups_are_never_cut_and_every_group_is_drawn():
    _, own, _ = drawn(*masks(rest=True, patches=3))
    by_group = own.reshape(-1, 3, *own.shape[1:])
    assert (by_group == by_group[:, :1]).all()
    assert own.any(axis=(1, 2, 3)).all()


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows():
    positives, negatives, names = masks()
    mixed = np.random.default_rng(0).permutation(len(names))
    sets, own, _ = drawn(positives, negatives, names)
    other, moved, _ = drawn(positives[mixed], negatives[mixed], names[mixed])
    place = {row: i for i, row in enumerate(sets.rows)}
    assert (moved == own[[place[mixed[row]] for row in other.rows]]).all()
    assert (own != drawn(positives, negatives, names, seed=1)[1]).any()


def test_a_pool_too_small_gives_no_sets():
    sets, *_ = RandomSets(*masks(sizes=(6, 6), pool=4), range(2), 0), None
    assert sets.count == 0
    assert not list(sets.batches())


def test_sizes_are_gathered_into_few_kinds_nearest_in_size():
    positives, negatives, names = masks(sizes=tuple(range(5, 45)), pool=400, patches=1)
    sets = RandomSets(positives, negatives, names, range(40), 0)
    assert len(sets.kinds) == 16
    assert np.abs(np.log((sets.kinds[sets.kind_of] + 5) / np.arange(5, 45))).max() < 0.2


@pytest.mark.parametrize("rest", [False, True])
def test_halves_are_even_on_both_sides_and_keep_groups_whole(rest):
    positives, negatives, names = masks(sizes=(7, 12), rest=rest)
    first = GroupSampler(names).halves(positives, negatives, 0)
    assert (first[::2] == first[1::2]).all()
    for mask in (positives, negatives):
        one, other = (mask & first).sum(0) / 2, (mask & ~first).sum(0) / 2
        assert (np.abs(one - other) <= 1).all()
    alone = GroupSampler(names).halves(positives[:, :1], negatives[:, :1], 0)
    marked = positives[:, 0] | negatives[:, 0]
    assert (alone[marked, 0] == first[marked, 0]).all(), "no other concept decides a concept's halves"
