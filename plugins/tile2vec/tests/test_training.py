from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from captum_concepts_tile2vec.checkpoints import Settings, load_tile2vec, untrained
from captum_concepts_tile2vec.data import folder_recordings, split_by_group
from captum_concepts_tile2vec.loss import l2_penalty, triplet_loss
from captum_concepts_tile2vec.models import Shape, build_network
from captum_concepts_tile2vec.tiles import Tiles, find_tiles
from captum_concepts_tile2vec.training import TrainingOptions, TripletModule, train
from captum_concepts_tile2vec.triplets import TripletSampler

from captum_concepts.errors import InputError
from captum_concepts.storage import read_weights

SETTINGS = Settings("ConvNet1D", size=4, features="mfcc", seconds=0.25)
OPTIONS = TrainingOptions(epochs=3, batch_size=16, learning_rate=1e-3, l2=0.0, neighbourhood=0.5, seed=5)


@pytest.fixture
def parts(write_folder) -> tuple[Tiles, Tiles]:
    split = split_by_group(folder_recordings(write_folder(per_class=3)), 0.34, 0)
    return find_tiles(split.train, 0.25), find_tiles(split.evaluate, 0.25)


def run(parts, out: Path, options: TrainingOptions = OPTIONS, settings: Settings = SETTINGS, **more) -> Path:
    return train(*parts, out, settings, options, device="cpu", **more)


def test_training_lowers_the_held_out_loss(parts, tmp_path):
    weights = run(parts, tmp_path / "run", replace(OPTIONS, epochs=5))
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    losses = [epoch["val_loss"] for epoch in card["history"]]
    assert min(losses) < 0.7 * losses[0]
    model = load_tile2vec(weights)
    assert model.settings == SETTINGS
    sampler = TripletSampler(parts[1], 0.5, seed=9)

    def loss(embedding) -> float:
        drawn = [sampler.triplet(0, index) for index in range(len(sampler))]
        members = [torch.stack([parts[1].read(row[member]) for row in drawn]) for member in range(3)]
        return triplet_loss(*(embedding.embed(these) for these in members), strategy="all").loss.item()

    assert loss(model) < 0.7 * loss(untrained(SETTINGS, 0))
    assert {"near", "far", "active", "triplet_loss", "l2_loss", "loss", "val_near", "val_far", "val_active"} <= set(
        card["history"][0]
    )


def test_tensorboard_has_the_scalars(parts, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(parts, tmp_path / "run", replace(OPTIONS, epochs=1))
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    names = {f"step/{name}" for name in ("loss", "triplet_loss", "l2_loss", "near", "far", "active")}
    assert names | {"val_loss", "val_near", "val_far", "val_active"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("step/loss")) == 3  # 48 anchors by 16


def test_same_seed_same_bytes_whatever_reads(parts, tmp_path):
    options = replace(OPTIONS, epochs=1)
    one = run(parts, tmp_path / "one", options).read_bytes()
    assert run(parts, tmp_path / "two", options, workers=2).read_bytes() == one
    assert run(parts, tmp_path / "three", replace(options, seed=6)).read_bytes() != one


def test_kept_features_train_the_same(parts, tmp_path):
    options = replace(OPTIONS, epochs=1)
    one, _ = read_weights(run(parts, tmp_path / "one", options))
    other, _ = read_weights(run(parts, tmp_path / "two", options, cache=tmp_path / "store"))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor)


def test_kept_statistics_train_the_same(parts, tmp_path):
    settings = Settings("ContrastNet", size=4, seconds=0.4)
    parts = tuple(find_tiles(these.recordings, 0.4) for these in parts)
    options = replace(OPTIONS, epochs=2, mining="all", l2=0.01)
    one = run(parts, tmp_path / "one", options, settings)
    other = run(parts, tmp_path / "two", options, settings, cache=tmp_path / "store")
    again = run(parts, tmp_path / "three", options, settings, cache=tmp_path / "store", workers=1)
    assert again.read_bytes() == other.read_bytes()
    expected, found = read_weights(one)[0], read_weights(other)[0]
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=1e-3)
    clip = parts[0].read(0)[None]
    torch.testing.assert_close(load_tile2vec(one).embed(clip), load_tile2vec(other).embed(clip), atol=1e-3, rtol=1e-3)


