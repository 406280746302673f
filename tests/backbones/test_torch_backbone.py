"""Backbones against Captum, autograd and finite differences, on models built in every awkward way."""

from __future__ import annotations

import copy
import logging
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from helpers import paths as helper_paths
from torch import nn

from captum_concepts.backbones.base import check_backbone, model_of, patch_length, with_hop, with_model
from captum_concepts.backbones.embedding_backbone import EmbeddingBackbone
from captum_concepts.backbones.options import resolve_device, target_index
from captum_concepts.backbones.protocol import Backbone
from captum_concepts.backbones.torch_backbone import TorchBackbone
from captum_concepts.errors import InputError

FRAMES, MELS = 12, 8


def spectrum(waves):
    return waves.view(len(waves), 1, MELS, FRAMES)


def wrap(model, layers, frontend=spectrum, **options):
    return TorchBackbone(
        model, layers, frontend=frontend, sample_rate=100, patch_seconds=MELS * FRAMES / 100, **options
    )


def waves(n=3, seed=0):
    return torch.randn(n, MELS * FRAMES, generator=torch.Generator().manual_seed(seed))


class InPlaceResidual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return self.relu(out)


def convnet(last=None, outputs=4):
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        InPlaceResidual(6),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, outputs),
    ]
    return nn.Sequential(*parts, *([last] if last else [])).eval()


LAYERS = ["0", "1", "2", "2.conv", "2.norm", "3", "4", "6", "7"]


