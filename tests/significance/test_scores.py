"""The table of scores against loops over plain numpy, and which concepts share which null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from captum_concepts.cavs.builtin import CAV_METHODS
from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.held_out import FOLD_INFLATION
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.quality import auc_with_interval
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.results.tables import SCORE_COLUMNS
from captum_concepts.significance.corrections import hierarchical
from captum_concepts.significance.intervals import mean_interval
from captum_concepts.significance.layer_nulls import (
    check_nulls,
    enough_nulls,
    layer_nulls,
    needed_nulls,
    null_families,
)
from captum_concepts.significance.null_concepts import NullPlan, null_sets
from captum_concepts.significance.null_draws import draw_null_concepts, pool_folds
from captum_concepts.significance.rank_tests import gated_rank_test
from captum_concepts.significance.scores import _effect_sizes, score_layer

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
    return LabelledRows(x, positives, negatives, groups), gradients, clip_groups


def scored(world, data=None, rest=False, count=NULLS, min_groups=5, method="pattern", **more):
    own, gradients, clip_groups = world
    data = data or own
    bank = fit_cavs(
        data.activations, data.positives, method, data.groups, negatives=data.negatives, names=["u", "v", "w"],
        layer="l", min_groups=min_groups,
    )  # fmt: skip
    plan = NullPlan(CavMethod(CAV_METHODS[method]), count, SEED, rest)
    return bank, score_layer(bank, data, gradients, clip_groups, ["t0", "t1"], plan, BOOTSTRAP, **more)


def mean_difference(x, positive, negative):
    """Every group here has two rows, so rows may count alike."""
    return x[positive].mean(0) - x[negative].mean(0)


@pytest.mark.parametrize("rest", [False, True])
def test_every_column_equals_a_loop(world, rest):
    data, gradients, clip_groups = world
    if rest:
        data = LabelledRows(data.activations, data.positives, ~data.positives, data.groups)
    bank, (table, per_clip, _) = scored(world, data, rest)
    assert list(table.columns) == list(SCORE_COLUMNS)
    assert bank.quality["status"].tolist() == ["ok", "ok", "not testable"]
    x, g = data.activations.double().numpy(), gradients.double().numpy()
    for number, row in table.iterrows():
        t, k = divmod(number, 3)
        assert (row["layer"], row["target"], row["concept"]) == ("l", f"t{t}", "uvw"[k])
        assert row["n_groups"] == 5
        assert row["cav_auc"] == bank.quality["auc"][k]
        if k == 2:
            assert row["status"] == "not testable"
            assert row[list(SCORE_COLUMNS[3:15])].isna().all()
            assert row["n_nulls"] == NULLS
            assert row["cav_p"] > 0.05
            continue
        difference = mean_difference(x, data.positives[:, k], data.negatives[:, k])
        values = g[:, t] @ difference / np.linalg.norm(difference)
        np.testing.assert_allclose(per_clip[:, t, k], values, rtol=1e-4, atol=1e-5)
        assert row["magnitude"] == pytest.approx(values.mean(), rel=1e-4)
        assert row["score"] == (values > 0).mean()
        # Groups of 2, 1, 2, 1 and 2 clips that all agree: Wilson's interval of n of n (or 0 of n), n Kish's number.
        if (values > 0).all() or (values <= 0).all():
            low, high = proportion_confint(64 / 14 * (values > 0).all(), 64 / 14, method="wilson")
            assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert row["low"] <= row["score"] <= row["high"]
        temperature = np.sqrt((g[:, t] ** 2).mean())
        smooth = torch.from_numpy(1 / (1 + np.exp(-values / temperature)))
        assert row["smooth"] == pytest.approx(smooth.mean().item(), rel=1e-5)
        bounds = torch.cat(mean_interval(smooth[:, None], clip_groups, BOOTSTRAP, SEED)).clamp(0, 1).tolist()
        assert [row["smooth_low"], row["smooth_high"]] == pytest.approx(bounds, rel=1e-4)
        low, high = mean_interval(torch.from_numpy(values)[:, None], clip_groups, BOOTSTRAP, SEED)
        assert (row["magnitude_low"], row["magnitude_high"]) == pytest.approx((low.item(), high.item()), rel=1e-4)
        eligible = np.ones(len(x), bool) if rest else data.negatives[:, k]
        drawn = draw_null_concepts(data.groups, eligible, 12, NULLS, SEED)
        # Of a pattern CAV, magnitude x distance along it is the derivative along the whole difference of the means.
        null = [mean_difference(x, column, eligible & ~column) @ g[:, t].mean(0) for column in drawn.T]
        centre = np.mean(null)
        reached = np.abs(np.array(null) - centre) >= abs(difference @ g[:, t].mean(0) - centre)
        assert row["p_unconditional"] == (1 + reached.sum()) / (1 + NULLS)
        low = held_out(data, eligible, drawn)[1]
        observed = torch.tensor([difference @ g[:, t].mean(0)])
        p = gated_rank_test(observed, torch.tensor(null), torch.tensor(low) - 0.5)
        assert row["p_value"] == pytest.approx(p.item())
        auc = held_out(data, eligible, drawn)[0]
        assert row["cav_p"] == pytest.approx((1 + (auc >= row["cav_auc"] - 1e-9).sum()) / (1 + NULLS))
    # What was not testable stays in the family, as a hypothesis that was not rejected.
    for target in ("t0", "t1"):
        rows = table[table["target"] == target]
        q = multipletests(rows["p_unconditional"].fillna(1.0), method="fdr_bh")[1]
        tested = rows["p_value"].notna()
        np.testing.assert_allclose(rows["q_value"][tested], q[tested])
        assert rows["q_value"][~tested].isna().all()


def test_values_lie_within_their_intervals_to_the_last_bit():
    """Of a linear head all clips push alike and the interval is the value: one in float32, the other in float64."""
    drawn = np.random.default_rng(0)
    push = torch.from_numpy(drawn.normal(size=(1, 3, 40)).astype(np.float32)).expand(9, 3, 40)
    gradients = torch.from_numpy(drawn.normal(size=(1, 3, 8)).astype(np.float32)).expand(9, 3, 8)
    found = _effect_sizes(push, gradients, [*"aaabbcdde"], 100, 0)
    for value, low, high in (
        ("score", "low", "high"),
        *((x, f"{x}_low", f"{x}_high") for x in ("smooth", "magnitude")),
    ):
        assert (found[low] <= found[value]).all()
        assert (found[value] <= found[high]).all()
    one_group = _effect_sizes(push, gradients, ["a"] * 9, 100, 0)
    assert np.isnan(one_group["magnitude_low"]).all()
    assert np.isnan(one_group["high"]).all()


def held_out(data, eligible, drawn):
    """(R,) AUC and lower end of its interval of drawn sets, each fitted as a concept, in the pool's folds."""
    groups = data.groups[eligible]
    names = sorted(set(groups))
    fold = pool_folds(names, SEED)
    x = data.activations.double().numpy()[eligible]
    means = np.array([x[groups == name].mean(0) for name in names])
    auc, low = [], []
    for column in drawn[eligible].T:
        shows = np.array([column[groups == name].any() for name in names])
        logits = np.zeros(len(names))
        for number in range(5):
            inside = fold != number
            one, other = means[inside & shows], means[inside & ~shows]
            z = means @ (one.mean(0) - other.mean(0))
            spread = (z[inside & shows].var() + z[inside & ~shows].var()) / 2
            middle = (z[inside & shows].mean() + z[inside & ~shows].mean()) / 2
            odds = (z[inside & shows].mean() - z[inside & ~shows].mean()) / spread * (z - middle)
            logits[~inside] = odds[~inside]
        scores, positive = torch.tensor(logits)[:, None], torch.tensor(shows)[:, None]
        found = auc_with_interval(scores, positive, ~positive, FOLD_INFLATION)
        auc.append(roc_auc_score(shows, logits))
        low.append(found[1].item())
    return np.array(auc), np.array(low)


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
    _, (table, _, warnings) = scored(world, LabelledRows(data.activations, data.positives, fewer, data.groups))
    assert table["p_value"].isna().all()
    assert table["q_value"].isna().all()
    assert table.loc[table["status"] == "ok", "score"].notna().all()
    assert len(warnings) == 1
    assert "no p-values for 3 concepts ('u', 'v', 'w')" in warnings[0]
    assert "give at least 14 groups" in warnings[0]


