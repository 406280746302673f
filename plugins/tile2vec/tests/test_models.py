from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.models
from captum_concepts_tile2vec.models import BUILDERS, Shape, _Same, build_network, default_l2

from captum_concepts.errors import InputError

SMALL = Shape(channels=1, frames=40, bands=20)
LIGHT = [name for name in BUILDERS if not name.startswith("ResNet") or name == "ResNet18"]


def network(name: str, shape: Shape = SMALL, seed: int = 0):
    torch.manual_seed(seed)
    return build_network(name, shape)


def inputs(shape: Shape = SMALL, count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, shape.channels, shape.frames, shape.bands, generator=generator)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets_have_torchvisions_parameters_but_for_stem_and_head(depth, channels):
    with torch.device("meta"):
        ours = build_network(f"ResNet{depth}", Shape(channels, 498, 128))
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    width = 512 if depth < 50 else 2048
    difference = (channels - 3) * 64 * 7 * 7 + (width + 1) * 16 - (width + 1) * 1000
    assert parameters(ours) == parameters(theirs) + difference


@pytest.mark.parametrize("depth", [18, 50])
def test_resnets_compute_what_torchvisions_do(depth):
    ours = network(f"ResNet{depth}").eval()
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=16)
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    theirs.load_state_dict(
        dict(ours.encoder.state_dict()) | {f"fc.{k}": v for k, v in ours.embedding.state_dict().items()}
    )
    expected = theirs.eval()(inputs())
    torch.testing.assert_close(ours(inputs()), expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-4)


# Counted by hand from the list of layers: convolution k·k·in·out + out, normalisation 2·out, GRU 3·(in + h + 2)·h.
EXPECTED = {
    "ConvNet1D": (128 * 2 * 64 + 64) + (64 * 2 * 64 + 64) + (64 * 3 * 128 + 128) + (128 * 62 + 1) * 16,
    "ConvNet2D": (9 * 32 + 32) + (9 * 32 * 32 + 32) + (4 * 32 * 64 + 64) + 2 * 128 + (64 * 63 * 16 + 1) * 16,
    "ConvGRUNet": (49 * 16 + 16)
    + (25 * 16 * 32 + 32)
    + 2 * (9 * 32 * 32 + 32)
    + 2 * (16 + 32 * 3)
    + 3 * (32 + 32 + 2) * 32
    + 2 * 32
    + (32 * 32 * 128 + 1) * 16,
    "GRUNet": 3 * (128 + 64 + 2) * 64 + 3 * (64 + 128 + 2) * 128 + 129 * 16,
    "DenseNet": (498 * 128 + 1) * 16,
    "StatisticsNet": 2 * 8 * 128 + (8 * 128 + 1) * 16,
    "ContrastNet": 2 * 11 * 128 + (11 * 128 + 1) * 16,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_other_networks_have_the_parameters_counted_by_hand(name):
    with torch.device("meta"):
        assert parameters(build_network(name, Shape(1, 498, 128))) == EXPECTED[name]


def test_statistics_by_hand():
    rows = inputs(Shape(2, 40, 3), 4)
    found = network("StatisticsNet", Shape(2, 40, 3)).encoder[0](rows).reshape(4, 8, 2, 3)
    for clip, channel, band in np.ndindex(4, 2, 3):
        track = rows[clip, channel, :, band].double().numpy()
        changes = [np.abs(track[lag:] - track[:-lag]).mean() for lag in (1, 2, 4, 8, 16, 32)]
        expected = [track.mean(), track.std(), *changes]
        assert found[clip, :, channel, band].numpy() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="needs 33 frames and the features have 32"):
        build_network("StatisticsNet", Shape(1, 32, 3))


def test_contrasts_by_hand():
    rows = inputs(Shape(2, 40, 6), 4)
    shape = Shape(2, 40, 6)
    found = network("ContrastNet", shape).encoder[0](rows).reshape(4, 11, 2, 6)
    same = network("StatisticsNet", shape).encoder[0](rows).reshape(4, 8, 2, 6)
    assert torch.equal(found[:, :8], same)
    for row, step in enumerate((1, 2, 4), 8):
        for band in range(6):
            above = (rows[..., band] - rows[..., band + step]).abs().mean(2) if band + step < 6 else torch.zeros(4, 2)
            torch.testing.assert_close(found[:, row, :, band], above)
    with pytest.raises(InputError, match="ContrastNet needs 5 bands and the features have 4"):
        build_network("ContrastNet", Shape(1, 40, 4))


