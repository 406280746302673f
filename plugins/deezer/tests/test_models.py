from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum_concepts_deezer.checkpoints import load_msd_vgg
from captum_concepts_deezer.models import CLASSES, POOLS, max_pool

from captum_concepts.errors import InputError


def keras(arrays, patches, stop_at=None):
    """The network as Keras runs it, block by block in its order, from the arrays as stored: {layer: output}."""

    def norm(x, layer):
        gamma, beta, mean, variance = (
            torch.from_numpy(arrays[f"{layer}/{layer}/{name}:0"]).to(x)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=1e-3)

    x, outputs = norm(patches[:, None], "bn_input"), {}
    for number, (window, stride) in enumerate(POOLS, 1):
        kernel = torch.from_numpy(arrays[f"{number}CNN/{number}CNN/kernel_1:0"]).to(x).permute(3, 2, 0, 1)
        bias = torch.from_numpy(arrays[f"{number}CNN/{number}CNN/bias_1:0"]).to(x)
        x = F.max_pool2d(norm(F.relu(F.conv2d(x, kernel, bias, padding=1)), f"bn_conv{number}"), window, stride)
        if x.requires_grad:
            x.retain_grad()
        outputs[f"pool{number}"] = x
    flat = x.permute(0, 2, 3, 1).flatten(1)
    kernel, bias = (torch.from_numpy(arrays[f"output/output/{name}:0"]).to(x) for name in ("kernel", "bias"))
    return outputs | {"flatten": flat, "logits": flat @ kernel + bias}


def layers_of(model, patches):
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name, module in model.named_children()
    ]
    model(patches)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.fixture
def model(arrays, write_h5):
    return load_msd_vgg(write_h5(arrays))


@pytest.fixture(scope="module")
def patches():
    return torch.rand(5, 187, 96, generator=torch.Generator().manual_seed(1)) * 3


def test_every_layer_equals_the_plain_network(model, arrays, patches):
    expected = keras(arrays, patches.double())
    found = layers_of(model, patches)
    assert list(found) == ["pool1", "pool2", "pool3", "pool4", "pool5", "flatten", "logits"]
    for name, output in found.items():
        assert output.shape == expected[name].shape
        scale = float(expected[name].abs().max())
        assert float((output - expected[name]).abs().max()) < 2e-6 * scale, name


def test_dead_channels_are_neither_computed_nor_read(model):
    assert model.pool1.kernel.shape == (88, 1, 3, 3)
    assert model.pool2.kernel_read.shape == (
        88,
        108,
        3,
        3,
    )  # 20 of the 40 dead channels have a constant that the next block reads
    assert model.pool2.kernel.shape == (88, 128, 3, 3)


@pytest.mark.parametrize("layer", ["pool1", "pool3", "pool4"])
def test_gradients_equal_those_of_the_plain_network(model, arrays, patches, layer):
    leaves = {}

    def cut(_, __, output):
        leaves["found"] = output.detach().requires_grad_()
        return leaves["found"]

    with getattr(model, layer).register_forward_hook(cut):
        found = model(patches[:2])[:, 9].sum()
    (gradient,) = torch.autograd.grad(found, leaves["found"])
    patches = patches[:2].double().requires_grad_()
    outputs = keras(arrays, patches)
    (expected,) = torch.autograd.grad(outputs["logits"][:, 9].sum(), outputs[layer])
    assert float(expected[:, :20].abs().max()) > 0, "the unread channels have gradients too"
    assert float((gradient - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_batches_and_a_channel_axis_change_nothing(model, patches):
    together = model(patches)
    assert torch.allclose(together, torch.cat([model(patch[None]) for patch in patches]), atol=1e-5)
    assert torch.equal(together, model(patches[:, None]))
    assert torch.equal(together, model(patches))


def test_pooling_equals_torch_and_gives_gradients():
    x = torch.randn(2, 3, 23, 13, generator=torch.Generator().manual_seed(0))
    for window, stride in POOLS:
        expected = F.max_pool2d(x, window, stride)
        assert torch.equal(max_pool(x, window, stride), expected)
        assert torch.equal(max_pool(x.clone().requires_grad_(), window, stride), expected)


def test_model_is_frozen_and_stays_in_evaluation_mode(model):
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.train().training


@pytest.mark.parametrize("shape", [(187, 96), (2, 96, 187), (1, 2, 187, 96), (1, 186, 96)])
def test_patches_of_another_shape_are_refused(model, shape):
    with pytest.raises(InputError, match=r"187, 96"):
        model(torch.zeros(shape))


def test_published_weights_equal_keras(published):
    with np.load(published("msd_vgg_keras_reference.npz")) as reference:
        arrays = {name: torch.from_numpy(reference[name]) for name in reference}
    model = load_msd_vgg(published("MSD_vgg.h5"))
    found = layers_of(model, arrays["x"])
    sizes = []
    for name, key in (("pool3", "o0"), ("pool4", "o1"), ("pool5", "o2")):
        assert float((found[name].permute(0, 2, 3, 1) - arrays[key]).abs().max()) < 1e-4
        # The published CAVs are over time averages flattened as (F, C).
        pooled = found[name].mean(2).permute(0, 2, 1).flatten(1)
        assert torch.allclose(pooled, arrays[key].mean(1).flatten(1), atol=1e-4)
        sizes.append(pooled.shape[1])
    assert float((found["logits"].sigmoid() - arrays["o3"]).abs().max()) < 1e-5
    assert [*sizes, found["logits"].shape[1]] == [1536, 768, 128, 50]
    assert model.pool2.kernel_read.shape == (53, 49, 3, 3), "more than half of the published channels are dead"


def test_classes_are_those_of_the_same_tags_elsewhere(published):
    metadata = published("MSD_vgg.h5").parents[1] / "essentia" / "msd-musicnn-1.json"
    if not metadata.is_file():
        pytest.skip("no metadata of another model with these tags")
    assert list(CLASSES) == json.loads(metadata.read_text())["classes"]


def test_fifty_classes():
    assert len(set(CLASSES)) == 50
