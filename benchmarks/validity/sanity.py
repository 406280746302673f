"""Sanity battery on the embedded model: the table that docs/explanation/how-sure.md includes.

    python benchmarks/validity/sanity.py                   # prints the table
    python benchmarks/validity/sanity.py --update-docs     # and writes docs/explanation/figures/sanity.md

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import options, table, write_figure


def main() -> None:
    parser = options(__doc__, seed=0, update_docs="sanity.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        music = write_dataset(Path(folder) / "music", MusicGenerator(seed=given.seed))
        concepts = ConceptSet.from_table(music / "concepts.csv", column=list(CONCEPT_COLUMNS), group="group")
        report = sanity_check(demo_backbone(), read_clip_table(music / "clips.csv", group="group"), concepts)
    lines = [
        f"{len(report.concepts)} concepts, {len(report.targets)} classes: {report.verdict}; "
        f"{report.provenance['patches through the model']} patches through the model.",
        "",
        *table(
            ("check", "layer", "verdict", "figure [95 % interval]", "must be"),
            (
                (row.check, row.layer, row.verdict, f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]", row.bound)
                for row in report.checks
            ),
        ),
        "",
    ]
    lines += [f"- {row.check}, {row.layer}: {row.sentence}" for row in report.checks]
    if given.update_docs:
        write_figure("sanity", __file__, lines)
    print("\n".join(lines))
    print({stage: round(seconds, 1) for stage, seconds in report.seconds.items()})
    sys.exit(not report.passed)


if __name__ == "__main__":
    main()
