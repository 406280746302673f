"""Small explanations with known numbers, and a browser without any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from helpers import audio

from captum_concepts.audio.clips import Clip
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.results.timeline import Timeline

CHROMIUM = "/usr/bin/chromium"
RATE = 16_000
tone = partial(audio.tone, rate=RATE)
EDGES = (
    ("music", "wind", 0.9, 1.0),
    ("music", "strings", 0.8, 0.9),
    ("wind", "reed", 0.7, 0.8),
    ("wind", "brass", 0.6, 0.7),
    ("reed", "saxophone", 0.5, 0.6),
    ("reed", "clarinet", 0.55, 0.65),
    ("strings", "violin", 0.45, 0.5),
)
NAMES = ("music", "wind", "strings", "reed", "brass", "saxophone", "clarinet", "violin")


def hierarchy(edges: Any, names: Any = ()) -> SimpleNamespace:
    """Anything with a graph is a hierarchy to the page."""
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    for parent, child, weight, support in edges:
        graph.add_edge(parent, child, weight=weight, support=support)
    return SimpleNamespace(graph=graph)


def score_rows(layers: Any, targets: Any, names: Any) -> pd.DataFrame:
    """Known scores: the first target likes late concepts, the second early ones; concept 1 is not testable."""
    rows: list[dict[str, Any]] = []
    for a, layer in enumerate(layers):
        for b, target in enumerate(targets):
            for i, name in enumerate(names):
                share = (i + 1) / (len(names) + 1)
                score = round(share if b % 2 == 0 else 1 - share, 3)
                row: dict[str, Any] = {
                    "layer": layer,
                    "target": target,
                    "concept": name,
                    "status": "ok",
                    "n_groups": 12,
                    "cav_auc": 0.9,
                }
                row |= {"score": score, "magnitude": (score - 0.5) * (a + 1), "low": score - 0.05, "high": score + 0.05}
                row |= {"p_value": 0.002, "p_unconditional": 0.001, "q_value": 0.01 if abs(score - 0.5) > 0.2 else 0.6}
                if i == 1:
                    row |= dict.fromkeys(
                        ("score", "magnitude", "low", "high", "p_value", "p_unconditional", "q_value"), np.nan
                    )
                    row["status"] = "not testable"
                rows.append(row)
    return pd.DataFrame(rows)


def explain(
    names: Any = NAMES,
    edges: Any = EDGES,
    layers: Any = ("low", "high"),
    targets: Any = ("jazz", "rock"),
    **changes: Any,
) -> Explanation:
    """An explanation of ``names`` under ``edges`` with the scores of ``score_rows``."""
    quality = pd.DataFrame({"concept": list(names), "auc": 0.9, "low": 0.8, "high": 0.95, "n_positive_groups": 12})
    parts: dict[str, Any] = {
        "backbone": "toy model",
        "layers": tuple(layers),
        "targets": tuple(targets),
        "concepts": tuple(names),
        "scores": score_rows(layers, targets, names),
        "hierarchies": {layer: hierarchy(edges, names) for layer in layers},
        "banks": {layer: SimpleNamespace(quality=quality) for layer in layers},
        "similarities": {},
        "sensitivities": {},
        "clips": (),
        "warnings": ["wind and reed share most of their clips"],
        "provenance": {"seed": 0, "options": {"miner": "heymann"}},
    }
    return Explanation(**(parts | changes))


@pytest.fixture
def sounding(tmp_path: Path) -> Explanation:
    """Examples for two concepts (one file missing) and a timeline along a 12 s clip."""
    near, far, song = (
        tone(tmp_path / "near.wav", 2.0),
        tone(tmp_path / "far.wav", 2.0, 660.0),
        tone(tmp_path / "song.wav", 12.0),
    )
    starts = np.arange(0.0, 9.1, 1.5)
    sensitivity = np.outer(np.linspace(-1, 1, len(starts)), np.arange(1, len(NAMES) + 1)) * 0.01
    examples = {"saxophone": [near, far], "violin": [near, Clip(str(tmp_path / "gone.wav"))]}
    return explain(
        examples={"low": examples, "high": examples},
        timelines=[Timeline(layer, "jazz", song, starts, starts + 3.0, sensitivity) for layer in ("low", "high")],
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The system's Chromium; the tests of the page itself are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``visit(html or path, width, height, scheme)`` opens a page from disk; any request, error or violation fails."""
    complaints: list[str] = []
    contexts = []

    def block(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            complaints.append(f"request to {route.request.url}")
            route.abort()

    def open_page(page: str | Path, width: int = 1400, height: int = 900, scheme: str = "light") -> Any:
        if isinstance(page, str):
            (tmp_path / "page.html").write_text(page, encoding="utf-8")
            page = tmp_path / "page.html"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda e: complaints.append(str(e)))
        tab.route("**/*", block)
        tab.goto(page.as_uri())
        tab.set_default_timeout(5000)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
