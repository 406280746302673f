"""The diagnostics on the page: what was found is listed, its concepts can be chosen; nothing found is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from captum_concepts.explanation.explanation import Explanation
from captum_concepts.report import render
from captum_concepts.report.data import page_data
from captum_concepts.results.diagnostics import Diagnostics, typed

from .conftest import NAMES, explain

Visit = Callable[..., Any]


@pytest.fixture
def diagnosed() -> Explanation:
    """At layer "high" one pair, one unstable concept and another domain; nothing at "low"."""
    found = Diagnostics()
    for layer in ("low", "high"):
        cosines = [0.9] * len(NAMES)
        cosines[NAMES.index("brass")] = 0.9 if layer == "low" else 0.1
        rows = {"layer": [layer] * len(NAMES), "concept": list(NAMES), "cosine": cosines, "chance": [0.25] * len(NAMES)}
        found.append("stability", typed("stability", rows))
    pair = {"layer": ["high"], "first": ["saxophone"], "second": ["clarinet"], "cosine": [0.812], "chance": [0.4]}
    pair |= {"auc_first": [0.93], "auc_second": [np.nan], "shared_clips": [2], "shared_groups": [3], "overlap": [0.25]}
    found.append("pairs", typed("pairs", pair))
    domain = {"layer": ["high"], "auc": [0.99], "low": [0.97], "high": [1.0], "random_sets": [1.0], "common": [0.8]}
    found.append("domain", typed("domain", domain))
    shared = {"group": ["<b>song"], "explained_clips": [1], "concept_clips": [4], "concepts": ["wind"]}
    found.append("shared", typed("shared", shared))
    return explain(diagnostics=found)


def test_only_what_was_found_is_on_the_page_by_index(diagnosed: Explanation) -> None:
    content = page_data(diagnosed).content["checks"]
    low, high = content["layers"]
    assert low["pairs"] == [] and low["n_unstable"] == 0 and low["checked"] == len(NAMES) and low["domain"] is None
    sax, clarinet, brass = (NAMES.index(name) for name in ("saxophone", "clarinet", "brass"))
    assert high["pairs"] == [[sax, clarinet, 0.812, 0.4, 0.93, None, 3, 0.25]]
    assert high["unstable"] == [[brass, 0.1, 0.25]]
    assert high["domain"]["confounded"] is True


def test_thousands_of_pairs_are_counted_and_cut(diagnosed: Explanation) -> None:
    pairs = diagnosed.diagnostics.pairs
    diagnosed.diagnostics.pairs = pd.concat([pairs] * 400, ignore_index=True)
    found = page_data(diagnosed).content["checks"]["layers"][1]
    assert len(found["pairs"]) == 50 and found["n_pairs"] == 400


def test_lists_follow_the_layer_and_select_concepts(visit: Visit, diagnosed: Explanation) -> None:
    tab = visit(render(diagnosed))
    checks = tab.locator(".checks")
    head = checks.locator("> summary").inner_text()
    assert head == "Checks: domain shift · correlated cavs · not reproducible · leakage"
    checks.locator("> summary").click()
    text = checks.inner_text()
    assert (
        "held-out AUC 0.99" in text
        and "80 % of the difference between a concept and the pool" in text
        and "<b>song" in text
    )
    cells = checks.locator("tr", has_text="saxophone").locator("td").all_inner_texts()
    assert cells == ["saxophone", "clarinet", "0.81", "≤ 0.40", "0.93, –", "3 (25 %)"]
    checks.get_by_role("button", name="clarinet").click()
    assert tab.locator("#details h2").inner_text() == "clarinet"
    tab.locator("#switches").get_by_label("low", exact=True).check()
    assert "correlated cavs" not in tab.locator(".checks > summary").inner_text()


def test_checks_without_findings_and_without_diagnostics(visit: Visit) -> None:
    found = Diagnostics()
    row = {"layer": ["high"], "concept": ["wind"], "cosine": [0.9], "chance": [0.2]}
    found.append("stability", typed("stability", row))
    tab = visit(render(explain(diagnostics=found)))
    assert tab.locator(".checks > summary").inner_text() == "Checks: no findings for 1 concept"
    assert visit(render(explain())).locator(".checks").count() == 0
