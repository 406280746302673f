"""Concept activation vectors: against textbook formulas and scikit-learn, and the laws they obey."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from captum_concepts.cavs.bank import QUALITY_COLUMNS, ConceptBank
from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.groups import group_weights
from captum_concepts.cavs.lda import oracle_shrinkage
from captum_concepts.errors import InputError

METHODS = tuple(name for name in CAV_METHODS if name != "sgd")  # its stochastic descent keeps no exact laws


def planted(n: int = 200, d: int = 16, k: int = 4, seed: int = 0, strength: float = 2.0):
    """Rows (n, d) float64, labels (n, k), and the unit directions (k, d) the concepts were planted along."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0][:k]
    labels = torch.rand(n, k, generator=generator) < 0.4
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return noise + 5 + strength * labels.double() @ truth, labels, truth


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_pattern_is_the_mean_difference_and_the_regression_pattern(dtype, weighted):
    x, labels, _ = planted()
    weights = torch.linspace(0.1, 2, len(x), dtype=torch.float64) if weighted else torch.ones(len(x))
    bank = fit_cavs(x.to(dtype), labels, weights=weights, folds=0)
    w = weights.double().numpy()
    for k in range(4):
        y, rows = labels[:, k].numpy(), x.numpy()
        difference = np.average(rows[y], axis=0, weights=w[y]) - np.average(rows[~y], axis=0, weights=w[~y])
        covariance = np.cov(np.column_stack([rows, y]).T, aweights=w, bias=True)
        for wanted in (difference, covariance[:-1, -1] / covariance[-1, -1]):
            unit = torch.from_numpy(wanted / np.linalg.norm(wanted))
            torch.testing.assert_close(bank.directions[k].double(), unit, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("n", "d"), [(120, 10), (40, 70)], ids=["tall", "wide"])
@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
def test_lda_is_the_solution_with_the_shrunk_total_covariance(n, d, shrinkage):
    x, labels, _ = planted(n, d)
    bank = fit_cavs(x, labels, "lda", folds=0, shrinkage=shrinkage)
    total = np.cov(x.numpy().T, bias=True)
    shrunk = (1 - shrinkage) * total + shrinkage * np.trace(total) / d * np.eye(d)
    for k in range(4):
        y = labels[:, k].numpy()
        wanted = np.linalg.solve(shrunk, x.numpy()[y].mean(0) - x.numpy()[~y].mean(0))
        assert cosines(bank.directions[k : k + 1], torch.from_numpy(wanted)[None]) > 1 - 1e-9


def test_lda_without_shrinkage_is_scikit_learns():
    """The within-class and the total covariance give the same direction (Sherman-Morrison)."""
    x, labels, _ = planted(300, 12)
    bank = fit_cavs(x, labels, "lda", folds=0, shrinkage=0.0)
    for k in range(4):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.0).fit(x.numpy(), labels[:, k].numpy())
        assert cosines(bank.directions[k : k + 1], torch.from_numpy(model.coef_)) > 0.999999


@pytest.mark.parametrize(("n", "d"), [(60, 300), (500, 300)])
def test_oracle_shrinkage(n, d):
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(0.2, 3, d)
    centred = (x - x.mean(0)) / np.sqrt(n)
    covariance = centred.T @ centred
    square, trace = np.trace(covariance @ covariance), np.trace(covariance)
    wanted = ((1 - 2 / d) * square + trace**2) / ((n + 1 - 2 / d) * (square - trace**2 / d))
    tall = oracle_shrinkage(torch.from_numpy(covariance), d, n)
    wide = oracle_shrinkage(torch.from_numpy(centred @ centred.T), d, n)
    assert tall == pytest.approx(min(wanted, 1), rel=1e-10)
    assert wide == pytest.approx(tall, rel=1e-10)
    # scikit-learn leaves out the terms in 2 / D.
    assert tall == pytest.approx(OAS().fit(x).shrinkage_, rel=2 / d)


