"""Change of a genre's logit when a sound is left out, on the embedded model: a table that docs/explanation includes.

    python benchmarks/validity/deletion.py [--pieces 24]     # prints the table
    python benchmarks/validity/deletion.py --update-docs     # and writes docs/explanation/figures/deletion.md

For each genre of the embedded generator and each audible cause of it, the same pieces are rendered with this sound and
without; for comparison a drone, which is a cause of no genre. Exits with 1 unless leaving out a cause lowers the logit
of its genre, for every cause.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import soundfile

from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import GENRES, MusicGenerator
from captum_concepts.errors import InputError
from captum_concepts.sanity.deletion import deletion_effects

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import options, parse, row, table, write_figure

CONTROL = "drone"


def main() -> None:
    parser = options(__doc__, quick="16 pieces", seed=11, update_docs="deletion.md")
    parser.add_argument("--pieces", type=int, default=24, help="of each genre and concept")
    given = parse(parser, {"pieces": 16})
    pieces, backbone = given.pieces, demo_backbone()
    generator = MusicGenerator(seed=given.seed)
    lines = [
        f"{pieces} pieces for each line.",
        "",
        *table(
            (
                "genre",
                "left out",
                "a cause",
                "its logit falls by [95 % interval]",
                "standard deviation of the logit",
                "p",
            )
        ),
    ]
    rising = 0
    for genre, causes in GENRES.items():
        for concept in (*(name for name, sign in causes.items() if sign > 0), CONTROL):
            try:
                generator.without(0, concept, genre=genre)
            except InputError:
                continue  # a tempo or a register has no sound of its own
            with tempfile.TemporaryDirectory() as folder:
                pairs = []
                for number in range(pieces):
                    extracted = generator.clip(number, {concept: True}, genre)
                    files = [Path(folder) / f"{number}{end}.wav" for end in ("", "-without")]
                    for file, piece in zip(
                        files, (extracted, generator.without(number, concept, genre=genre)), strict=True
                    ):
                        soundfile.write(file, piece.waveform, generator.sample_rate)
                    pairs.append((files[0], files[1]))
                effect = deletion_effects(backbone, pairs, genre).iloc[0]
            cause = concept != CONTROL
            rising += cause and not effect["low"] > 0
            lines.append(
                row(
                    (
                        genre,
                        concept,
                        "yes" if cause else "no",
                        f"{effect['fall']:.2f} [{effect['low']:.2f}, {effect['high']:.2f}]",
                        f"{effect['spread']:.2f}",
                        f"{effect['p_value']:.2g}",
                    )
                )
            )
            print(lines[-1], flush=True)
    if given.update_docs:
        write_figure("deletion", __file__, lines)
    sys.exit(bool(rising))


if __name__ == "__main__":
    main()
