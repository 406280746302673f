"""Front-ends against Essentia, against torchaudio, and against mel spectrograms written out in numpy."""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.paths import SHARED
from torch import nn

from captum_concepts.audio import _torchaudio
from captum_concepts.audio.clips import Clip
from captum_concepts.audio.frontends import PRESETS, Frontend, frontend
from captum_concepts.audio.patches import iter_patches, read_clip
from captum_concepts.errors import InputError

JAZZ = SHARED / "gtzan_mini" / "genres" / "jazz" / "jazz.00000.flac"


def sound(samples: int, sample_rate: int, seed: int = 0) -> np.ndarray:
    """A decaying chord in noise: every band busy, levels from loud to faint."""
    random = np.random.default_rng(seed)
    seconds = np.arange(samples) / sample_rate
    chord = sum(np.sin(2 * np.pi * f * seconds) for f in (55.0, 440.0, 1237.0, 3100.0, 6900.0))
    return ((0.1 * chord + 0.01 * random.standard_normal(samples)) * np.exp(-seconds)).astype(np.float32)


def slaney_mel(hz: np.ndarray) -> np.ndarray:
    """Hz to mel after Slaney's Auditory Toolbox: linear below 1 kHz, 27 steps per factor 6.4 above."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / np.log(6.4))


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def triangles(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(points, bands), written as a loop over the definition."""
    bands = np.zeros((len(points), len(edges) - 2))
    for band, (low, middle, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for row, x in enumerate(points):
            if low < x <= middle:
                bands[row, band] = (x - low) / (middle - low)
            elif middle < x < high:
                bands[row, band] = (high - x) / (high - middle)
    return bands


def spectra(signal: np.ndarray, window: np.ndarray, hop: int, n_fft: int) -> np.ndarray:
    """Magnitudes (frames, bins) in float64."""
    starts = range(0, len(signal) - len(window) + 1, hop)
    frames = np.array([signal[s : s + len(window)] for s in starts], np.float64)
    return np.abs(np.fft.rfft(frames * window, n_fft))


def musicnn_by_hand(signal: np.ndarray) -> np.ndarray:
    edges = slaney_hz(np.linspace(slaney_mel(np.array(0.0)), slaney_mel(np.array(8000.0)), 98))
    filters = triangles(np.linspace(0, 8000, 257), edges) * (2 / (edges[2:] - edges[:-2]))
    return np.log10(1 + 10000 * (spectra(signal, np.hanning(512), 256, 512) ** 2 @ filters))


def vggish_by_hand(signal: np.ndarray) -> np.ndarray:
    mel = 2595 * np.log10(1 + np.linspace(0, 8000, 257) / 700)
    low, high = 2595 * np.log10(1 + np.array([125.0, 7500.0]) / 700)
    filters = triangles(mel, np.linspace(low, high, 66))
    return np.log(spectra(signal, np.hanning(400), 160, 512) @ filters + 0.01)


def gtzan_by_hand(signal: np.ndarray) -> np.ndarray:
    """(frames, mel), frames centred on multiples of the hop with mirrored ends, as a preprocessed file would be."""
    mel = 2595 * np.log10(1 + np.array([0.0, 11025.0]) / 700)
    edges = 700 * (10 ** (np.linspace(*mel, 130) / 2595) - 1)
    filters = triangles(np.linspace(0, 11025, 513), edges)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    mirrored = np.pad(signal, 512, mode="reflect")
    return 10 * np.log10(np.maximum(spectra(mirrored, window, 512, 1024) ** 2 @ filters, 1e-10))


@pytest.mark.parametrize(("name", "by_hand"), [("musicnn", musicnn_by_hand), ("vggish", vggish_by_hand)])
def test_presets_match_numpy(name, by_hand):
    front = frontend(name)
    patches = np.stack([sound(front.patch_samples, 16000, seed) for seed in (0, 1)])
    got = front(torch.from_numpy(patches))
    assert got.shape == (2, front.patch_frames, front.n_mels)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), np.stack([by_hand(patch) for patch in patches]), atol=2e-4)


def test_gtzan_matches_numpy_and_torchaudio():
    torchaudio = pytest.importorskip("torchaudio.transforms")
    front = frontend("gtzan", patch_samples=40000)
    signal = torch.from_numpy(sound(40000, 22050))[None]
    got = front(signal)
    assert got.shape == (1, 1, 128, 79)
    np.testing.assert_allclose(got[0, 0].T.numpy(), gtzan_by_hand(signal[0].numpy()), atol=2e-3)
    spectrogram = torchaudio.MelSpectrogram(22050, n_fft=1024, hop_length=512, n_mels=128, f_min=0.0, f_max=11025.0)
    torch.testing.assert_close(got[:, 0], torchaudio.AmplitudeToDB()(spectrogram(signal)), atol=1e-4, rtol=0)


