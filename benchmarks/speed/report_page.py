"""Size and speed of the report of thousands of concepts, in a real browser.

    python benchmarks/speed/report_page.py                      # 219 and 3,456 concepts (the paper's two hierarchies)
    python benchmarks/speed/report_page.py --chromium /usr/bin/chromium --repeat 7

For each size: bytes of the page without sound, milliseconds from navigation to the first full drawing, and from a key
in the search box to the drawn hits. Medians over fresh pages. The hierarchy and the scores are random.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from captum_concepts.explanation.explanation import Explanation
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.report import render
from captum_concepts.results.tables import COUNT_COLUMNS, SCORE_COLUMNS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import options, parse

SEARCH = """() => { const box = document.getElementById("query"), start = performance.now();
    box.value = box.value === "7" ? "3" : "7"; box.dispatchEvent(new Event("input"));
    document.body.offsetHeight; return performance.now() - start; }"""


def explanation(size: int, seed: int, layers: int = 2, targets: int = 4) -> Explanation:
    """Random scores on a random tree of bounded width."""
    generator = np.random.default_rng(seed)
    names = [f"concept {i}" for i in range(size)]
    edges = [(names[generator.integers(max(0, i // 4 - 8), i // 4 + 1)], names[i], 0.5) for i in range(1, size)]
    places = [(f"layer{a}", f"class{b}", name) for a in range(layers) for b in range(targets) for name in names]
    scores = pd.DataFrame(places, columns=list(SCORE_COLUMNS[:3]))
    for column in SCORE_COLUMNS[3:-1]:
        scores[column] = 100 if column in COUNT_COLUMNS else generator.uniform(0.6, 1, len(scores))
    scores["status"] = "ok"
    layer_names = tuple(f"layer{a}" for a in range(layers))
    return Explanation(
        backbone="random",
        layers=layer_names,
        targets=tuple(f"class{b}" for b in range(targets)),
        concepts=tuple(names),
        scores=scores,
        hierarchies={layer: ConceptHierarchy.from_edges(names, edges) for layer in layer_names},
        banks={},
        similarities={},
        sensitivities={},
        clips=(),
    )


def main() -> None:
    parser = options(__doc__, quick="one page of each size", seed=0)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--repeat", type=int, default=5)
    given = parse(parser, {"repeat": 1})
    if not given.chromium:
        print("skipped: no Chromium here; name one with --chromium")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"])
        for size in (219, 3456):
            path = Path(folder) / f"{size}.html"
            path.write_text(render(explanation(size, given.seed)), encoding="utf-8")
            drawn, found = [], []
            for _ in range(given.repeat):
                tab = browser.new_page(viewport={"width": 1400, "height": 900})
                tab.goto(path.as_uri())
                tab.wait_for_function("document.documentElement.dataset.drawn")
                drawn.append(float(tab.evaluate("document.documentElement.dataset.drawn")))
                tab.evaluate(SEARCH)
                found.append(min(tab.evaluate(SEARCH) for _ in range(5)))
                tab.close()
            print(
                f"{size:5d} concepts: {path.stat().st_size / 1e6:5.2f} MB, "
                f"drawn after {statistics.median(drawn):4.0f} ms, search {statistics.median(found):4.0f} ms"
            )
        browser.close()


if __name__ == "__main__":
    main()