def out_of_place(model):
    """The same model without anything done in place, so that stock Captum differentiates the right tensors."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, InPlaceResidual):
            module.forward = lambda x, m=module: m.relu(m.norm(m.conv(x)) + x)
    return model


def test_gradients_of_every_layer_and_target_are_captums():
    model = convnet()
    inputs = waves()
    found = wrap(model, LAYERS).gradients(inputs, LAYERS, [3, 0], "none")
    plain = out_of_place(model)
    for layer in LAYERS:
        for position, target in enumerate((3, 0)):
            module = dict(plain.named_modules())[layer]
            captum = LayerGradientXActivation(plain, module, multiply_by_inputs=False)
            expected = captum.attribute(spectrum(inputs), target=target)
            if expected.dim() == 4:
                expected = expected.permute(0, 3, 2, 1).flatten(1)  # BCFT to B, T F C
            torch.testing.assert_close(found.gradients[layer][:, position], expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.logits, plain(spectrum(inputs)).detach())


def test_activations_of_both_ways_are_the_layers_outputs():
    model = convnet()
    plain = out_of_place(model)
    inputs = waves()
    backbone = wrap(model, LAYERS)
    for pool, axes in (("none", ()), ("time", (3,)), ("time_freq", (2, 3))):
        one = backbone.activations(inputs, LAYERS, pool)
        two = backbone.gradients(inputs, LAYERS, [1], pool).activations
        value = plain[:3](spectrum(inputs)).detach()
        value = value.mean(axes, keepdim=True) if axes else value
        for found in (one["2"], two["2"]):
            torch.testing.assert_close(found, value.permute(0, 3, 2, 1).flatten(1))
        for layer in LAYERS:
            torch.testing.assert_close(one[layer], two[layer])


def test_the_gradient_is_the_change_of_the_logit_when_all_frames_move():
    model = convnet().double()
    backbone = wrap(model, ["0"])
    inputs = waves()
    direction = torch.randn(MELS, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = backbone.gradients(inputs, ["0"], [0, 2], "time").gradients["0"]
    plain = out_of_place(model)
    with torch.no_grad():
        middle = plain[:1](spectrum(inputs).double())
        step = 1e-7 * direction.T[None, :, :, None]
        change = (plain[1:](middle + step) - plain[1:](middle - step)) / 2e-7
    torch.testing.assert_close(found @ direction.flatten(), change[:, [0, 2]], rtol=1e-5, atol=1e-7)


def test_both_layouts_give_the_same_flattened_order():
    class Layout(nn.Module):
        layout = "BCTF"
        sample_rate, patch_samples = 100, MELS * FRAMES

        def forward(self, x):
            return spectrum(x).transpose(2, 3)

    conv = nn.Conv2d(1, 4, 3, padding=1)
    turned = copy.deepcopy(conv)
    turned.weight.data = conv.weight.data.transpose(2, 3).contiguous()
    one = wrap(nn.Sequential(conv), ["0"]).activations(waves(), ["0"], "time")["0"]
    two = TorchBackbone(nn.Sequential(turned), ["0"], frontend=Layout()).activations(waves(), ["0"], "time")["0"]
    torch.testing.assert_close(one, two)


class Recurrent(nn.Module):
    def __init__(self, kind, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(MELS, 5, num_layers=2, batch_first=batch_first)
        self.act = nn.Tanh()
        self.head = nn.Linear(5, 3)
        self.batch_first = batch_first

    def forward(self, x):
        x = x[:, 0].transpose(1, 2)
        out = self.act(self.rnn(x if self.batch_first else x.transpose(0, 1))[0])
        return self.head(out.mean(1 if self.batch_first else 0))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_and_what_follows_them(kind, batch_first):
    model = Recurrent(kind, batch_first)
    inputs = waves(3)
    found = wrap(model, ["rnn", "act"]).gradients(inputs, ["rnn", "act"], [1], "time")
    sequence = spectrum(inputs)[:, 0].transpose(1, 2)
    out, state = model.rnn(sequence if batch_first else sequence.transpose(0, 1))
    out = (out if batch_first else out.transpose(0, 1)).detach().requires_grad_()
    torch.testing.assert_close(found.activations["rnn"], out.mean(1).detach())
    torch.testing.assert_close(found.activations["act"], out.tanh().mean(1).detach())
    (expected,) = torch.autograd.grad(model.head(out.tanh().mean(1))[:, 1].sum(), out)
    torch.testing.assert_close(found.gradients["rnn"][:, 0], expected.sum(1))
    states = list(state) if isinstance(state, tuple) else [state]
    for number, expected in enumerate(states, 1):
        name = f"rnn:{number}"
        values = wrap(model, [name]).activations(inputs, [name], "time")[name]
        torch.testing.assert_close(values, expected.transpose(0, 1).flatten(1).detach())


def test_time_and_batch_of_equal_length_are_not_confused():
    backbone = wrap(Recurrent(nn.GRU, False), ["act"])
    with pytest.raises(InputError, match="either of the first two axes may be the batch; give axes="):
        backbone.activations(waves(FRAMES), ["act"], "time")
    inputs = waves(FRAMES)
    expected = torch.cat([backbone.activations(part, ["act"], "time")["act"] for part in inputs.split(5)])
    torch.testing.assert_close(backbone.activations(inputs, ["act"], "time")["act"], expected)
    given = wrap(Recurrent(nn.GRU, False), ["act"], axes={"act": "TBC"})
    torch.testing.assert_close(given.activations(inputs, ["act"], "time")["act"], expected)


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformers(batch_first):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(MELS, 2, 16, dropout=0.5, batch_first=batch_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(MELS, 2)

        def forward(self, x):
            x = x[:, 0].transpose(1, 2)
            x = self.encoder(x if batch_first else x.transpose(0, 1))
            return self.head(x.mean(1 if batch_first else 0))

    model = Model()
    layers = ["encoder", "encoder.layers.0", "encoder.layers.1.linear1"]
    found = wrap(model, layers).gradients(waves(5), layers, [0, 1], "time")
    assert {layer: value.shape[1] for layer, value in found.activations.items()} == dict(
        zip(layers, (MELS, MELS, 16), strict=True)
    )
    for target in (0, 1):
        expected = model.head.weight[target].detach().expand(5, -1)
        torch.testing.assert_close(found.gradients["encoder"][:, target], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.logits, model.eval()(spectrum(waves(5))).detach())


def test_torchvision_models_with_in_place_activations():
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    for model, layer in ((models.resnet18(num_classes=3), "layer3"), (models.vgg11(num_classes=3), "features.10")):
        model.eval()

        def image(x):
            return x.view(len(x), 1, 8, 12).repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)

        found = wrap(model, [layer], frontend=image).gradients(waves(2), [layer], [2], "none")
        plain = copy.deepcopy(model)
        for module in plain.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        module = dict(plain.named_modules())[layer]
        captum = LayerGradientXActivation(plain, module, multiply_by_inputs=False)
        expected = captum.attribute(image(waves(2)), target=2).permute(0, 3, 2, 1).flatten(1)
        torch.testing.assert_close(found.gradients[layer][:, 0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Softmax(1)])
def test_a_saturating_last_module_does_not_change_gradients(last, caplog):
    found = wrap(convnet(last), ["2"]).gradients(waves(), ["2"], [0, 3])
    expected = wrap(convnet(), ["2"]).gradients(waves(), ["2"], [0, 3])
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.gradients["2"], expected.gradients["2"])
    assert not caplog.records


class Wrapped(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.body = convnet()
        self.change = change

    def forward(self, x):
        return self.change(self.body(x))


def test_a_functional_sigmoid_is_warned_of_once_and_undone_by_naming_the_logits(caplog):
    expected = wrap(convnet(), ["2"]).gradients(waves(), ["2"], [1])
    backbone = wrap(Wrapped(torch.sigmoid), ["body.2"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            backbone.gradients(waves(), ["body.2"], [1])
    assert [("probabilities" in r.getMessage()) for r in caplog.records] == [True]
    caplog.clear()
    named = wrap(Wrapped(torch.sigmoid), ["body.2"], logits="body.8").gradients(waves(), ["body.2"], [1])
    torch.testing.assert_close(named.gradients["body.2"], expected.gradients["2"])
    torch.testing.assert_close(named.logits, expected.logits)
    assert not caplog.records


def test_a_recurrent_model_of_small_positive_outputs_is_not_suspected(caplog):
    model = Recurrent(nn.GRU, True)
    nn.init.constant_(model.head.bias, 0.5)
    nn.init.normal_(model.head.weight, std=0.01)
    with caplog.at_level(logging.WARNING):
        found = wrap(model, ["rnn"]).gradients(waves(2), ["rnn"], [0])
    assert ((found.logits > 0) & (found.logits < 1)).all()
    assert not caplog.records


@pytest.mark.parametrize(
    "change", [lambda x: (x, x.mean()), lambda x: {"logits": x, "other": x.exp()}, lambda x: [[x]]]
)
def test_models_that_return_structures(change):
    expected = wrap(convnet(), ["2"]).gradients(waves(), ["2"], [1])
    found = wrap(Wrapped(change), ["body.2"]).gradients(waves(), ["body.2"], [1])
    torch.testing.assert_close(found.gradients["body.2"], expected.gradients["2"])


def test_one_output_without_a_class_axis():
    backbone = wrap(nn.Sequential(convnet(outputs=1), nn.Flatten(0)), ["0.2"])
    found = backbone.gradients(waves(), ["0.2"], [0])
    assert found.logits.shape == (3, 1)
    assert found.gradients["0.2"].shape == (3, 1, MELS * 6)
    assert list(backbone.classes) == ["0"]


def test_classes_default_to_numbers_of_the_models_outputs():
    backbone = wrap(convnet(outputs=3), ["0"])
    assert target_index(backbone, 2) == target_index(backbone, np.int64(2)) == target_index(backbone, "2") == 2
    assert list(wrap(nn.Sequential(nn.Conv2d(1, 2, 3)), ["0"]).classes) == []
    with pytest.raises(InputError, match="classes: 2 names for 4 outputs"):
        wrap(convnet(), ["0"], classes=["a", "b"]).gradients(waves(), ["0"], [0])


def test_the_same_target_twice_and_no_target():
    backbone = wrap(convnet(), ["2"])
    found = backbone.gradients(waves(), ["2"], [1, 0, 1]).gradients["2"]
    torch.testing.assert_close(found[:, 0], found[:, 2])
    assert backbone.gradients(waves(), ["2"], []).gradients["2"].shape == (3, 0, MELS * 6)


def test_targets_layers_and_devices_that_do_not_exist():
    backbone = wrap(convnet(), ["0"], classes=["rock", "pop", "jazz", "blues"])
    assert target_index(backbone, "pop") == 1
    for target, message in (
        ("Jaz", "did you mean 'jazz'[?] classes: jazz, "),
        (4, "classes 0 to 3"),
        (-1, "classes 0 to 3"),
        (True, "not a class"),
        (1.5, "give a class's name or number"),
        (1.0, "target=1.0: is no class; give a class's name or number"),
    ):
        with pytest.raises(InputError, match=message):
            target_index(backbone, target)
    with pytest.raises(InputError, match="out of range; Sequential has outputs 0 to 3"):
        backbone.gradients(waves(), ["0"], [-1])
    with pytest.raises(InputError, match=r"target=1\.0: is not a whole number; Sequential has outputs 0 to 3"):
        backbone.gradients(waves(), ["0"], [1.0])
    numbered = backbone.gradients(waves(), ["0"], [np.int64(1)]).gradients["0"]
    torch.testing.assert_close(numbered, backbone.gradients(waves(), ["0"], [1]).gradients["0"])
    with pytest.raises(InputError, match=r"did you mean '2\.conv"):
        wrap(convnet(), ["2.conf"])
    with pytest.raises(InputError, match="is empty; choose from: 0, 1"):
        backbone.check_layers([])
    assert resolve_device("cpu") == torch.device("cpu")
    for device in ("gpu", "meta", 3.5, "cuda:99"):
        with pytest.raises(InputError, match="device="):
            resolve_device(device)


def test_layers_off_the_path_to_the_target():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = nn.Linear(96, 1), nn.Linear(96, 1), nn.Softmax(1)
            self.unused = nn.Linear(96, 1)

        def forward(self, x):
            x = x.flatten(1)
            self.unused(x)
            return self.out(torch.cat([self.one(x), self.two(x)], 1))

    backbone = wrap(Branches(), ["one"])
    assert backbone.gradients(waves(), ["one"], [0]).gradients["one"].abs().sum() > 0
    for layers, targets in ((["one", "unused"], [0]), (["unused"], [0]), (["out"], [0])):
        with pytest.raises(InputError, match="depend"):
            backbone.gradients(waves(), layers, targets)
    # A gradient of zero is an answer: the concatenation depends on the layer, this target does not.
    assert not backbone.gradients(waves(), ["one"], [1]).gradients["one"].any()


def test_axes_that_are_wrong_are_named():
    for axes, message in (("BCFTX", "use B and C"), ("CFT", "use B and C"), ("BBCT", "use B and C")):
        with pytest.raises(InputError, match=message):
            wrap(convnet(), ["0"], axes={"0": axes})
    with pytest.raises(InputError, match="layers: "):
        wrap(convnet(), ["0"], axes={"conv": "BCFT"})
    with pytest.raises(InputError, match="one letter for each of its 4 axes"):
        wrap(convnet(), ["0"], axes={"0": "BCT"}).activations(waves(), ["0"])
    with pytest.raises(InputError, match="is not 3 rows"):
        wrap(convnet(), ["0"], axes={"0": "CBFT"}).activations(waves(), ["0"])
    turned = wrap(convnet(), ["0"], axes={"0": "BCTF"}).activations(waves(), ["0"], "time")["0"]
    expected = convnet()[0](spectrum(waves())).mean(2).transpose(1, 2).flatten(1)
    torch.testing.assert_close(turned, expected.detach())


def test_options_that_are_wrong_are_named():
    model = convnet()
    for options, message in (
        ({"sample_rate": None}, "sample_rate=None: is missing"),
        ({"sample_rate": -1}, "must be positive"),
        ({"sample_rate": 0.5}, "must be positive"),
        ({"patch_seconds": None}, "patch_seconds=None: is missing"),
        ({"hop_seconds": 0.0}, "hop_seconds=0.0: must be positive"),
        ({"hop_seconds": math.nan}, "hop_seconds=nan: must be positive"),
        ({"hop_seconds": 1e-9}, "hop_seconds=1e-09: is shorter than one sample at 100 Hz; give more than 0.01"),
        ({"patch_seconds": 1e-9}, "patch_seconds=1e-09: is shorter than one sample at 100 Hz"),
        ({"classes": ["a", "b", "a", "b", "a"]}, "classes: 'a' is given 3 times; give each output a name of its own"),
        ({"short": "loop"}, "short='loop': is not known; use repeat, pad, skip"),
        ({"logits": "fc"}, "layers: "),
    ):
        with pytest.raises(InputError, match=message):
            TorchBackbone(model, ["0"], **({"sample_rate": 100, "patch_seconds": 1.0} | options))
    with pytest.raises(InputError, match="wrap black boxes in EmbeddingBackbone"):
        TorchBackbone(lambda x: x, ["0"], sample_rate=1, patch_seconds=1)


def test_the_model_and_the_front_end_are_left_as_they_were():
    class Noisy(nn.Module):
        """A front-end that augments in training only."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(MELS * FRAMES)

        def forward(self, x):
            return spectrum(nn.functional.dropout(self.norm(x), training=self.training))

    model = nn.Sequential(convnet(), nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    front = Noisy().train()
    model[0][0].weight.requires_grad_(False)
    before = copy.deepcopy((model.state_dict(), front.state_dict()))
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    backbone = wrap(model, ["0.2"], frontend=front)
    one = backbone.gradients(waves(), ["0.2"], [0])
    backbone.activations(waves(), ["0.2"])
    with pytest.raises(RuntimeError):
        backbone.activations(torch.ones(2, 5), ["0.2"])
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]) == flags
    assert front.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    for old, now in zip(before, (model.state_dict(), front.state_dict()), strict=True):
        assert all(torch.equal(old[key], now[key]) for key in old)
    two = wrap(model.eval(), ["0.2"], frontend=front.eval()).gradients(waves(), ["0.2"], [0])
    torch.testing.assert_close(one.gradients["0.2"], two.gradients["0.2"], rtol=0, atol=0)
    torch.testing.assert_close(one.logits, model(front(waves())).detach())


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 0.999999), (torch.bfloat16, 0.95)])
def test_models_of_other_precision_get_inputs_of_theirs(dtype, least):
    expected = wrap(convnet(), ["2"]).gradients(waves(), ["2"], [0])
    found = wrap(convnet().to(dtype), ["2"]).gradients(waves(), ["2"], [0])
    assert found.logits.dtype == dtype
    cosine = nn.functional.cosine_similarity(found.gradients["2"].float(), expected.gradients["2"], dim=2)
    assert cosine.min() > least


