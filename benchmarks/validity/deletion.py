"""What the demo's classifier says when a sound is left out of the music: the table that docs/explanation include.

    python benchmarks/validity/deletion.py [--pieces 24]     # writes docs/explanation/figures/deletion.md

For each genre of the embedded generator and each of its causes that sounds, the same pieces are rendered with it and
without; for comparison a drone, which is a cause of no genre. Exits with 1 unless every cause lowers its genre.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import soundfile

from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import GENRES, MusicGenerator
from captum_concepts.errors import InputError
from captum_concepts.sanity.deletion import deletion_effects

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "figures"
CONTROL = "drone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=24, help="of each genre and concept")
    pieces = parser.parse_args().pieces
    generator, backbone = MusicGenerator(seed=11), demo_backbone()
    lines = [
        "<!-- written by benchmarks/validity/deletion.py -->",
        "",
        f"{pieces} pieces for each line.",
        "",
        "| genre | left out | a cause | its logit falls by [95 % interval] | standard deviation of the logit | p |",
        "|---|---|---|---|---|---|",
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
                row = deletion_effects(backbone, pairs, genre).iloc[0]
            cause = concept != CONTROL
            rising += cause and not row["low"] > 0
            lines.append(
                f"| {genre} | {concept} | {'yes' if cause else 'no'} | {row['fall']:.2f} [{row['low']:.2f}, "
                f"{row['high']:.2f}] | {row['spread']:.2f} | {row['p_value']:.2g} |"
            )
            print(lines[-1], flush=True)
    (FIGURES / "deletion.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(bool(rising))


if __name__ == "__main__":
    main()
