"""The page as a person meets it: in Chromium, from disk, with every request that leaves the machine refused."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from captum_concepts.explanation.explanation import Explanation
from captum_concepts.report import render, write_report

from .conftest import EDGES, NAMES, explain, score_rows

Visit = Callable[..., Any]


def names_shown(tab: Any) -> list[str]:
    return tab.locator("#rows .row .name bdi").all_text_contents()


def row(tab: Any, name: str) -> Any:
    return tab.locator("#rows .row").filter(has=tab.locator(".name bdi", has_text=re.compile(f"^{name}$"))).first


def until(tab: Any, expression: str, seconds: float = 5.0) -> None:
    """Waits without ``wait_for_function``, whose use of eval the page's policy rightly refuses."""
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, expression
        tab.wait_for_timeout(20)


def large(count: int, children: int = 12) -> Explanation:
    """A tree of ``count`` concepts; every tenth is called techno."""
    names = [f"{'techno' if i % 10 == 0 else 'house'} {i}" for i in range(count)]
    edges = [(names[(i - 1) // children], names[i], 0.5, 0.5) for i in range(1, count)]
    return explain(names, edges, targets=("jazz", "rock", "metal"))


def test_the_first_view_says_what_a_target_rests_on(visit: Visit) -> None:
    tab = visit(render(explain()))
    assert tab.locator("#summary h2").inner_text() == "What jazz depends on"
    assert tab.locator("#model").inner_text() == "toy model"
    assert "8 concepts" in tab.locator(".lead").inner_text() and "1 not testable" in tab.locator(".lead").inner_text()
    liked = tab.locator(".for-side li .link").all_text_contents()
    assert liked[0] == "violin" and tab.locator(".against-side li .link").first.inner_text() == "music"
    assert "wind and reed share" in tab.locator(".warnings").inner_text()
    assert tab.locator("#details h2").inner_text() == "How to read this page"
    assert sorted(names_shown(tab)) == sorted(NAMES)


def test_search_shows_hits_with_their_ancestors_and_marks_them(visit: Visit) -> None:
    tab = visit(render(explain()))
    tab.keyboard.press("/")
    tab.keyboard.type("SAX")
    assert names_shown(tab) == ["music", "wind", "reed", "saxophone"]
    assert tab.locator("#rows mark").all_text_contents() == ["sax"]
    assert tab.locator("#found").inner_text() == "1 found"
    tab.keyboard.press("Enter")
    assert tab.locator("#details h2").inner_text() == "saxophone"
    tab.keyboard.press("Escape")
    assert len(names_shown(tab)) == len(NAMES) and tab.locator("#details h2").inner_text() == "saxophone"


def test_target_layer_and_measure_change_every_number(visit: Visit) -> None:
    explanation = explain()
    tab = visit(render(explanation))

    def expected(layer: str, target: str, column: str) -> float:
        scores = explanation.scores.set_index(["layer", "target", "concept"])
        return float(scores.loc[(layer, target, "violin"), column])

    def value() -> float:
        return float(row(tab, "violin").locator(".value").inner_text().replace("−", "-"))

    assert value() == pytest.approx(expected("high", "jazz", "score"), abs=0.005)
    before = row(tab, "violin").locator(".fill").get_attribute("class")
    switches = tab.locator("#switches")
    switches.get_by_label("rock", exact=True).check()
    assert tab.locator("#summary h2").inner_text() == "What rock depends on"
    assert value() == pytest.approx(expected("high", "rock", "score"), abs=0.005)
    assert before != row(tab, "violin").locator(".fill").get_attribute("class")
    switches.get_by_label("Magnitude", exact=True).check()
    assert value() == pytest.approx(expected("high", "rock", "magnitude"), rel=0.05)
    switches.get_by_label("low", exact=True).check()
    assert value() == pytest.approx(expected("low", "rock", "magnitude"), rel=0.05)


def test_scores_that_are_all_0_or_1_give_way_to_the_push(visit: Visit) -> None:
    scores = explain().scores
    scores["score"] = scores["score"].where(scores["score"].isna(), (scores["score"] > 0.5).astype(float))
    tab = visit(render(explain(scores=scores)))
    assert tab.locator("#switches").get_by_label("Magnitude", exact=True).is_checked()
    assert row(tab, "violin").locator(".value").inner_text() == "+0.78"


def test_an_order_by_score_is_a_flat_list_with_the_untestable_last(visit: Visit) -> None:
    tab = visit(render(explain()))
    tab.locator("#order").select_option("score")
    scored = [name for name in NAMES[::-1] if name != "wind"]
    assert tab.locator("#rows .row .name > bdi").all_text_contents() == [*scored, "wind"]


def test_branches_open_and_close_by_mouse_and_keys(visit: Visit) -> None:
    tab = visit(render(explain()))
    row(tab, "wind").locator(".twist").click()
    assert names_shown(tab) == ["music", "wind", "strings", "violin"]
    assert row(tab, "wind").get_attribute("aria-expanded") == "false"
    row(tab, "wind").locator(".twist").click()
    tab.locator("#tree").focus()
    tab.keyboard.press("Home")
    for key, name in (("ArrowDown", "wind"), ("ArrowRight", "reed"), ("ArrowDown", "saxophone"), ("ArrowLeft", "reed")):
        tab.keyboard.press(key)
        assert tab.locator("#details h2").inner_text() == name
        active = tab.locator(f"#{tab.locator('#tree').get_attribute('aria-activedescendant')}")
        assert active.locator(".name bdi").inner_text() == name and active.get_attribute("aria-selected") == "true"
    tab.keyboard.press("ArrowLeft")
    assert row(tab, "reed").get_attribute("aria-expanded") == "false"
    levels = {row(tab, n).get_attribute("aria-level") for n in ("wind", "strings")}
    assert levels == {"2"} and row(tab, "strings").get_attribute("role") == "treeitem"


def test_a_concept_that_is_not_testable_has_a_reason_and_no_number(visit: Visit) -> None:
    tab = visit(render(explain()))
    wind = row(tab, "wind")
    assert wind.locator(".reason").inner_text() == "not testable"
    assert wind.locator(".value").count() == wind.locator(".fill").count() == 0
    wind.locator(".name").click()
    assert "No score: not testable" in tab.locator(".verdict").inner_text()
    assert "TCAV score" not in tab.locator(".facts").inner_text()


def test_concepts_without_a_number_are_counted_by_their_reason(visit: Visit) -> None:
    explanation = explain()
    few = explanation.scores["concept"].isin(["strings", "brass"])
    explanation.scores.loc[few, "status"] = "too few groups"
    tab = visit(render(explanation))
    lead = tab.locator(".lead").inner_text()
    assert "1 not testable" in lead and "2 too few groups" not in lead and "2 with too few groups" in lead
    assert "Too few groups" in tab.locator("#details .guide").inner_text()
    assert "no number" in tab.locator("#legend").inner_text()
    row(tab, "strings").locator(".name").click()
    verdict = tab.locator(".verdict").inner_text()
    assert "No score: too few groups. The concept or its negatives have too few independent examples" in verdict
    assert "quality gate" not in verdict


def test_details_give_every_number_and_relative(visit: Visit) -> None:
    tab = visit(render(explain()))
    row(tab, "reed").locator(".name").click()
    terms, values = (tab.locator(f".facts {part}").all_inner_texts() for part in ("dt", "dd"))
    facts = dict(zip(terms, values, strict=True))
    record = explain().scores.query("layer == 'high' and target == 'jazz' and concept == 'reed'").iloc[0]
    assert float(facts["TCAV score"]) == pytest.approx(record["score"], abs=0.005)
    assert (
        facts["q"] == "0.6"
        and facts["p"] == "0.001"
        and facts["concept groups"] == facts["clip groups"] == "12"
        and "0.90" in facts["CAV AUC"]
    )
    assert tab.locator(".multiples button").count() == 4
    assert tab.locator(".relatives .link").all_text_contents() == ["saxophone", "clarinet", "wind"]
    assert tab.locator(".strength").all_text_contents() == ["0.5 · 0.6", "0.55 · 0.65", "0.7 · 0.8"]
    assert "not significantly" in tab.locator(".verdict").inner_text()
    tab.locator(".multiples button").first.click()
    assert tab.locator("input[name=choice-Layer]:checked").get_attribute("value") == "0"


def test_a_concept_under_several_parents_is_shown_under_each(visit: Visit) -> None:
    tab = visit(render(explain(edges=(*EDGES, ("strings", "reed", 0.2, 0.2)))))
    assert names_shown(tab).count("reed") == 2 and names_shown(tab).count("saxophone") == 1
    row(tab, "saxophone").locator(".name").click()
    assert tab.locator("#details .crumb").all_text_contents() == ["music", "wind", "reed"]
    row(tab, "reed").locator(".name").click()
    assert tab.locator(".also-under").inner_text() == "other parents: strings"
    assert tab.locator(".relatives .link").all_text_contents()[-2:] == ["wind", "strings"]
    assert tab.locator(".cell .cell-name", has_text="reed").count() == 2


def test_sound_is_made_on_click_and_plays(visit: Visit, sounding: Explanation) -> None:
    tab = visit(render(sounding))
    row(tab, "violin").locator(".name").click()
    assert tab.locator("audio").count() == 0
    assert "could not be read" in tab.locator(".player.silent").inner_text()
    tab.locator("#details .play").first.click()
    until(tab, "document.querySelector('audio').currentTime > 0.15")
    duration = tab.evaluate("document.querySelector('audio').duration")
    assert tab.locator("audio").count() == 1 and duration == pytest.approx(2.0, abs=0.1)


def test_presence_is_above_the_sensitivity(visit: Visit, sounding: Explanation) -> None:
    for line in sounding.timelines:
        line.presence = np.full(line.sensitivity.shape, 0.25)
        line.presence[3] = 0.75
        line.close = True
    tab = visit(render(sounding))
    row(tab, "saxophone").locator(".name").click()
    bars = tab.locator(".presence rect")
    assert bars.count() == len(sounding.timelines[0].starts)
    heights = [float(bars.nth(k).get_attribute("height")) for k in range(bars.count())]
    assert heights[3] == max(heights) == pytest.approx(3 * heights[0], rel=0.02)
    assert "at most 75 %" in tab.locator(".timeline").inner_text()


def test_the_timeline_follows_the_sound(visit: Visit, sounding: Explanation) -> None:
    tab = visit(render(sounding))
    row(tab, "violin").locator(".name").click()
    bars = tab.locator(".chart rect")
    assert [bars.nth(k).get_attribute("class") for k in range(7)] == ["against"] * 3 + ["for"] * 4
    tab.locator(".timeline .play").click()
    until(tab, "Number(document.querySelector('.chart .cursor').getAttribute('x1')) > 1")
    box = tab.locator(".chart").bounding_box()
    tab.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 10)
    until(tab, "document.querySelector('audio').currentTime > 9")
    until(tab, "document.querySelector('.now').textContent.includes('▲ violin')")
    x = float(tab.locator(".chart .cursor").get_attribute("x1"))
    assert x == pytest.approx(0.8 * 320, abs=20)


def test_sound_beside_the_page_plays_too(visit: Visit, sounding: Explanation, tmp_path: Any) -> None:
    tab = visit(write_report(sounding, tmp_path / "a #%?b.html", limit_mb=0.01))
    row(tab, "saxophone").locator(".name").click()
    tab.locator("#details .play").first.click()
    until(tab, "document.querySelector('audio').currentTime > 0.15")


def test_hostile_names_stay_text(visit: Visit) -> None:
    hostile = '</script><img src=x onerror="window.pwned=1"><b>bold</b>'
    names = (hostile, "line\nbreak", "x" * 10_000, "\u202eעברית gnp.exe", *NAMES[4:])
    edges = [(names[0], names[i], 0.5, 0.5) for i in range(1, len(names))]
    scores = score_rows((hostile,), (hostile,), names)
    scores.loc[scores["concept"] == "brass", "status"] = hostile
    texts = {"backbone": hostile, "warnings": [hostile], "provenance": {hostile: [hostile]}}
    tab = visit(render(explain(names, edges, (hostile,), (hostile,), scores=scores, **texts)))
    tab.locator("#about summary").click()
    for name in ("line break", "brass"):
        row(tab, name).locator(".name").click()
    tab.locator("#rows .row").filter(has_text="xxx").click()
    assert tab.evaluate("window.pwned") is None
    assert tab.locator("img, b:not(.details b)").count() == 0
    assert tab.locator("#rows .row").first.locator(".name").inner_text() == hostile
    assert len(tab.locator("#details h2").inner_text()) <= 120
    assert tab.locator(".whole-name pre").text_content() == "x" * 10_000
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("edges", [EDGES, ()])
def test_without_targets_the_hierarchy_remains(visit: Visit, edges: Any) -> None:
    tab = visit(render(explain(edges=edges, targets=(), scores=pd.DataFrame(), banks={})))
    assert tab.locator("#summary h2").inner_text() == "How the concepts relate"
    assert len(names_shown(tab)) == len(NAMES) and tab.locator(".bar").count() == 0
    row(tab, "violin").locator(".name").click()
    assert "without class scores" in tab.locator(".verdict").inner_text()


def test_an_empty_explanation_draws(visit: Visit) -> None:
    tab = visit(render(explain((), (), hierarchies={}, scores=pd.DataFrame(), warnings=[], provenance={})))
    assert "No concepts" in tab.locator("#rows").inner_text()
    assert "No concept could be tested" in tab.locator("#summary").inner_text()


def test_beyond_32_concepts_the_tree_starts_folded(visit: Visit) -> None:
    tab = visit(render(large(32)))
    assert tab.evaluate("document.querySelectorAll('#rows .row').length") == 32
    tab = visit(render(large(33, children=4)))
    assert 4 < len(names_shown(tab)) <= 32
    tab.locator("#unfold").click()
    assert tab.evaluate("parseInt(document.getElementById('rows').style.height)") == 33 * 28


def test_of_thousands_of_concepts_only_what_is_seen_is_drawn(visit: Visit) -> None:
    tab = visit(render(large(3456)))
    assert tab.locator("#rows .row").count() < 80 and tab.locator(".cell").count() < 500
    tab.locator("#query").fill("techno")
    assert tab.locator("#found").inner_text() == "346 found"
    assert tab.locator("#rows .row").count() < 80
    tab.locator("#tree").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    until(tab, "[...document.querySelectorAll('#rows .row')].at(-1)?.querySelector('mark') != null")


def test_the_map_keeps_names_apart_and_zooms(visit: Visit) -> None:
    tab = visit(render(large(800)))
    boxes = tab.locator(".cell").evaluate_all(
        "cells => cells.map(c => { const r = c.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; })"
    )
    assert all(bottom - top >= 18 for _, top, _, bottom in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 0.5 or b[3] <= a[1] + 0.5
    assert tab.locator(".trail-count").inner_text() == "root · 799 below"
    first = tab.locator(".cell").first
    name = first.locator(".cell-name bdi").inner_text()
    first.click()
    assert tab.locator("#details h2").inner_text() == name
    tab.locator(".cell.selected").click()
    assert tab.locator("#trail .crumb").last.inner_text() == name
    tab.locator(".up").click()
    assert tab.locator(".trail-count").inner_text() == "root · 799 below"


def test_a_wide_branch_shows_the_rest_on_request(visit: Visit) -> None:
    tab = visit(render(large(400, children=399)))
    hidden = int(tab.locator(".cell.more").inner_text().strip("+ more"))
    assert tab.locator(".cell:not(.more)").count() + hidden == 399
    tab.locator(".cell.more").click()
    assert tab.locator(".cell:not(.more)").count() > 399 - hidden


def test_deep_paths_stay_on_one_line(visit: Visit) -> None:
    names = [f"a rather long concept name {i}" for i in range(14)]
    tab = visit(render(explain(names, [(a, b, 0.5, 0.5) for a, b in itertools.pairwise(names)])))
    tab.keyboard.press("/")
    tab.keyboard.type("name 13")
    tab.keyboard.press("Enter")
    for crumbs in tab.locator(".crumbs").all():
        assert crumbs.bounding_box()["height"] < 32
    trail, cells = tab.locator("#trail").bounding_box(), tab.locator("#map-box").bounding_box()
    assert trail["y"] + trail["height"] <= cells["y"]
    assert row(tab, "name 13").count() == 0 and tab.locator("#rows .row.active .name").bounding_box()["width"] > 100
    tab.locator("#details .dots").click()
    assert tab.locator("#details .crumb").count() == 13


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (780, 600), (390, 780), (320, 600)])
def test_no_sideways_scrolling(visit: Visit, sounding: Explanation, width: int, height: int) -> None:
    tab = visit(render(sounding), width, height)
    panels = ("summary", "outline", "map", "details") if width < 1180 else (None,)
    if width < 1180:
        tab.locator("#panels button", has_text="Concepts").click()
    row(tab, "violin").locator(".name").click()
    for panel in panels:
        if panel:
            tab.locator(f"#panels [data-to={panel}]").click()
            assert tab.locator(f"[data-name={panel}]").first.bounding_box()["width"] > 0.9 * width - 20
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.evaluate("[...document.querySelectorAll('.panel')].every(p => p.scrollWidth <= p.clientWidth + 1)")


def test_it_works_in_a_sandboxed_frame(visit: Visit, sounding: Explanation, tmp_path: Any) -> None:
    write_report(sounding, tmp_path / "inner.html")
    text = (tmp_path / "inner.html").read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    tab = visit(f'<!doctype html><iframe sandbox="allow-scripts" width="780" height="600" srcdoc="{text}"></iframe>')
    frame = tab.frame_locator("iframe")
    frame.locator(".for-side .play").first.click()
    frame.locator("audio").wait_for(state="attached")
    frame.locator("#panels button", has_text="Hierarchy").click()
    assert frame.locator(".cell").count() > 3


LUMINANCE = """element => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  let behind = element;
  while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const a = light(parse(getComputedStyle(element).color)), b = light(parse(getComputedStyle(behind).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit: Visit, sounding: Explanation, scheme: str) -> None:
    tab = visit(render(sounding), scheme=scheme)
    row(tab, "violin").locator(".name").click()
    texts = (".soft:not(:empty)", ".link", ".name bdi", ".cell:not(.untested)", ".crumb", ".for-text", "h2, h3, dd")
    worst = {text: tab.locator(text).evaluate_all(f"list => Math.min(...list.map({LUMINANCE}))") for text in texts}
    assert {text: ratio for text, ratio in worst.items() if not ratio >= 4.5} == {}


def test_the_theme_follows_the_system(visit: Visit) -> None:
    page = render(explain())
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert min(visit(page, scheme="light").evaluate(background)[:3]) > 200
    assert max(visit(page, scheme="dark").evaluate(background)[:3]) < 60