@pytest.mark.parametrize("method", METHODS)
def test_logits_are_those_of_the_bank_and_point_to_the_positives(method):
    x, labels, _ = planted(strength=4)
    bank = fit_cavs(x, labels, method)
    logits = bank.scales * (x @ bank.directions.T + bank.biases)
    torch.testing.assert_close(bank.logits(x), logits)
    torch.testing.assert_close(bank.presence(x), torch.sigmoid(logits))
    assert ((bank.logits(x) > 0) == labels).double().mean() > 0.9
    torch.testing.assert_close(bank.directions.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert list(bank.quality.columns) == list(QUALITY_COLUMNS)
    assert (bank.quality["status"] == "ok").all()
    assert (bank.quality["auc"] > 0.95).all()
    assert bank.method == method


def test_pattern_scale_is_the_log_odds_of_two_gaussians():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40_000)[:, None] % 2 == 0
    x = torch.randn(40_000, 3, generator=generator) * torch.tensor([2.0, 1, 1]) + labels * torch.tensor([3.0, 0, 0])
    bank = fit_cavs(x, labels, folds=0)
    assert bank.scales.item() == pytest.approx(3 / 2**2, rel=0.03)
    assert bank.biases.item() == pytest.approx(-1.5, rel=0.03)


def test_a_distractor_turns_filters_but_not_the_pattern():
    """Haufe et al. 2014: noise that also lies on the concept's axis is cancelled by a filter, not by the pattern."""
    generator = torch.Generator().manual_seed(1)
    n, d = 2000, 12
    labels = torch.arange(n)[:, None] % 2 == 0
    truth = torch.nn.functional.normalize(torch.randn(1, d, generator=generator), dim=1)
    other = torch.nn.functional.normalize(torch.randn(1, d, generator=generator) / d**0.5 + truth, dim=1)
    x = 3 * labels * truth + 3 * torch.randn(n, 1, generator=generator) * other
    x = x + 0.5 * torch.randn(n, d, generator=generator)
    found = {method: cosines(fit_cavs(x, labels, method, folds=0).directions, truth).item() for method in METHODS}
    assert found["pattern"] > 0.98
    assert found["lda"] < 0.9
    assert found["logistic"] < 0.9


def equal(found: ConceptBank, wanted: ConceptBank, tolerance: float = 1e-7) -> None:
    for part in ("directions", "biases", "scales"):
        torch.testing.assert_close(getattr(found, part), getattr(wanted, part), rtol=tolerance, atol=tolerance)
    pd.testing.assert_frame_equal(found.quality, wanted.quality, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
class TestLaws:
    names = ("a", "b", "c", "d")

    def test_permuting_concepts_permutes_the_bank(self, method):
        x, labels, _ = planted()
        order = [2, 0, 3, 1]
        bank = fit_cavs(x, labels, method, names=self.names)
        found = fit_cavs(x, labels[:, order], method, names=[self.names[k] for k in order])
        equal(found, bank.subset([self.names[k] for k in order]))

    def test_the_order_of_rows_does_not_matter(self, method):
        x, labels, _ = planted()
        groups = np.arange(len(x)).astype(str)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
        equal(
            fit_cavs(x[order], labels[order], method, groups[order.numpy()]),
            fit_cavs(x, labels, method, groups),
        )

    def test_permuting_features_permutes_directions(self, method):
        x, labels, _ = planted()
        order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(2))
        found, bank = fit_cavs(x[:, order], labels, method), fit_cavs(x, labels, method)
        torch.testing.assert_close(found.directions, bank.directions[:, order], rtol=0, atol=1e-6)

    def test_rotating_and_shifting_the_space_rotates_directions(self, method):
        x, labels, _ = planted()
        turn = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
        found, bank = fit_cavs(x @ turn + 3, labels, method), fit_cavs(x, labels, method)
        torch.testing.assert_close(found.directions, bank.directions @ turn, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.logits(x @ turn + 3), bank.logits(x), rtol=1e-4, atol=1e-4)

    def test_swapping_roles_flips_the_direction(self, method):
        x, labels, _ = planted()
        found, bank = fit_cavs(x, ~labels, method), fit_cavs(x, labels, method)
        torch.testing.assert_close(found.directions, -bank.directions, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.logits(x), -bank.logits(x), rtol=1e-5, atol=1e-5)

    def test_patches_of_a_group_count_as_one(self, method):
        """Copies of a row within its group change nothing."""
        x, labels, _ = planted(60)
        groups = np.arange(60)
        rows = np.concatenate([groups, np.repeat(3, 20), np.repeat(17, 5)])
        options = {"shrinkage": 0.3} if method == "lda" else {}
        found = fit_cavs(x[rows], labels[rows], method, rows, **options)
        wanted = fit_cavs(x, labels, method, groups, **options)
        if method == "logistic":  # whose weights have mean one over rows, not groups: the penalty counts less
            assert (cosines(found.directions, wanted.directions) > 0.99).all()
        else:
            equal(found, wanted)

    def test_same_input_same_bytes(self, method):
        x, labels, _ = planted()
        one, other = fit_cavs(x.float(), labels, method), fit_cavs(x.float(), labels, method)
        assert one.directions.numpy().tobytes() == other.directions.numpy().tobytes()
        assert one.quality.equals(other.quality)

    def test_shuffled_labels_are_not_testable(self, method):
        passed = []
        for seed in range(10):
            generator = torch.Generator().manual_seed(seed)
            x, labels = torch.randn(60, 24, generator=generator), torch.rand(60, 30, generator=generator) < 0.4
            passed.append((fit_cavs(x, labels, method).quality["status"] == "ok").mean())
        assert np.mean(passed) <= 0.05

    def test_activations_without_variance_are_not_testable(self, method):
        _, labels, _ = planted(50)
        for constant in (0.0, 3.7):
            bank = fit_cavs(torch.full((50, 6), constant), labels, method)
            assert (bank.quality["status"] == "not testable").all()

    @pytest.mark.parametrize("shape", [(30, 200, 1), (200, 1, 2)], ids=["wide, one concept", "one feature"])
    def test_extreme_shapes(self, method, shape):
        n, d, k = shape
        labels = torch.arange(n)[:, None] % (k + 1) == torch.arange(k)
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 4.0 * labels[:, :1]
        bank = fit_cavs(x, labels, method)
        assert bank.directions.shape == (k, d)
        assert bank.quality["status"][0] == "ok"


