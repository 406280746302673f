"""The generator: labels agree with the sound, causes with genres."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from captum_concepts.demo.dataset import CONCEPT_COLUMNS, write_dataset
from captum_concepts.demo.instruments import FAMILIES, MELODIC, PARENTS, PERCUSSION
from captum_concepts.demo.music import CONCEPTS, DISTRACTORS, GENRES, SLOTS, MusicGenerator, base_rate
from captum_concepts.demo.rendering import REGISTER_CENTRES, TEMPO_RANGES
from captum_concepts.errors import InputError


def shares(generator: MusicGenerator, genre: str | None, pieces: int = 1500) -> dict[str, float]:
    """How often each concept is true."""
    counts: Counter[str] = Counter()
    for index in range(pieces):
        extracted = {value for value in generator.draw(index, genre=genre).values() if value}
        counts.update(extracted | {PARENTS[value] for value in extracted & set(PARENTS)})
    return {concept: counts[concept] / pieces for concept in CONCEPTS}


# Determinism


def test_equal_arguments_give_equal_bytes_and_other_seeds_or_indices_others():
    first, again = MusicGenerator(3).clip(11), MusicGenerator(3).clip(11)
    assert first.waveform.tobytes() == again.waveform.tobytes()
    assert first.truth == again.truth
    assert MusicGenerator(4).clip(11).waveform.tobytes() != first.waveform.tobytes()
    assert MusicGenerator(3).clip(12).waveform.tobytes() != first.waveform.tobytes()


def test_a_piece_does_not_depend_on_the_pieces_made_before_it():
    busy = MusicGenerator(5)
    for index in range(7):
        busy.clip(index, genre="reel")
    assert busy.clip(7).waveform.tobytes() == MusicGenerator(5).clip(7).waveform.tobytes()


def test_forcing_a_concept_changes_its_slot_and_nothing_else():
    generator = MusicGenerator(6)
    for index in range(20):
        free = generator.draw(index)
        for concept, slot in (("fast", "tempo"), ("plucked", "instrument"), ("snare", "percussion")):
            forced = generator.draw(index, [concept])
            assert {name for name in SLOTS if forced[name] != free[name]} <= {slot}


# Truth


@pytest.mark.parametrize("concept", CONCEPTS)
def test_a_concept_can_be_demanded_and_forbidden(concept: str):
    generator = MusicGenerator(0)
    for index in range(5):
        assert generator.compose(index, [concept]).truth[concept] is True
        assert generator.compose(index, {concept: False}).truth[concept] is False


def test_the_score_plays_what_the_truth_says():
    generator = MusicGenerator(1)
    for index in range(60):
        composition = generator.compose(index)
        truth, score = composition.truth, composition.arrangement
        played = Counter(note.instrument for note in score.notes)
        assert {name for name in MELODIC + PERCUSSION if truth[name]} == set(played)
        assert all(count >= 3 for count in played.values())
        for family, members in FAMILIES.items():
            assert truth[family] == any(played[name] for name in members)
        melody = [note.pitch for note in score.notes if note.instrument in MELODIC and note.gain > 0.75]
        register = composition.values["register"]
        assert abs(np.mean(melody) - REGISTER_CENTRES[register]) < 6
        assert score.reverberant == truth["reverberant"]
        assert (sum(tone.seconds == score.duration for tone in score.tones) == 2) == truth["drone"]


@pytest.mark.parametrize("tempo", TEMPO_RANGES)
def test_the_bass_changes_every_second_beat_of_the_tempo(tempo: str):
    generator = MusicGenerator(2)
    low, high = TEMPO_RANGES[tempo]
    for index in range(10):
        tones = generator.compose(index, {tempo: True, "drone": False}).arrangement.tones
        assert low <= 120.0 / tones[0].seconds <= high


def test_registers_order_the_spectral_centroid_and_percussion_adds_treble():
    generator = MusicGenerator(8, distractors=())

    def centroid(index: int, **concepts: bool) -> float:
        names = {name.replace("_", "-"): wanted for name, wanted in concepts.items()}
        power = np.abs(np.fft.rfft(generator.clip(index, names).waveform)) ** 2
        return float(np.sum(power * np.arange(len(power))) / np.sum(power))

    for index in range(5):
        quiet = {"percussion": False, "electric_piano": True}
        low, mid, high = (centroid(index, **quiet, **{register: True}) for register in REGISTER_CENTRES)
        assert low < mid < high
        assert centroid(index, snare=True, electric_piano=True) > centroid(index, **quiet)


def test_melody_and_chords_are_struck_together_or_one_by_one():
    generator = MusicGenerator(9)
    for index in range(10):
        for texture, together in (("block-chords", 3), ("arpeggio", 1)):
            notes = generator.compose(index, [texture]).arrangement.notes
            chords = Counter(note.start for note in notes if note.instrument in MELODIC and note.gain < 0.7)
            assert set(chords.values()) == {together}


# Sound


def test_pieces_are_finite_varied_in_loudness_and_never_clip():
    generator = MusicGenerator(0)
    pieces = np.stack([generator.clip(index).waveform for index in range(40)])
    assert pieces.dtype == np.float32
    assert pieces.shape == (40, 96000)
    assert np.isfinite(pieces).all()
    assert np.abs(pieces).max() < 1.0
    decibels = 10.0 * np.log10(np.mean(pieces**2, axis=1))
    assert decibels.min() > -27.0
    assert decibels.max() < -15.5
    assert np.ptp(decibels) > 6.0


def test_no_second_of_a_piece_is_silent():
    generator = MusicGenerator(1)
    for index in range(40):
        seconds = generator.clip(index).waveform.reshape(6, -1)
        assert np.sqrt((seconds**2).mean(axis=1)).min() > 0.003


def test_rendering_is_at_least_sixty_times_faster_than_listening():
    generator = MusicGenerator(0)
    for index in range(20):
        generator.clip(index)
    begin = time.process_time()
    for index in range(20, 60):
        generator.clip(index)
    assert 40 * generator.duration / (time.process_time() - begin) > 60


# Genres, strength, distractors, confounds


@pytest.mark.parametrize("genre", GENRES)
def test_a_genre_shows_its_causes_at_the_planted_rate_and_the_rest_at_the_base_rate(genre: str):
    strength = 0.8
    found = shares(MusicGenerator(0, strength=strength), genre)
    for concept in CONCEPTS:
        related = {concept, PARENTS.get(concept), *FAMILIES.get(concept, ())}
        slot = next(values for values in SLOTS.values() if related & set(values))
        causes = [cause for cause in GENRES[genre] if cause in slot or set(FAMILIES.get(cause, ())) & set(slot)]
        rate = base_rate(concept)
        if concept in GENRES[genre]:
            rate = strength * (GENRES[genre][concept] > 0) + (1 - strength) * rate
        elif causes:
            continue
        assert abs(found[concept] - rate) < 4.0 * np.sqrt(0.25 / 1500)


def test_strength_zero_is_a_true_null():
    generator = MusicGenerator(0, strength=0.0)
    for index in range(30):
        assert generator.draw(index, genre="reel") == generator.draw(index)


def test_strength_one_makes_a_genre_a_function_of_its_causes():
    generator = MusicGenerator(0, strength=1.0)
    for genre, causes in GENRES.items():
        for index in range(20):
            truth = generator.compose(index, genre=genre).truth
            assert all(truth[concept] == (sign > 0) for concept, sign in causes.items())


def test_no_piece_fits_two_genres():
    generator = MusicGenerator(0)
    for index in range(300):
        truth = generator.compose(index).truth
        fitting = [
            genre for genre, causes in GENRES.items() if all(truth[name] == (sign > 0) for name, sign in causes.items())
        ]
        assert len(fitting) <= 1


def test_distractors_vary_unless_switched_off():
    assert all(abs(shares(MusicGenerator(0), None, 400)[name] - 0.5) < 0.1 for name in DISTRACTORS)
    assert all(shares(MusicGenerator(0, distractors=()), None, 100)[name] == 0.0 for name in DISTRACTORS)
    assert MusicGenerator(0, distractors=()).compose(0, ["drone"]).truth["drone"]


def test_confounds_tie_a_concept_or_a_genre_to_another_concept():
    free, tied = MusicGenerator(0), MusicGenerator(0, confounds={"violin": "drone", "reel": "reverberant"})
    violins = [tied.draw(index, ["violin"]) for index in range(50)]
    assert all(values["drone"] == "drone" for values in violins)
    assert {free.draw(index, ["violin"])["drone"] for index in range(50)} == {"", "drone"}
    assert all(tied.draw(index, genre="reel")["reverberant"] for index in range(50))
    others = [tied.draw(index, {"violin": False}) for index in range(50)]
    assert others == [free.draw(index, {"violin": False}) for index in range(50)]
    assert tied.draw(0, {"violin": True, "drone": False})["drone"] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"sample_rate": 100}, "sample_rate=100"),
        ({"duration": 0.1}, "duration=0.1"),
        ({"strength": 1.5}, "strength=1.5"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"distractors": ["hiss"]}, "distractors='hiss'"),
        ({"genres": {"x": {"kazoo": 1}}}, "concept='kazoo'"),
        ({"genres": {"x": {"fast": 1, "slow": 1}}}, "leave no value for tempo"),
        ({"confounds": {"fast": "slow"}}, "values of one slot"),
        ({"confounds": {"kazoo": "slow"}}, "concept='kazoo'"),
    ],
)
def test_bad_options_are_named_in_one_line(arguments: dict, message: str):
    with pytest.raises(InputError) as caught:
        MusicGenerator(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("index", "concepts", "genre", "message"),
    [
        (-1, (), None, "index=-1"),
        (0, ["kazoo"], None, "concept='kazoo'"),
        (0, ["fast", "slow"], None, "leave no value for tempo"),
        (0, {"plucked": False, "harp": True}, None, "leave no value for instrument"),
        (0, (), "polka", "genre='polka'"),
    ],
)
def test_bad_requests_are_named_in_one_line(index: int, concepts, genre: str | None, message: str):
    with pytest.raises(InputError) as caught:
        MusicGenerator(0).draw(index, concepts, genre)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# The data set on disk


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("dataset"), MusicGenerator(0, duration=1.0)
    return write_dataset(folder, generator, per_instrument=2, per_family=4, random=5, per_genre=2)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_name_every_file_once_and_nothing_else(dataset: Path):
    listed = [row["file"] for name in ("concepts.csv", "clips.csv") for row in rows(dataset / name)]
    assert sorted(listed) == sorted(str(path.relative_to(dataset)) for path in dataset.rglob("*.wav"))
    assert len(set(listed)) == len(listed) == 2 * 9 + 4 * 3 + 5 + 2 * 8
    assert len({row["group"] for row in rows(dataset / "concepts.csv")}) == 2 * 9 + 4 * 3 + 5


def test_cells_name_instruments_or_families_and_the_pool_is_empty(dataset: Path):
    table = rows(dataset / "concepts.csv")
    assert list(table[0]) == ["file", "group", *CONCEPT_COLUMNS]
    by_purpose = {purpose: [row for row in table if purpose in row["file"]] for purpose in ("leaf", "family", "random")}
    assert Counter(row["instrument"] for row in by_purpose["leaf"]) == dict.fromkeys(MELODIC, 2)
    assert Counter(row["instrument"] for row in by_purpose["family"]) == dict.fromkeys(list(FAMILIES)[:3], 4)
    assert Counter(row["percussion"] for row in by_purpose["family"]) == {"": 6, "percussion": 6}
    # two pieces of each instrument, so one turn without and one with percussion
    assert Counter(row["percussion"] for row in by_purpose["leaf"]) == {"": 9, "snare": 9}
    assert len(by_purpose["random"]) == 5
    assert not any(row[column] for row in by_purpose["random"] for column in CONCEPT_COLUMNS)


def test_the_files_hold_the_pieces_that_the_tables_describe(dataset: Path):
    assert [row["genre"] for row in rows(dataset / "clips.csv")] == list(GENRES) * 2
    sounds = []
    for path in dataset.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames) == (16000, 1, 16000)
        sounds.append(path.read_bytes())
    assert len(set(sounds)) == len(sounds)


def test_a_confound_reaches_the_files(tmp_path: Path):
    generator = MusicGenerator(0, duration=1.0, confounds={"violin": "tom", "fast": "drone"})
    table = rows(
        write_dataset(tmp_path, generator, per_instrument=3, per_family=3, random=1, per_genre=0) / "concepts.csv"
    )
    assert {row["percussion"] for row in table if row["instrument"] == "violin"} == {"tom"}
    assert {row["drone"] for row in table if row["tempo"] == "fast"} == {"drone"}
    assert {row["drone"] for row in table if row["tempo"] == "slow"} == {"", "drone"}


def test_the_truth_is_written_beside_the_sound(dataset: Path):
    truth = json.loads((dataset / "truth.json").read_text(encoding="utf-8"))
    assert truth["parents"] == PARENTS
    assert truth["causes"] == GENRES
    assert truth["generator"]["seed"] == 0


def test_the_same_seed_writes_the_same_folder_and_more_clips_change_none(dataset: Path, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    more = write_dataset(
        tmp_path,
        MusicGenerator(0, duration=1.0),
        per_instrument=3,
        per_family=5,
        random=6,
        per_genre=2,
        progress=lambda *a: seen.append(a),
    )
    for path in dataset.rglob("*.wav"):
        assert (more / path.relative_to(dataset)).read_bytes() == path.read_bytes()
    assert seen[-1] == ("render", len(seen), len(seen))
