"""Reading audio: against soundfile and torchaudio on whole files, and every way in which a file can be bad."""

from __future__ import annotations

import hashlib
import os
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import torchaudio.functional
from helpers.paths import SHARED

from captum_concepts.audio import decoding
from captum_concepts.audio.clips import AudioError, Clip
from captum_concepts.audio.files import duration, file_digest, find_audio
from captum_concepts.audio.patches import Patches, iter_patches, read_clip
from captum_concepts.errors import InputError

WRITTEN = {  # Vorbis is only read: writing it crashes libsndfile
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "wide.wav": ("WAVEX", "PCM_24"),
    "rf64.wav": ("RF64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "au": ("AU", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
}


def noise(seconds: float, sample_rate: int = 16000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Low-passed noise (frames,) or (frames, channels), peak below 1."""
    shape = (round(seconds * sample_rate), channels)
    raw = np.random.default_rng(seed).standard_normal(shape)
    smooth = scipy.signal.lfilter(np.ones(4) / 4, 1, raw, axis=0)
    smooth = (0.15 * smooth).clip(-0.9, 0.9).astype(np.float32)
    return smooth[:, 0] if channels == 1 else smooth


def write(path: Path, samples: np.ndarray, sample_rate: int = 16000, kind: str = "float.wav") -> Path:
    container, subtype = WRITTEN[kind]
    soundfile.write(path, samples, sample_rate, format=container, subtype=subtype)
    return path


def cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def patches(clip: Clip | str | Path, *arguments, **options) -> list[Patches]:
    return list(iter_patches(clip if isinstance(clip, Clip) else Clip(clip), *arguments, **options))


def refused(path: Path, status: str, **options) -> str:
    """The message with which the file is refused."""
    with pytest.raises(AudioError) as caught:
        patches(path, 16000, 4000, 4000, **options)
    assert caught.value.status == status
    assert caught.value.path == str(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", list(WRITTEN))
def test_formats_are_read_as_soundfile_reads_them(tmp_path, kind):
    path = write(tmp_path / f"clip.{kind}", noise(1.5, channels=2), kind=kind)
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    assert duration(path) == pytest.approx(len(expected) / 16000)
    np.testing.assert_allclose(read_clip(Clip(path), 16000).numpy(), expected, atol=1e-7)
    got = torch.cat([block.inputs for block in patches(path, 16000, 4000, 4000, max_patches=2)])
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected[: len(expected) // 4000 * 4000].reshape(-1, 4000), atol=1e-7)


def test_vorbis_is_read():
    path = SHARED / "clips" / "sorohanro_-_solo-trumpet-06.ogg"
    if not path.is_file():
        pytest.skip("the Vorbis clips of shared/data are not there")
    expected = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(read_clip(Clip(path), 22050).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("have", "want"), [(44100, 16000), (22050, 16000), (8000, 22050), (48000, 16000), (16000, 16000)]
)
@pytest.mark.parametrize("hop", [1500, 3000, 7000])
def test_blocks_equal_the_whole_clip_resampled_at_once(tmp_path, have, want, hop):
    signal = noise(3.21, have)
    path = write(tmp_path / "a.wav", signal, have)
    whole = torchaudio.functional.resample(
        torch.from_numpy(signal).double(), have, want, lowpass_filter_width=32, rolloff=0.99
    ).float()
    torch.testing.assert_close(read_clip(Clip(path), want), whole, atol=1e-6, rtol=0)
    padded = torch.nn.functional.pad(whole, (256, 100))
    expected = padded.unfold(0, 3000, hop)
    for most in (1, 3, 64):
        blocks = patches(path, want, 3000, hop, pad=(256, 100), max_patches=most)
        assert all(len(block.inputs) <= most for block in blocks)
        torch.testing.assert_close(torch.cat([block.inputs for block in blocks]), expected, atol=1e-6, rtol=0)


def test_resampling_keeps_tones_and_stops_aliases(tmp_path):
    """A tone below the new Nyquist frequency stays as it is, one above it goes."""
    seconds = np.arange(44100) / 44100
    for hertz, gain in ((440, 1), (6000, 1), (9500, 0), (15000, 0)):
        path = write(tmp_path / f"{hertz}.wav", np.sin(2 * np.pi * hertz * seconds).astype(np.float32), 44100)
        got = read_clip(Clip(path), 16000).numpy()[500:-500]
        ideal = gain * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)[500:-500]
        assert np.abs(got - ideal).max() < 5e-3


@pytest.mark.parametrize(("have", "want"), [(44101, 16000), (11127, 16000)])
def test_odd_rates_are_resampled_without_drift(tmp_path, have, want):
    """Rates whose ratio has large terms, in blocks, against the sine itself."""
    path = write(tmp_path / "a.wav", np.sin(2 * np.pi * 440 * np.arange(3 * have) / have).astype(np.float32), have)
    got = torch.cat([block.inputs for block in patches(path, want, 1000, 1000, max_patches=3)]).reshape(-1).numpy()
    ideal = np.sin(2 * np.pi * 440 * np.arange(len(got)) / want)
    assert len(got) == 48000
    assert np.abs(got - ideal)[500:-500].max() < 1e-4


def test_odd_rates_use_the_same_filter(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(1, 44100), 44100)
    expected = read_clip(Clip(path), 16000)
    monkeypatch.setattr(decoding, "_KERNEL_SIZE", 0)
    torch.testing.assert_close(read_clip(Clip(path), 16000), expected, atol=1e-6, rtol=0)


def test_patch_count_and_seconds(tmp_path):
    path = write(tmp_path / "a.wav", noise(10))
    (block,) = patches(path, 16000, 48000, 40000)
    assert len(block.inputs) == 1 + (160000 - 48000) // 40000
    np.testing.assert_allclose(block.starts, [0, 2.5, 5])
    np.testing.assert_allclose(block.ends, [3, 5.5, 8])
    assert block.notes == ()
    (block,) = patches(Clip(path, 2, 9), 16000, 48000, 48000, pad=(8000, 24000))
    np.testing.assert_allclose(block.starts, [2, 4.5, 7.5])
    np.testing.assert_allclose(block.ends, [4.5, 7.5, 9])
    assert not block.inputs[0, :8000].any()


def test_padding_reaches_behind_the_signal(tmp_path):
    signal = noise(1)
    path = write(tmp_path / "a.wav", signal)
    (block,) = patches(path, 16000, 4000, 4000, pad=(0, 8000))
    np.testing.assert_array_equal(block.inputs.reshape(-1).numpy(), np.pad(signal, (0, 8000)))
    np.testing.assert_allclose(block.starts, [0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(block.ends, [0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize("kind", ["flac", "opus", "mp3"])
def test_a_clip_is_its_part_of_the_file(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", noise(6), kind=kind)
    whole = read_clip(Clip(path), 16000)
    part = read_clip(Clip(path, 2.5, 4.0), 16000)
    tolerance = {"flac": 0, "opus": 1e-2, "mp3": 1e-4}[kind]  # a decoder that starts in the middle has no history
    torch.testing.assert_close(part, whole[40000:64000], atol=tolerance, rtol=0)


def test_short_clips(tmp_path):
    signal = noise(0.3)
    path = write(tmp_path / "a.wav", signal)
    (block,) = patches(path, 16000, 16000, 16000, pad=(256, 511))
    np.testing.assert_array_equal(block.inputs[0].numpy(), np.concatenate((np.zeros(256), np.tile(signal, 4)))[:16000])
    assert block.notes == ("clip of 0.30 s looped to fill one patch",)
    assert (block.starts[0], block.ends[0]) == (0, 0.3)
    (block,) = patches(path, 16000, 16000, 16000, pad=(256, 511), short="pad")
    np.testing.assert_array_equal(block.inputs[0].numpy(), np.pad(signal, (256, 16000 - 256 - 4800)))
    assert "zeros" in block.notes[0]
    with pytest.raises(AudioError, match=r"too short: 0\.300 s where 1\.000 s") as caught:
        patches(path, 16000, 16000, 16000, short="skip")
    assert caught.value.status == "too short"


@pytest.mark.parametrize("short", ["repeat", "pad", "skip"])
def test_clicks_are_always_too_short(tmp_path, short):
    refused(write(tmp_path / "a.wav", noise(0.04)), "too short", short=short)


def test_an_hour_is_never_in_memory(tmp_path):
    path = tmp_path / "hour.wav"
    hour = np.random.default_rng(0).integers(-9999, 9999, 8000 * 3600, dtype=np.int16)
    soundfile.write(path, hour, 8000)
    tracemalloc.start()
    try:
        count = 0
        for block in iter_patches(Clip(path), 4000, 12000, 12000):
            count += len(block.inputs)
            last = block
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1200
    assert last.ends[-1] == 3600
    assert peak < 40e6  # the hour is 115 MB as float32


def test_long_patches_come_in_small_blocks(tmp_path):
    path = write(tmp_path / "a.wav", noise(60, 48000), 48000, "wav")
    blocks = patches(path, 48000, 48000 * 20, 48000)
    assert max(block.inputs.numel() for block in blocks) <= 1 << 22
    assert sum(len(block.inputs) for block in blocks) == 41


def test_mp3_without_a_length_is_counted(tmp_path):
    path = write(tmp_path / "a.mp3", noise(3, 44100), 44100, "mp3")
    data = path.read_bytes()
    assert b"Xing" in data
    # A tag of 40 kB before the first frame misleads the guess that libsndfile makes from the size of the file.
    tag = b"ID3\x03\x00\x00" + bytes([0, 2, 56, 64]) + bytes(40000)
    path.write_bytes(tag + data.replace(b"Xing", b"\0\0\0\0"))
    frames = len(soundfile.read(path)[0])
    assert soundfile.info(path).frames > frames + 44100
    assert duration(path) == pytest.approx(frames / 44100)
    assert len(read_clip(Clip(path), 44100)) == frames
    assert len(read_clip(Clip(path, 1.0), 44100)) == frames - 44100


def test_real_mp3s_are_whole():
    folder = SHARED / "philharmonia" / "audio" / "banjo"
    if not folder.is_dir():
        pytest.skip("the Philharmonia clips of shared/data are not there")
    for path in find_audio(folder):
        assert len(read_clip(Clip(path), 44100)) == len(soundfile.read(path)[0])


@pytest.mark.parametrize(
    "kind", ["wav", "float.wav", "wide.wav", "rf64.wav", "flac", "mp3", "opus", "au", "aiff", "w64"]
)
def test_truncated(tmp_path, kind):
    refused(cut(write(tmp_path / f"a.{kind}", noise(5, 48000), 48000, kind)), "truncated")


def test_truncated_vorbis(tmp_path):
    source = SHARED / "clips" / "sorohanro_-_solo-trumpet-06.ogg"
    if not source.is_file():
        pytest.skip("the Vorbis clips of shared/data are not there")
    path = tmp_path / "a.ogg"
    path.write_bytes(source.read_bytes())
    refused(cut(path), "truncated")


def test_truncated_behind_the_last_patch(tmp_path):
    path = write(tmp_path / "a.flac", noise(5), kind="flac")
    with pytest.raises(AudioError, match="truncated"):
        patches(cut(path, 0.9), 16000, 70000, 70000)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_is_whole(tmp_path, size):
    path = write(tmp_path / "a.wav", noise(1), kind="wav")
    data = path.read_bytes()
    path.write_bytes(data[:40] + size.to_bytes(4, "little") + data[44:])
    assert len(read_clip(Clip(path), 16000)) == 16000


def test_mislabelled(tmp_path):
    path = write(tmp_path / "song.wav", noise(1), kind="mp3")
    assert "the content is MP3" in refused(path, "mislabelled")
    refused(write(tmp_path / "song.mp3", noise(1), kind="flac"), "mislabelled")
    assert len(patches(write(tmp_path / "song.FLAC", noise(1), kind="flac"), 16000, 16000, 16000)) == 1


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.ogg", "a.raw", "a\nb.wav", "a" * 200 + ".flac"])
def test_unreadable(tmp_path, name):
    (tmp_path / name).write_text("this is no audio")
    with pytest.raises(AudioError) as caught:
        patches(tmp_path / name, 16000, 4000, 4000)
    assert caught.value.status == "unreadable"
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
def test_a_name_that_is_not_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    with open(path, "wb") as file:
        file.write(write(tmp_path / "cafe.wav", noise(1)).read_bytes())
    with pytest.raises(AudioError, match="its name is not UTF-8; rename the file") as caught:
        duration(os.fsdecode(path))
    assert caught.value.status == "unreadable"


def test_missing_folder_and_pipe(tmp_path):
    assert "No such file" in refused(tmp_path / "nothing.wav", "unreadable")
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "folder.wav", "unreadable")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "unreadable")
    with pytest.raises(AudioError, match="null"):
        duration("a\0b.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden(tmp_path):
    path = write(tmp_path / "a.wav", noise(1))
    path.chmod(0)
    assert "permission" in refused(path, "unreadable")


def test_empty(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "0 bytes" in refused(tmp_path / "a.wav", "empty")
    assert "no audio frames" in refused(write(tmp_path / "b.wav", np.zeros(0, np.float32)), "empty")


def test_silent(tmp_path):
    assert "digital silence" in refused(write(tmp_path / "a.wav", np.zeros(16000, np.float32)), "silent")
    assert "-86 dBFS" in refused(write(tmp_path / "b.wav", np.full(16000, 5e-5, np.float32)), "silent")
    opposite = noise(1)
    refused(write(tmp_path / "c.wav", np.stack([opposite, -opposite], 1)), "silent")
    refused(write(tmp_path / "d.wav", np.zeros(1600, np.float32)), "silent")
    with pytest.raises(AudioError, match="silent"):
        read_clip(Clip(tmp_path / "a.wav"), 8000)


def test_silence_within_a_clip_is_kept_and_a_silent_long_clip_is_refused_at_once(tmp_path):
    signal = np.zeros(16000 * 20, np.float32)
    path = write(tmp_path / "silent.wav", signal)
    with pytest.raises(AudioError, match="silent"):
        next(iter_patches(Clip(path), 16000, 4000, 4000, max_patches=2))
    signal[-16000:] = noise(1)
    path = write(tmp_path / "late.wav", signal)
    blocks = patches(path, 16000, 4000, 4000, max_patches=2)
    assert sum(len(block.inputs) for block in blocks) == 80
    np.testing.assert_array_equal(torch.cat([block.inputs for block in blocks]).reshape(-1).numpy(), signal)
    with pytest.raises(AudioError, match="silent"):
        patches(Clip(path, 0, 10), 16000, 4000, 4000, max_patches=2)
    with pytest.raises(AudioError, match="silent"):
        patches(Clip(path, 0, 0.1), 16000, 4000, 4000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 8000, 79999])
def test_nan(tmp_path, bad, at):
    signal = noise(5)
    signal[at] = bad
    refused(write(tmp_path / "a.wav", signal), "nan", max_patches=3)


def test_float_above_one_is_fine(tmp_path):
    path = write(tmp_path / "a.wav", 7 * noise(1))
    np.testing.assert_array_equal(read_clip(Clip(path), 16000).numpy(), 7 * noise(1))


@pytest.mark.parametrize(("start", "end"), [(6, None), (5, 6), (0, 5.2), (-1, 2), (2, 2), (3, 2), (float("nan"), 2)])
def test_spans_outside_the_file(tmp_path, start, end):
    path = write(tmp_path / "a.wav", noise(5))
    with pytest.raises(InputError, match=r"a\.wav.*is not inside the file of 5\.000 s") as caught:
        patches(Clip(path, start, end), 16000, 4000, 4000)
    assert not isinstance(caught.value, AudioError)


def test_a_rounded_end_is_the_end_of_the_file(tmp_path):
    path = write(tmp_path / "a.wav", noise(5))
    assert len(read_clip(Clip(path, 4, 5.05), 16000)) == 16000


@pytest.mark.parametrize(
    ("numbers", "options", "words"),
    [
        ((0, 4000, 4000), {}, "sample_rate=0"),
        ((16000, -1, 4000), {}, "patch_samples=-1"),
        ((16000, 4000, 0), {}, "hop_samples=0"),
        ((16000, 4000, 4000), {"pad": (-1, 0)}, "pad="),
        ((16000, 4000, 4000), {"max_patches": 0}, "max_patches=0"),
        ((16000, 4000, 4000), {"short": "stretch"}, "short='stretch'"),
    ],
)
def test_bad_arguments_are_refused_before_reading(numbers, options, words):
    with pytest.raises(InputError, match=words):
        iter_patches(Clip("nothing.wav"), *numbers, **options)


def test_threads_read_what_one_thread_reads(tmp_path):
    clips = [Clip(write(tmp_path / f"{i}.wav", noise(2, 44100, seed=i), 44100)) for i in range(8)]

    def hear(clip: Clip) -> torch.Tensor:
        return torch.cat([block.inputs for block in iter_patches(clip, 16000, 4000, 2000, max_patches=2)])

    expected = [hear(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(hear, clips), expected, strict=True):
            assert torch.equal(got, wanted)


def test_digest(tmp_path):
    path = write(tmp_path / "a.wav", noise(1))
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(AudioError):
        file_digest(tmp_path / "nothing.wav")


def test_find_audio(tmp_path):
    for name in ("b/2.WAV", "b/1.flac", "a.mp3", "b/c/x.opus", "notes.txt", "b/._1.flac", ".hidden/z.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "loop").symlink_to(tmp_path)
    names = [str(Path(path).relative_to(tmp_path)) for path in find_audio(tmp_path)]
    assert names == ["a.mp3", "b/1.flac", "b/2.WAV", "b/c/x.opus"]
    with pytest.raises(InputError, match="is not a folder"):
        find_audio(tmp_path / "a.mp3")


def test_clips_have_identity():
    assert Clip("a").group == "a"
    assert len({Clip("a"), Clip(Path("a")), Clip("a", 1.0)}) == 2
    assert sorted([Clip("b"), Clip("a", 2.0), Clip("a", 1.0)])[0] == Clip("a", 1.0)


@pytest.mark.parametrize("kind", ["float.wav", "mp3"])
@pytest.mark.parametrize("want", [16000, 22050, 15991])
def test_all_channels_are_what_each_is_alone(tmp_path, kind, want):
    samples = noise(0.7, channels=2)
    path = write(tmp_path / "both", samples, kind=kind)
    extracted, rate = soundfile.read(path, dtype="float32")
    both = read_clip(Clip(str(path)), want, channels="all")
    for channel in range(2):
        alone = write(tmp_path / f"one{channel}", extracted[:, channel], rate)
        torch.testing.assert_close(both[channel], read_clip(Clip(str(alone)), want), atol=2e-6, rtol=0)
    torch.testing.assert_close(both.mean(0), read_clip(Clip(str(path)), want), atol=2e-6, rtol=0)


def test_all_channels_of_a_part(tmp_path):
    samples = noise(1.0, channels=4)
    path = write(tmp_path / "four", samples)
    part = read_clip(Clip(str(path), 0.25, 0.5), 16000, channels="all")
    np.testing.assert_array_equal(part.numpy(), samples[4000:8000].T)
    mono = write(tmp_path / "mono", samples[:, 0])
    assert read_clip(Clip(str(mono)), 16000, channels="all").shape == (1, 16000)


def test_channels_that_cancel_are_silent_in_the_mean_only(tmp_path):
    tone = noise(0.5)
    path = write(tmp_path / "opposed", np.stack([tone, -tone], 1))
    with pytest.raises(AudioError, match="silent"):
        read_clip(Clip(str(path)), 16000)
    assert read_clip(Clip(str(path)), 16000, channels="all").shape == (2, 8000)
    with pytest.raises(InputError, match="channels='left': is not known; give"):
        read_clip(Clip(str(path)), 16000, channels="left")


@pytest.mark.parametrize("short", ["repeat", "pad"])
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_patches_of_all_channels_are_what_each_is_alone(tmp_path, short, seconds):
    samples = np.random.default_rng(5).standard_normal((round(44_100 * seconds), 3)).astype(np.float32) / 5
    soundfile.write(tmp_path / "all.wav", samples, 44_100, subtype="FLOAT")
    how = (16_000, 9000, 4000, (100, 50), short, 2)
    together = list(iter_patches(Clip(str(tmp_path / "all.wav")), *how, "all"))
    for channel in range(3):
        path = tmp_path / f"{channel}.wav"
        soundfile.write(path, samples[:, channel], 44_100, subtype="FLOAT")
        alone = list(iter_patches(Clip(str(path)), *how))
        assert [block.inputs.shape[1:] for block in together] == [(3, 9000)] * len(alone)
        for all_of_them, one in zip(together, alone, strict=True):
            assert torch.allclose(all_of_them.inputs[:, channel], one.inputs, atol=1e-6)
            assert np.array_equal(all_of_them.starts, one.starts) and all_of_them.notes == one.notes
