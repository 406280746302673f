from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from captum_concepts_tile2vec.triplets import TripletDataset, TripletSampler, count_triplets
from torch.utils.data import DataLoader

from captum_concepts.errors import InputError


class Numbers:
    """A source whose tiles are their own numbers."""

    ready = True

    def __init__(self, tiles):
        self.tiles = tiles

    def read(self, indices):
        return torch.tensor(indices, dtype=torch.float32)[:, None, None]


@pytest.mark.parametrize("neighbourhood", [1.0, 2.0, 3.5])
def test_every_triplet_keeps_the_rules(tiles_of, neighbourhood):
    tiles = tiles_of([6, 3, 4, 2], groups=["a", "a", "b", "c"])
    sampler = TripletSampler(tiles, neighbourhood, seed=7)
    assert len(sampler) == 15
    neighbours, opposites = set(), set()
    for epoch in range(60):
        for index in range(len(sampler)):
            a, n, o = sampler.triplet(epoch, index)
            assert a == sampler.anchors[index]
            assert a != n and tiles.owner[a] == tiles.owner[n]
            assert abs(tiles.starts[a] - tiles.starts[n]) <= neighbourhood
            assert tiles.groups[o] != tiles.groups[a]
            neighbours.add((a, n))
            opposites.add((tiles.groups[a], o))
    reach = {
        (a, n)
        for a in range(15)
        for n in range(15)
        if a != n and tiles.owner[a] == tiles.owner[n] and abs(tiles.starts[a] - tiles.starts[n]) <= neighbourhood
    }
    assert neighbours == reach
    assert opposites == {(group, o) for group in "abc" for o in range(15) if tiles.groups[o] != group}


def test_opposites_are_drawn_evenly_from_other_recordings(tiles_of):
    tiles = tiles_of([2, 1, 8, 1], groups=["a", "a", "b", "c"])
    sampler = TripletSampler(tiles, 1.0)
    drawn = Counter(int(tiles.owner[sampler.triplet(epoch, 0)[2]]) for epoch in range(2000))
    assert drawn.keys() == {2, 3}
    assert abs(drawn[2] - 1000) < 5 * np.sqrt(500)


def test_gaps_part_neighbours(tiles_of):
    tiles = tiles_of([4, 2])
    tiles.starts[2:4] += 10.0
    sampler = TripletSampler(tiles, 1.0)
    assert {sampler.triplet(epoch, 1)[1] for epoch in range(50)} == {0}


def test_draws_depend_on_seed_epoch_and_index_alone(tiles_of):
    tiles = tiles_of([30] * 10)
    one, again, other = (TripletSampler(tiles, 5.0, seed=seed) for seed in (1, 1, 2))
    forwards = [one.triplet(3, index) for index in range(len(one))]
    backwards = [again.triplet(3, index) for index in reversed(range(len(one)))][::-1]
    assert forwards == backwards
    assert forwards != [one.triplet(4, index) for index in range(len(one))]
    assert forwards != [other.triplet(3, index) for index in range(len(one))]


@pytest.mark.parametrize("buffer", [1, 3])
def test_a_buffer_bounds_how_many_recordings_opposites_come_from(tiles_of, buffer):
    tiles = tiles_of([20] * 12, groups=[str(index // 2) for index in range(12)])
    sampler = TripletSampler(tiles, 5.0, opposite_buffer=buffer)
    for epoch in range(3):
        drawn: dict[int, set[int]] = {}
        for index in range(len(sampler)):
            a, _, o = sampler.triplet(epoch, index)
            assert tiles.groups[a] != tiles.groups[o]
            drawn.setdefault(int(tiles.owner[a]), set()).add(int(tiles.owner[o]))
        assert all(len(recordings) <= buffer for recordings in drawn.values())
        assert len({tuple(sorted(recordings)) for recordings in drawn.values()}) > 1


def test_recordings_without_neighbours_are_named(tiles_of):
    sampler = TripletSampler(tiles_of([3, 1, 2]), 1.0)
    assert sampler.anchors.tolist() == [0, 1, 2, 4, 5]
    assert sampler.skipped == (
        "'r1': no tile has a neighbour within 1 s; give longer recordings or a wider neighbourhood",
    )


def test_mistakes(tiles_of):
    with pytest.raises(InputError, match=r"only one recording or session \('r0'\) has usable tiles"):
        TripletSampler(tiles_of([5]))
    with pytest.raises(InputError, match="only one recording or session"):
        TripletSampler(tiles_of([5, 5], groups=["s", "s"]))
    with pytest.raises(InputError, match="no recording can be used: 'r0': no tile has a neighbour within 5 s"):
        TripletSampler(tiles_of([1, 1]))
    for seconds in (float("nan"), float("inf"), -1.0):
        with pytest.raises(InputError, match=f"neighbourhood={seconds}: give a positive number"):
            TripletSampler(tiles_of([2, 2]), seconds)
    with pytest.raises(InputError, match="neighbourhood=0"):
        TripletSampler(tiles_of([2, 2]), 0)
    with pytest.raises(InputError, match="opposite_buffer=0"):
        TripletSampler(tiles_of([2, 2]), opposite_buffer=0)


def test_batches_do_not_depend_on_workers(tiles_of):
    tiles = tiles_of([7, 9, 8], groups=["x", "y", "z"])
    data = TripletDataset(TripletSampler(tiles, 2.0, seed=3), Numbers(tiles), epoch=5)
    alone, shared = (list(DataLoader(data, batch_size=5, num_workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 5
    for (tiles_a, groups_a), (tiles_b, groups_b) in zip(alone, shared, strict=True):
        torch.testing.assert_close(tiles_a, tiles_b)
        torch.testing.assert_close(groups_a, groups_b)
    first = data.sampler.triplet(5, 0)
    assert alone[0][0][0].flatten().tolist() == list(first)
    assert alone[0][1][0].tolist() == [tiles.owner[first[0]], tiles.owner[first[2]]]


def test_judged_by_hand():
    embeddings = torch.tensor([[0.0, 0], [1, 0], [3, 0], [1.2, 0], [0.5, 0]])
    triplets = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 1, 1]])  # far² = 9, 1.44, 0.25, 1 against near² = 1
    report = count_triplets(embeddings, triplets, 1.0, np.array(["x", "x", "y", "x", ""], dtype=object))
    assert (report.total, report.trivial, report.within_margin, report.hard) == (4, 1, 1, 2)
    assert report.share_label == 2
    assert count_triplets(embeddings, triplets).share_label is None
    assert count_triplets(embeddings, triplets, labels=np.array([""] * 5)).share_label is None