def test_fingerprint_follows_everything_that_decides_activations():
    def base(**options):
        return wrap(convnet(), ["0"], **options).fingerprint()

    same = {base(), base(name="other"), base(classes=list("abcd"))}
    assert len(same) == 1
    changed = [
        base(hop_seconds=0.5),
        base(axes={"0": "BCTF"}),
        base(short="pad"),
        base(logits="8"),
        base(frontend=lambda x: spectrum(x) * 2),
        TorchBackbone(convnet(), ["0"], spectrum, (), 200, patch_seconds=MELS * FRAMES / 100).fingerprint(),
        TorchBackbone(convnet(), ["0"], spectrum, (), 100, patch_seconds=0.5).fingerprint(),
    ]
    for presets in ({"n_mels": 8}, {"n_mels": 9}, {"layout": "BCFT"}):
        from captum_concepts.audio.frontends import frontend

        changed.append(TorchBackbone(convnet(), ["0"], frontend("musicnn", **presets)).fingerprint())
    assert len({*same, *changed}) == 1 + len(changed)
    backbone = wrap(convnet(), ["0"])
    for tensor in [*backbone.model.parameters(), *(b for b in backbone.model.buffers() if b.is_floating_point())]:
        old = backbone.fingerprint()
        tensor.data.view(-1)[0] += 1e-3
        assert backbone.fingerprint() != old


