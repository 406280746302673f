"""Each warning comes on the fault it is for, names it, and stays away without the fault."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.cavs.lda import fit_lda
from captum_concepts.cavs.methods import CavMethod
from captum_concepts.cavs.pattern import fit_pattern
from captum_concepts.cavs.rows import LabelledRows
from captum_concepts.concepts.overlap import Overlap, shared
from captum_concepts.diagnostics.layer_diagnostics import LayerChecks
from captum_concepts.diagnostics.random_sets import GroupSampler
from captum_concepts.results.diagnostics import COLUMNS, Diagnostics, typed

K, PER, POOL, D = 6, 14, 60, 24


def world(seed=0, pool=True, shift=3.0, together=0.0, domain=0.0):
    """Two patches a group; concept k moves along axis k, 0 and 1 also along axis K, all along axis K + 1."""
    rng = np.random.default_rng(seed)
    owner = np.repeat([*range(K), -1], [PER] * K + [POOL if pool else 0])
    labels = owner[:, None] == np.arange(K)
    x = rng.normal(size=(len(owner), D))
    x[:, :K] += shift * labels
    x[:, K] += together * np.isin(owner, (0, 1))
    x[:, K + 1] += domain * (owner >= 0)
    x = np.repeat(x, 2, axis=0) + 0.3 * rng.normal(size=(2 * len(owner), D))
    positives = np.repeat(labels, 2, axis=0)
    negatives = np.repeat((owner == -1)[:, None], K, axis=1).repeat(2, axis=0) if pool else ~positives
    groups = np.repeat(np.array([f"g{i}" for i in range(len(owner))], dtype=object), 2)
    return torch.tensor(x, dtype=torch.float32), positives, negatives, groups


def checked(x, positives, negatives, groups, fit=fit_pattern, shape=None):
    names = [f"c{k}" for k in range(positives.shape[1])]
    bank = fit_cavs(x, positives, fit, groups, negatives=negatives, names=names, layer="l\n", min_groups=4)
    overlap = Overlap(bank.names, shared(positives), shared(GroupSampler(groups).marked(positives)))
    return LayerChecks(LabelledRows(x, positives, negatives, groups), CavMethod(fit), overlap, 0).check(bank, shape)


@pytest.mark.parametrize(("fit", "pool"), [(fit_pattern, True), (fit_pattern, False), (fit_lda, True)])
def test_clean_concepts_give_tables_and_no_warning(pool, fit):
    tables, lines = checked(*world(pool=pool), fit=fit)
    assert lines == []
    assert len(tables["stability"]) == K and (tables["stability"]["cosine"] > tables["stability"]["chance"]).all()
    assert len(tables["pairs"]) == 0
    assert ("domain" in tables) == pool


def test_two_concepts_with_a_shared_cause_are_named():
    tables, lines = checked(*world(together=7.0))
    (line,) = lines
    assert line.startswith("'l\\n': the CAVs of 1 pair of concepts are correlated") and "'c0' and 'c1'" in line
    row = tables["pairs"].iloc[0]
    assert row["cosine"] > row["chance"] and min(row["auc_first"], row["auc_second"]) > 0.95
    assert row["shared_groups"] == 0


def test_balanced_negatives_part_the_two_again():
    x, positives, negatives, groups = world(together=7.0, pool=False)
    # 0 and 1 against each other's clips only: the shared cause is on both sides.
    negatives[:, 0], negatives[:, 1] = positives[:, 1], positives[:, 0]
    _, lines = checked(x, positives, negatives, groups)
    assert lines == []


def test_a_pool_from_elsewhere_is_said_with_a_remedy():
    tables, lines = checked(*world(domain=9.0))
    line = next(line for line in lines if "any set" in line)
    assert "--negatives in-domain" in line
    row = tables["domain"].iloc[0]
    assert row["random_sets"] == 1.0 and row["common"] > 0.5 and row["low"] > 0.9
    found = Diagnostics()
    found.append("domain", tables["domain"])
    assert found.summary() == ["'l\\n': any set of the concepts' clips differs from the random pool"]


def test_a_concept_that_passes_the_gate_by_luck_is_called_unstable():
    x, positives, negatives, groups = world()
    noise = torch.tensor(np.random.default_rng(5).normal(size=x.shape), dtype=torch.float32)
    names = ["real", "random"]
    mixed = torch.where(torch.from_numpy(positives[:, 1])[:, None], noise, x)
    keep = [0, 1]
    bank = fit_cavs(mixed, positives[:, keep], "pattern", groups, negatives=negatives[:, keep], names=names, layer="l")
    bank.quality["status"] = "ok"
    overlap = Overlap(bank.names, np.eye(2), np.eye(2))
    rows = LabelledRows(mixed, positives[:, keep], negatives[:, keep], groups)
    diagnostics = Diagnostics()
    tables, lines = LayerChecks(rows, CavMethod(fit_pattern), overlap, 0).check(bank)
    for name, table in tables.items():
        diagnostics.append(name, table)
    assert any("the CAVs of 1 concept are no more reproducible" in line and "'random'" in line for line in lines)
    assert not any("'real'" in line for line in lines)
    assert any("1 unstable CAV" in line for line in diagnostics.summary())


@pytest.mark.parametrize("planted", [True, False])
def test_a_concept_that_always_comes_first_in_a_patch_depends_on_time(planted):
    rng = np.random.default_rng(0)
    times, channels = 8, 4
    _, positives, negatives, groups = world()
    x = rng.normal(size=(len(groups), times, channels))
    for k in range(K):
        where = slice(0, times // 2) if planted and k == 2 else slice(None)
        direction = rng.normal(size=channels)
        x[positives[:, k], where] += 2.0 * direction / np.linalg.norm(direction)
    flat = torch.tensor(x.reshape(len(x), -1), dtype=torch.float32)
    tables, lines = checked(flat, positives, negatives, groups, shape={"T": times, "C": channels})
    timed = [line for line in lines if "position in time" in line]
    assert len(timed) == planted
    if planted:
        assert "1 CAV depends on" in timed[0] and "'c2'" in timed[0]
    assert set(tables["positions"]["axis"]) == {"time"}


def test_the_order_of_rows_changes_nothing_and_the_same_seed_gives_the_same_numbers():
    data = world(together=7.0, domain=4.0)
    mixed = np.random.default_rng(1).permutation(len(data[3]))
    one, other = checked(*data), checked(*(part[mixed] for part in data))
    again = checked(*data)
    for name, table in one[0].items():
        assert table.equals(again[0][name])
        for column in table:
            if COLUMNS[name][column] is float:
                np.testing.assert_allclose(other[0][name][column], table[column], atol=2e-5)
            else:
                assert (other[0][name][column] == table[column]).all()


def test_concepts_that_share_their_clips_are_listed_whatever_their_cosine():
    x, positives, negatives, groups = world()
    twice = np.concatenate([positives, positives[:, :1]], axis=1)
    against = np.concatenate([negatives, negatives[:, :1]], axis=1)
    tables, lines = checked(x, twice, against, groups)
    pair = tables["pairs"].set_index(["first", "second"]).loc[("c0", "c6")]
    assert pair["overlap"] == 1.0 and pair["shared_groups"] == PER and pair["cosine"] == pytest.approx(1.0)
    assert np.isnan(pair["auc_first"]), "no clip of the other that does not show the first"
    assert any("'c0' and 'c6'" in line for line in lines)


def test_tables_refuse_what_is_not_theirs():
    with pytest.raises(ValueError, match="stability layer: not text"):
        typed("stability", {"layer": [1], "concept": ["a"], "cosine": [0.0], "chance": [0.0]})
    with pytest.raises(KeyError):
        typed("stability", {"layer": ["l"]})
    assert Diagnostics() == Diagnostics() and Diagnostics().summary() == []
    full = Diagnostics()
    full.append(
        "shared", typed("shared", {"group": ["g"], "explained_clips": [1], "concept_clips": [2], "concepts": [""]})
    )
    assert full != Diagnostics() and json.dumps(full.shared.to_dict("list"))
