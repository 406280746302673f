"""Moving a layer along a CAV moves the next one along its own, if the CAVs agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import captum_concepts as cc
from captum_concepts.backbones.layers import pool_map
from captum_concepts.cavs.bank import ConceptBank
from captum_concepts.diagnostics.pushforward import push_forward, spread
from captum_concepts.errors import InputError

NAMES = ("a", "b", "c")


def bank(layer, directions):
    zeros = torch.zeros(len(directions))
    return ConceptBank(NAMES, layer, nn.functional.normalize(directions, dim=1), zeros, zeros)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 64, bias=False), nn.Linear(64, 48, bias=False))
    return cc.TorchBackbone(model, ["0", "1"], sample_rate=60, patch_seconds=1.0)


@pytest.fixture
def own():
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(1))


def test_a_linear_net_whose_cavs_are_pushed_through_gives_one(linear, own):
    later = bank("1", own @ linear.model[1].weight.detach().T)
    table = push_forward(linear, {"1": later, "0": bank("0", own)}, torch.randn(4, 60))
    assert table[["layer", "next_layer", "concept"]].to_numpy().tolist() == [["0", "1", name] for name in NAMES]
    np.testing.assert_allclose(table["cosine"], 1.0, atol=1e-4)
    assert (table["chance"] < 0.6).all()


def test_shuffled_weights_give_about_nothing(linear, own):
    shuffled = linear.model[1].weight.detach()[torch.randperm(48, generator=torch.Generator().manual_seed(2))]
    table = push_forward(linear, {"0": bank("0", own), "1": bank("1", own @ shuffled.T)}, torch.randn(4, 60))
    assert table["cosine"].abs().max() < 4 / 48**0.5


class Net(nn.Module):
    """Two convolutions over (channel, frequency, time) with a kink between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        maps = self.second(torch.relu(self.first(x.reshape(-1, 1, 10, 12))))
        return self.head(maps.mean((2, 3)))


@pytest.mark.parametrize("pool", ["time", "none", "time_freq"])
def test_the_change_is_that_of_autograd_through_a_real_layer(pool):
    net = Net()
    backbone = cc.TorchBackbone(net, ["first", "second"], sample_rate=120, patch_seconds=1.0)
    patches = torch.randn(3, 120)
    found = backbone.activations(patches, ["first", "second"], pool)
    one = torch.randn(3, found["first"].shape[1], generator=torch.Generator().manual_seed(4))
    two = torch.randn(3, found["second"].shape[1], generator=torch.Generator().manual_seed(5))
    table = push_forward(
        backbone, {"first": bank("first", one), "second": bank("second", two)}, patches, pool=pool, step=1e-4
    )
    maps = net.first(patches.reshape(-1, 1, 10, 12)).detach()
    unit = nn.functional.normalize(one, dim=1)
    for k in range(3):
        move = spread(unit[k], maps.shape, "BCFT", pool).expand_as(maps)
        change = torch.func.jvp(lambda m: net.second(torch.relu(m)), (maps,), (move,))[1].detach()
        wanted = nn.functional.cosine_similarity(pool_map(change, "BCFT", pool).mean(0), two[k], dim=0)
        assert table["cosine"][k] == pytest.approx(float(wanted), abs=2e-2)


@pytest.mark.parametrize("pool", ["time", "none", "time_freq"])
@pytest.mark.parametrize(("axes", "shape"), [("BCFT", (1, 2, 3, 4)), ("TBC", (5, 1, 3)), ("BC", (1, 7))])
def test_spreading_is_undone_by_pooling(pool, axes, shape):
    size = pool_map(torch.zeros(shape), axes, pool).shape[1]
    push = torch.randn(size, generator=torch.Generator().manual_seed(0))
    moved = spread(push, shape, axes, pool).expand(shape)
    torch.testing.assert_close(pool_map(moved, axes, pool)[0], push)


def test_concepts_without_a_cav_are_left_out_and_the_seed_decides(linear, own):
    own = own.clone()
    own[1] = torch.nan
    banks = {"0": bank("0", own), "1": bank("1", torch.randn(3, 48, generator=torch.Generator().manual_seed(7)))}
    patches = torch.randn(2, 60)
    table = push_forward(linear, banks, patches)
    assert table["concept"].tolist() == ["a", "c"]
    assert table.equals(push_forward(linear, banks, patches))
    assert not table.equals(push_forward(linear, banks, patches, seed=1))


def test_bad_input_is_one_line(linear, own):
    one = {"0": bank("0", own)}
    with pytest.raises(InputError, match="1 layers: too few; give the banks of at least two"):
        push_forward(linear, one, torch.randn(2, 60))
    both = {**one, "1": bank("1", torch.randn(3, 48))}
    with pytest.raises(InputError, match="0 patches: out of range; give 1 to 64"):
        push_forward(linear, both, [])
    with pytest.raises(InputError, match="TorchBackbone only"):
        push_forward(None, both, torch.randn(2, 60))