def test_preset_shapes():
    musicnn, vggish, gtzan = (frontend(name) for name in ("musicnn", "vggish", "gtzan"))
    assert (musicnn.sample_rate, musicnn.patch_frames, musicnn.n_mels) == (16000, 187, 96)
    assert (musicnn.patch_samples, musicnn.hop_samples, musicnn.layout) == (186 * 256 + 512, 187 * 256, "BTF")
    assert (vggish.sample_rate, vggish.patch_frames, vggish.n_mels) == (16000, 96, 64)
    assert (vggish.patch_samples, vggish.hop_samples) == (95 * 160 + 400, 96 * 160)
    assert (gtzan.sample_rate, gtzan.patch_samples, gtzan.hop_samples) == (22050, 641655, 641655)
    assert (gtzan.n_mels, gtzan.patch_frames, gtzan.pad, gtzan.layout) == (128, 1254, (0, 0), "BCFT")


@pytest.mark.parametrize("name", ["musicnn", "vggish"])
def test_patches_hold_the_frames_of_the_whole_clip(name, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    signal = sound(16000 * 8 + 77, 16000)
    path = tmp_path / "clip.wav"
    soundfile.write(path, signal, 16000, subtype="FLOAT")
    front = frontend(name)
    blocks = list(iter_patches(Clip(path), 16000, front.patch_samples, front.hop_samples, front.pad, max_patches=2))
    got = torch.cat([front(block.inputs) for block in blocks]).reshape(-1, front.n_mels).numpy()
    by_hand = {"musicnn": musicnn_by_hand, "vggish": vggish_by_hand}[name](np.pad(signal, front.pad))
    assert len(by_hand) == 1 - -len(signal) // front.frame_hop  # ceil(n / hop) + 1 frames, as Essentia's FrameCutter
    assert len(got) == len(by_hand) // front.patch_frames * front.patch_frames
    np.testing.assert_allclose(got, by_hand[: len(got)], atol=2e-4)


# In a process of its own: after importing essentia, a fork of the process hangs.
ESSENTIA = """
import sys
import numpy as np
import essentia
essentia.log.infoActive = essentia.log.warningActive = False
import essentia.standard as standard
algorithm, frame, hop, source, target = sys.argv[1:]
cut, mel = standard.FrameCutter(frameSize=int(frame), hopSize=int(hop)), getattr(standard, algorithm)()
signal, frames = np.load(source), []
while len(piece := cut(signal)):
    frames.append(mel(piece))
np.save(target, np.array(frames))
"""


@pytest.mark.skipif(importlib.util.find_spec("essentia") is None, reason="essentia-tensorflow is not installed")
@pytest.mark.skipif(not JAZZ.is_file(), reason="the GTZAN tracks of shared/data are not there")
@pytest.mark.parametrize(
    ("name", "algorithm"), [("musicnn", "TensorflowInputMusiCNN"), ("vggish", "TensorflowInputVGGish")]
)
def test_parity_with_essentia(name, algorithm, tmp_path):
    front = frontend(name)
    clip = Clip(JAZZ, 0, 12.01)
    signal = read_clip(clip, 16000).numpy()
    np.save(tmp_path / "signal.npy", signal)
    numbers = [str(front.window_samples), str(front.frame_hop), tmp_path / "signal.npy", tmp_path / "mel.npy"]
    subprocess.run([sys.executable, "-c", ESSENTIA, algorithm, *numbers], check=True, capture_output=True)
    theirs = np.load(tmp_path / "mel.npy")
    assert len(theirs) == 1 - -len(signal) // front.frame_hop
    blocks = list(iter_patches(clip, 16000, front.patch_samples, front.hop_samples, front.pad))
    ours = torch.cat([front(block.inputs) for block in blocks]).reshape(-1, front.n_mels).numpy()
    assert len(ours) == len(theirs) // front.patch_frames * front.patch_frames
    assert np.abs(ours - theirs[: len(ours)]).max() <= 5e-4


@pytest.mark.parametrize("name", list(PRESETS))
def test_gradient_reaches_the_waveform_and_is_finite_for_silence(name):
    front = frontend(name, patch_samples=6000)
    waveforms = torch.from_numpy(np.stack([sound(6000, 16000), np.zeros(6000, np.float32)])).requires_grad_()
    front(waveforms).sum().backward()
    assert torch.isfinite(waveforms.grad).all()
    assert waveforms.grad[0].abs().max() > 0


def test_gradient_is_right():
    front = frontend("musicnn", patch_frames=2).double()
    waveforms = torch.from_numpy(sound(front.patch_samples, 16000))[None].double().requires_grad_()
    assert torch.autograd.gradcheck(front, waveforms, fast_mode=True)


def test_batches_rows_are_independent_and_nan_stays_in_its_row():
    front = frontend("musicnn", patch_frames=20)
    waveforms = torch.from_numpy(np.stack([sound(front.patch_samples, 16000, seed) for seed in range(5)]))
    with torch.no_grad():
        whole = front(waveforms)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(front(waveforms[order]), whole[order], atol=1e-6, rtol=1e-6)
        waveforms[2, 100] = float("nan")
        damaged = front(waveforms)
    assert torch.isnan(damaged[2]).any()
    torch.testing.assert_close(damaged[[0, 1, 3, 4]], whole[[0, 1, 3, 4]], atol=1e-6, rtol=1e-6)


def test_layouts_hold_the_same_numbers():
    waveforms = torch.from_numpy(sound(6000, 16000))[None]
    plain, channel, image = (
        frontend("musicnn", patch_samples=6000, layout=layout)(waveforms) for layout in ("BTF", "BCTF", "BCFT")
    )
    assert torch.equal(plain[:, None], channel)
    assert torch.equal(plain.transpose(1, 2)[:, None], image)


def test_buffers_do_not_enter_checkpoints():
    model = nn.Sequential(frontend("vggish"))
    assert model.state_dict() == {}


def test_changes_and_finished_modules():
    front = frontend("gtzan", patch_samples=87318, hop_samples=44100)
    assert (front.patch_samples, front.patch_frames, front.hop_samples) == (87318, 171, 44100)
    assert frontend(front) is front
    with pytest.raises(InputError, match="finished"):
        frontend(front, n_mels=3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_mels": 0}, "n_mels=0"),
        ({"n_mels": 2.5}, "n_mels=2.5"),
        ({"patch_frames": -1}, "patch_frames=-1"),
        ({"patch_frames": 3, "patch_samples": 4000}, "only one"),
        ({"patch_samples": 100}, "at least 512"),
        ({"hop_samples": 0}, "hop_samples=0"),
        ({"f_max": 9000.0}, "f_min, f_max"),
        ({"f_min": float("nan")}, "f_min, f_max"),
        ({"layout": "BFT"}, "layout='BFT'"),
        ({"compression": "loud"}, "compression='loud'"),
        ({"centre": "left"}, "centre='left'"),
        ({"power": 3}, "power=3"),
        ({"window_samples": 1024}, "at most n_fft = 512"),
        ({"mel_triangles": "bark"}, "mel_triangles='bark'"),
        ({"mel_triangles": "mel"}, "triangles over mel"),
        ({"mel_scale": "bark"}, "mel_scale='bark'"),
        ({"mel_norm": "area"}, "mel_norm='area'"),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_arguments(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        frontend("musicnn", **changes)
    assert "\n" not in str(caught.value)


def test_bad_names_and_shapes():
    with pytest.raises(InputError, match="'cochlea': no such preset; presets: musicnn, vggish, gtzan"):
        frontend("cochlea")
    front = frontend("musicnn")
    for shape in ((48128,), (2, 48000), (1, 2, 48128)):
        with pytest.raises(InputError, match=r"give \(batch, 48128\)"):
            front(torch.zeros(shape))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", list(PRESETS))
def test_same_on_cuda(name):
    front = frontend(name, patch_samples=20000)
    waveforms = torch.from_numpy(sound(20000, 16000))[None]
    expected = front(waveforms)
    torch.testing.assert_close(front.cuda()(waveforms.cuda()).cpu(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "error", [OSError("undefined symbol: _ZN5torch"), ImportError("No module"), RuntimeError("ABI")]
)
def test_torchaudio_that_does_not_load_is_explained(monkeypatch, error):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(_torchaudio, "version", {"torch": "2.9.1+cu128", "torchaudio": "2.8.0"}.__getitem__)
    with pytest.raises(InputError) as caught:
        frontend("musicnn")
    message = str(caught.value)
    assert "\n" not in message
    assert "torchaudio 2.8.0" in message
    assert "torch 2.9.1+cu128" in message
    assert str(error) in message
    assert "pip install torch==2.9.1 torchaudio==2.9.1" in message


def test_frontend_is_an_ordinary_module():
    assert isinstance(frontend("vggish"), Frontend)
    assert isinstance(frontend("vggish"), nn.Module)


def test_repr_shows_what_a_front_end_is():
    assert repr(frontend("gtzan", patch_frames=256)) == (
        "Frontend(22050 Hz, n_fft=1024, window_samples=1024, frame_hop=512, n_mels=128, power=2, compression='dB', "
        "centre='patch', hop_samples=130560: (B, 130560) -> (B, 1, 128, 256))"
    )
    assert repr(frontend("musicnn")).endswith("(B, 48128) -> (B, 187, 96))")


def test_natural_logarithm_with_a_small_shift():
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    settings = {"patch_samples": 4000, "power": 1, "n_mels": 40}
    shifted = frontend("vggish", compression="ln(x+0.01)", **settings)(waveforms).double().exp() - 0.01
    barely = frontend("vggish", compression="ln(x+0.000001)", **settings)(waveforms).double().exp() - 1e-6
    torch.testing.assert_close(barely, shifted, rtol=1e-4, atol=1e-6)
    silence = frontend("vggish", compression="ln(x+0.000001)", **settings)(torch.zeros(1, 4000))
    torch.testing.assert_close(silence, torch.full_like(silence, math.log(1e-6)))