def test_fewer_negatives_than_the_concept_has_give_p_values_where_its_own_groups_are_drawn_too(world):
    """In-domain negatives are matched to the concept, and seldom as many: labels are permuted among both."""
    data, gradients, clip_groups = world
    few = np.zeros_like(data.negatives)
    for k in range(3):
        own = set(data.groups[data.positives[:, k]])
        kept = sorted(set(data.groups[data.negatives[:, k]]))[: len(own) - 2]
        few[:, k] = np.isin(data.groups.astype(str), kept)
    data = LabelledRows(data.activations, data.positives, few, data.groups)
    bank = fit_cavs(data.activations, data.positives, "pattern", data.groups, negatives=few, names=["u", "v", "w"])
    found = {}
    for own in (False, True):
        plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), NULLS, SEED, False, own)
        table, _, lines = score_layer(bank, data, gradients, clip_groups, ["t0", "t1"], plan, BOOTSTRAP)
        found[own] = table[table["status"] == "ok"]["p_unconditional"]
        assert any("no p-values for 3 concepts" in line for line in lines) == (not own)
    assert found[False].isna().all() and found[True].notna().all() and len(found[True])
    for (size, _, rows), columns in null_families(data, range(3), False, True).items():
        for k in columns:
            assert size == len(set(data.groups[data.positives[:, k]]))
            assert (np.frombuffer(rows, dtype=bool) == (few[:, k] | data.positives[:, k])).all()


