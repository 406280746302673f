"""Layers against plain PyTorch: pooling laws, readings of axes, hooks that leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_concepts.backbones.axes import guess_axes, sequence_default
from captum_concepts.backbones.layers import LayerTap, check_pooling, find_layer, frozen, output_index, pool_map
from captum_concepts.errors import InputError


@pytest.mark.parametrize(
    ("axes", "pool", "equation"),
    [
        ("BCTF", "none", "bctf->btfc"),
        ("BCFT", "none", "bcft->btfc"),
        ("BCTF", "time", "bctf->bfc"),
        ("BCFT", "time", "bcft->bfc"),
        ("BCFT", "time_freq", "bcft->bc"),
        ("TBC", "time", "tbc->bc"),
        ("BCT", "none", "bct->btc"),
        ("BC", "time", "bc->bc"),
    ],
)
def test_pooling_equals_einsum_in_the_order_time_frequency_channels(axes, pool, equation):
    values = torch.randn([2, 3, 5, 7][: len(axes)], dtype=torch.float64)
    summed = torch.einsum(equation, values)
    gone = set(equation.split("->")[0]) - set(equation.split("->")[1])
    size = 1
    for letter in gone:
        size *= values.shape[equation.index(letter)]
    torch.testing.assert_close(pool_map(values, axes, pool, reduce="sum"), summed.flatten(1))
    torch.testing.assert_close(pool_map(values, axes, pool), summed.flatten(1) / size)


def test_the_pooled_gradient_is_the_derivative_with_respect_to_the_mean():
    torch.manual_seed(0)
    values = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(values)

    def logit(a):
        return (a.tanh() * weights).sum((1, 2, 3)) ** 2

    (gradient,) = torch.autograd.grad(logit(values).sum(), values)
    pooled = pool_map(gradient, "BCFT", "time", reduce="sum")
    direction = torch.randn(4, 3, dtype=torch.float64)  # frequency, channels
    everywhere = direction.T[None, :, :, None]  # the same in all frames
    step = 1e-6
    with torch.no_grad():
        difference = (logit(values + step * everywhere) - logit(values - step * everywhere)) / (2 * step)
    torch.testing.assert_close(pooled @ direction.flatten(), difference, rtol=1e-7, atol=1e-7)


def guess(module, dimensions, index=0, default="BTC"):
    return guess_axes(module, dimensions, map_axes="BCFT", sequence_axes=default, index=index)


def test_axes_are_read_from_the_kind_of_layer():
    assert guess(nn.Conv1d(2, 3, 3), 3) == "BCT"
    assert guess(nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)), 3) == "BCT"
    assert guess(nn.Conv2d(1, 2, 3), 4) == "BCFT"
    assert guess(nn.Linear(2, 3), 3) == "BTC"
    assert guess(nn.Linear(2, 3), 2) == "BC"
    assert guess(nn.ReLU(), 3, default="BCT") == "BCT"
    assert guess(nn.Identity(), 1) == "B"
    for kind in (nn.GRU, nn.LSTM, nn.RNN):
        assert guess(kind(2, 3, batch_first=True), 3) == "BTC"
        assert guess(kind(2, 3), 3) == "TBC"
        assert guess(kind(2, 3, batch_first=True), 3, index=1) == "FBC"
    for batch_first, axes in ((True, "BTC"), (False, "TBC")):
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first)
        assert guess(nn.MultiheadAttention(4, 2, batch_first=batch_first), 3) == axes
        assert guess(layer, 3) == axes
        assert guess(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), 3) == axes
    with pytest.raises(InputError, match="5 dimensions has no default reading; give axes="):
        guess(nn.Conv3d(1, 1, 1), 5)


def test_layers_that_do_not_tell_follow_their_stack():
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.GRU(2, 3, batch_first=True), nn.Dropout())
    assert sequence_default(model, "1") == "BCT"
    assert sequence_default(model, "3") == "BTC"
    stack = nn.TransformerEncoderLayer(4, 2, 8, batch_first=False)
    assert sequence_default(nn.Sequential(nn.Conv1d(1, 4, 3), stack), "1.linear1") == "TBC"
    assert sequence_default(nn.Sequential(nn.Linear(1, 4)), "0") == "BTC"


def test_an_unknown_layer_is_answered_with_the_nearest_names():
    model = nn.ModuleDict({"stem": nn.ReLU(), "block1": nn.ReLU(), "block2": nn.ReLU()})
    with pytest.raises(
        InputError, match=r"layer='blok1': is not in ModuleDict; did you mean 'block1'. layers: block1, block2, stem"
    ):
        find_layer(model, "blok1")
    with pytest.raises(InputError, match="has no layers"):
        find_layer(nn.ReLU(), "x")
    many = nn.Sequential(*[nn.ReLU() for _ in range(60)])
    with pytest.raises(InputError, match=r"and 20 more$"):
        find_layer(many, "nothing like it")
    with pytest.raises(InputError, match="use one of time, none, time_freq"):
        check_pooling("max")


def test_what_no_number_is_belongs_to_the_name():
    model = nn.ModuleDict({"x": nn.ReLU()})
    assert output_index("x:12") == 12 and find_layer(model, "x:12") is model["x"]
    assert output_index("x:²") == 0
    with pytest.raises(InputError, match=r"layer='x:²': is not in ModuleDict; .*layers: x"):
        find_layer(model, "x:²")
    with (
        pytest.raises(InputError, match="its output has 1 tensors; give :0"),
        LayerTap(model, ["x:" + "9" * 5000], differentiable=False),
    ):
        model["x"](torch.ones(1))


def test_a_tied_module_is_found_under_both_names():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": shared, "b": shared})
    assert find_layer(model, "a") is find_layer(model, "b") is shared


def test_frozen_puts_every_flag_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    model[1].eval()
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]

    def look_and_fail():
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), frozen(model):
        look_and_fail()
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == flags


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_no_hook_is_left_behind():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    with LayerTap(model, ["0", "0"], differentiable=True) as tap:
        assert hooks(model) == 2
        model(torch.ones(1, 2))
    assert list(tap.tensors) == ["0"]
    assert hooks(model) == 0
    with pytest.raises(InputError), LayerTap(model, ["0", "x"], differentiable=True):
        pass
    assert hooks(model) == 0
    with pytest.raises(RuntimeError), LayerTap(model, ["0"], differentiable=True):
        model(torch.ones(1, 3))
    assert hooks(model) == 0


class Returns(nn.Module):
    """A layer that returns what it is given to make."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def test_outputs_of_any_structure_are_watched_and_passed_on():
    from collections import defaultdict, namedtuple

    pair = namedtuple("pair", "left right")

    def as_default(x):
        found = defaultdict(list)
        found["a"], found["b"] = x, (x * 2,)
        return found

    for make, read in (
        (lambda x: pair(x, x * 2), lambda out: out.right),
        (lambda x: [x, {"deep": x * 2}], lambda out: out[1]["deep"]),
        (as_default, lambda out: out["b"][0]),
    ):
        layer = Returns(make)
        model = nn.Sequential(layer, Returns(read))
        x = torch.ones(1, 2)
        with LayerTap(model, ["0:1"], differentiable=True) as tap:
            out = model(x)
        torch.testing.assert_close(tap.tensors["0:1"], 2 * x)
        (gradient,) = torch.autograd.grad(out.sum(), tap.tensors["0:1"])
        torch.testing.assert_close(gradient, torch.ones(1, 2))