def test_same_padding_by_hand():
    pool = torch.nn.Sequential(_Same((1, 3), (1, 2)), torch.nn.MaxPool2d((1, 3), (1, 2)))
    # TensorFlow puts the odd zero behind: windows (1, 2, 3) and (3, 4, 0).
    assert pool(torch.tensor([[[[1.0, 2, 3, 4]]]])).flatten().tolist() == [3, 4]
    # Five values need one on each side: (0, 5, 4), (4, 3, 2), (2, 1, 0).
    assert pool(torch.tensor([[[[5.0, 4, 3, 2, 1]]]])).flatten().tolist() == [5, 4, 2]


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("channels", [1, 4])
def test_embeddings_have_length_one_in_any_batch(name, channels):
    shape = Shape(channels, 40, 20, size=7)
    model = network(name, shape).eval()
    rows = inputs(shape)
    with torch.no_grad():
        embeddings = model(rows)
        order = torch.tensor([3, 1, 4, 0, 2])
        assert embeddings.shape == (5, 7)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(model(rows[order]), embeddings[order], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model(rows[2:3]), embeddings[2:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LIGHT)
def test_every_channel_and_frame_is_heard(name):
    # The original's path for several channels cut time instead of channels.
    shape = Shape(4, 40, 20)
    rows = inputs(shape, 2).requires_grad_()
    network(name, shape).eval()(rows)[:, 0].sum().backward()
    assert (rows.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    assert (rows.grad.abs().amax(dim=(0, 1, 3)) > 0).all()


@pytest.mark.parametrize("name", ["ConvNet2D", "ConvGRUNet", "ResNet18"])
def test_batch_normalisation_is_used_in_evaluation_too(name):
    # The original used it in training only, so that it evaluated another network than it had trained.
    model = network(name)
    norms = [module for module in model.modules() if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))]
    assert norms
    before = model.eval()(inputs()).detach()
    for norm in norms:
        norm.running_mean.fill_(0.5)
    assert not torch.allclose(model(inputs()), before, atol=1e-3)


def test_grus_walk_over_time():
    model = network("GRUNet").eval()
    frames = inputs()[:, 0]  # (B, time, bands)
    state = model.encoder.gru2(model.encoder.gru1(frames)[0])[0][:, -1]
    expected = torch.nn.functional.normalize(model.embedding(state), dim=1)
    torch.testing.assert_close(model(inputs()), expected)


def test_convolutions_over_time_by_hand():
    model = network("ConvNet1D", Shape(1, 16, 3)).eval()
    rows = inputs(Shape(1, 16, 3), 2)
    first = model.encoder[2]
    padded = torch.nn.functional.pad(rows[:, 0], (0, 0, 0, 1))  # as TensorFlow, behind
    expected = torch.stack([padded[:, :-1], padded[:, 1:]], 3).flatten(2) @ first.weight.flatten(1).T + first.bias
    torch.testing.assert_close(model.encoder[:3](rows).transpose(1, 2), expected)


def test_raw_waveforms():
    shape = Shape(2, 200, 1)
    for name in ("ResNet18", "ConvNet1D", "ConvNet2D", "GRUNet", "DenseNet"):
        assert network(name, shape).eval()(inputs(shape, 2)).shape == (2, 16)


def test_mistakes():
    with pytest.raises(InputError, match="architecture='VGG': give one of ResNet18, "):
        build_network("VGG", SMALL)
    with pytest.raises(InputError, match="size=0"):
        Shape(1, 10, 10, 0)
    with pytest.raises(InputError, match="ConvNet1D needs 8 frames and the features have 7"):
        build_network("ConvNet1D", Shape(1, 7, 40))


def test_defaults_of_the_l2_term():
    assert [default_l2(name) for name in ("ResNet18", "ResNet152", "GRUNet")] == [0.1, 0.1, 0.0]
