from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from captum_concepts.audio.clips import Clip
from captum_concepts.errors import InputError
from captum_concepts.report.audio import encode, encode_all

from .conftest import RATE, tone


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(data))


def test_a_clip_becomes_mono_mp3_of_its_own_span_and_pitch(tmp_path: Path) -> None:
    sound = encode(replace(tone(tmp_path / "a.wav", 3.0, 500.0), start=0.5, end=2.5), 8.0)
    info = soundfile.info(io.BytesIO(sound.data))
    samples, rate = decoded(sound.data)
    assert (info.format, info.subtype, info.channels) == ("MP3", "MPEG_LAYER_III", 1)
    assert sound.seconds == pytest.approx(2.0, abs=1e-3)
    assert len(samples) / rate == pytest.approx(2.0, abs=0.08)  # MP3 pads to whole frames
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()] == pytest.approx(500.0, abs=2.0)


@pytest.mark.parametrize(("native", "kept"), [(8_000, 16_000), (22_050, 22_050), (44_100, 44_100), (48_000, 44_100)])
def test_the_rate_is_one_that_mp3_knows(tmp_path: Path, native: int, kept: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.sin(np.arange(native) / 20).astype(np.float32), native)
    assert decoded(encode(Clip(str(path)), 8.0).data)[1] == kept


def test_stereo_is_mixed_and_a_long_clip_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (20 * RATE, 2)).astype(np.float32), RATE)
    assert encode(Clip(str(path)), 8.0).seconds == pytest.approx(8.0, abs=1e-3)


def test_equal_clips_give_equal_bytes(tmp_path: Path) -> None:
    clip = tone(tmp_path / "a.wav", 1.0)
    assert encode(clip, 8.0).data == encode(clip, 8.0).data
    assert encode(clip, 8.0).digest != encode(replace(clip, end=0.5), 8.0).digest


def test_a_missing_or_broken_file_is_named_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "noise.wav").write_bytes(b"this is not audio")
    good = tone(tmp_path / "a.wav", 1.0)
    for name in ("gone.wav", "noise.wav"):
        with pytest.raises(InputError, match=name) as caught:
            encode(Clip(str(tmp_path / name)), 8.0)
        assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        sounds = list(encode_all([(Clip(str(tmp_path / "gone.wav")), 8.0), (good, 8.0)]))
    assert sounds[0] is None and sounds[1] is not None and "gone.wav" in caplog.text
