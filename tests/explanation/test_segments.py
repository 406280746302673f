"""The strongest seconds of a track, chosen and written."""

from __future__ import annotations

import csv
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

import captum_concepts as cc
from captum_concepts.explanation.segments import COLUMNS, Segment, strongest_segments, write_segments
from captum_concepts.results.timeline import Timeline


def timeline(sensitivity: np.ndarray, path: str = "t.wav", hop: float = 0.5, patch: float = 2.0) -> Timeline:
    starts = np.arange(len(sensitivity)) * hop
    return Timeline(
        "layer", "jazz", cc.Clip(path), starts, starts + patch, sensitivity, np.full_like(sensitivity, 0.25)
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_strongest_comes_first_and_none_overlaps(seed: int) -> None:
    sensitivity = np.random.default_rng(seed).normal(size=(40, 2))
    line = timeline(sensitivity)
    for column, name in enumerate("ab"):
        found = strongest_segments(line, ["a", "b"], [name], k=4)
        assert found[0].sensitivity == sensitivity[:, column].max()
        assert [segment.rank for segment in found] == list(range(1, len(found) + 1))
        assert all(a.sensitivity >= b.sensitivity > 0 for a, b in pairwise(found))
        for one, other in combinations(found, 2):
            assert one.clip.start >= other.clip.end or one.clip.end <= other.clip.start
        # Whatever was not chosen and pushes harder than the last chosen overlaps a stronger one.
        for patch in np.flatnonzero(sensitivity[:, column] > found[-1].sensitivity):
            start, end = line.starts[patch], line.ends[patch]
            stronger = [s for s in found if s.sensitivity >= sensitivity[patch, column]]
            assert any(start < s.clip.end and end > s.clip.start for s in stronger)


def test_a_concept_that_pushes_nothing_up_has_no_segment() -> None:
    sensitivity = np.column_stack([-np.ones(9), np.zeros(9), np.full(9, np.nan)])
    assert strongest_segments(timeline(sensitivity), ["down", "nothing", "no CAV"]) == []


def test_bad_arguments() -> None:
    line = timeline(np.ones((3, 1)))
    with pytest.raises(cc.InputError, match="k=0"):
        strongest_segments(line, ["a"], k=0)
    with pytest.raises(cc.InputError, match="concept 'b' is not in this timeline"):
        strongest_segments(line, ["a"], ["b"])


@pytest.fixture
def track(tmp_path: Path) -> Path:
    """10 s of stereo at 44.1 kHz, 4 to 6 s of it silent."""
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, (441_000, 2))
    sound[4 * 44_100 : 6 * 44_100] = 0
    soundfile.write(tmp_path / "tra ck.flac", sound, 44_100, subtype="PCM_16")
    return tmp_path / "tra ck.flac"


def segment(path: Path, start: float, end: float, concept: str = "a") -> Segment:
    return Segment(concept, "layer", "jazz", 1, cc.Clip(str(path), start, end), 1.5, 0.5)


def test_rate_channels_and_samples_are_those_of_the_source_and_ends_are_faded(track: Path, tmp_path: Path) -> None:
    index = write_segments([segment(track, 1.0, 3.5)], tmp_path / "out", fade=0.02)
    with open(index, newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == COLUMNS
    assert (float(row["start"]), float(row["end"]), float(row["sensitivity"])) == (1.0, 3.5, 1.5)
    samples, rate = soundfile.read(index.parent / row["file"])
    assert rate == 44_100 and samples.shape == (110_250, 2)
    source, _ = soundfile.read(track, start=44_100, stop=44_100 + 110_250)
    edge = 882
    np.testing.assert_allclose(samples[edge:-edge], source[edge:-edge], atol=2e-7)
    ramp = np.arange(edge)[:, None] / edge
    np.testing.assert_allclose(samples[:edge], source[:edge] * ramp, atol=1e-6)
    np.testing.assert_allclose(samples[-edge:], source[-edge:] * ramp[::-1], atol=1e-6)
    assert samples[0].tolist() == samples[-1].tolist() == [0, 0]


def test_a_silent_stretch_of_a_track_is_written_too(track: Path, tmp_path: Path) -> None:
    index = write_segments([segment(track, 4.0, 6.0)], tmp_path / "out")
    samples, _ = soundfile.read(next(index.parent.glob("*.wav")))
    assert samples.shape == (88_200, 2) and not samples.any()


def test_equal_seconds_are_one_file_and_a_second_call_replaces_only_its_own(track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_segments([segment(track, 0, 1), segment(track, 0, 1, "b"), segment(track, 2, 3, "b")], out)
    assert len(list(out.glob("*.wav"))) == 2
    (out / "mine.wav").write_text("mine")
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    write_segments([segment(track, 7, 8)], out)
    assert {path.name for path in out.iterdir()} == {"mine.wav", "segments.csv", "001_tra_ck_7.00-8.00.wav"}
    write_segments([segment(track, 0, 1), segment(track, 0, 1, "b"), segment(track, 2, 3, "b")], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_what_cannot_be_written_is_said_and_leaves_what_lay_there(track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_segments([segment(track, 0, 1)], out)
    before = sorted(path.name for path in out.iterdir())
    for action, text in (
        (lambda: write_segments([segment(tmp_path / "no.wav", 0, 1)], out), "no.wav"),
        (lambda: write_segments([segment(track, 0, 1)], out, fade=-1), "fade=-1"),
        (lambda: write_segments([segment(track, 0, 1)], track), "cannot be written"),
    ):
        with pytest.raises(cc.InputError, match=text) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in out.iterdir()) == before
