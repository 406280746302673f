"""Write synthetic pieces with known ground truth to a folder, in the format of user data."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import soundfile

from captum_concepts.demo.instruments import MELODIC, PARENTS, PERCUSSION
from captum_concepts.demo.music import GENERATOR_VERSION, SLOTS, MusicGenerator, Piece
from captum_concepts.types import Progress

CONCEPT_COLUMNS: Final[tuple[str, ...]] = tuple(SLOTS)
_MELODIC_FAMILIES: Final = tuple(dict.fromkeys(PARENTS[name] for name in MELODIC))
_PURPOSES: Final = ("leaf", "family", "random", "explain")


def write_dataset(
    folder: str | Path,
    generator: MusicGenerator | None = None,
    *,
    per_instrument: int = 20,
    per_family: int = 40,
    random: int = 162,
    per_genre: int = 20,
    progress: Progress | None = None,
) -> Path:
    """Render concept clips, random clips and clips to explain.

    ::

        folder/concepts.csv    file, group and one column per slot (`CONCEPT_COLUMNS`); a cell names the concept
        folder/clips.csv       file, genre, group: the clips to explain, every genre `per_genre` times
        folder/truth.json      parents, causes of each genre, generator: what an explanation should find
        folder/concepts/*.wav  16 bit mono

    Concept clips are mixes of the generator without a genre: one slot is fixed, everything else is random. There
    are `per_instrument` for each melodic instrument, whose cells name instruments, and `per_family` for each melodic
    family, whose cells name families only. So no clip of a family is one of its instruments' clips, and a family has
    more clips than an instrument, as in any collection. Every other slot is named too where it has a concept: "fast"
    has about a third of all concept clips. Clips with empty cells are the random pool.

    Instruments and percussion take turns, in the pool too, so that each kind of percussion occurs with each
    instrument equally often. Independent random choices give the same concepts with more noise, since the instrument
    is by far the loudest confounder of a concept with few clips.

    :param folder: created if it does not exist.
    :param generator: default `MusicGenerator()`; its seed and options decide every byte.
    :param random: clips in the random pool.
    :param progress: called as `progress("render", done, total)`.
    :returns: the folder.
    """
    folder = Path(folder)
    generator = generator or MusicGenerator()
    counts = {
        "leaf": per_instrument * len(MELODIC),
        "family": per_family * len(_MELODIC_FAMILIES),
        "random": random,
        "explain": per_genre * len(generator.genres),
    }
    total = sum(counts.values())
    done = 0

    def save(piece: Piece, name: str) -> None:
        nonlocal done
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, piece.waveform, generator.sample_rate, subtype="PCM_16")
        done += 1
        if progress is not None:
            progress("render", done, total)

    concept_rows: list[list[str]] = []
    for purpose, names in (("leaf", MELODIC), ("family", _MELODIC_FAMILIES), ("random", MELODIC)):
        for number in range(counts[purpose]):
            forced = _forced(generator, names[number % len(names)], number // len(names))
            index = _index(purpose, number)
            file = f"concepts/{purpose}-{number:04d}.wav"
            save(generator.clip(index, forced), file)
            cells = [""] * len(SLOTS) if purpose == "random" else _cells(generator.draw(index, forced), purpose)
            concept_rows.append([file, Path(file).stem, *cells])
    clip_rows: list[list[str]] = []
    for number, genre in enumerate(tuple(generator.genres) * per_genre):
        file = f"clips/{genre}/{genre}-{number:04d}.wav"
        save(generator.clip(_index("explain", number), genre=genre), file)
        clip_rows.append([file, genre, Path(file).stem])
    _write_table(folder / "concepts.csv", ["file", "group", *CONCEPT_COLUMNS], concept_rows)
    _write_table(folder / "clips.csv", ["file", "genre", "group"], clip_rows)
    text = json.dumps(truth(generator), indent=2) + "\n"
    (folder / "truth.json").write_text(text, encoding="utf-8")
    return folder


def truth(generator: MusicGenerator) -> dict[str, object]:
    """What an explanation of this generator's music should find, as plain data for `truth.json`."""
    return {
        "parents": PARENTS,
        "causes": generator.genres,
        "related": "ancestors and descendants of a cause are neither causes nor non-causes: the AUC leaves them out",
        "generator": {
            "version": GENERATOR_VERSION,
            "seed": generator.seed,
            "sample_rate": generator.sample_rate,
            "duration": generator.duration,
            "strength": generator.strength,
            "distractors": list(generator.distractors),
            "confounds": generator.confounds,
        },
    }


def _forced(generator: MusicGenerator, concept: str, turn: int) -> dict[str, bool]:
    """The instrument or family, and percussion in turn, unless a confound determines the percussion."""
    if any(PARENTS.get(added, added) == "percussion" for added in generator.confounds.values()):
        return {concept: True}
    if turn % 2 == 0:
        return {concept: True, "percussion": False}
    return {concept: True, PERCUSSION[turn // 2 % len(PERCUSSION)]: True}


def _index(purpose: str, number: int) -> int:
    """Indices interleave by purpose, so that no two clips share one however many are made."""
    return number * len(_PURPOSES) + _PURPOSES.index(purpose)


def _cells(values: dict[str, str], purpose: str) -> list[str]:
    return [PARENTS.get(value, value) if purpose == "family" else value for value in values.values()]


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
