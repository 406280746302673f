from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from captum_concepts_tile2vec.checkpoints import Settings, learnt_from, load_tile2vec, save_tile2vec, untrained
from safetensors.torch import save_file

from captum_concepts.errors import InputError

SETTINGS = Settings("ConvNet1D", channels=2, size=4, features="mfcc", seconds=0.5)


def test_saved_and_loaded_is_the_same(tmp_path):
    model = untrained(SETTINGS, seed=1)
    save_tile2vec(tmp_path / "m.safetensors", model)
    again = load_tile2vec(tmp_path / "m.safetensors")
    assert again.settings == SETTINGS
    waveforms = torch.randn(3, 2, 8000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.embed(waveforms), model.embed(waveforms), rtol=0, atol=0)
    torch.testing.assert_close(again.embed(model.features(waveforms), ready=True), model.embed(waveforms))
    assert not again.network.training


def test_untrained_weights_depend_on_the_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, same, other = (untrained(SETTINGS, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.network.embedding.weight, same.network.embedding.weight)
    assert not torch.equal(one.network.embedding.weight, other.network.embedding.weight)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"tile2vec": "no json"},
        {"tile2vec": "[]"},
        {"tile2vec": '{"unknown": 1}'},
        {"tile2vec": '{"seconds": 1e300}'},
        {"tile2vec": '{"seconds": "5"}'},
        {"tile2vec": '{"features": "chroma"}'},
        {"tile2vec": '{"size": -1}'},
        {"tile2vec": '{"size": "16"}'},
        {"tile2vec": '{"architecture": ["x"]}'},
        {"tile2vec": "[" * 100_000},
    ],
)
def test_weights_of_something_else(tmp_path, metadata):
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=r"m.safetensors': its metadata does not describe an embedding"):
        load_tile2vec(tmp_path / "m.safetensors")


def test_weights_that_do_not_fit(tmp_path):
    model = untrained(SETTINGS, seed=1)
    tensors = model.network.state_dict()
    wrong = {**tensors, "embedding.weight": torch.zeros(4, 3)}
    save_file(wrong, tmp_path / "m.safetensors", metadata=SETTINGS.metadata())
    with pytest.raises(InputError, match=r"1 tensors do not fit a ConvNet1D, first 'embedding\.weight'"):
        load_tile2vec(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda tensors: {name: value * float("nan") for name, value in tensors.items()}, "encoder.2.weight"),
        (lambda tensors: {**tensors, "embedding.bias": torch.full((4,), float("inf"))}, "embedding.bias"),
        (lambda tensors: {name: value.half() for name, value in tensors.items()}, "encoder.2.weight"),
        (lambda tensors: {name: value.int() for name, value in tensors.items()}, "encoder.2.weight"),
    ],
)
def test_weights_that_are_no_finite_numbers(tmp_path, spoil, name):
    tensors = spoil(untrained(SETTINGS, seed=1).network.state_dict())
    save_file(tensors, tmp_path / "m.safetensors", metadata=SETTINGS.metadata())
    with pytest.raises(InputError, match=rf"tensor '{re.escape(name)}' is not of finite float32 numbers"):
        load_tile2vec(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("told", "expected"), [("[]", set()), ('["a", "ü"]', {"a", "ü"}), ("{}", set()), ("no", set()), ("[" * 9**6, set())]
)
def test_what_was_learnt_from(tmp_path, told, expected):
    model = untrained(SETTINGS, seed=1)
    assert learnt_from(model) == set()
    save_tile2vec(tmp_path / "m.safetensors", replace(model, metadata={"learnt_from": told}))
    assert learnt_from(load_tile2vec(tmp_path / "m.safetensors")) == expected


def test_hostile_sizes_are_refused_before_memory_is_taken(tmp_path):
    huge = json.dumps({"architecture": "DenseNet", "size": 10**12, "seconds": 3600})
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"tile2vec": huge})
    with pytest.raises(InputError):
        load_tile2vec(tmp_path / "m.safetensors")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_tile2vec(tmp_path / "none.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_tile2vec(tmp_path / "b.safetensors")
