from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_deezer.backbones import deezer_embeddings, msd_vgg
from captum_concepts_deezer.models import CLASSES
from captum_concepts_deezer.plugin import captum_concepts_backbones, captum_concepts_concept_sources

from captum_concepts.audio import AudioError, Clip
from captum_concepts.backbones import Backbone
from captum_concepts.errors import InputError


def test_hooks():
    assert set(captum_concepts_backbones()) == {"msd-vgg", "deezer-embeddings"}
    assert set(captum_concepts_concept_sources()) == {"deezer"}


def test_the_plugin_manager_takes_the_plugin():
    from captum_concepts_deezer import plugin

    from captum_concepts.plugins import get_plugin_manager, registered

    manager = get_plugin_manager()
    ours = manager.get_plugin("deezer") is None  # installed, it is there already
    if ours:
        manager.register(plugin, name="deezer")
    try:
        assert registered("backbones")["msd-vgg"].factory is msd_vgg
        assert "deezer" in registered("concept_sources")
    finally:
        if ours:
            manager.unregister(name="deezer")


@pytest.fixture
def tone(tmp_path):
    path = tmp_path / "tone.wav"
    seconds = np.arange(16000 * 7) / 16000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * seconds) * np.exp(-seconds % 1), 16000)
    return Clip(str(path))


def test_msd_vgg_hears_audio(arrays, write_h5, tone):
    backbone = msd_vgg(write_h5(arrays), device="cpu")
    assert isinstance(backbone, Backbone)
    assert (backbone.name, tuple(backbone.layers)) == ("msd-vgg", ("pool3", "pool4", "pool5"))
    assert tuple(backbone.classes) == CLASSES
    inputs = next(iter(backbone.read(tone))).inputs
    assert len(inputs) == 2
    found = backbone.activations(inputs, backbone.layers, "time")
    assert [found[layer].shape[1] for layer in backbone.layers] == [1536, 768, 128]
    gradients = backbone.gradients(inputs, ["pool4"], [9, 33], "time")
    assert gradients.logits.shape == (2, 50)
    assert gradients.gradients["pool4"].shape == (2, 2, 768)
    assert torch.allclose(gradients.activations["pool4"], found["pool4"], atol=1e-5)


def test_gradients_are_directional_derivatives(arrays, write_h5, tone):
    backbone = msd_vgg(write_h5(arrays), device="cpu")
    inputs = next(iter(backbone.read(tone))).inputs[:1]
    gradient = backbone.gradients(inputs, ["pool5"], [9], "time").gradients["pool5"][0, 0]
    kernel = torch.from_numpy(arrays["output/output/kernel:0"])[:, 9]
    # After pool5 the network is linear and has two frames, whose weights add up in the derivative by their mean.
    assert torch.allclose(gradient, kernel.reshape(2, 128).sum(0), atol=1e-5)


def test_msd_vgg_options(arrays, write_h5):
    path = write_h5(arrays)
    backbone = msd_vgg(path, device="cpu", layers=["pool5"], hop_seconds=1.5)
    assert tuple(backbone.layers) == ("pool5",)
    assert backbone.hop_samples == 24000
    with pytest.raises(InputError, match="'frontend': is not one of"):
        msd_vgg(path, device="cpu", frontend="gtzan")
    with pytest.raises(InputError, match=r"pool3.*pool4"):
        msd_vgg(path, device="cpu", layers=["conv9"])
    with pytest.raises(InputError, match=r"MSD_vgg\.h5"):
        msd_vgg(None)


def test_fingerprint_follows_the_weights(arrays, write_h5):
    first = msd_vgg(write_h5(arrays), device="cpu").fingerprint()
    assert first == msd_vgg(write_h5(arrays), device="cpu").fingerprint()
    changed = arrays["1CNN/1CNN/bias_1:0"].copy()
    changed[25] += 0.5  # the bias of a dead channel
    assert first != msd_vgg(write_h5(arrays | {"1CNN/1CNN/bias_1:0": changed}), device="cpu").fingerprint()


@pytest.fixture
def track(tmp_path, proto):
    path = tmp_path / "7.tensor"
    path.write_bytes(proto(np.arange(29 * 128, dtype=np.float32).reshape(29, 128)))
    return str(path)


def test_embeddings_are_rows_of_the_file(track):
    backbone = deezer_embeddings(device="cpu")
    assert isinstance(backbone, Backbone)
    (patches,) = backbone.read(Clip(track))
    np.testing.assert_array_equal(patches.inputs, np.arange(29 * 128, dtype=np.float32).reshape(29, 128))
    assert (patches.starts[0], patches.ends[-1]) == (0.0, 30.0)
    np.testing.assert_allclose(patches.ends - patches.starts, 30 / 29)
    assert torch.equal(backbone.activations(patches.inputs, ["embedding"], "time")["embedding"], patches.inputs)
    assert backbone.fingerprint() == deezer_embeddings(device="cpu").fingerprint()


def test_a_span_takes_the_rows_within_it(track):
    (patches,) = deezer_embeddings(device="cpu").read(Clip(track, 10.0, 20.0))
    assert patches.inputs[0, 0] == 10 * 128
    assert len(patches.inputs) == 9
    assert patches.starts[0] >= 10
    assert patches.ends[-1] <= 20
    with pytest.raises(AudioError, match="too short"):
        next(deezer_embeddings(device="cpu").read(Clip(track, 10.1, 10.2)))


def test_embeddings_go_through_the_one_pass(track, tmp_path):
    from captum_concepts.activations import extract

    (tmp_path / "8.tensor").write_bytes(b"broken")
    found = extract(deezer_embeddings(device="cpu"), [Clip(track), Clip(str(tmp_path / "8.tensor"))], ["embedding"])
    assert found.activations["embedding"].shape == (29, 128)
    assert [problem.status for problem in found.problems] == ["truncated"]


def test_what_embeddings_cannot_do(track, tone):
    backbone = deezer_embeddings(device="cpu")
    with pytest.raises(AudioError, match="mislabelled"):
        next(backbone.read(tone))
    with pytest.raises(InputError, match="only layer is: embedding"):
        backbone.check_layers(["pool5"])
    with pytest.raises(InputError, match="no head"):
        backbone.gradients(torch.zeros(1, 128), ["embedding"], [0], "time")
    with pytest.raises(InputError, match="leave it out"):
        deezer_embeddings("MSD_vgg.h5")
