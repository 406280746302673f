from __future__ import annotations

import numpy as np
import pytest
from captum_concepts_essentia.runtime.differences import central_differences

from captum_concepts.errors import InputError


def cubic(rows: np.ndarray) -> np.ndarray:
    return np.stack([(rows**3).sum(1), rows @ np.arange(rows.shape[1])], 1)


def test_derivatives_and_their_errors():
    random = np.random.default_rng(0)
    points, directions = random.normal(size=(4, 5)), random.normal(size=(3, 5)) * 7
    outputs, values, errors = central_differences(cubic, points, directions, step=1e-2)
    np.testing.assert_allclose(outputs, cubic(points))
    exact = np.stack([3 * points**2 @ directions.T, np.tile(np.arange(5) @ directions.T, (4, 1))], 1)
    np.testing.assert_allclose(values, exact, rtol=1e-3, atol=1e-2)
    assert values.shape == errors.shape == (4, 2, 3)
    # The error of a central difference is c h^2: what half the step takes away is three quarters of it.
    np.testing.assert_allclose(errors[:, 0], 0.75 * np.abs(values - exact)[:, 0], rtol=1e-4)
    assert errors[:, 1].max() < 1e-9


def test_a_kink_or_rounding_shows_in_the_error():
    point = np.array([[1.0, 0.0]])
    bent = central_differences(lambda rows: np.maximum(rows[:, 1:] - 0.004, 0), point, np.array([[0.0, 1.0]]), 1e-2)
    assert bent.values.item() > 0 and bent.errors.item() > 0.1 * bent.values.item()
    rough = central_differences(lambda rows: np.round(rows, 3), np.array([[1.0003]]), np.ones((1, 1)), 4e-4)
    assert rough.errors.item() >= abs(rough.values.item() - 1) > 0.1


def test_maps_and_a_direction_that_moves_many_numbers():
    points = np.random.default_rng(0).normal(size=(2, 6, 3))
    found = central_differences(lambda rows: rows.sum(1)[:, :1], points, np.eye(3)[:, None, :])
    np.testing.assert_allclose(found.values[:, 0] * np.sqrt(1), [[6, 0, 0]] * 2, atol=1e-9)


def test_bad_input():
    with pytest.raises(InputError, match="step=0"):
        central_differences(cubic, np.ones((1, 2)), np.ones((1, 2)), 0)
    with pytest.raises(InputError, match=r"directions=\(\): is empty"):
        central_differences(cubic, np.ones((1, 2)), np.ones((0, 2)))
    with pytest.raises(InputError, match=r"gave shape \(2,\) for 1 rows"):
        central_differences(lambda rows: np.ones(2), np.ones((1, 2)), np.ones((1, 2)))


def test_a_scikit_learn_classifier():
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 4))
    model = linear.LogisticRegression().fit(rows, rows[:, 0] - rows[:, 2] + 0.1 * random.normal(size=60) > 0)
    found = central_differences(lambda x: model.decision_function(x)[:, None], rows[:5], np.eye(4))
    np.testing.assert_allclose(found.values[:, 0], np.tile(model.coef_[0], (5, 1)), rtol=1e-6)
