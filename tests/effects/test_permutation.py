"""The permutation test of one number per group."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.stats import binom

from captum_concepts.effects import blocked_permutation_test, permutation_test
from captum_concepts.errors import InputError


def mask_of(n_groups: int, sizes: list[int], seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mask = torch.zeros(n_groups, len(sizes), dtype=torch.bool)
    for k, size in enumerate(sizes):
        mask[rng.permutation(n_groups)[:size], k] = True
    return mask


def band(count: int, alpha: float = 0.05) -> tuple[float, float]:
    """Share of rejections that chance allows, 99.9 %."""
    return binom.ppf(0.0005, count, alpha) / count, binom.ppf(0.9995, count, alpha) / count


@pytest.mark.parametrize("skewed", [False, True])
def test_false_positives_are_as_many_as_promised(skewed: bool) -> None:
    rng = np.random.default_rng(3)
    sizes, n_groups, count = [2, 3, 4, 5, 10, 20, 50], 120, 1500
    values = rng.exponential(size=(n_groups, count)) if skewed else rng.normal(size=(n_groups, count))
    # Means of groups of unequal size, the sizes at random.
    values = values / np.sqrt(rng.integers(1, 30, size=values.shape))
    p_values = permutation_test(torch.from_numpy(values), mask_of(n_groups, sizes), n_permutations=999)
    low, high = band(count)
    for k, size in enumerate(sizes):
        rejected = float((p_values[k] <= 0.05).double().mean())
        assert low <= rejected <= high, (size, rejected)


def test_p_values_equal_those_of_all_subsets() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 2))
    positives = mask_of(9, [2, 3, 5])
    p_values = permutation_test(torch.from_numpy(values), positives, n_permutations=40_000)
    for k in range(3):
        chosen = positives[:, k].numpy()
        for c in range(2):
            observed = values[chosen, c].sum()
            null = np.array([values[list(rows), c].sum() for rows in combinations(range(9), int(chosen.sum()))])
            tails = (null >= observed - 1e-9).mean(), (null <= observed + 1e-9).mean()
            assert float(p_values[k, c]) == pytest.approx(min(1, 2 * min(tails)), abs=0.012)


def test_negatives_limit_what_is_permuted() -> None:
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.normal(size=(30, 3)))
    positives = mask_of(30, [6, 6])
    negatives = ~positives
    negatives[20:, 1] = False
    positives[20:, 1] = False
    both = permutation_test(values, positives, negatives, 499)
    within = permutation_test(values[:20], positives[:20, 1:], None, 499)
    torch.testing.assert_close(both[1:], within)


def test_power_with_few_groups() -> None:
    rng = np.random.default_rng(2)
    values = torch.from_numpy(rng.normal(size=(200, 400)))
    positives = mask_of(200, [20])
    values[positives[:, 0]] += 1
    assert float((permutation_test(values, positives, n_permutations=999) <= 0.05).double().mean()) > 0.95


def test_scale_and_origin_do_not_matter() -> None:
    values, positives = torch.randn(25, 4, dtype=torch.float64), mask_of(25, [4, 9])
    first = permutation_test(values, positives, n_permutations=499)
    torch.testing.assert_close(first, permutation_test(1e-6 * values + 3, positives, n_permutations=499))


def test_the_order_of_concepts_and_the_size_of_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, positives = torch.randn(25, 4, dtype=torch.float64), mask_of(25, [4, 9, 4])
    first = permutation_test(values, positives, n_permutations=300)
    torch.testing.assert_close(first[[2, 0, 1]], permutation_test(values, positives[:, [2, 0, 1]], n_permutations=300))
    monkeypatch.setattr("captum_concepts.effects.permutation.VALUES", 500)
    torch.testing.assert_close(first, permutation_test(values, positives, n_permutations=300))


def test_values_that_are_all_equal_are_not_significant() -> None:
    assert permutation_test(torch.ones(10, 1), mask_of(10, [3]), n_permutations=99).item() == 1


def test_a_concept_without_groups_has_no_p_value() -> None:
    p_values = permutation_test(torch.randn(10, 2), mask_of(10, [0, 3, 10]), n_permutations=99)
    assert p_values.isnan().all(1).tolist() == [True, False, True]


def test_blocked_p_values_equal_those_of_all_choices() -> None:
    values = np.random.default_rng(5).normal(size=(5, 3, 2)) + np.arange(5)[:, None, None]
    block, concept = torch.arange(15) // 3, torch.arange(15) % 3
    order = torch.randperm(15)
    flat = torch.from_numpy(values).reshape(15, 2)
    found = blocked_permutation_test(flat[order], block[order], concept[order], 40_000)
    for k in range(3):
        for c in range(2):
            null = np.array(
                [sum(values[i, j, c] for i, j in enumerate(chosen)) for chosen in product(range(3), repeat=5)]
            )
            observed = values[:, k, c].sum()
            tails = (null >= observed - 1e-9).mean(), (null <= observed + 1e-9).mean()
            assert float(found[k, c]) == pytest.approx(min(1, 2 * min(tails)), abs=0.012)


def test_blocks_need_one_value_of_each_concept() -> None:
    values, block = torch.randn(6, 1), torch.arange(6) // 2
    for arguments in [
        (values, block, torch.tensor([0, 1, 0, 1, 0, 0])),
        (values[:5], block[:5], torch.arange(5) % 2),
        (values * torch.nan, block, torch.arange(6) % 2),
        (values, block, torch.arange(6) % 2, 0),
    ]:
        with pytest.raises(InputError, match="="):
            blocked_permutation_test(*arguments)


def test_bad_input_is_refused() -> None:
    values, positives = torch.randn(10, 2), mask_of(10, [3])
    for arguments in [
        (values, positives, None, 0),
        (values * torch.nan, positives),
        (values[0], positives),
        (values, positives[:5]),
        (values, positives.float(), ~positives),
        (values, positives, positives),
    ]:
        with pytest.raises(InputError, match="="):
            permutation_test(*arguments)