def test_too_few_nulls_for_the_family_are_refused_with_the_number_needed(world):
    with pytest.raises(
        InputError, match=r"n_nulls=58: the smallest p-value .* 3 concepts .* give at least 59, or None"
    ):
        scored(world, count=58)
    with pytest.raises(InputError, match=r"correction='by'\); give at least 109"):
        scored(world, correction="by")
    assert scored(world, count=109, correction="by")[1][2] == []


@pytest.mark.parametrize(
    ("family", "correction", "needed"),
    [(219, "bh", 4379), (219, "holm", 4379), (3, "by", 109), (1, "bonferroni", 19), (10, "hierarchical", 575)],
)
def test_the_number_needed_is_the_smallest_that_lets_one_hypothesis_be_rejected(family, correction, needed):
    assert needed_nulls(family, correction) == needed
    p_values = {"one": 1 / (needed + 1), **{str(i): 1.0 for i in range(family - 1)}}

    def rejected() -> bool:
        if correction == "hierarchical":
            return hierarchical(p_values, ConceptHierarchy.from_parents(dict.fromkeys(p_values)))["one"] <= 0.05 + 1e-12
        name = {"bh": "fdr_bh", "by": "fdr_by"}.get(correction, correction)
        return multipletests(list(p_values.values()), method=name)[1][0] <= 0.05 + 1e-12

    assert rejected()
    p_values["one"] = 1 / needed
    assert not rejected()
    check_nulls(None, family)


@pytest.mark.parametrize(("family", "count"), [(1, 1999), (50, 1999), (219, 4379), (10_000, 9999)])
def test_enough_nulls(family, count):
    assert enough_nulls(family) == count


def test_the_hierarchical_correction_walks_the_tree_it_is_given(world):
    tree = ConceptHierarchy.from_edges(["u", "v", "w"], [("w", "u"), ("u", "v")])
    table = scored(world, count=None, correction="hierarchical", hierarchy=tree)[1][0]
    for _, rows in table.groupby("target"):
        # "w" is not testable and stands above the others, so nothing is reached.
        assert (rows["q_value"][rows["status"] == "ok"] == 1.0).all()
    flat = ConceptHierarchy.from_edges(["u", "v"], [("u", "v")])
    table = scored(world, count=None, correction="hierarchical", hierarchy=flat)[1][0]
    rows = table[table["target"] == "t0"].set_index("concept")
    plain = rows["p_unconditional"]
    wanted = hierarchical({"u": plain["u"], "v": plain["v"], "w": 1.0}, flat)
    assert rows["q_value"]["u"] == wanted["u"] < 0.05
    with pytest.raises(InputError, match="walks a hierarchy, but none was mined"):
        scored(world, correction="hierarchical")


@pytest.mark.parametrize("method", ["pattern", "lda"])
def test_copies_of_a_row_within_its_group_change_no_null(world, method):
    """Pseudo-concepts of pattern CAVs are fitted to the means of groups, which must give what all rows give."""
    data, gradients, _ = world
    uneven = np.concatenate([np.arange(len(data.groups)), np.repeat([3, 80, 81], 7)])
    more = LabelledRows(data.activations[uneven], data.positives[uneven], data.negatives[uneven], data.groups[uneven])
    eligible = more.negatives[:, 0]
    plan = NullPlan(CavMethod(CAV_METHODS[method], {"shrinkage": 0.3} if method == "lda" else {}), 50, SEED, False)
    one = null_sets(more, eligible, 12, gradients.mean(0), plan)
    same_fit = lambda *args, **options: CAV_METHODS[method](*args, **options)  # noqa: E731 - not known as "pattern"
    same_plan = NullPlan(CavMethod(same_fit, plan.method.options), 50, SEED, False)
    other = null_sets(more, eligible, 12, gradients.mean(0), same_plan)
    for part in ("effects", "auc", "low"):
        torch.testing.assert_close(getattr(one, part), getattr(other, part), rtol=1e-4, atol=1e-5)


def test_without_targets_the_quality_still_has_p_values(world):
    data = world[0]
    bank = fit_cavs(data.activations, data.positives, groups=data.groups, negatives=data.negatives, layer="l")
    plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), 199, SEED, False)
    p_values = layer_nulls(bank, data, torch.zeros(0, 6), plan).quality_p_values(bank)
    assert (p_values[:2] == 1 / 200).all()
    assert p_values[2] > 0.05


def test_nulls_in_blocks_are_the_same(world, monkeypatch):
    wanted = scored(world)[1][0]
    monkeypatch.setattr("captum_concepts.significance.null_concepts.MASK_VALUES", 600)
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
    plan = NullPlan(CavMethod(CAV_METHODS["pattern"]), 99, SEED, False)
    few = LabelledRows(
        data.activations, data.positives, data.negatives & (np.arange(len(data.groups)) < 80)[:, None], data.groups
    )
    table, _, warnings = score_layer(bank, few, gradients, clip_groups, ["t\n", ""], plan, BOOTSTRAP)
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    assert "\r" not in warnings[0]
    assert table["concept"].tolist() == names * 2
    assert table["concept"].dtype == object