def test_layers_that_cannot_be_watched_are_named():
    x = torch.ones(1, 2)
    for make, message in (
        (lambda x: "words", "gives no tensor but str"),
        (lambda x: (x, x), "its output has 2 tensors; give :0 to :1"),
        (lambda x: (x, x, x.long()), "which has no gradient"),
    ):
        model = nn.Sequential(Returns(make))
        with pytest.raises(InputError, match=message), LayerTap(model, ["0:2"], differentiable=True):
            model(x)
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, shared)
    with pytest.raises(InputError, match="runs more than once"), LayerTap(model, ["0"], differentiable=False):
        model(x)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_logits_are_taken_before_a_last_saturating_module(last):
    model = nn.Sequential(nn.Linear(2, 3), last)
    x = torch.randn(4, 2)
    with torch.no_grad(), LayerTap(model, [], differentiable=False) as tap:
        logits, saturated = tap.logits(model(x))
    torch.testing.assert_close(logits, model[0](x).detach())
    assert not saturated


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.sigmoid, True),
        (lambda x: x.softmax(1), True),
        (lambda x: x.log_softmax(1), True),
        (nn.functional.logsigmoid, True),
        (lambda x: x.double().sigmoid().T.contiguous().view(3, 4).t().squeeze().float(), True),
        (lambda x: x[None].softmax(-1).expand(2, -1, -1).permute(1, 0, 2)[:, 0], True),
        (lambda x: x, False),
        (lambda x: x.sigmoid() * 2 - 1, False),
        (lambda x: x.sigmoid() @ torch.ones(3, 3), False),
    ],
)
def test_functional_saturation_is_known_by_what_made_the_output(function, expected):
    torch.manual_seed(0)
    tap = LayerTap(nn.Identity(), [], differentiable=False)
    assert tap.logits(function(torch.randn(4, 3, requires_grad=True)))[1] is expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), True),
        (torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]).log(), True),
        (torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.7]]), False),
        (torch.tensor([[-0.2, 0.7, 0.5]]), False),
        (torch.tensor([[0.4, 0.6]]), False),
        (torch.tensor([0.4, 0.6, 0.0]), False),
        (torch.full((8, 5), 0.3), False),
        (torch.full((8, 5), -0.3), False),
        (torch.zeros(0, 3), False),
        (torch.ones(1, 3, dtype=torch.long), False),
    ],
)
def test_without_a_graph_only_rows_that_sum_to_one_are_evidence(output, expected):
    assert LayerTap(nn.Identity(), [], differentiable=False).logits(output)[1] is expected


def test_outputs_that_are_not_logits_are_refused():
    tap = LayerTap(nn.Identity(), [], differentiable=False)
    assert tap.logits(torch.randn(4))[0].shape == (4, 1)
    with pytest.raises(InputError, match=r"shape \(4, 3, 2\), logits are"):
        tap.logits(torch.randn(4, 3, 2))
    with pytest.raises(InputError, match="returns str without a tensor"):
        tap.logits("no")
