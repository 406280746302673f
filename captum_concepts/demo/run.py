"""The demo: render music, explain the embedded classifier, and compare the explanation with the ground truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import pandas as pd

from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.tables import read_clip_table
from captum_concepts.demo.dataset import CONCEPT_COLUMNS, write_dataset
from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import MusicGenerator
from captum_concepts.demo.recovery import ancestor_recovery, causal_auc
from captum_concepts.explanation.explainer import ConceptHierarchyExplainer
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.types import Progress


class DemoResult(NamedTuple):
    """What the demo prints: a table, a few lines, the same as figures, the explanation and its page."""

    table: pd.DataFrame
    lines: list[str]
    figures: dict[str, Any]
    explanation: Explanation
    report: Path
    layer: str


def run_demo(folder: Path, *, seed: int = 0, progress: Progress | None = None) -> DemoResult:
    """Run the whole demo.

    Args:
        folder: results; the music goes into ``folder/music``.
        seed: of the music and of the explanation.
        progress: called with (stage, done, in all).

    Returns:
        DemoResult.
    """
    music = write_dataset(folder / "music", MusicGenerator(seed=seed), progress=progress)
    truth = json.loads((music / "truth.json").read_text(encoding="utf-8"))
    concepts = ConceptSet.from_table(
        music / "concepts.csv", column=list(CONCEPT_COLUMNS), group="group", parents=truth["parents"]
    )
    backbone = demo_backbone()
    explainer = ConceptHierarchyExplainer(backbone, seed=seed, progress=progress)
    clips = read_clip_table(music / "clips.csv", group="group")
    explanation = explainer.explain(clips, concepts, list(truth["causes"]))
    explanation.save(folder)
    report = explanation.to_html(folder / "report.html")
    layer = explanation.layers[-1]
    recovery = causal_auc(explanation.scores, truth["causes"], truth["parents"])
    trees = {
        name: ancestor_recovery(_with_all(h.graph, truth["parents"]), truth["parents"])
        for name, h in explanation.hierarchies.items()
    }
    table = explanation.top(layer, 3)[["target", "concept", "score", "magnitude", "q_value"]].copy()
    table["planted"] = [
        _planted(concept, truth["causes"][target], truth["parents"])
        for target, concept in zip(table.target, table.concept, strict=True)
    ]
    lines = [
        f"{name}: causal concepts ranked above the others, AUC {recovery.layers[name]:.3f}; "
        f"families recovered, ancestor F1 {trees[name].f1:.2f}"
        for name in explanation.layers
    ]
    figures = {
        name: {"causal_auc": recovery.layers[name], **{f"ancestor_{k}": v for k, v in trees[name]._asdict().items()}}
        for name in explanation.layers
    }
    return DemoResult(table, lines, figures, explanation, report, layer)


def _planted(concept: str, causes: Mapping[str, int], parents: Mapping[str, str]) -> str:
    """The role of a concept for a target: "cause", "relative of a cause" (its family or a member), or nothing."""
    if concept in causes:
        return "cause"
    kin = {parents.get(cause) for cause in causes} | {child for child, parent in parents.items() if parent in causes}
    return "relative of a cause" if concept in kin else ""


def _with_all(mined: nx.DiGraph, parents: Mapping[str, str]) -> nx.DiGraph:
    """The mined graph, with untestable planted concepts as single nodes, since their pairs were not found."""
    graph = nx.DiGraph(mined)
    graph.add_nodes_from([*parents, *parents.values()])
    return graph
