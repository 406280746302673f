"""The table of scores against loops over plain numpy, and which concepts share which null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from captum_concepts.cavs import CAV_METHODS, fit_cavs
from captum_concepts.explanation import SCORE_COLUMNS
from captum_concepts.scoring import LayerData, NullPlan, enough_nulls, score_layer
from captum_concepts.significance import bootstrap_weights, pseudo_concepts

NULLS, BOOTSTRAP, SEED = 59, 100, 3


@pytest.fixture(scope="module")
def world():
    """Three concepts of 12, 12 and 9 groups of two rows, a pool of 30, and 8 clips of 5 groups to explain."""
    generator = torch.Generator().manual_seed(0)
    sizes = [12, 12, 9, 30]
    owner = np.repeat(np.repeat(np.arange(4), sizes), 2)
    groups = np.repeat([f"g{i}" for i in range(sum(sizes))], 2).astype(object)
    positives = owner[:, None] == np.arange(3)
    shift = torch.eye(3, 6) * torch.tensor([[3.0], [3.0], [0.0]])
    x = torch.randn(len(owner), 6, generator=generator) + torch.from_numpy(positives).float() @ shift
    negatives = np.repeat(owner[:, None] == 3, 3, 1)
    gradients = torch.randn(8, 2, 6, generator=generator) + torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, -1.0, 0, 0, 0, 0]])
    clip_groups = ["a", "a", "b", "c", "c", "d", "e", "e"]
    return LayerData(x, positives, negatives, groups), gradients, clip_groups


def scored(world, data=None, rest=False, count=NULLS, min_groups=5, method="pattern"):
    own, gradients, clip_groups = world
    data = data or own
    bank = fit_cavs(
        data.activations, data.positives, method, data.groups, negatives=data.negatives, names=["u", "v", "w"],
        layer="l", min_groups=min_groups,
    )  # fmt: skip
    plan = NullPlan(CAV_METHODS[method], {}, count, SEED, rest)
    return bank, score_layer(bank, data, gradients, clip_groups, ["t0", "t1"], plan, BOOTSTRAP)


def mean_difference(x, positive, negative):
    """Every group here has two rows, so rows may count alike."""
    return x[positive].mean(0) - x[negative].mean(0)


@pytest.mark.parametrize("rest", [False, True])
def test_every_column_equals_a_loop(world, rest):
    data, gradients, clip_groups = world
    if rest:
        data = LayerData(data.activations, data.positives, ~data.positives, data.groups)
    bank, (table, per_clip, _) = scored(world, data, rest)
    assert list(table.columns) == list(SCORE_COLUMNS)
    assert bank.quality["status"].tolist() == ["ok", "ok", "not testable"]
    x, g = data.activations.double().numpy(), gradients.double().numpy()
    weights = bootstrap_weights(clip_groups, BOOTSTRAP, SEED).double().numpy()
    for number, row in table.iterrows():
        t, k = divmod(number, 3)
        assert (row["layer"], row["target"], row["concept"]) == ("l", f"t{t}", "uvw"[k])
        assert row["n_groups"] == 5
        assert row["cav_auc"] == bank.quality["auc"][k]
        if k == 2:
            assert row["status"] == "not testable"
            assert row[["score", "magnitude", "low", "high", "p_value", "q_value"]].isna().all()
            continue
        difference = mean_difference(x, data.positives[:, k], data.negatives[:, k])
        values = g[:, t] @ difference / np.linalg.norm(difference)
        np.testing.assert_allclose(per_clip[:, t, k], values, rtol=1e-4, atol=1e-5)
        assert row["magnitude"] == pytest.approx(values.mean(), rel=1e-4)
        assert row["score"] == (values > 0).mean()
        shares = weights @ (values > 0) / weights.sum(1)
        low, high = np.percentile(shares, [2.5, 97.5])
        # Five groups that all agree: Wilson's interval of 5 of 5 (or 0 of 5).
        low = proportion_confint(5, 5, method="wilson")[0] if (values > 0).all() else low
        high = proportion_confint(0, 5, method="wilson")[1] if (values <= 0).all() else high
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-6)
        eligible = np.ones(len(x), bool) if rest else data.negatives[:, k]
        drawn = pseudo_concepts(data.groups, eligible, 12, NULLS, SEED)
        # Of a pattern CAV, magnitude x distance along it is the derivative along the whole difference of the means.
        null = [mean_difference(x, column, eligible & ~column) @ g[:, t].mean(0) for column in drawn.T]
        centre = np.mean(null)
        reached = np.abs(np.array(null) - centre) >= abs(difference @ g[:, t].mean(0) - centre)
        assert row["p_value"] == (1 + reached.sum()) / (1 + NULLS)
    # What was not testable stays in the family, as a hypothesis that was not rejected.
    q = multipletests(table["p_value"].fillna(1.0), method="fdr_bh")[1]
    tested = table["p_value"].notna()
    np.testing.assert_allclose(table["q_value"][tested], q[tested])
    assert table["q_value"][~tested].isna().all()


def test_planted_concepts_are_found(world):
    _, (table, _, _) = scored(world, count=None)
    strength = table.set_index(["target", "concept"])
    assert strength.loc[("t0", "u"), "magnitude"] > 0.5
    assert strength.loc[("t1", "v"), "magnitude"] < -0.5
    assert strength.loc[("t0", "u"), "q_value"] < 0.05
    assert strength.loc[("t1", "v"), "p_value"] < 0.05


def test_a_pool_that_is_too_small_gives_no_p_values_and_one_warning(world):
    data = world[0]
    pool = np.flatnonzero(data.negatives[:, 0])
    fewer = data.negatives.copy()
    fewer[pool[20:]] = False  # ten groups are left
    _, (table, _, warnings) = scored(world, LayerData(data.activations, data.positives, fewer, data.groups))
    assert table["p_value"].isna().all()
    assert table["q_value"].isna().all()
    assert table.loc[table["status"] == "ok", "score"].notna().all()
    assert len(warnings) == 1
    assert "no p-values for 2 concepts ('u', 'v')" in warnings[0]
    assert "give at least 14 groups" in warnings[0]


def test_too_few_nulls_for_the_family_is_said(world):
    warnings = scored(world, count=19)[1][2]
    assert len(warnings) == 1
    assert "smallest p-value of 19 random concepts is 0.05" in warnings[0]
    assert "n_nulls=119" in warnings[0]
    assert scored(world, count=119)[1][2] == []


@pytest.mark.parametrize(("family", "count"), [(1, 999), (50, 999), (100, 1999), (10_000, 4999)])
def test_enough_nulls(family, count):
    assert enough_nulls(family) == count


def test_nulls_in_blocks_are_the_same(world, monkeypatch):
    wanted = scored(world)[1][0]
    monkeypatch.setattr("captum_concepts.scoring.MASK_VALUES", 600)
    pd.testing.assert_frame_equal(scored(world)[1][0], wanted)


@pytest.mark.parametrize("method", ["lda", "logistic"])
def test_every_method_goes_the_same_way(world, method):
    table = scored(world, method=method)[1][0]
    assert table["p_value"].dropna().between(1 / 60, 1).all()
    assert (table["p_value"].notna() == (table["status"] == "ok")).all()


def test_hostile_names_stay_on_one_line(world):
    data, gradients, clip_groups = world
    names = ["a\nb", "</script>", "\ud800\r"]
    bank = fit_cavs(
        data.activations, data.positives, groups=data.groups, negatives=data.negatives, names=names, layer="x\ny"
    )
    plan = NullPlan(CAV_METHODS["pattern"], {}, 19, SEED, False)
    few = LayerData(
        data.activations, data.positives, data.negatives & (np.arange(len(data.groups)) < 80)[:, None], data.groups
    )
    for rows in (data, few):
        table, _, warnings = score_layer(bank, rows, gradients, clip_groups, ["t\n", ""], plan, BOOTSTRAP)
        assert warnings
        assert all("\n" not in line and "\r" not in line for line in warnings)
    assert table["concept"].tolist() == names * 2
    assert table["concept"].dtype == object
