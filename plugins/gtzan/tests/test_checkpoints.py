"""Weights come back as they were, AudioConcept's load, and everything else is refused without being run."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from captum_concepts_gtzan.checkpoints import audio_concept_names, load_checkpoint, save_checkpoint
from captum_concepts_gtzan.dataset import GENRES
from captum_concepts_gtzan.models import GenreModel, build_model
from safetensors.torch import save_file

from captum_concepts.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import reference_networks as reference

POOLS = [(2, 3), (3, 4), (2, 5), (3, 3), (3, 4)]
SMALL: dict[str, Any] = {"seconds": 1.0, "channels": 2, "n_mels": 32, "n_classes": 3}


def small() -> GenreModel:
    model = build_model("gtzan-cnn", seed=4, **SMALL)
    reference.lively(model)
    return model


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    model = small()
    save_checkpoint(tmp_path / "m.safetensors", model, ["polka", "waltz", "hiphop"])
    loaded, classes = load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn")
    assert same(loaded, model) and loaded.options == model.options and not loaded.training
    assert classes == ("polka", "waltz", "hiphop")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_cnn_can_be_loaded_for_chunks_of_another_length(tmp_path: Path) -> None:
    model = build_model("gtzan-cnn")
    save_checkpoint(tmp_path / "m.safetensors", model, GENRES)
    loaded, _ = load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn", seconds=3.96)
    assert same(loaded, model) and loaded.patch_samples == 87318
    with pytest.raises(InputError, match=r"n_mels=128, not 64"):
        load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn", n_mels=64)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "net.model."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict", "model"])
def test_audio_concepts_weights_load_under_any_prefix(tmp_path: Path, prefix: str, inside: str | None) -> None:
    theirs = reference.lively(reference.CNN(POOLS))
    state: Any = {prefix + key: value for key, value in theirs.state_dict().items()}
    if prefix:
        state["loss.weight"] = torch.ones(10)
    if inside:
        state = {inside: state, "epoch": 7, "lr": 0.005}
    torch.save(state, tmp_path / "best_CNN_model.ckpt")
    loaded, classes = load_checkpoint(tmp_path / "best_CNN_model.ckpt", "gtzan-cnn")
    assert classes == GENRES
    assert torch.equal(loaded.block3.conv.weight, theirs.layer3.conv.weight)
    assert torch.equal(loaded.output.bias, theirs.dense2.bias)


def test_a_plain_safetensors_file_of_audio_concepts_weights_loads(tmp_path: Path) -> None:
    theirs = reference.lively(reference.CNN(POOLS, n_classes=2, n_mels=64))
    save_file(theirs.state_dict(), tmp_path / "m.safetensors")
    loaded, classes = load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn", ["a", "b"])
    assert loaded.options["n_mels"] == 64 and classes == ("a", "b")
    with pytest.raises(InputError, match="0 class names for 2 outputs"):
        load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn")


@pytest.mark.parametrize(("name", "theirs"), [("gtzan-vgg16", reference.VGGish), ("gtzan-cnn2", reference.CNN2)])
def test_every_published_name_has_one_of_ours(name: str, theirs: type[torch.nn.Module]) -> None:
    with torch.device("meta"):
        ours, published = build_model(name), theirs()
    names = audio_concept_names(type(ours))
    renamed = {}
    for key, value in published.state_dict().items():
        module, _, last = key.rpartition(".")
        renamed[f"{names[module]}.{last}"] = value.shape
    assert renamed == {key: value.shape for key, value in ours.state_dict().items()}


def test_another_front_end_is_refused(tmp_path: Path) -> None:
    theirs = reference.CNN(POOLS)
    theirs.melspec.mel_scale.fb.mul_(2)
    torch.save(theirs.state_dict(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="another mel front-end"):
        load_checkpoint(tmp_path / "m.pt", "gtzan-cnn")


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", small(), ["a", "b", "c"])
    with pytest.raises(InputError, match=r"of 'gtzan-cnn', not of gtzan-cnn2"):
        load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn2")
    torch.save(reference.CNN2().state_dict(), tmp_path / "cnn2.pt")
    with pytest.raises(InputError, match="not weights of gtzan-cnn"):
        load_checkpoint(tmp_path / "cnn2.pt", "gtzan-cnn")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(InputError, match="not weights of gtzan-vgg16"):
        load_checkpoint(tmp_path / "linear.pt", "gtzan-vgg16")
    state = reference.CNN(POOLS).state_dict()
    torch.save(state | {"attention.weight": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(InputError, match=r"unexpected 'attention\.weight'"):
        load_checkpoint(tmp_path / "more.pt", "gtzan-cnn")
    del state["layer4.bn.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(InputError, match=r"has no 'block4.norm.bias'"):
        load_checkpoint(tmp_path / "less.pt", "gtzan-cnn")


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("write", ["torch", "legacy", "pickle"])
def test_hostile_checkpoints_are_refused_and_run_nothing(tmp_path: Path, write: str) -> None:
    sentinel, path = tmp_path / "run", tmp_path / "evil.pkl"
    content = {"state_dict": reference.CNN(POOLS).state_dict(), "callback": Hostile(sentinel)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(Hostile(sentinel)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(InputError, match="refused, nothing in it was run") as caught:
        load_checkpoint(path, "gtzan-cnn")
    assert "\n" not in str(caught.value)
    assert not sentinel.exists()
    sentinel.mkdir()
    with pytest.raises(FileExistsError):  # the file is what it is taken for: elsewhere it would have run
        pickle.loads(path.read_bytes()) if write == "pickle" else torch.load(path, weights_only=False)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"save model.state_dict\(\)"):
        load_checkpoint(tmp_path / "module.pt", "gtzan-cnn")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, small(), ["a", "b", "c"])
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_checkpoint(path, "gtzan-cnn")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be opened"):
        load_checkpoint(tmp_path / "none.pt", "gtzan-cnn")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds list, not a state_dict"):
        load_checkpoint(tmp_path / "list.pt", "gtzan-cnn")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    model = small()
    with torch.no_grad():
        model.dense.weight[0, 0] = value
    save_checkpoint(tmp_path / "m.safetensors", model, ["a", "b", "c"])
    with pytest.raises(InputError, match=r"dense.weight holds NaN"):
        load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn")


@pytest.mark.parametrize(
    "change",
    [
        {"options": "{"},
        {"options": "[]"},
        {"options": "[" * 100_000},
        {"classes": "[" * 100_000},
        {"options": json.dumps(SMALL | {"channels": 10**12})},
        {"options": json.dumps(SMALL | {"n_mels": 10**9})},
        {"options": json.dumps(SMALL | {"seconds": 1e12})},
        {"options": json.dumps(SMALL | {"seconds": "long"})},
        {"options": json.dumps(SMALL | {"evil": 1})},
        {"options": json.dumps(SMALL | {"n_classes": 7})},
        {"classes": json.dumps(["a", "a", "b"])},
        {"classes": json.dumps(["a"])},
        {"classes": "7"},
    ],
)
def test_hostile_metadata_is_refused_in_one_line(tmp_path: Path, change: dict[str, str]) -> None:
    metadata = {
        "format": "captum-concepts-gtzan 1",
        "model": "gtzan-cnn",
        "classes": json.dumps(["a", "b", "c"]),
        "options": json.dumps(SMALL),
    }
    save_file(small().state_dict(), tmp_path / "m.safetensors", metadata=metadata | change)
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "m.safetensors", "gtzan-cnn")
    assert "\n" not in str(caught.value)


def test_class_names_must_fit_the_outputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 names for 3 outputs"):
        save_checkpoint(tmp_path / "m.safetensors", small(), ["a", "b"])
    assert not list(tmp_path.iterdir())
