"""Classifiers of many sets at once against the same fits one by one, by other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from captum_concepts.errors import InputError
from captum_concepts.tcav.set_fits import (
    MAX_DUAL_BLOCKS,
    MAX_DUAL_ROWS,
    METHODS,
    Blocks,
    SetFits,
    _chunks,
    fit_sets,
    held_out,
)

COUNTS = [12, 9, 15, 12, 7]
SETS = [(0, 3), (0, 4), (2, 1), (1, 0), (0, 1, 2), (4, 2, 3)]


def data(features: int = 60, counts: list[int] = COUNTS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(counts), features, generator=generator).repeat_interleave(torch.tensor(counts), 0)
    return centres + torch.randn(sum(counts), features, generator=generator) + 2


def parts(rows: torch.Tensor, counts: list[int] = COUNTS) -> list[np.ndarray]:
    return [part.double().numpy() for part in rows.split(counts)]


def collected(fits: object) -> dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    found = {}
    for fit in fits:  # type: ignore[attr-defined]
        assert isinstance(fit, SetFits)
        for place, number in enumerate(fit.numbers):
            assert number not in found
            found[number] = (fit.weights[place], fit.biases[place], fit.accuracy[place])
    return found


def cosine(a: object, b: object) -> float:
    a, b = np.ravel(np.asarray(a, float)), np.ravel(np.asarray(b, float))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("features", [60, 8])
def test_logistic_is_scikit_learns(features):
    rows = data(features)
    blocks = parts(rows)
    found = collected(fit_sets(Blocks(rows, COUNTS), SETS, "logistic", C=0.5))
    for number, members in enumerate(SETS):
        weights, biases, _ = found[number]
        x = np.concatenate([blocks[block] for block in members])
        owner = np.repeat(np.arange(len(members)), [COUNTS[block] for block in members])
        for column in range(len(members)):
            reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=100_000).fit(x, owner == column)
            assert cosine(weights[column], reference.coef_) > 1 - 1e-5
            assert weights[column].norm().item() == pytest.approx(np.linalg.norm(reference.coef_), rel=2e-3)
            assert biases[column].item() == pytest.approx(reference.intercept_[0], rel=2e-2, abs=2e-2)


def test_large_sets_are_fitted_in_the_primal():
    counts = [400, 300]
    assert sum(counts) > MAX_DUAL_ROWS
    rows = data(10, counts)
    weights, biases, _ = collected(fit_sets(Blocks(rows, counts), [(0, 1)], "logistic"))[0]
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000).fit(rows.double(), np.repeat([0, 1], counts))
    assert cosine(weights[1], reference.coef_) > 1 - 1e-5
    assert biases[1].item() == pytest.approx(reference.intercept_[0], rel=1e-2)


def test_sets_of_many_blocks_are_fitted_in_the_primal():
    counts = [6] * (MAX_DUAL_BLOCKS + 2)
    rows = data(40, counts)
    weights, _, _ = collected(fit_sets(Blocks(rows, counts), [tuple(range(len(counts)))], "logistic"))[0]
    owner = np.repeat(np.arange(len(counts)), counts)
    for column in range(len(counts)):
        reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000).fit(rows.double(), owner == column)
        assert cosine(weights[column], reference.coef_) > 1 - 1e-5


def test_pattern_is_the_difference_of_means():
    rows = data()
    blocks = parts(rows)
    found = collected(fit_sets(Blocks(rows, COUNTS), SETS, "pattern"))
    for number, members in enumerate(SETS):
        for column, own in enumerate(members):
            rest = np.concatenate([blocks[block] for block in members if block != own]).mean(0)
            mean = blocks[own].mean(0)
            np.testing.assert_allclose(found[number][0][column], mean - rest, rtol=1e-4, atol=1e-5)
            middle = found[number][0][column].double().numpy() @ (mean + rest) / 2 + found[number][1][column].item()
            assert middle == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("features", [60, 8])
def test_lda_is_fishers_direction(features):
    counts = [40, 30]
    rows = data(features, counts)
    shrinkage = 0.3
    found = collected(fit_sets(Blocks(rows, counts), [(0, 1)], "lda", shrinkage=shrinkage))
    x, y = rows.double().numpy(), np.repeat([0, 1], counts)
    # scikit-learn standardises before it shrinks, so the reference is written out.
    centred = np.concatenate([part - part.mean(0) for part in parts(rows, counts)])
    covariance = centred.T @ centred / (len(x) - 2)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / features * np.eye(features)
    expected = np.linalg.solve(shrunk, x[y == 1].mean(0) - x[y == 0].mean(0))
    assert cosine(found[0][0][1], expected) > 1 - 1e-6
    if features == 8:
        plain = collected(fit_sets(Blocks(rows, counts), [(0, 1)], "lda", shrinkage=0.0))
        reference = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
        assert cosine(plain[0][0][1], reference.coef_) > 1 - 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_that_was_planted_is_found(method):
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(50, generator=generator), dim=0)
    rows = 0.3 * torch.randn(400, 50, generator=generator)
    rows[:200] += 2 * direction
    weights, _, accuracy = collected(
        fit_sets(Blocks(rows, [200, 200], held_out(["a", "b"], [200, 200], 0.25, 0)), [(0, 1)], method)
    )[0]
    assert cosine(weights[0], direction) > 0.95
    assert accuracy.item() == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_two_blocks_give_opposite_rows(method):
    for weights, biases, _ in collected(fit_sets(Blocks(data(), COUNTS), SETS[:4], method)).values():
        torch.testing.assert_close(weights[0], -weights[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(biases[0], -biases[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_chunks_and_order_change_nothing_but_rounding(method):
    rows = data()
    held = held_out(list("abcde"), COUNTS, 0.33, 3)
    whole = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, method))
    single = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, method, chunk_bytes=1))
    turned = collected(fit_sets(Blocks(rows, COUNTS, held), SETS[::-1], method))
    again = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, method))
    for number in range(len(SETS)):
        for a, b, c, d in zip(
            whole[number], single[number], turned[len(SETS) - 1 - number], again[number], strict=True
        ):
            assert torch.equal(a, d)  # the same call gives the same bytes
            bound = 5e-4 * a.abs().max().item()
            torch.testing.assert_close(a, b, rtol=0, atol=bound)
            torch.testing.assert_close(a, c, rtol=0, atol=bound)


@pytest.mark.parametrize("method", ["logistic", "pattern"])
def test_order_of_the_blocks_of_a_set_permutes_its_rows(method):
    rows = data()
    first = collected(fit_sets(Blocks(rows, COUNTS), [(0, 1, 2)], method))[0]
    second = collected(fit_sets(Blocks(rows, COUNTS), [(2, 0, 1)], method))[0]
    torch.testing.assert_close(first[0][[2, 0, 1]], second[0], rtol=1e-3, atol=1e-4)


def test_accuracy_is_that_of_the_rows_held_out():
    rows = data(features=5)
    held = held_out(list("abcde"), COUNTS, 0.33, 1)
    found = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, "pattern"))
    test = [part[out].double() for part, out in zip(rows.split(COUNTS), held.split(COUNTS), strict=True)]
    wrong = 0
    for number, members in enumerate(SETS):
        weights, biases, accuracy = found[number]
        hits = [
            (test[block] @ weights.double().T + biases.double()).argmax(1) == column
            for column, block in enumerate(members)
        ]
        expected = torch.cat(hits).double().mean().item()
        assert accuracy.item() == pytest.approx(expected, abs=1e-6)
        wrong += expected < 1
    assert wrong  # or any accuracy of 1 would do


def test_rows_held_out_are_not_fitted():
    rows = data()
    held = held_out(list("abcde"), COUNTS, 0.33, 1)
    spoiled = torch.where(
        held[:, None], 1e3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(9)), rows
    )
    for method in METHODS:
        before = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, method))
        after = collected(fit_sets(Blocks(spoiled, COUNTS, held), SETS, method))
        assert all(torch.equal(before[number][0], after[number][0]) for number in before)


def test_held_out_depends_on_seed_and_name_alone():
    assert (
        held_out(["a", "b"], [10, 20], 0.33, 0).split([10, 20])[1].tolist() == held_out(["b"], [20], 0.33, 0).tolist()
    )
    assert held_out(["a"], [50], 0.5, 0).tolist() != held_out(["a"], [50], 0.5, 1).tolist()
    assert held_out(["a"], [50], 0.5, 0).tolist() != held_out(["b"], [50], 0.5, 0).tolist()
    assert [int(part.sum()) for part in held_out(["a", "b"], [10, 7], 0.33, 0).split([10, 7])] == [3, 2]


@pytest.mark.parametrize(("precision", "bound"), [("float64", 1e-7), ("float32", 1e-6), ("bfloat16", 1e-3)])
def test_precision_is_as_stated(precision, bound):
    counts = [20, 20, 20]
    rows = data(500, counts)
    blocks = parts(rows, counts)
    found = collected(fit_sets(Blocks(rows, counts), [(0, 1), (1, 2)], "logistic", precision=precision))
    for number, (a, b) in enumerate([(0, 1), (1, 2)]):
        x = np.concatenate([blocks[a], blocks[b]])
        reference = LogisticRegression(C=1.0, tol=1e-12, max_iter=100_000).fit(x, np.repeat([0, 1], 20))
        assert cosine(found[number][0][1], reference.coef_) > 1 - bound


@pytest.mark.parametrize(
    ("sets", "method", "options", "message"),
    [
        ([(0, 1)], "svm", {}, "method='svm' is not known; use logistic, pattern, lda"),
        ([(0, 1)], "pattern", {"C": 1.0}, "C: not an option of method 'pattern'"),
        ([(0, 1)], "logistic", {"C": -1.0}, "C=-1.0 must be positive and finite"),
        ([(0, 1)], "lda", {"shrinkage": 2.0}, "shrinkage=2.0 must be between 0 and 1"),
        ([(0, 1)], "logistic", {"precision": "int8"}, "precision='int8' is not known"),
        ([(0,)], "pattern", {}, "needs at least two blocks, each once"),
        ([(0, 0)], "pattern", {}, "needs at least two blocks, each once"),
    ],
)
def test_bad_input_is_refused_in_one_line(sets, method, options, message):
    with pytest.raises(InputError) as caught:
        list(fit_sets(Blocks(data(), COUNTS), sets, method, **options))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_nan_and_empty_blocks_are_refused():
    rows = data()
    rows[3, 3] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        list(fit_sets(Blocks(rows, COUNTS), SETS))
    with pytest.raises(InputError, match="block 0 has 12 rows and none to fit"):
        list(fit_sets(Blocks(data(), COUNTS, torch.ones(sum(COUNTS), dtype=torch.bool)), SETS))
    with pytest.raises(InputError, match="test_split_ratio=1"):
        held_out(["a"], [3], 1, 0)


@pytest.mark.parametrize(
    ("features", "counts", "sets"),
    [
        (60, [12, 9, 15, 12, 7, 30, 30], [(i, j) for i in range(3) for j in range(3, 7)]),  # one against random sets
        (12, [60, 50, 70], [(0, 1, 2)]),  # one against the rest, in the dual
        (12, [30] * (MAX_DUAL_BLOCKS + 3), [tuple(range(MAX_DUAL_BLOCKS + 3))]),  # and in the primal
        (10, [600, 500], [(0, 1), (1, 0)]),  # many samples, few dimensions
    ],
)
def test_held_out_accuracy_is_that_of_scikit_learns_fits(features, counts, sets):
    generator = torch.Generator().manual_seed(2)
    centres = 0.5 * torch.randn(len(counts), features, generator=generator)
    rows = centres.repeat_interleave(torch.tensor(counts), 0) + torch.randn(sum(counts), features, generator=generator)
    held = held_out([str(i) for i in range(len(counts))], counts, 0.33, 7)
    kept, test = (
        [part[mask].double().numpy() for part, mask in zip(rows.split(counts), masks, strict=True)]
        for masks in ((~held).split(counts), held.split(counts))
    )
    found = collected(fit_sets(Blocks(rows, counts, held), sets, "logistic"))
    accuracies = []
    for number, members in enumerate(sets):
        x, y = np.concatenate([kept[b] for b in members]), np.repeat(members, [len(kept[b]) for b in members])
        fits = [LogisticRegression(tol=1e-10, max_iter=100_000).fit(x, y == block) for block in members]
        for row, fit in zip(found[number][0], fits, strict=True):
            assert cosine(row, fit.coef_) > 0.9999
        values = [np.stack([fit.decision_function(test[b]) for fit in fits], 1).argmax(1) for b in members]
        right = sum(int((chosen == column).sum()) for column, chosen in enumerate(values))
        accuracies.append(right / sum(map(len, values)))
        assert found[number][2].item() == pytest.approx(accuracies[-1], abs=1e-6)
    assert min(accuracies) < 1  # or any accuracy of 1 would do


@pytest.mark.parametrize(("length", "C"), [(10.0, 1.0), (30.0, 1.0), (100.0, 100.0)])
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("features", [30, 200])
def test_logistic_is_scikit_learns_whatever_the_scale(length, C, precision, features):
    """Long rows, as unpooled activations of real models are, in sets that overlap and sets that do not."""
    counts = [27, 23, 34, 17, 41]
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(len(counts), features, generator=generator).repeat_interleave(torch.tensor(counts), 0)
    rows = length * (0.6 * centres + torch.randn(sum(counts), features, generator=generator))
    sets = [(0, 1), (4, 3), (0, 3, 4), (0, 1, 2, 3, 4)]
    found = collected(fit_sets(Blocks(rows, counts), sets, "logistic", precision=precision, C=C))
    kept = parts(rows, counts)
    for number, members in enumerate(sets):
        x = np.concatenate([kept[b] for b in members])
        y = np.repeat(members, [counts[b] for b in members])
        x = x - x.mean(0)
        for row, own in zip(found[number][0], members, strict=True):
            fit = LogisticRegression(C=C, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y == own)
            assert cosine(row, fit.coef_) > 1 - (1e-2 if precision == "bfloat16" else 1e-6)
            if precision != "bfloat16":
                assert row.norm().item() == pytest.approx(np.linalg.norm(fit.coef_), rel=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_chunks_stay_within_their_bound(method):
    """What a chunk holds, counted as the bound is stated: weights of its sets and rows of the blocks it needs."""
    features, counts = 300, [20] * 40
    blocks = Blocks(data(features, counts), counts)
    sets = [(i, 20 + j) for i in range(20) for j in range(20)]
    one, limit = 2 * features * 4, 4 * 10**6
    chunks = list(fit_sets(blocks, sets, method, chunk_bytes=limit))
    assert sorted(number for fit in chunks for number in fit.numbers) == list(range(len(sets)))
    assert len(chunks) > 1
    for fit in chunks:
        needed = {block for number in fit.numbers for block in sets[number]}
        grams = len(fit.numbers) * 40**2 * 8
        assert len(fit.numbers) * one + len(needed) * 20 * features * 4 + grams <= limit


def test_every_chunk_counts_all_the_rows_it_needs():
    """Also those of a block that an earlier chunk had."""
    sizes, sets, features, limit = [600] + [20] * 60, [(0, 1 + j) for j in range(60)], 10, 6 * 10**6
    chunks = list(_chunks(range(60), sets, sizes, 2, features, limit))
    assert [number for chunk in chunks for number in chunk] == list(range(60)) and len(chunks) > 2
    for chunk in chunks:
        rows = 600 + 20 * len(chunk)
        assert 8 * rows * (rows + features) <= limit


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_cpu_and_gpu_agree(method):
    rows = data(300)
    held = held_out(list("abcde"), COUNTS, 0.33, 3)
    cpu = collected(fit_sets(Blocks(rows, COUNTS, held), SETS, method))
    gpu = collected(fit_sets(Blocks(rows.cuda(), COUNTS, held), SETS, method))
    for number, (weights, _, accuracy) in cpu.items():
        assert gpu[number][0].is_cuda
        for row, other in zip(weights, gpu[number][0].cpu(), strict=True):
            assert cosine(row, other) > 1 - 1e-6
        assert gpu[number][2].item() == pytest.approx(accuracy.item())
