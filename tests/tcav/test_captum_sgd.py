"""Captum's stochastic descent: its own classifier set by set, and as a method of fit_cavs."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from captum.concept._utils.classifier import DefaultClassifier
from helpers.planted import planted_directions
from sklearn.linear_model import SGDClassifier
from torch.utils.data import DataLoader

from captum_concepts import InputError
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.sgd import fit_sgd
from captum_concepts.tcav.captum_sgd import CaptumSGD


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_captums_bit_by_bit(classes):
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % classes
    found = []
    for kind in (DefaultClassifier, CaptumSGD):
        random.seed(4)
        np.random.seed(4)
        classifier = kind()
        parts = list(zip(rows.split(8), labels.split(8), strict=True))
        classifier.train_and_eval(DataLoader(parts, batch_size=1, collate_fn=lambda items: items[0]))
        found.append((classifier.weights(), list(classifier.classes()), random.random(), np.random.rand()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]  # the classes, and what both generators give next


def test_directions_that_were_planted_are_found_by_fit_cavs():
    rows, labels, directions = planted_directions(90, 12, 3)
    bank = fit_cavs(rows, labels, "sgd")
    assert (torch.nn.functional.cosine_similarity(bank.directions, directions) > 0.9).all()
    assert (bank.quality["auc"] > 0.99).all()


def test_it_is_scikit_learns_with_captums_settings():
    rows, labels, _ = planted_directions(90, 12, 3)
    used = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.9
    weights = torch.rand(90, generator=torch.Generator().manual_seed(2)) + 0.5
    found = fit_sgd(rows, labels & used, ~labels & used, weights, seed=3)
    for k in range(3):
        kept = used[:, k].numpy()
        share = weights.double().numpy()[kept]
        model = SGDClassifier(alpha=0.01, max_iter=1000, tol=1e-3, random_state=3)
        model.fit(rows.numpy()[kept], labels[:, k].numpy()[kept], sample_weight=share / share.mean())
        np.testing.assert_allclose(found[0][k] * found[2][k], model.coef_[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1][k] * found[2][k], model.intercept_[0], rtol=1e-5, atol=1e-6)


def test_seed_and_company():
    rows, labels, _ = planted_directions(90, 12, 3)
    ones = torch.ones(90)
    state = np.random.get_state()[1].copy()
    first = fit_sgd(rows, labels, ~labels, ones)
    assert np.array_equal(np.random.get_state()[1], state)
    assert all(torch.equal(a, b) for a, b in zip(first, fit_sgd(rows, labels, ~labels, ones), strict=True))
    alone = fit_sgd(rows, labels[:, 1:2], ~labels[:, 1:2], ones)
    assert torch.equal(first[0][1:2], alone[0])
    assert not torch.equal(first[0], fit_sgd(rows, labels, ~labels, ones, seed=1)[0])


def test_bad_options():
    rows, labels, _ = planted_directions(90, 12, 3)
    with pytest.raises(InputError, match="alpha=0 must be positive"):
        fit_sgd(rows, labels, ~labels, torch.ones(90), alpha=0)
    with pytest.raises(InputError, match="cav_options"):
        fit_cavs(rows, labels, "sgd", C=1.0)
