"""Front-ends compared with Essentia's own, on real audio where it is available, else on a tone that fades."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_essentia.frontends import MAEST_MEAN, MAEST_SPREAD, PATCHES, algorithm_frontend

from captum_concepts.audio import Clip
from captum_concepts.backbones import TorchBackbone
from captum_concepts.errors import InputError


@pytest.fixture(scope="module")
def audio(tiny):
    """Samples at any rate: the same numbers, whatever rate they are said to have."""
    file = tiny.shared / "gtzan_mini" / "genres" / "jazz"
    if file.is_dir():
        return soundfile.read(sorted(file.iterdir())[0], dtype="float32", frames=70000)[0]
    time = np.arange(70000) / 22050
    # As loud as music is: what single precision rounds off grows with it, and the bands between its peaks do not.
    return (0.3 * np.sin(2 * np.pi * 220 * time * (1 + time)) * np.exp(-time)).astype(np.float32)


def ours(audio, tmp_path, front) -> torch.Tensor:
    path = tmp_path / "audio.wav"
    soundfile.write(path, audio, front.sample_rate, subtype="FLOAT")
    backbone = TorchBackbone(torch.nn.Sequential(torch.nn.Identity()), ["0"], front)
    return front(torch.cat([block.inputs for block in backbone.read(Clip(str(path)))]))


def essentia_frames(audio, algorithm: str, size: int, hop: int) -> np.ndarray:
    pytest.importorskip("essentia")
    from captum_concepts_essentia.runtime.session import load_essentia

    standard = load_essentia()
    made = getattr(standard, algorithm)()
    frames = standard.FrameGenerator(audio, frameSize=size, hopSize=hop, startFromZero=False)
    return np.array([made(frame) for frame in frames])


@pytest.mark.parametrize(
    ("algorithm", "own", "size", "hop", "tolerance"),
    [
        ("TensorflowPredictMusiCNN", "TensorflowInputMusiCNN", 512, 256, 1e-3),
        ("TensorflowPredictEffnetDiscogs", "TensorflowInputMusiCNN", 512, 256, 1e-3),
        ("TensorflowPredictVGGish", "TensorflowInputVGGish", 400, 160, 1e-3),
        ("TensorflowPredictFSDSINet", "TensorflowInputFSDSINet", 660, 220, 1e-3),
    ],
)
def test_agrees_with_essentia(audio, tmp_path, algorithm, own, size, hop, tolerance):
    expected = essentia_frames(audio, own, size, hop)
    front = algorithm_frontend(algorithm, frames=64, hop=64)
    rows = ours(audio, tmp_path, front).reshape(-1, front.n_mels).numpy()
    assert len(rows) >= len(expected) // 64 * 64
    assert np.abs(rows[: len(expected)] - expected[: len(rows)]).max() < tolerance


@pytest.mark.parametrize(
    ("algorithm", "frames", "bands", "name"),
    [
        ("TensorflowPredictMusiCNN", 187, 96, "model"),
        ("TensorflowPredictVGGish", 96, 64, "model"),
        ("TensorflowPredictEffnetDiscogs", 128, 96, "model"),
        ("TensorflowPredictMAEST", 316, 96, "discogs-maest-5s-x"),  # its file's name says how long its patches are
    ],
)
def test_the_whole_way_from_samples_to_patches(audio, tmp_path, algorithm, frames, bands, name):
    """By a graph that gives means and maxima over time of what Essentia's algorithm feeds it, patch by patch."""
    pytest.importorskip("essentia")
    from captum_concepts_essentia.graphdef.builder import GraphBuilder
    from captum_concepts_essentia.runtime.session import load_essentia

    graph, whole = GraphBuilder(), np.dtype("int32")
    x, axis = graph.placeholder("x", (None, frames, bands)), graph.constant("axis", np.array([1], np.int32))
    both = [graph.add(op, op, x, axis, Tidx=whole, keep_dims=False) for op in ("Mean", "Max")]
    found = graph.add("ConcatV2", "both", *both, graph.constant("one", np.array(1, np.int32)), N=2)
    sizes = [-1, 1, 2, bands] if "MAEST" in algorithm else [-1, 2 * bands]
    graph.add("Reshape", "y", found, graph.constant("sizes", np.array(sizes, np.int32)), Tshape=whole)
    (tmp_path / f"{name}.pb").write_bytes(graph.content)
    given = np.tile(audio, 3)
    path = str(tmp_path / f"{name}.pb")
    essentia = getattr(load_essentia(), algorithm)(graphFilename=path, input="x", output="y")
    expected = np.asarray(essentia(given)).reshape(-1, 2 * bands)
    patches = ours(given, tmp_path, algorithm_frontend(algorithm, frames))
    means = torch.cat([patches.mean(1), patches.amax(1)], 1).numpy()
    assert len(expected) > 1 and abs(len(means) - len(expected)) <= 1
    rows = min(map(len, (means, expected)))
    assert np.abs(means[:rows] - expected[:rows]).max() < 3e-4


def test_tempocnn_agrees_with_essentia(audio, tmp_path):
    """The whole way, by a graph that gives back what TensorflowPredictTempoCNN feeds it."""
    pytest.importorskip("essentia")
    from captum_concepts_essentia.graphdef.builder import GraphBuilder
    from captum_concepts_essentia.runtime.session import load_essentia

    graph = GraphBuilder()
    x = graph.placeholder("input", (None, 40, 256, 1))
    graph.add("Reshape", "output", x, graph.constant("flat", np.array([-1, 10240], np.int32)), Tshape=np.dtype("int32"))
    (tmp_path / "tempo.pb").write_bytes(graph.content)
    given = np.tile(audio, 3)  # longer than one patch of 12 s at 11,025 Hz
    expected = load_essentia().TensorflowPredictTempoCNN(graphFilename=str(tmp_path / "tempo.pb"))(given)
    found = ours(given, tmp_path, algorithm_frontend("TensorflowPredictTempoCNN")).flatten(1).numpy()
    assert np.abs(found[0] - expected[0]).max() < 5e-4 * np.abs(expected[0]).max()
    assert np.abs(expected[0]).max() > 1


def test_silence_is_no_nan():
    for algorithm in PATCHES:
        front = algorithm_frontend(algorithm)
        assert front(torch.zeros(1, front.patch_samples)).isfinite().all()


def test_maest_is_centred_and_scaled(audio):
    front, plain = (algorithm_frontend(f"TensorflowPredict{name}", 100) for name in ("MAEST", "MusiCNN"))
    wave = torch.from_numpy(audio[: plain.patch_samples])[None]
    torch.testing.assert_close(front(wave) * MAEST_SPREAD + MAEST_MEAN, plain(wave), rtol=1e-4, atol=1e-4)


def test_patches_are_those_of_essentia():
    assert algorithm_frontend("TensorflowPredictMusiCNN").hop_samples == 93 * 256
    assert algorithm_frontend("TensorflowPredictEffnetDiscogs").patch_frames == 128
    assert algorithm_frontend("TensorflowPredictMAEST").patch_frames == 1876
    for frames, between in ((316, 313), (626, 625), (1256, 1250), (1876, 1875)):
        assert algorithm_frontend("TensorflowPredictMAEST", frames).hop_samples == between * 256
    with pytest.raises(InputError, match=r"'TensorflowPredictCREPE'.*TensorflowPredictMusiCNN"):
        algorithm_frontend("TensorflowPredictCREPE")