def test_without_a_fingerprint_the_log_says_why_once(caplog):
    model = convnet()
    model.generator = torch.Generator()
    backbone = wrap(model, ["0"])
    with caplog.at_level(logging.INFO):
        assert backbone.fingerprint() is None
        assert backbone.fingerprint() is None
    (record,) = caplog.records
    assert "Sequential.generator is a Generator, whose state cannot be read" in record.getMessage()


def test_fingerprint_is_the_same_in_every_process():
    code = (
        "import torch; from captum_concepts.backbones.torch_backbone import TorchBackbone; torch.manual_seed(0);"
        "m = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3)); m.names = {'b', 'a', 'c'};"
        "print(TorchBackbone(m, ['0'], lambda x: x in {'x', 'y'}, (), 8, patch_seconds=1).fingerprint())"
    )
    root = str(helper_paths.ROOT)
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


# Black boxes ----------------------------------------------------------------------------------------------------


def mlp(outputs=3, activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), activation(), nn.Linear(16, outputs))


def black_box(head=None, classes=("a", "b", "c"), **options):
    options = {"embed": lambda x: x[:, :6] * 3, "sample_rate": 100, "patch_seconds": 0.1} | options
    return EmbeddingBackbone(head=head, classes=classes if head is not None else (), **options)


