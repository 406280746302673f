from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from captum_concepts_tile2vec.data import folder_recordings
from captum_concepts_tile2vec.features import CachedFeatures, TileFeatures, Waveforms, pooled, tiles_digest
from captum_concepts_tile2vec.tiles import Tiles, find_tiles

from captum_concepts.errors import InputError


def mel(hertz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def logmel_by_hand(samples: np.ndarray) -> np.ndarray:
    """What TensorFlow's stft and linear_to_mel_weight_matrix are documented to give, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    frames = np.stack([samples[start : start + 480] * window for start in range(0, len(samples) - 479, 160)])
    spectrum = np.abs(np.fft.rfft(frames, 1024))
    bins = mel(np.arange(513) * 16_000 / 1024)
    edges = np.linspace(mel(50.0), mel(8000.0), 130)
    filters = np.zeros((513, 128))
    for band in range(128):
        low, peak, high = edges[band : band + 3]
        filters[:, band] = np.maximum(0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
    return np.log(spectrum @ filters + 1e-6)


@pytest.fixture
def waveforms() -> torch.Tensor:
    return 0.1 * torch.randn(2, 3, 80_000, generator=torch.Generator().manual_seed(0))


def test_logmel(waveforms):
    features = TileFeatures("logmel")(waveforms)
    assert features.shape == (2, 3, 498, 128)
    for row in range(2):
        for channel in range(3):
            expected = logmel_by_hand(waveforms[row, channel].double().numpy())
            np.testing.assert_allclose(features[row, channel].numpy(), expected, atol=2e-4)


def test_silence_is_the_floor():
    features = TileFeatures("logmel", 0.5)(torch.zeros(1, 1, 8000))
    torch.testing.assert_close(features, torch.full_like(features, math.log(1e-6)))


def test_mfcc(waveforms):
    features = TileFeatures("mfcc")(waveforms)
    assert features.shape == (2, 3, 498, 13)
    logmel = TileFeatures("logmel")(waveforms).double().numpy()
    expected = scipy.fft.dct(logmel, type=2, axis=-1)[..., :13] / math.sqrt(2 * 128)
    np.testing.assert_allclose(features.numpy(), expected, atol=2e-5)


def test_raw_and_one_channel(waveforms):
    features = TileFeatures("raw")(waveforms)
    assert features.shape == (2, 3, 80_000, 1)
    torch.testing.assert_close(features[..., 0], waveforms)
    torch.testing.assert_close(TileFeatures("raw")(waveforms[:, 0]), features[:, :1])


def test_channels_do_not_mix(waveforms):
    features = TileFeatures("logmel")
    torch.testing.assert_close(features(waveforms)[:, 1:2], features(waveforms[:, 1:2]))


def test_mistakes():
    with pytest.raises(InputError, match="features='chroma'"):
        TileFeatures("chroma")
    with pytest.raises(InputError, match=r"shape \(1, 1, 100\): give \(batch, channels, 80000\)"):
        TileFeatures()(torch.zeros(1, 1, 100))


def test_pooled():
    features = torch.arange(24.0).reshape(1, 2, 3, 4)
    expected = torch.cat([features.mean(2), features.var(2, correction=0).sqrt()], 1).flatten(1)
    torch.testing.assert_close(pooled(features), expected)
    assert pooled(features)[0, 0] == 4.0


def test_kept_features_are_those_of_the_waveforms(write_folder, tmp_path):
    tiles = find_tiles(folder_recordings(write_folder(per_class=2)), 0.5)
    features = TileFeatures("logmel", 0.5)
    indices = [5, 0, 5, 17]
    expected = features(Waveforms(tiles).read(indices))
    calls = []
    kept = CachedFeatures(tiles, features, tmp_path / "store", lambda *report: calls.append(report))
    torch.testing.assert_close(kept.read(indices), expected)
    assert calls[-1] == ("features", len(tiles), len(tiles))
    calls.clear()
    again = CachedFeatures(tiles, features, tmp_path / "store", lambda *report: calls.append(report))
    assert calls == [("features", len(tiles), len(tiles))]  # nothing was computed
    torch.testing.assert_close(again.read(indices), expected)


def test_damaged_features_are_computed_again(write_folder, tmp_path):
    tiles = find_tiles(folder_recordings(write_folder(per_class=1)), 0.5)
    features = TileFeatures("mfcc", 0.5)
    expected = CachedFeatures(tiles, features, tmp_path / "store").read([0, 1, 2])
    (shard,) = (tmp_path / "store").rglob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-5] ^= 255
    shard.write_bytes(data)
    torch.testing.assert_close(CachedFeatures(tiles, features, tmp_path / "store").read([0, 1, 2]), expected)


def test_other_settings_are_kept_apart(write_folder, tmp_path):
    found = folder_recordings(write_folder(per_class=1, channels=2))
    mono, both = (find_tiles(found, 0.5, channels=channels) for channels in ("mono", "all"))
    features = TileFeatures("mfcc", 0.5)
    one = CachedFeatures(mono, features, tmp_path / "store").read([1])
    two = CachedFeatures(both, features, tmp_path / "store").read([1])
    assert (one.shape[1], two.shape[1]) == (1, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_what_the_cpu_gives(waveforms):
    for kind in ("logmel", "mfcc"):
        features = TileFeatures(kind)
        expected = features(waveforms)
        torch.testing.assert_close(features.cuda()(waveforms.cuda()).cpu(), expected, atol=1e-3, rtol=1e-3)


def test_the_digest_of_tiles_takes_time_in_proportion_to_their_number(tiles_of, monkeypatch):
    asked = []
    labels = Tiles.labels.fget
    monkeypatch.setattr(Tiles, "labels", property(lambda tiles: asked.append(1) or labels(tiles)))
    tiles = tiles_of([3, 2], labels=["x", "y"])
    assert tiles_digest(tiles) == tiles_digest(tiles_of([3, 2], labels=["x", "y"]))
    assert tiles_digest(tiles) != tiles_digest(tiles_of([3, 2], labels=["x", "z"]))
    assert tiles_digest(tiles) != tiles_digest(tiles_of([2, 3], labels=["x", "y"]))
    assert len(asked) <= 6  # once for each digest, not for each tile
