"""A concept's sound is left out of recordings whose parts are known, and the class falls by what it was worth."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import captum_concepts as cc
from captum_concepts.demo.model import demo_backbone
from captum_concepts.demo.music import MusicGenerator
from captum_concepts.sanity.deletion import deletion_effects, paired_clips

RATE = 4000


class Power(nn.Module):
    """Two classes: the energy below and above 1000 Hz."""

    def __init__(self):
        super().__init__()
        self.bands = nn.Identity()

    def forward(self, waveform):
        spectrum = torch.fft.rfft(waveform).abs().square() / waveform.shape[1] ** 2
        half = spectrum.shape[1] // 2
        return self.bands(torch.stack([spectrum[:, :half].sum(1), spectrum[:, half:].sum(1)], 1))


def power():
    return cc.TorchBackbone(
        Power(), ["bands"], classes=["low", "high"], sample_rate=RATE, patch_seconds=0.5, name="power"
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Low tones with high ones as loud as 0.1 to 0.2, and the same without."""
    root = tmp_path_factory.mktemp("deletion")
    time = np.arange(RATE // 2) / RATE
    for kind in ("whole", "without"):
        (root / kind).mkdir()
        for number in range(8):
            wave = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * time)
            if kind == "whole":
                wave = wave + (0.1 + 0.0125 * number) * np.sin(2 * np.pi * 1500 * time)
            soundfile.write(root / kind / f"{number}.wav", wave, RATE, subtype="FLOAT")
    return root / "whole", root / "without"


def test_the_class_falls_by_the_energy_that_was_left_out(folders):
    table = deletion_effects(power(), paired_clips(*folders)).set_index("target")
    lost = (0.1 + 0.0125 * np.arange(8)) ** 2 / 4  # a sine's share of |rfft|^2 / N^2
    assert table["fall"]["high"] == pytest.approx(lost.mean(), rel=1e-4)
    assert abs(table["fall"]["low"]) < 1e-5
    assert table["low"]["high"] < lost.mean() < table["high"]["high"]
    assert table["p_value"]["high"] == pytest.approx(2 / 2**8, abs=0.004), "only all equal signs reach it"
    assert table["spread"]["high"] == pytest.approx(lost.std(ddof=1), rel=1e-3)
    assert table["n_groups"].tolist() == [8, 8]


def test_pairs_of_one_group_are_one_observation(folders):
    pairs = [(cc.Clip(a.path, group=str(n // 2)), cc.Clip(b.path)) for n, (a, b) in enumerate(paired_clips(*folders))]
    with pytest.raises(cc.InputError, match="pairs=4 groups of recordings: too few; give at least 5"):
        deletion_effects(power(), pairs)
    many = deletion_effects(power(), [*pairs, *((cc.Clip(a.path, group="5"), b) for a, b in pairs[:1])], "high")
    assert many["n_groups"].tolist() == [5]
    assert many["p_value"][0] == pytest.approx(2 / 2**5, abs=0.012)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (b / "7.wav").unlink(), "without=.*: no counterpart of '7'"),
        (lambda a, b: (a / "7.wav").unlink(), "whole=.*: no counterpart of '7'"),
        (lambda a, b: (a / "7.flac").write_bytes(b""), "two recordings are named '7'"),
        (lambda a, b: [path.unlink() for path in b.iterdir()], "no audio file"),
    ],
)
def test_recordings_without_counterpart_are_refused(folders, tmp_path, change, message):
    for folder in folders:
        (tmp_path / folder.name).mkdir()
        for path in folder.iterdir():
            (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    change(tmp_path / "whole", tmp_path / "without")
    with pytest.raises(cc.InputError, match=message):
        paired_clips(tmp_path / "whole", tmp_path / "without")


def test_bad_input_is_one_line(folders, tmp_path):
    pairs = paired_clips(*folders)
    with pytest.raises(cc.InputError, match="target='hgih': is not a class of power"):
        deletion_effects(power(), pairs, "hgih")
    with pytest.raises(cc.InputError, match="pairs=0 groups"):
        deletion_effects(power(), [])
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    with pytest.raises(cc.InputError, match=r"broken\.wav"):
        deletion_effects(power(), [*pairs, (broken, pairs[0][1])])


def test_piece_without_a_sound_keeps_the_rest():
    generator = MusicGenerator(seed=5, duration=2.0, distractors=())
    whole = generator.clip(3, {"violin": True, "snare": True})
    rest = generator.without(3, "violin", {"snare": True})
    other = generator.without(3, "snare", {"violin": True})
    assert whole.truth["violin"] and whole.truth["sustained"]
    assert (
        not rest.truth["violin"]
        and not rest.truth["sustained"]
        and rest.truth["snare"]
        and other.truth["violin"]
        and not other.truth["snare"]
    )
    assert not np.allclose(rest.waveform, whole.waveform)
    muted = generator.clip(3, {"violin": True, "percussion": False})
    np.testing.assert_array_equal(generator.without(3, "percussion", {"violin": True}).waveform, muted.waveform)
    np.testing.assert_array_equal(generator.without(3, "drone").waveform, generator.clip(3, {"drone": False}).waveform)


@pytest.mark.parametrize(("concept", "message"), [("fast", "has no sound of its own"), ("fiddle", "unknown")])
def test_only_concepts_with_a_sound_can_be_left_out(concept, message):
    with pytest.raises(cc.InputError, match=message):
        MusicGenerator().without(0, concept)


def test_leaving_out_a_cause_lowers_its_genre(tmp_path):
    """The generator plants clarinet as a cause of hymns; the demo's model has learnt it."""
    generator, pairs = MusicGenerator(seed=9, duration=3.2), []
    for number in range(8):
        files = tmp_path / f"{number}.wav", tmp_path / f"{number}-without.wav"
        waves = generator.clip(number, {"clarinet": True}, "hymn"), generator.without(number, "clarinet", genre="hymn")
        for file, piece in zip(files, waves, strict=True):
            soundfile.write(file, piece.waveform, generator.sample_rate)
        pairs.append(files)
    table = deletion_effects(demo_backbone(), pairs, "hymn")
    assert table["fall"][0] > 0 and table["low"][0] > 0 and table["p_value"][0] < 0.05
