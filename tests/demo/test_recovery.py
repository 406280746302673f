"""The measures of recovery against hand-made cases and scikit-learn."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from captum_concepts.demo.recovery import ancestor_recovery, causal_auc
from captum_concepts.errors import InputError

PARENTS = {"violin": "strings", "cello": "strings", "flute": "winds", "oboe": "winds"}


def scores(magnitudes: dict[str, float], target: str = "waltz", layer: str = "pool4") -> pd.DataFrame:
    rows = [(layer, target, concept, value) for concept, value in magnitudes.items()]
    return pd.DataFrame(rows, columns=["layer", "target", "concept", "magnitude"])


def auc(magnitudes: dict[str, float], causes, parents=None) -> float:
    return causal_auc(scores(magnitudes), {"waltz": causes}, parents).layers["pool4"]


# causal_auc


def test_it_is_the_area_under_the_roc_curve_for_positive_causes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(-3, 4, 12).astype(float)  # few values, so that there are ties
        names = [f"c{i}" for i in range(12)]
        expected = roc_auc_score([1] * 3 + [0] * 9, values)
        assert auc(dict(zip(names, values, strict=True)), names[:3]) == pytest.approx(expected)


def test_a_negative_cause_should_rank_below():
    assert auc({"drums": -2.0, "a": 0.0, "b": 1.0}, {"drums": -1}) == 1.0
    assert auc({"drums": 2.0, "a": 0.0, "b": 1.0}, {"drums": -1}) == 0.0
    assert auc({"slow": 3.0, "drums": 0.5, "a": 0.0, "b": 1.0}, {"slow": 1, "drums": -1}) == 0.75


def test_relatives_of_a_cause_count_neither_way_but_siblings_do():
    magnitudes = {"violin": 1.0, "strings": 5.0, "cello": 0.0, "flute": 2.0, "winds": -1.0, "oboe": -1.0}
    assert auc(magnitudes, ["violin"], PARENTS) == 0.75
    assert auc(magnitudes, ["strings"], PARENTS) == 1.0
    assert auc(magnitudes, ["violin"]) == pytest.approx(3 / 5)


def test_a_cause_without_a_number_loses_and_another_concept_without_one_makes_no_claim():
    assert auc({"slow": np.nan, "a": -1.0, "b": np.nan}, ["slow"]) == 0.0
    assert auc({"slow": -1.0, "a": np.nan, "b": -2.0}, ["slow"]) == 1.0


def test_layers_and_targets_are_kept_apart_and_row_order_does_not_matter():
    good, bad = {"slow": 1.0, "a": 0.0}, {"slow": 0.0, "a": 1.0}
    table = pd.concat(
        [
            scores(good),
            scores(bad, target="march"),
            scores(bad, layer="pool3"),
            scores(bad, "march", "pool3"),
            scores(good, target="without causes"),
        ]
    )
    causes = {"waltz": ["slow"], "march": ["slow"]}
    found = causal_auc(table, causes)
    assert found.layers == {"pool4": 0.5, "pool3": 0.0}
    assert found.targets.set_index(["layer", "target"])["auc"].to_dict() == {
        ("pool4", "waltz"): 1.0,
        ("pool4", "march"): 0.0,
        ("pool3", "waltz"): 0.0,
        ("pool3", "march"): 0.0,
    }
    assert causal_auc(table.iloc[::-1], causes).layers == found.layers


@pytest.mark.parametrize(
    ("table", "causes", "message"),
    [
        (scores({"slow": 1.0}).drop(columns="magnitude"), {"waltz": ["slow"]}, "no column magnitude"),
        (scores({"slow": 1.0, "a": 0.0}), {}, "names no target"),
        (scores({"slow": 1.0, "a": 0.0}), {"waltz": ["fast"]}, "no row for the causes ['fast']"),
        (scores({"slow": 1.0, "a": 0.0}), {"march": ["slow"]}, "target 'march'"),
        (scores({"slow": 1.0}), {"waltz": ["slow"]}, "no concepts but its causes"),
        (pd.concat([scores({"slow": 1.0, "a": 0.0})] * 2), {"waltz": ["slow"]}, "twice"),
    ],
)
def test_bad_scores_are_named_in_one_line(table: pd.DataFrame, causes: dict, message: str):
    with pytest.raises(InputError) as caught:
        causal_auc(table, causes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ancestor_recovery


def test_the_planted_tree_itself_is_perfect_even_inside_a_larger_hierarchy():
    tree = nx.DiGraph([(parent, child) for child, parent in PARENTS.items()])
    assert ancestor_recovery(tree, PARENTS) == (1.0, 1.0, 1.0)
    tree.add_edges_from([("music", "strings"), ("music", "winds"), ("violin", "fast")])
    assert ancestor_recovery(tree, PARENTS) == (1.0, 1.0, 1.0)


def test_a_path_through_another_concept_is_ancestry():
    mined = nx.DiGraph(
        [("strings", "slow"), ("slow", "violin"), ("slow", "cello"), ("winds", "flute"), ("winds", "oboe")]
    )
    assert ancestor_recovery(mined, PARENTS) == (1.0, 1.0, 1.0)


def test_pairs_are_counted_by_hand():
    mined = nx.DiGraph([("strings", "violin"), ("violin", "cello"), ("strings", "flute")])
    mined.add_nodes_from(["winds", "oboe"])
    # mined: strings > violin, strings > cello, violin > cello, strings > flute; two of four are true, of four planted
    assert ancestor_recovery(mined, PARENTS) == (0.5, 0.5, 0.5)


def test_nothing_mined_and_everything_upside_down_score_nothing():
    empty = nx.DiGraph()
    empty.add_nodes_from([*PARENTS, *PARENTS.values()])
    assert ancestor_recovery(empty, PARENTS) == (0.0, 0.0, 0.0)
    assert ancestor_recovery(nx.DiGraph(list(PARENTS.items())), PARENTS) == (0.0, 0.0, 0.0)


def test_bad_hierarchies_are_named_in_one_line():
    cycle = nx.DiGraph([("strings", "violin"), ("violin", "strings"), ("winds", "cello"), ("flute", "oboe")])
    for mined, message in ((nx.DiGraph(), "not in the mined hierarchy"), (cycle, "cycle")):
        with pytest.raises(InputError, match=message) as caught:
            ancestor_recovery(mined, PARENTS)
        assert "\n" not in str(caught.value)