def test_too_few_groups_are_said_and_leave_the_others_alone():
    x, labels, _ = planted(strength=4)
    labels[:, 1] = torch.arange(len(x)) < 40
    groups = np.where(np.arange(len(x)) < 40, np.arange(len(x)) // 10, np.arange(len(x)))
    bank = fit_cavs(x, labels, groups=groups, min_groups=5)
    assert bank.quality["status"].tolist() == ["ok", "too few groups", "ok", "ok"]
    assert bank.quality["n_positive_groups"][1] == 4
    assert torch.isnan(bank.directions[1]).all()
    assert torch.isnan(bank.biases[1])
    assert bank.quality.loc[1, ["auc", "low", "high", "accuracy"]].isna().all()


def test_quality_is_measured_on_groups_that_were_not_fitted():
    """Every group has a signature; a label of whole groups is learnt by heart but not found elsewhere."""
    generator = torch.Generator().manual_seed(0)
    groups = np.repeat(np.arange(40), 5)
    x = torch.randn(40, 60, generator=generator)[groups] + 0.1 * torch.randn(200, 60, generator=generator)
    labels = (torch.rand(40, 30, generator=generator) < 0.5)[groups]
    by_group = fit_cavs(x, labels, "logistic", groups).quality["auc"]
    by_row = fit_cavs(x, labels, "logistic").quality["auc"]
    assert by_row.mean() > 0.97
    assert abs(by_group.mean() - 0.5) < 0.1


def test_rows_that_are_neither_do_not_blur_the_quality():
    x, labels, _ = planted(100, strength=6)
    groups = np.arange(100).repeat(2)
    both = torch.stack([x, torch.full_like(x, 5.0)], 1).flatten(0, 1)  # a second, featureless row in every group
    shows = torch.stack([labels, torch.zeros_like(labels)], 1).flatten(0, 1)
    against = torch.stack([~labels, torch.zeros_like(labels)], 1).flatten(0, 1)
    with_rows = fit_cavs(both, shows, groups=groups, negatives=against).quality
    without = fit_cavs(x, labels, groups=np.arange(100)).quality
    np.testing.assert_allclose(with_rows["auc"], without["auc"], atol=1e-9)


def test_group_weights():
    assert group_weights(["x", "y", "x", "x"]).tolist() == [1 / 3, 1, 1 / 3, 1 / 3]


def test_a_method_of_ones_own_may_give_directions_of_any_length():
    def first_axes(activations, positives, negatives, weights, length=1.0):
        k = positives.shape[1]
        return length * torch.eye(k, activations.shape[1]).to(activations), torch.arange(k).to(activations)

    x, labels, _ = planted()
    bank = fit_cavs(x, labels, first_axes, folds=0, length=4.0)
    torch.testing.assert_close(bank.directions, torch.eye(4, 16, dtype=torch.float64))
    torch.testing.assert_close(bank.logits(x), 4 * x[:, :4] + torch.arange(4))
    assert bank.method == "first_axes"


def test_bank_subset_and_misfits():
    x, labels, _ = planted()
    bank = fit_cavs(x, labels, names=["a", "b", "c", "d"], layer="l")
    part = bank.subset(["c", "a"])
    assert part.names == ("c", "a")
    assert part.quality["concept"].tolist() == ["c", "a"]
    assert torch.equal(part.directions, bank.directions[[2, 0]])
    with pytest.raises(InputError, match="'x' is not in the bank"):
        bank.subset(["x"])
    with pytest.raises(InputError, match=r"^directions"):
        ConceptBank(("a",), "l", torch.zeros(2, 3), torch.zeros(1), torch.zeros(1))
    with pytest.raises(InputError, match=r"^scales"):
        ConceptBank(("a",), "l", torch.zeros(1, 3), torch.zeros(1), torch.zeros(2))


def good():
    x, labels, _ = planted(40)
    return {"activations": x, "labels": labels}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": torch.full((40, 16), torch.nan)}, "^activations: NaN"),
        ({"activations": torch.zeros(40)}, "^activations: shape"),
        ({"activations": torch.zeros(40, 0)}, "^activations: shape"),
        ({"labels": torch.ones(39, 4, dtype=torch.bool)}, "^labels: shape"),
        ({"labels": torch.full((40, 4), -1)}, "^labels: values other than 0 and 1"),
        ({"negatives": torch.ones(40, 4, dtype=torch.bool)}, "^negatives: column 0 marks rows"),
        ({"negatives": torch.zeros(40, 3, dtype=torch.bool)}, "^negatives: shape"),
        ({"groups": ["a"]}, "^groups=.*: 1 entries for 40"),
        ({"weights": torch.zeros(40)}, "^weights: zero"),
        ({"weights": torch.ones(3)}, "^weights: shape"),
        ({"names": ["a"]}, "^names=.*: 1 names for 4"),
        ({"folds": 1}, "^folds=1"),
        ({"method": "nonsense"}, "unknown CAV method 'nonsense'"),
        ({"method": "pattern", "C": 2}, "^cav_options="),
        ({"method": "lda", "shrinkage": 2}, "^shrinkage=2"),
        ({"method": lambda a, p, n, w: (torch.zeros(1, 1), torch.zeros(1))}, "gave shapes"),
        ({"method": lambda a, p, n, w: (torch.zeros(4, 16),)}, "must give"),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        fit_cavs(**{**good(), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [6, 90])
def test_lda_of_many_concepts_of_few_rows_is_that_of_each_alone(width):
    """Rows of no concept are in the covariance, whether there are fewer rows of concepts than concepts or not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, width, generator=generator) * torch.linspace(1, 4, width) + 5
    draws = torch.rand(20, 50, generator=generator).argsort(0)
    positives, negatives = torch.zeros(60, 50, dtype=torch.bool), torch.zeros(60, 50, dtype=torch.bool)
    positives[:20], negatives[:20] = draws < 8, draws >= 8
    weights = torch.rand(60, generator=generator) + 0.5
    together = CAV_METHODS["lda"](x, positives, negatives, weights)
    for k in range(50):
        alone = CAV_METHODS["lda"](x, positives[:, [k]], negatives[:, [k]], weights)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[[k]], other, rtol=1e-4, atol=1e-5)
    few = CAV_METHODS["lda"](x[:20], positives[:20], negatives[:20], weights[:20])[0]
    assert ((few * together[0]).sum(1) < 0.999).any(), "the other rows say how the features vary"
