from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soundfile
from captum_concepts_tile2vec.data import Recording, folder_recordings
from captum_concepts_tile2vec.tiles import find_tiles

from captum_concepts.errors import InputError


def noise(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels)).astype(np.float32)


def recording(path, samples, rate=16_000) -> Recording:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return Recording(str(path), path.name, "", str(path))


@pytest.mark.parametrize(
    ("seconds", "hop", "expected"),
    [
        (30.0, None, [0, 5, 10, 15, 20, 25]),
        (29.9, None, [0, 5, 10, 15, 20]),
        (10.0, 2.5, [0, 2.5, 5]),
        (5.0, None, [0]),
    ],
)
def test_tiles_lie_in_the_file(tmp_path, seconds, hop, expected):
    tiles = find_tiles([recording(tmp_path / "a.wav", noise(seconds))], 5.0, hop)
    assert tiles.starts.tolist() == expected
    assert [tiles.read(index).shape for index in range(len(tiles))] == [(1, 80_000)] * len(expected)


def test_a_tile_is_what_the_file_has_there(tmp_path):
    samples = noise(4.0, channels=4)
    path = recording(tmp_path / "a.wav", samples)
    every = find_tiles([path], 1.0, channels="all")
    mean = find_tiles([path], 1.0)
    assert (every.channels, mean.channels) == (4, 1)
    np.testing.assert_array_equal(every.read(2).numpy(), samples[32_000:48_000].T)
    np.testing.assert_allclose(mean.read(3).numpy()[0], samples[48_000:].mean(1), atol=1e-7)


def test_silent_tiles_are_left_out_and_named(tmp_path):
    samples = noise(4.0)
    samples[16_000:32_000] = 0
    tiles = find_tiles([recording(tmp_path / "a.wav", samples)], 1.0)
    assert tiles.starts.tolist() == [0, 2, 3]
    assert tiles.warnings == ("silent tiles left out in 1 recordings (tiles): 'a.wav (1)'",)


def test_bad_recordings_are_left_out_and_named(tmp_path):
    good = recording(tmp_path / "good.wav", noise(2.0))
    short = recording(tmp_path / "short.wav", noise(0.5))
    silent = recording(tmp_path / "silent.wav", np.zeros((32_000, 1), np.float32))
    broken = recording(tmp_path / "nan.wav", np.full((32_000, 1), np.nan, np.float32))
    cut = recording(tmp_path / "cut.wav", noise(2.0))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:20_000])
    tiles = find_tiles([short, silent, good, broken, cut], 1.0)
    assert tiles.recordings == (good,)
    words = ["too short: 0.50 s where a tile has 1 s", "silent: all 2 tiles", "nan: samples are NaN", "truncated"]
    for line, said, name in zip(tiles.skipped, words, ("short", "silent", "nan", "cut"), strict=True):
        assert said in line and f"{name}.wav" in line and "\n" not in line
    with pytest.raises(InputError, match=r"none of 2 recordings has a usable tile of 1 s: .*too short"):
        find_tiles([short, silent], 1.0)


def test_mixed_sample_rates_are_said_and_resampled(tmp_path):
    found = [
        recording(tmp_path / "a.wav", noise(2.0)),
        recording(tmp_path / "b.wav", noise(2.0, 44_100), 44_100),
        recording(tmp_path / "c.wav", noise(2.0, 8000), 8000),
    ]
    tiles = find_tiles(found, 1.0)
    assert [tiles.read(index).shape for index in range(6)] == [(1, 16_000)] * 6
    assert tiles.warnings == (
        "mixed sample rates, 8000 Hz (1), 16000 Hz (1), 44100 Hz (1): all are resampled to 16000 Hz",
        "1 recordings have a lower rate than 16000 Hz: above half their own rate they are empty",
    )


def test_files_of_different_channels(tmp_path):
    found = [recording(tmp_path / "a.wav", noise(2.0)), recording(tmp_path / "b.wav", noise(2.0, channels=2))]
    with pytest.raises(InputError, match=r"b.wav' has 2 channels and .*a.wav' 1: give recordings of one kind"):
        find_tiles(found, 1.0, channels="all")
    assert len(find_tiles(found, 1.0)) == 4


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_out_of_range(seconds):
    with pytest.raises(InputError, match="seconds="):
        find_tiles([], seconds)
    with pytest.raises(InputError, match="hop="):
        find_tiles([], 1.0, seconds)


def test_long_files_are_never_in_memory(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(20):
            file.write(noise(60.0))
    tracemalloc.start()
    tiles = find_tiles([Recording(str(path), "long", "", "long")], 5.0)
    last = tiles.read(len(tiles) - 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tiles) == 240
    assert last.shape == (1, 80_000)
    assert peak < 16e6  # the file has 77 MB as float32


def test_names_labels_and_groups(write_folder):
    tiles = find_tiles(folder_recordings(write_folder(per_class=1)), 1.0)
    assert tiles.labels.tolist() == ["absence"] * 2 + ["cooking"] * 2 + ["working"] * 2
    assert tiles.name(3).endswith("0.wav 1 s")
    assert tiles.clip(3).start == 1.0 and tiles.clip(3).end == 2.0
    assert len(set(tiles.groups)) == 3
