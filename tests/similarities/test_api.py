"""Similarities against loops over rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from captum_concepts.errors import InputError
from captum_concepts.similarities.api import similarity
from captum_concepts.similarities.builtin import SIMILARITIES
from captum_concepts.similarities.combine import combine
from captum_concepts.similarities.measure import Measure


@dataclass
class Bank:
    names: tuple[str, ...]
    directions: torch.Tensor
    biases: torch.Tensor
    scales: torch.Tensor


N, K, D = 53, 6, 9
RNG = np.random.default_rng(0)
BANK = Bank(
    tuple("abcdef"),
    torch.as_tensor(RNG.normal(size=(K, D))),
    torch.as_tensor(RNG.normal(size=K)),
    torch.as_tensor(RNG.random(K) * 3),
)
ROWS = RNG.normal(size=(N, D)) * 2 + 1
LABELS = RNG.random((N, K)) < 0.3
WEIGHTS = RNG.random(N)
GRADIENTS = np.random.default_rng(1).normal(size=(N, 3, D))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["captum_concepts.similarities.api"], "ROWS", 10)


def test_cosine() -> None:
    v = BANK.directions.numpy()
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in v] for b in v]
    np.testing.assert_allclose(similarity(BANK).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_activation_is_the_papers(weights: np.ndarray | None) -> None:
    found = similarity(BANK, "activation", activations=ROWS, labels=LABELS, weights=weights).numpy()
    for i in range(K):
        for j in range(K):
            v, b, s = BANK.directions[j].numpy(), float(BANK.biases[j]), float(BANK.scales[j])
            marked = [n for n in range(N) if LABELS[n, i]]
            present = [1 / (1 + np.exp(-s * (v @ ROWS[n] + b))) for n in marked]
            expected = np.average(present, weights=None if weights is None else [weights[n] for n in marked])
            assert found[i, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_correlation(weights: np.ndarray | None) -> None:
    found = similarity(BANK, "correlation", activations=ROWS, weights=weights).numpy()
    covariance = np.cov(ROWS @ BANK.directions.numpy().T, rowvar=False, aweights=weights)
    std = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found, covariance / np.outer(std, std), rtol=1e-10)


def test_sensitivity_asks_whether_two_concepts_push_the_classes_alike() -> None:
    found = similarity(BANK, "sensitivity", gradients=GRADIENTS).numpy()
    pushed = np.array([[[g @ v for g in clip] for clip in GRADIENTS] for v in BANK.directions.numpy()]).reshape(K, -1)
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in pushed] for b in pushed]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    blind = GRADIENTS.copy()
    blind[..., 1:] = 0  # a model that only looks at the first feature answers to all concepts alike, up to the sign
    signs = np.sign(BANK.directions[:, 0].numpy())
    np.testing.assert_allclose(similarity(BANK, "sensitivity", gradients=blind).numpy(), np.outer(signs, signs))


def test_overlap() -> None:
    found = similarity(BANK, "overlap", labels=LABELS, weights=WEIGHTS).numpy()
    for i in range(K):
        for j in range(K):
            both = WEIGHTS[LABELS[:, i] & LABELS[:, j]].sum()
            assert found[i, j] == pytest.approx(both / WEIGHTS[LABELS[:, j]].sum(), rel=1e-12)


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_laws(measure: str) -> None:
    groups = np.array([f"track {n}" for n in range(N)])
    given = {"activations": ROWS, "labels": LABELS, "weights": WEIGHTS, "groups": groups, "gradients": GRADIENTS}
    found = similarity(BANK, measure, **given)
    assert torch.equal(found, similarity(BANK, measure, **given))
    assert torch.equal(found, found.T) == SIMILARITIES[measure].symmetric
    order = RNG.permutation(K)
    shuffled = Bank(tuple(BANK.names[i] for i in order), BANK.directions[order], BANK.biases[order], BANK.scales[order])
    again = similarity(shuffled, measure, **{**given, "labels": LABELS[:, order]})
    np.testing.assert_allclose(again.numpy(), found.numpy()[order][:, order], rtol=1e-9)
    rows = RNG.permutation(N)
    again = similarity(BANK, measure, **{key: value[rows] for key, value in given.items()})
    np.testing.assert_allclose(again.numpy(), found.numpy(), rtol=1e-9)
    doubled = {key: np.concatenate([value, value]) for key, value in given.items()}
    np.testing.assert_allclose(similarity(BANK, measure, **doubled).numpy(), found.numpy(), rtol=1e-9)


def test_identical_directions_are_fully_alike() -> None:
    twins = replace(BANK, directions=BANK.directions[:1].repeat(K, 1).float())
    for measure in ("cosine", "correlation"):
        found = similarity(twins, measure, activations=ROWS)
        torch.testing.assert_close(found, torch.ones(K, K), rtol=0, atol=2e-7)


def test_own_measures() -> None:
    found = similarity(BANK, lambda bank, activations, labels, weights: torch.eye(len(bank.names)))
    assert torch.equal(found, torch.eye(K))
    own = Measure(lambda bank, activations, labels, weights: activations[:K, :K], False, frozenset({"activations"}))
    with pytest.raises(InputError, match="needs activations"):
        similarity(BANK, own)
    assert torch.equal(similarity(BANK, own, activations=ROWS), torch.as_tensor(ROWS[:K, :K]))


@pytest.mark.parametrize(
    ("measure", "changes", "message"),
    [
        ("euclid", {}, "unknown similarity 'euclid'; known: .*cosine"),
        ("activation", {"labels": None}, "needs labels"),
        ("activation", {"activations": ROWS[:, :-1]}, r"shape \(53, 8\); give \(rows, 9\)"),
        ("activation", {"labels": LABELS[:-1]}, r"labels: shape \(52, 6\)"),
        ("activation", {"labels": LABELS & (np.arange(K) != 2)}, "no row of positive weight shows 'c'"),
        ("activation", {"weights": -WEIGHTS}, "weights: negative"),
        ("activation", {"weights": WEIGHTS[1:]}, "one number for each of the 53 rows"),
        ("correlation", {"activations": np.ones((N, D)) * 0.1}, "same projection on every row"),
        ("correlation", {"weights": WEIGHTS * 0}, "no weight"),
        ("discriminant", {"weights": WEIGHTS * 1e-300}, r"the largest is 9\.\d+e-301; divide them by it"),
        ("discriminant", {"weights": WEIGHTS * 1e300}, r"the largest is 9\.\d+e\+299; divide them by it"),
        ("sensitivity", {}, "needs gradients"),
        ("sensitivity", {"gradients": GRADIENTS[:, 0]}, r"gradients: shape \(53, 9\); give \(clips, targets, 9\)"),
        ("sensitivity", {"gradients": GRADIENTS * 0}, "no logit changes along 'a'"),
        ("activation", {"activations": ROWS * np.nan}, "not finite"),
        (lambda *given: torch.eye(2), {}, r"must return a \(6, 6\) tensor"),
    ],
)
def test_bad_input(measure: object, changes: dict, message: str) -> None:
    given = {"activations": ROWS, "labels": LABELS, "weights": WEIGHTS, **changes}
    with pytest.raises(InputError, match=message) as caught:
        similarity(BANK, measure, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("measure", ["discriminant", "activation", "correlation"])
def test_a_row_that_is_not_finite_is_named(measure: str) -> None:
    rows = ROWS.copy()
    rows[37, 2] = np.nan  # in the fourth block
    with pytest.raises(InputError, match="activations: not finite in row 37; drop the clips it comes from"):
        similarity(BANK, measure, activations=rows, labels=LABELS, weights=WEIGHTS)


def test_combine_is_the_mean_of_the_scaled_layers() -> None:
    a, b = torch.tensor([[2.0, 1.0], [1.0, 4.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(combine({"a": a, "b": b}).numpy(), [[5 / 6, -1 / 3], [-1 / 3, 7 / 6]], rtol=1e-6)
    assert torch.equal(combine({"a": a}), a / 3)


@pytest.mark.parametrize(
    ("matrices", "text"),
    [
        ({}, "no layers"),
        ({"a": torch.eye(2), "b": torch.eye(3)}, "at b"),
        ({"a": torch.full((2, 2), float("nan"))}, "not finite at a"),
        ({"a": torch.zeros(2, 2)}, "a tells no concept"),
    ],
)
def test_combine_refuses(matrices: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(InputError) as error:
        combine(matrices)
    assert text in str(error.value).replace("'", "") and "\n" not in str(error.value)


@pytest.mark.parametrize("measure", sorted(SIMILARITIES))
def test_activations_that_remember_how_they_were_made(measure: str) -> None:
    given = {"activations": torch.tensor(ROWS), "gradients": torch.tensor(GRADIENTS)}
    expected = similarity(BANK, measure, labels=LABELS, **given)
    for tensor in given.values():
        tensor.requires_grad_()
    found = similarity(BANK, measure, labels=LABELS, **given)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_activations_without_columns() -> None:
    bank = replace(BANK, directions=BANK.directions[:, :0])
    with pytest.raises(InputError, match=r"activations: shape \(53, 0\)"):
        similarity(bank, "discriminant", activations=ROWS[:, :0], labels=LABELS)
