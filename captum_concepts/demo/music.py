"""Generator of synthetic music with known ground truth.

A piece is a random value for each of several independent *slots*. Every value that names a concept is audible:

| slot | values |
|---|---|
| instrument | one of the nine melodic instruments; it plays the melody and the chords |
| percussion | none (half of the pieces), snare, clap or tom |
| register | low, mid or high: the register of melody and chords |
| tempo | slow (60-72 beats a minute), medium (96-112) or fast (150-176) |
| accompaniment | block-chords or arpeggio; causes no genre in `GENRES` |
| reverberant | no or reverberant: a distractor, causes no genre |
| drone | no or drone: a distractor, causes no genre |

The families of the instruments are concepts too (`FAMILIES`, `PARENTS`). Key, mode, harmony, melody, rhythm, bass,
timbre of the recording and loudness are random and have no name.

A *genre* is a known function of concepts: `GENRES` gives, for each of eight, the concepts that cause it and their
sign: +1 where the concept must be present, -1 where it must be absent. With probability `strength` each cause is
enforced, independently; otherwise its slot is random as everywhere else. The presence of a cause with base rate b in
its genre is therefore `strength + (1 - strength) * b` (or `(1 - strength) * b` for sign -1).

Every slot of every piece has its own random stream, keyed by seed, index and slot. So a piece does not depend on how
many others are made, and forcing a concept changes its slot and nothing else: `clip(7, {"slow"})` and
`clip(7, {"fast"})` are counterfactuals of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from captum_concepts.demo.instruments import FAMILIES, MELODIC, PARENTS, PERCUSSION
from captum_concepts.demo.rendering import Arrangement, render
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr, suggest

GENERATOR_VERSION: Final = "1"
SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "instrument": MELODIC,
    "percussion": ("", "", "", *PERCUSSION),  # values are drawn uniformly: half of the pieces have percussion
    "register": ("low", "mid", "high"),
    "tempo": ("slow", "medium", "fast"),
    "accompaniment": ("block-chords", "arpeggio"),
    "reverberant": ("", "reverberant"),
    "drone": ("", "drone"),
}
DISTRACTORS: Final = ("reverberant", "drone")
CONCEPTS: Final[tuple[str, ...]] = (*FAMILIES, *(value for values in SLOTS.values() for value in values if value))
"""Every concept: the families, then the values of the slots."""
GENRES: Final[dict[str, dict[str, int]]] = {
    "reel": {"plucked": 1, "fast": 1},
    "serenade": {"plucked": 1, "slow": 1},
    "parade": {"mallet": 1, "percussion": 1},
    "lullaby": {"mallet": 1, "percussion": -1},
    "aria": {"violin": 1, "high": 1},
    "elegy": {"violin": 1, "low": 1},
    "hymn": {"clarinet": 1, "low": 1},
    "pastoral": {"clarinet": 1, "high": 1},
}
_SLOT_OF: Final = {value: slot for slot, values in SLOTS.items() for value in values if value} | {
    family: _slot for family, members in FAMILIES.items() for _slot in SLOTS if members[0] in SLOTS[_slot]
}


class Piece(NamedTuple):
    """One rendered piece: float32 (samples,), {concept: present or not} for every concept, and the genre if any."""

    waveform: NDArray[np.float32]
    truth: dict[str, bool]
    genre: str | None


@dataclass(frozen=True)
class Composition:
    """The content of a piece: the value of each slot, and the score."""

    values: dict[str, str]
    arrangement: Arrangement

    @property
    def truth(self) -> dict[str, bool]:
        """{concept: is it present}, for every name in `CONCEPTS`."""
        present = {value for value in self.values.values() if value}
        present |= {PARENTS[value] for value in present if value in PARENTS}
        return {concept: concept in present for concept in CONCEPTS}


def base_rate(concept: str) -> float:
    """Probability of a concept where nothing is forced and no genre is given."""
    values = SLOTS[_slot_of(concept)]
    return sum(_shows(value, concept) for value in values) / len(values)


class MusicGenerator:
    """Draws and renders pieces; equal arguments give equal bytes.

    :param seed: of everything random, >= 0.
    :param sample_rate: Hz, 8000 to 48000.
    :param duration: seconds of a piece, 1 to 60.
    :param genres: {genre: {concept: +1 or -1}}.
    :param strength: probability in [0, 1] that a cause of a genre is enforced. 0 plants nothing: every genre is then
        an unconstrained mix (a true null hypothesis).
    :param distractors: which of `DISTRACTORS` vary; the others are never present.
    :param confounds: {genre or concept: concept}: pieces of that genre, or with that concept, always have
        the second concept too, unless the call itself sets the second's slot. Off by default.
    :raises InputError: for a value out of range or an unknown or contradictory concept.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        sample_rate: int = 16000,
        duration: float = 6.0,
        genres: Mapping[str, Mapping[str, int]] = GENRES,
        strength: float = 0.97,
        distractors: Iterable[str] = DISTRACTORS,
        confounds: Mapping[str, str] | None = None,
    ) -> None:
        for name, value, low, high in (
            ("seed", seed, 0, 2**63 - 1),
            ("sample_rate", sample_rate, 8000, 48000),
            ("duration", duration, 1.0, 60.0),
            ("strength", strength, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise InputError(f"{name}={short_repr(value)}: out of range; give {low} to {high}")
        self.seed, self.sample_rate, self.duration, self.strength = seed, sample_rate, duration, strength
        self.genres = {genre: dict(causes) for genre, causes in genres.items()}
        self.distractors = tuple(distractors)
        self.confounds = dict(confounds or {})
        for name in self.distractors:
            if name not in DISTRACTORS:
                raise InputError(f"distractors={short_repr(name)}: unknown; give some of {', '.join(DISTRACTORS)}")
        for causes in self.genres.values():
            _options({concept: sign > 0 for concept, sign in causes.items()})
        for name, added in self.confounds.items():
            if name not in self.genres and _slot_of(name) == _slot_of(added):
                raise InputError(
                    f"confounds={{{short_repr(name)}: {short_repr(added)}}}: both are values of one "
                    "slot; choose another pair"
                )
            _slot_of(added)

    def draw(
        self, index: int, concepts: Mapping[str, bool] | Iterable[str] = (), genre: str | None = None
    ) -> dict[str, str]:
        """The value of every slot of piece `index`.

        :param index: >= 0; pieces of different indices are independent.
        :param concepts: what must be present (True, or just named) or absent (False); overrides genre and
            confounds.
        :param genre: one of the generator's genres; None draws every free slot as anywhere.
        :raises InputError: for an unknown genre or concept, or concepts that exclude each other.
        """
        forced = dict(concepts) if isinstance(concepts, Mapping) else dict.fromkeys(concepts, True)
        options = _options(forced)
        for name in DISTRACTORS:
            if name not in self.distractors and name not in forced:
                options[name] = ("",)
        settled = {_slot_of(concept) for concept in forced}
        if genre is not None:
            self._enforce(genre, index, settled, options)
        values = {slot: str(self._stream(index, slot).choice(allowed)) for slot, allowed in options.items()}
        for name, added in self.confounds.items():
            slot = _slot_of(added)
            if slot not in settled and (name == genre or any(_shows(value, name) for value in values.values())):
                allowed = _options({added: True})[slot]
                values[slot] = str(self._stream(index, slot).choice(allowed))
        return values

    def compose(
        self, index: int, concepts: Mapping[str, bool] | Iterable[str] = (), genre: str | None = None
    ) -> Composition:
        """Draw piece `index` with its score; arguments as in `draw`."""
        values = self.draw(index, concepts, genre)
        return Composition(values, Arrangement.draw(values, self.duration, lambda part: self._stream(index, part)))

    def clip(self, index: int, concepts: Mapping[str, bool] | Iterable[str] = (), genre: str | None = None) -> Piece:
        """Draw and render piece `index`; arguments as in `draw`."""
        composition = self.compose(index, concepts, genre)
        waveform = render(composition.arrangement, self.sample_rate, self._stream(index, "recording"))
        return Piece(waveform, composition.truth, genre)

    def without(
        self, index: int, concept: str, concepts: Mapping[str, bool] | Iterable[str] = (), genre: str | None = None
    ) -> Piece:
        """Piece `index` with `concept`, played without its sound; everything else is unchanged.

        The counterpart of `clip(index, {concept: True, ...}, genre)`, as if its stem had been left out of the mix:
        other instruments do not take over its notes. Timbre, noise and loudness of the recording are the same.

        :param concept: an instrument, a family, or "drone".
        :param concepts: what else must be present or absent; see `draw`.
        :raises InputError: as in `draw`, or for a concept that has no sound of its own, like "fast".
        """
        players = [name for name in (*MELODIC, *PERCUSSION) if _shows(name, concept)]
        if not players and concept != "drone":
            _slot_of(concept)
            raise InputError(
                f"concept={short_repr(concept)}: has no sound of its own; choose an instrument, a family or drone"
            )
        forced = dict(concepts) if isinstance(concepts, Mapping) else dict.fromkeys(concepts, True)
        composition = self.compose(index, {**forced, concept: concept != "drone"}, genre)
        score = composition.arrangement
        kept = replace(score, notes=tuple(note for note in score.notes if note.instrument not in players))
        present = {**composition.truth, **dict.fromkeys([concept, *players, *(PARENTS[p] for p in players)], False)}
        return Piece(render(kept, self.sample_rate, self._stream(index, "recording")), present, genre)

    def _enforce(self, genre: str, index: int, settled: set[str], options: dict[str, tuple[str, ...]]) -> None:
        """Narrow `options` to the causes of `genre`, each with probability `strength`."""
        if genre not in self.genres:
            raise InputError(f"genre={short_repr(genre)}: unknown; {suggest(genre, self.genres, 'genres')}")
        for concept, sign in self.genres[genre].items():
            slot = _slot_of(concept)
            if slot not in settled and self._stream(index, f"cause {concept}").random() < self.strength:
                options[slot] = tuple(value for value in options[slot] if _shows(value, concept) == (sign > 0))

    def _stream(self, index: int, part: str) -> np.random.Generator:
        if index < 0:
            raise InputError(f"index={short_repr(index)}: negative; give 0 or more")
        return np.random.default_rng([self.seed, index, crc32(part.encode())])


def _slot_of(concept: str) -> str:
    if concept not in _SLOT_OF:
        raise InputError(
            f"concept={short_repr(concept)}: unknown; {suggest(concept, CONCEPTS, 'concepts', len(CONCEPTS))}"
        )
    return _SLOT_OF[concept]


def _shows(value: str, concept: str) -> bool:
    return bool(value) and (value == concept or PARENTS.get(value) == concept)


def _options(forced: Mapping[str, bool]) -> dict[str, tuple[str, ...]]:
    """The values left to each slot where `forced` holds."""
    options = dict(SLOTS)
    for concept, wanted in forced.items():
        slot = _slot_of(concept)
        options[slot] = tuple(value for value in options[slot] if _shows(value, concept) == wanted)
        if not options[slot]:
            raise InputError(f"concepts={short_repr(dict(forced))}: leave no value for {slot}; drop one of them")
    return options
