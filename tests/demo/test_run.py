"""The demo from end to end: what ``make demo`` prints must be what a reader can check against the planted truth."""

from __future__ import annotations

import json

import pytest

from captum_concepts.demo.recovery import causal_auc
from captum_concepts.demo.run import _planted, run_demo
from captum_concepts.explanation.explanation import Explanation


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return run_demo(folder, seed=0), folder


def test_causes_are_ranked_above_the_others(demo):
    result, folder = demo
    truth = json.loads((folder / "music" / "truth.json").read_text(encoding="utf-8"))
    recovery = causal_auc(result.explanation.scores, truth["causes"], truth["parents"])
    assert result.figures[result.layer]["causal_auc"] == recovery.layers[result.layer] >= 0.9
    assert f"AUC {recovery.layers[result.layer]:.3f}" in "\n".join(result.lines)


def test_most_planted_causes_that_can_be_tested_are_significant(demo):
    result, folder = demo
    causes = json.loads((folder / "music" / "truth.json").read_text(encoding="utf-8"))["causes"]
    scores = result.explanation.scores
    rows = scores[(scores["layer"] == result.layer) & (scores["status"] == "ok")].set_index(["target", "concept"])
    q = [rows.loc[(target, cause), "q_value"] for target, own in causes.items() for cause in own]
    assert sum(value < 0.05 for value in q) >= 0.8 * len(q)


def test_the_families_are_mostly_found(demo):
    assert demo[0].figures[demo[0].layer]["ancestor_f1"] >= 0.5


def test_results_are_on_disk_and_load_again(demo):
    result, folder = demo
    assert Explanation.load(folder).scores.equals(result.explanation.scores)
    assert result.report.stat().st_size > 100_000


def test_what_the_table_says_of_a_concept():
    causes, parents = {"plucked": 1, "fast": 1}, {"harp": "plucked", "violin": "sustained"}
    assert _planted("plucked", causes, parents) == "cause"
    assert _planted("harp", causes, parents) == "relative of a cause"
    assert _planted("violin", causes, parents) == ""
    assert _planted("sustained", {"violin": 1}, parents) == "relative of a cause"
