"""Noise-free inner products of concept means, against loops and against means that are known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers.planted import NAMES, planted_family

from captum_concepts.errors import InputError
from captum_concepts.similarities.discriminant.means import mean_space, observations, scaled_products

planted = partial(planted_family, n=40, dimensions=30)


def products(rows: torch.Tensor, labels: torch.Tensor, **given: object) -> torch.Tensor:
    return mean_space(observations(rows, labels, **given)).inner_products()


def test_rows_of_a_group_with_the_same_concepts_are_one_observation() -> None:
    rows = torch.arange(12.0).reshape(6, 2)
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0], [0, 0], [0, 1]], dtype=torch.bool)
    weights = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0, 0.0])
    found = observations(rows, labels, weights, ["x", "x", "x", "y", "y", "z"])
    expected = {
        (0.75 * 2 + 0.25 * 0, 0.75 * 3 + 0.25 * 1, 1, 0, 4),  # x, first concept
        (4, 5, 0, 1, 1),
        (6, 7, 1, 0, 2),
        (8, 9, 0, 0, 1),  # shows nothing, but is one of all clips; z has no weight at all
    }
    table = torch.cat([found.values, found.shows, found.weights[:, None]], dim=1)
    assert {tuple(row) for row in table.tolist()} == expected
    assert len(set(found.fold[(found.values[:, 0] < 5)].tolist())) == 1  # all of x in one fold


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="groups: 3 entries for 6 rows"):
        observations(torch.zeros(6, 2), torch.ones(6, 1), None, ["a", "b", "c"])


def test_inner_products_are_those_of_a_loop() -> None:
    rows, labels = planted(0, n=8, dimensions=5)
    labels[:10, 3] = True  # concepts that share clips
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    space = mean_space(observations(rows, labels, weights))
    x, w, shows = space.values.numpy(), space.observed.weights.numpy(), space.observed.shows.numpy().astype(bool)
    found = space.inner_products().numpy()
    centre = np.average(x, axis=0, weights=w)
    spread = space.noise.numpy()
    for i in range(len(NAMES)):
        for j in range(len(NAMES)):
            a = np.average(x[shows[:, i]], axis=0, weights=w[shows[:, i]]) - centre
            b = np.average(x[shows[:, j]], axis=0, weights=w[shows[:, j]]) - centre
            both = shows[:, i] & shows[:, j]
            shared = (w[both] ** 2).sum() / w[shows[:, i]].sum() / w[shows[:, j]].sum()
            expected = (a * b).sum() - shared * (spread[i] + spread[j]) / 2
            assert found[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_concepts_of_random_clips_lie_where_all_clips_do() -> None:
    rng = np.random.default_rng(0)
    diagonal, raw = [], []
    for _ in range(20):
        rows = torch.as_tensor(rng.normal(size=(200, 40)))
        labels = torch.as_tensor(np.arange(200)[:, None] % 10 == np.arange(10))
        space = mean_space(observations(rows, labels))
        diagonal.append(float(space.inner_products().diagonal().mean()))
        raw.append(float(replace(space, noise=0 * space.noise).inner_products().diagonal().mean()))
    assert abs(np.mean(diagonal)) < 0.2 * np.mean(raw)  # most of it is gone


def test_permuting_concepts_or_rows_changes_nothing_else() -> None:
    rows, labels = planted(1, n=12)
    groups = np.array([f"g{i // 2}" for i in range(len(rows))])
    expected = products(rows, labels, groups=groups)
    columns = torch.randperm(len(NAMES), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(products(rows, labels[:, columns], groups=groups), expected[columns][:, columns])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    moved = products(rows[order], labels[order], groups=groups[order.numpy()])
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-6)


def test_the_same_input_gives_the_same_bytes() -> None:
    rows, labels = planted(2, n=10)
    assert torch.equal(products(rows, labels), products(rows, labels))


def test_scale_and_offset_of_the_activations_do_not_matter() -> None:
    rows, labels = planted(3, n=12)
    moved = products(1000 * rows - 7, labels)
    torch.testing.assert_close(scaled_products(moved), scaled_products(products(rows, labels)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (torch.zeros(6, 4), torch.eye(6, dtype=torch.bool)[:, :2]),  # nothing differs
        (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.eye(6, dtype=torch.bool)),  # single clips
        (torch.randn(1, 4, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, dtype=torch.bool)),
        (torch.randn(9, 300, generator=torch.Generator().manual_seed(0)), torch.ones(9, 2, dtype=torch.bool)),
    ],
)
def test_poor_data_give_finite_numbers(rows: torch.Tensor, labels: torch.Tensor) -> None:
    assert torch.isfinite(products(rows, labels)).all()


def test_activations_of_any_size_are_told_apart() -> None:
    rows, labels = planted(6, n=8, dimensions=5)
    expected = products(rows, labels)
    for scale in (2.0**-700, 2.0**500, 2.0**1000):  # their squares are 0, or infinite
        assert torch.equal(products(rows * scale, labels), expected)


def test_activations_that_are_all_the_same_tell_nothing() -> None:
    """The mean of equal numbers is theirs but for rounding, and that must not be blown up to a structure."""
    rng = np.random.default_rng(0)
    labels = torch.as_tensor(rng.random((60, 12)) < 0.3)
    groups = [f"g{i // 3}" for i in range(60)]
    observed = observations(torch.full((60, 10), 0.1), labels, torch.as_tensor(rng.random(60)), groups)
    assert len(observed.values.unique()) > 1
    assert not mean_space(observed).inner_products().any()


def test_noise_that_cannot_be_measured_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rows, labels = planted(7, n=6)
    products(rows, labels)
    assert not caplog.messages
    products(rows, labels, groups=[f"g{i // 6}" for i in range(len(rows))])
    assert caplog.messages == [
        "no concept has clips of two groups: the noise in means cannot be measured and stays in them"
    ]


def test_counts_repeat_observations() -> None:
    rows, labels = planted(4, n=6, dimensions=5)
    space = mean_space(observations(rows, labels))
    counts = torch.as_tensor(np.random.default_rng(0).integers(0, 3, len(rows))).double()
    doubled = replace(space.observed, weights=counts)
    again = replace(space, observed=doubled).inner_products()
    torch.testing.assert_close(space.inner_products(counts), again)
