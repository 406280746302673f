"""Pairs of concepts beyond chance, one CAV on the other's clips, and explained clips that concepts are made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from captum_concepts.audio.clips import Clip
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.overlap import Overlap
from captum_concepts.diagnostics.entanglement import CosineBand, correlated_pairs, cross_auc, overlapping
from captum_concepts.diagnostics.leakage import shared_with_explained
from captum_concepts.diagnostics.random_sets import GroupSampler
from captum_concepts.diagnostics.stability import Resampler


def band(count=2000, kinds=2, dimensions=30, seed=0):
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, count, kinds, dimensions))
    one /= np.linalg.norm(one, axis=2, keepdims=True)
    two /= np.linalg.norm(two, axis=2, keepdims=True)
    return CosineBand.of(one @ two.transpose(0, 2, 1))


def random_cavs(count, seed=1, dimensions=30):
    found = np.random.default_rng(seed).normal(size=(count, dimensions))
    return torch.tensor(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_exactly_the_planted_pairs_are_found():
    directions = random_cavs(20)
    directions[7] = torch.nn.functional.normalize(directions[3] + 0.2 * directions[7], dim=0)
    directions[12] = -directions[5]
    table, total = correlated_pairs(directions, band(), np.zeros(20, dtype=int))
    assert total == 1 and table[["first", "second"]].to_numpy().tolist() == [[3, 7]]
    assert table["cosine"][0] == pytest.approx(float(directions[3] @ directions[7]))
    assert 0.4 < table["chance"][0] < 0.9


def test_unrelated_cavs_give_a_warning_in_no_more_than_a_twentieth_of_sets():
    kinds = np.zeros(12, dtype=int)
    found = sum(
        correlated_pairs(random_cavs(12, seed), band(500, seed=seed + 500), kinds)[1] > 0 for seed in range(200)
    )
    assert found <= 18  # binomial: 0.05 x 200 + 2.6 standard deviations


def test_blocks_change_nothing(monkeypatch):
    directions = random_cavs(30)
    directions[10:20] += directions[0]
    directions = torch.nn.functional.normalize(directions, dim=1)
    kinds = np.arange(30) % 2
    whole = correlated_pairs(directions, band(), kinds)
    monkeypatch.setattr("captum_concepts.diagnostics.entanglement.BLOCK_VALUES", 100)
    blocks = correlated_pairs(directions, band(), kinds)
    assert whole[1] == blocks[1] > 9
    pd.testing.assert_frame_equal(whole[0], blocks[0], rtol=1e-12)
    monkeypatch.setattr("captum_concepts.diagnostics.entanglement.MAX_PAIRS", 4)
    few = correlated_pairs(directions, band(), kinds)
    assert few[1] == whole[1] and few[0]["second"].tolist() == whole[0]["second"][:4].tolist()


def test_without_random_sets_nothing_is_found():
    assert CosineBand.of(np.ones((5, 2, 2))) is None
    assert correlated_pairs(random_cavs(4), None, np.zeros(4, dtype=int))[1] == 0


def test_cross_auc_is_that_of_sklearn_on_the_half_not_fitted():
    rng = np.random.default_rng(0)
    owner = np.repeat([0, 1, 2, -1], [12, 10, 12, 40])
    x = rng.normal(size=(len(owner), 6))
    x[np.isin(owner, (0, 1)), 0] += 2.0
    positives = owner[:, None] == np.arange(3)
    negatives = np.repeat(owner[:, None] == -1, 3, axis=1)
    groups = np.array([f"g{i}" for i in range(len(owner))], dtype=object)
    rows, shuffles = torch.tensor(x), GroupSampler(groups)
    split = Resampler(CavMethod(fit_pattern), shuffles, np.ones(len(owner))).halves(rows, positives, negatives, 0)
    found = cross_auc(rows, positives, negatives, shuffles, split, np.array([[0, 1], [0, 2]]))
    for value, other in zip(found, (1, 2), strict=True):
        wanted = []
        for half, used in ((0, split.first[:, 0]), (1, ~split.first[:, 0])):
            pool = negatives[:, 0] & ~used
            chosen = pool | positives[:, other]
            wanted.append(roc_auc_score(positives[chosen, other], x[chosen] @ split.directions[half, 0].numpy()))
        assert value == pytest.approx(np.mean(wanted))
    assert found[0] > 0.8 > 0.65 > found[1]


def test_overlapping_pairs_come_most_alike_first():
    groups = np.array([[10, 10, 5, 0], [10, 10, 5, 0], [5, 5, 8, 0], [0, 0, 0, 3]])
    pairs = overlapping(Overlap(("a", "b", "c", "d"), groups, groups), 0.3)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_explained_clips_of_the_concepts_groups_or_files_are_listed():
    clips = [Clip("/a.wav", group="song"), Clip("/b.wav"), Clip("/c.wav"), Clip("/pool.wav")]
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool)
    concepts = ConceptSet(("x", "y"), clips, labels, pool=[0, 0, 0, 1])
    explained = [Clip("/d.wav", group="song"), Clip("/copy.wav"), Clip("/free.wav"), Clip("/pool.wav")]
    extracted = {clip.path: clip.path for clip in clips}
    digests = {**{clip.path: clip.path for clip in explained}, "/copy.wav": "/b.wav"}
    table = shared_with_explained(concepts, explained, extracted, digests)
    assert table.to_numpy().tolist() == [
        ["song", 1, 1, "x"],
        ["/copy.wav", 1, 1, "x, y"],
        ["/pool.wav", 1, 1, "random pool"],
    ]