def test_another_run_in_the_folder(parts, tmp_path):
    run(parts, tmp_path / "run", replace(OPTIONS, epochs=1))
    before = time.time_ns()
    run(parts, tmp_path / "run", replace(OPTIONS, epochs=1))  # finished: nothing to do
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns < before
    with pytest.raises(InputError, match=r"a run with margin=1\.0, not 2\.0"):
        run(parts, tmp_path / "run", replace(OPTIONS, epochs=1, margin=2.0))


def test_one_recording(parts, tmp_path):
    tiles = find_tiles(parts[0].recordings[:1], 0.25)
    with pytest.raises(InputError, match=r"^only one recording or session"):
        run((tiles, parts[1]), tmp_path / "run")
    with pytest.raises(InputError, match=r"^held-out recordings: only one recording or session"):
        run((parts[0], tiles), tmp_path / "run")


def test_wrong_channels(parts, tmp_path):
    with pytest.raises(InputError, match="recordings have 1 and 1 channels where the network takes 4"):
        run(parts, tmp_path / "run", settings=replace(SETTINGS, channels=4))


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_the_loss_is_triplets_and_weights(l2):
    torch.manual_seed(0)
    settings = replace(SETTINGS, architecture="DenseNet")
    module = TripletModule(settings.make_network(), settings.make_features(), replace(OPTIONS, l2=l2))
    module.log_dict = lambda *arguments, **options: None
    tiles = torch.randn(6, 3, 1, 4000)
    loss = module.training_step((tiles, torch.zeros(6, 2, dtype=torch.long)), 0)
    embed = [module.model(module.features(tiles[:, member])) for member in range(3)]
    squares = sum(p.square().sum().item() for p in module.model.parameters())
    assert l2_penalty(module.model).item() == pytest.approx(squares)
    assert loss.item() == pytest.approx(triplet_loss(*embed).loss.item() + l2 * squares, rel=1e-5)


def test_the_learning_rate_falls_in_stairs():
    module = TripletModule(build_network("DenseNet", Shape(1, 1, 1, 1)), None, TrainingOptions(decay_steps=50))
    configured = module.configure_optimizers()
    optimiser, schedule = configured["optimizer"], configured["lr_scheduler"]
    rates = []
    for _ in range(101):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule["scheduler"].step()
    assert schedule["interval"] == "step"
    assert rates[0] == rates[49] == 1e-4
    assert rates[50] == rates[99] == pytest.approx(0.95e-4)
    assert rates[100] == pytest.approx(0.95**2 * 1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"margin": 0.0},
        {"learning_rate": -1.0},
        {"decay": 1.1},
        {"l2": -0.1},
        {"strategy": "x"},
        {"margin": float("inf")},
        {"learning_rate": float("inf")},
        {"l2": float("inf")},
    ],
)
def test_mistakes(options):
    with pytest.raises(InputError, match=next(iter(options))):
        TrainingOptions(**options)


def test_defaults_are_the_originals():
    options = TrainingOptions()
    assert (options.epochs, options.batch_size, options.learning_rate, options.seed) == (20, 64, 1e-4, 1234)
    assert (options.decay, options.decay_steps, options.margin, options.l2) == (0.95, 7500, 1.0, 0.1)
    assert (options.strategy, options.neighbourhood) == ("active", 5.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_mixed_precision_on_a_gpu(parts, tmp_path):
    options = replace(OPTIONS, epochs=5)
    weights = train(*parts, tmp_path / "run", SETTINGS, options, device="cuda", data_parallel=True)
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert card["options"]["precision"] == "16-mixed"
    losses = [epoch["val_loss"] for epoch in card["history"]]
    assert min(losses) < 0.7 * losses[0]
    assert all(torch.isfinite(tensor).all() for tensor in read_weights(weights)[0].values())