def test_a_torch_head_is_differentiated_exactly():
    head = mlp().train()
    found = black_box(head).gradients(waves()[:, :10], ["embedding"], [2, 0])
    embedding = (waves()[:, :6] * 3).requires_grad_()
    logits = head(embedding)
    torch.testing.assert_close(found.logits, logits.detach())
    for position, target in enumerate((2, 0)):
        (expected,) = torch.autograd.grad(logits[:, target].sum(), embedding, retain_graph=True)
        torch.testing.assert_close(found.gradients["embedding"][:, position], expected)
    assert head.training
    assert all(p.requires_grad and p.grad is None for p in head.parameters())
    double = black_box(mlp().double()).gradients(waves()[:, :10], ["embedding"], [2])
    torch.testing.assert_close(double.gradients["embedding"][:, 0], found.gradients["embedding"][:, 0])


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("probabilities", [False, True])
def test_a_callable_head_is_differentiated_by_central_differences(precision, probabilities):
    head = mlp().to(precision)

    def call(points):
        with torch.no_grad():
            logits = head(torch.as_tensor(points, dtype=precision))
            return (logits.sigmoid() if probabilities else logits).numpy()

    options = {"head_output": "probabilities"} if probabilities else {}
    found = black_box(call, **options).gradients(waves(20)[:, :10], ["embedding"], [0, 1, 2])
    exact = black_box(mlp()).gradients(waves(20)[:, :10], ["embedding"], [0, 1, 2])
    torch.testing.assert_close(found.logits, exact.logits, rtol=1e-4, atol=1e-4)
    difference = (found.gradients["embedding"] - exact.gradients["embedding"]).flatten(1).norm(dim=1)
    assert (difference / exact.gradients["embedding"].flatten(1).norm(dim=1)).max() < 1e-3
    clear = exact.gradients["embedding"].abs() > 1e-3 * exact.gradients["embedding"].abs().max()
    signs = found.gradients["embedding"].sign() == exact.gradients["embedding"].sign()
    assert signs[clear].all()


