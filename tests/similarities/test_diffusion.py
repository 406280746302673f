"""Diffusion against scikit-learn's parts and a walk taken step by step."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from captum_concepts.cavs.bank import QUALITY_COLUMNS, ConceptBank
from captum_concepts.errors import InputError
from captum_concepts.miners.api import mine
from captum_concepts.similarities.api import similarity
from captum_concepts.similarities.diffusion import diffusion_walks as diffusion


def step_by_step(vectors: np.ndarray) -> np.ndarray:
    k = len(vectors)
    unit = normalize(vectors - vectors.mean(0))
    points = normalize(PCA(min(30, k - 1, vectors.shape[1]), svd_solver="full").fit_transform(unit))
    cosines = points @ points.T
    similar = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            a, b = cosines[i].copy(), cosines[j].copy()
            a[i], b[j] = (a.sum() - a[i]) / (k - 1), (b.sum() - b[j]) / (k - 1)
            similar[i, j] = (cosines[i, j] + np.corrcoef(a, b)[0, 1]) / 2
    nearest = [[j for j in np.argsort(-similar[i], kind="stable") if j != i][:10] for i in range(k)]
    reach = [1 - similar[i, nearest[i][min(7, k - 1) - 1]] for i in range(k)]
    weights = np.zeros((k, k))
    for i in range(k):
        for j in nearest[i]:
            weights[i, j] = weights[j, i] = np.exp(-((1 - similar[i, j]) ** 2) / (reach[i] * reach[j]))
    degree = weights.sum(1)
    steps = weights / np.sqrt(np.outer(degree, degree))
    visits, step = np.eye(k), np.eye(k)
    for _ in range(2000):  # 0.95^2000 is 3e-45
        step = 0.95 * step @ steps
        visits += step
    return visits / np.sqrt(np.outer(np.diag(visits), np.diag(visits)))


@pytest.mark.parametrize(("k", "d"), [(3, 5), (12, 4), (50, 100)])
def test_equals_the_walk_taken_step_by_step(k: int, d: int) -> None:
    vectors = np.random.default_rng(k).normal(size=(k, d))
    np.testing.assert_allclose(diffusion(torch.from_numpy(vectors)).numpy(), step_by_step(vectors), atol=1e-9)


def test_laws() -> None:
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(40, 20)))
    found = diffusion(vectors)
    assert torch.equal(found, diffusion(vectors))
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.ones(40, dtype=torch.float64))
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    order = torch.from_numpy(rng.permutation(40))
    torch.testing.assert_close(diffusion(vectors[order]), found[order][:, order])
    rotation = torch.linalg.qr(torch.from_numpy(rng.normal(size=(20, 20)))).Q
    torch.testing.assert_close(diffusion(3 * vectors @ rotation), found)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8])
def test_few_or_identical_vectors_stay_finite(k: int) -> None:
    for vectors in (torch.ones(k, 6), torch.eye(k, 6), torch.cat([torch.ones(k, 6), torch.eye(2, 6)])):
        found = diffusion(vectors)
        assert bool(torch.isfinite(found).all())
        assert torch.equal(found.diagonal(), torch.ones(len(vectors), dtype=torch.float64))


def test_finds_kin_that_the_cosine_loses_in_noise() -> None:
    """Ten kinds of twelve concepts, in 400 noisy dimensions."""
    right = {"cosine": [], "diffusion": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kinds = np.repeat(np.arange(10), 12)
        truth = rng.normal(size=(10, 400))[kinds] + rng.normal(size=(120, 400)) * 3.8
        vectors = torch.from_numpy(truth + rng.normal(size=400) * 3)
        unit = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
        for what, matrix in (("cosine", (unit @ unit.T).fill_diagonal_(1.0)), ("diffusion", diffusion(vectors))):
            tree = mine((matrix + matrix.T) / 2, [str(i) for i in range(120)], "spanning_tree", root_factor=2.5)
            assert nx.number_weakly_connected_components(tree.graph) <= 2
            right[what].append(np.mean([kinds[int(p)] == kinds[int(c)] for p, c in tree.graph.edges]))
    assert np.mean(right["diffusion"]) > np.mean(right["cosine"]) + 0.05


def test_a_bank_is_taken_as_its_classifiers_have_it() -> None:
    """Unit directions and scales give back the weights that somebody published."""
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=(30, 40)) * np.linspace(0.2, 3, 30)[:, None])
    length = torch.linalg.vector_norm(weights, dim=1)
    names = tuple(f"c{i}" for i in range(30))
    quality = pd.DataFrame({column: [math.nan] * 30 for column in QUALITY_COLUMNS})
    bank = ConceptBank(names, "pool3", weights / length[:, None], torch.zeros(30), length, quality, "published")
    torch.testing.assert_close(similarity(bank, "diffusion").double(), diffusion(weights), rtol=0, atol=1e-5)
    apart = (diffusion(weights) - diffusion(bank.directions)).abs().max()
    assert float(apart) > 0.01  # lengths do count


def test_a_concept_without_a_cav_is_named() -> None:
    quality = pd.DataFrame({column: [math.nan] * 4 for column in QUALITY_COLUMNS})
    directions = torch.eye(4)
    directions[2] = math.nan
    bank = ConceptBank(("a", "b", "c", "d"), "pool3", directions, torch.zeros(4), torch.ones(4), quality, "pattern")
    with pytest.raises(InputError, match="'c' has no usable CAV; leave the concept out"):
        similarity(bank, "diffusion")
