"""The sanity battery on the embedded model: the table that docs/explanation/how-sure.md includes.

    python benchmarks/validity/sanity.py     # writes docs/explanation/figures/sanity.md

Exits with 1 if a check fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.tables import read_clip_table
from captum_concepts.demo.dataset import CONCEPT_COLUMNS, write_dataset
from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import MusicGenerator
from captum_concepts.sanity.battery import sanity_check

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "figures"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        music = write_dataset(Path(folder) / "music", MusicGenerator(seed=0))
        concepts = ConceptSet.from_table(music / "concepts.csv", column=list(CONCEPT_COLUMNS), group="group")
        report = sanity_check(demo_backbone(), read_clip_table(music / "clips.csv", group="group"), concepts)
    lines = [
        "<!-- written by benchmarks/validity/sanity.py -->",
        "",
        f"{len(report.concepts)} concepts, {len(report.targets)} classes: {report.verdict}; "
        f"{report.provenance['patches through the model']} patches through the model.",
        "",
        "| check | layer | verdict | figure [95 % interval] | must be |",
        "|---|---|---|---|---|",
    ]
    for row in report.checks:
        figure = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        lines.append(f"| {row.check} | {row.layer} | {row.verdict} | {figure} | {row.bound} |")
    lines.append("")
    lines += [f"- {row.check}, {row.layer}: {row.sentence}" for row in report.checks]
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / "sanity.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print({stage: round(seconds, 1) for stage, seconds in report.seconds.items()})
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