def test_a_fitted_classifier_as_head():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    model = linear_model.LogisticRegression(C=100.0).fit(x, (x[:, 0] - x[:, 1] > 0).astype(int))
    backbone = black_box(model.predict_proba, classes=("no", "yes"), head_output="probabilities")
    found = backbone.gradients(waves()[:, :10] / 10, ["embedding"], [1]).gradients["embedding"][:, 0]
    expected = torch.tensor(model.coef_[0], dtype=torch.float32).expand(3, -1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_a_black_box_must_give():
    inputs = waves()[:, :10]
    assert isinstance(black_box(), Backbone)
    with pytest.raises(InputError, match="has no head, so nothing to explain"):
        black_box().gradients(inputs, ["embedding"], [0])
    for embed in (lambda x: x[0], lambda x: x[:2], lambda x: x[:, :, None]):
        with pytest.raises(InputError, match=r"it must give \(3, D\)"):
            black_box(embed=embed).activations(inputs, ["embedding"])
    for head in (mlp(outputs=2), lambda x: x[:, :2]):
        with pytest.raises(InputError, match="classes: 3 names for 2 outputs"):
            black_box(head).gradients(inputs, ["embedding"], [0])
    with pytest.raises(InputError, match=r"gave shape \(1,\) for 12 embeddings|gave shape \(1,\)"):
        black_box(lambda x: x[:1, 0]).gradients(inputs, ["embedding"], [0])
    with pytest.raises(InputError, match="out of range"):
        black_box(mlp()).gradients(inputs, ["embedding"], [3])
    with pytest.raises(InputError, match="its only layer is: embedding"):
        black_box().check_layers(["fc"])
    for options, message in (
        ({"head_output": "scores"}, "use logits or probabilities"),
        ({"hop_seconds": 0.0}, "must be positive"),
        ({"hop_seconds": 1e-9}, "hop_seconds=1e-09: is shorter than one sample"),
        ({"step": 0.0}, r"step=0\.0: must be positive"),
        ({"sample_rate": 0}, "must be positive"),
        ({"short": "no"}, "use repeat, pad, skip"),
    ):
        with pytest.raises(InputError, match=message):
            black_box(**options)
    with pytest.raises(InputError, match="classes: 'a' is given 2 times"):
        black_box(mlp(), classes=["a", "b", "a"])
    with pytest.raises(InputError, match="no head"):
        EmbeddingBackbone(lambda x: x, 100, 0.1, classes=["a"])
    with pytest.raises(InputError, match="name the head's columns"):
        EmbeddingBackbone(lambda x: x, 100, 0.1, head=mlp())


def test_a_black_box_gets_arrays_and_may_give_tensors():
    seen = []

    def embed(x):
        seen.append(x)
        return torch.as_tensor(x[:, :6]).double().requires_grad_()

    found = black_box(embed=embed).activations(waves()[:, :10], ["embedding"])["embedding"]
    assert isinstance(seen[0], np.ndarray)
    assert seen[0].dtype == np.float32
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_a_black_box_is_kept_only_under_a_version():
    assert black_box(mlp()).fingerprint() is None
    head = mlp()
    one = black_box(head, version="1").fingerprint()
    assert one == black_box(mlp(), version="1").fingerprint()
    head[0].weight.data[0, 0] += 1
    others = [
        black_box(head, version="1").fingerprint(),
        black_box(mlp(), version="2").fingerprint(),
        black_box(mlp(), version="1", hop_seconds=0.05).fingerprint(),
        black_box(version="1").fingerprint(),
    ]
    assert len({one, *others}) == 5


@pytest.mark.gpu
def test_gpu_gives_what_the_cpu_gives():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    expected = wrap(convnet(), LAYERS).gradients(waves(), LAYERS, [0, 3])
    backbone = wrap(convnet(), LAYERS, device="cuda")
    found = backbone.gradients(waves(), LAYERS, [0, 3])
    assert found.logits.device.type == "cuda"
    assert backbone.fingerprint() == wrap(convnet(), LAYERS).fingerprint()
    for layer in LAYERS:
        scale = expected.gradients[layer].abs().max()
        assert (found.gradients[layer].cpu() - expected.gradients[layer]).abs().max() < 1e-4 * scale


class Bare:
    """A user's backbone from before the protocol had a model, a sample rate, a patch length and a hop."""

    name = "bare"
    layers = ("a",)
    classes = ()
    device = torch.device("cpu")

    def fingerprint(self):
        return None

    def check_layers(self, layers):
        pass

    def read(self, clip):
        yield from ()

    def activations(self, inputs, layers, pool):
        return {}

    def gradients(self, inputs, layers, targets, pool):
        raise AssertionError


def test_another_hop_or_model_is_a_copy():
    backbone = wrap(convnet(), ["0"])
    other = backbone.with_hop(backbone.patch_seconds / 2)
    assert 2 * other.hop_samples == backbone.hop_samples and other.model is backbone.model
    model = copy.deepcopy(backbone.model)
    changed = backbone.with_model(model)
    assert changed.model is model and backbone.model is not model and type(changed) is TorchBackbone
    with pytest.raises(InputError, match=r"is no torch\.nn\.Module"):
        backbone.with_model("resnet")
    with pytest.raises(InputError, match="is a black box without a model"):
        black_box().with_model(model)


def test_every_backbone_follows_the_whole_protocol():
    for backbone in (wrap(convnet(), ["0"]), black_box()):
        assert isinstance(backbone, Backbone)
        check_backbone(backbone)


def test_backbones_without_the_optional_members_are_black_boxes():
    backbone = Bare()
    check_backbone(backbone)
    assert model_of(backbone) is None and patch_length(backbone) is None
    with pytest.raises(InputError, match=r"hop=0\.5: bare does not cut audio into patches; leave hop out"):
        with_hop(backbone, 0.5)
    with pytest.raises(InputError, match="backbone='bare': is a black box"):
        with_model(backbone, convnet())
    backbone.sample_rate, backbone.patch_seconds, backbone.hop_samples = 100, 1.0, 100
    assert with_hop(backbone, 0.5).hop_samples == 50 and backbone.hop_samples == 100
    backbone.model = convnet()
    assert with_model(backbone, other := convnet()).model is other is not backbone.model
    with pytest.raises(InputError, match=r"backbone='musicnn': has no read\(\)"):
        check_backbone("musicnn")
