from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import soundfile
import torch
from captum_concepts_gtzan.augmentations import Augmentation
from captum_concepts_gtzan.batches import Recordings, TrainingBatches, chunks, read_recordings
from captum_concepts_gtzan.checkpoints import load_checkpoint
from captum_concepts_gtzan.dataset import Track, find_tracks
from captum_concepts_gtzan.experiments import SplitOptions, train_and_test
from captum_concepts_gtzan.models import build_model
from captum_concepts_gtzan.training import LEARNING_RATES, GenreTraining, TrainingOptions, track_logits, train_network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import captum_concepts as cc
from captum_concepts.audio import Clip, iter_patches
from captum_concepts.errors import InputError
from captum_concepts.storage import read_weights
from captum_concepts.training import Schedule

RATE = 22050
SMALL = {"seconds": 0.25, "n_mels": 16, "channels": 4, "n_fft": 256}
SCHEDULE = Schedule(epochs=2, seed=3, device="cpu")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, gtzan_like: Callable[..., Path]) -> Recordings:
    tracks = find_tracks(gtzan_like(tmp_path_factory.mktemp("data"), numbers=range(5), seconds=0.5))
    return read_recordings(tracks.tracks, tracks.genres, RATE)


def _batches(recordings: Recordings, **changes: Any) -> TrainingBatches:
    given: dict[str, Any] = {
        "samples": 2000, "sample_rate": RATE, "augmentation": Augmentation(), "batch_size": 4, "crops": 3, "seed": 5,
        "device": torch.device("cpu"),
    }  # fmt: skip
    return TrainingBatches(recordings, **(given | changes))


def _train(recordings: Recordings, out: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"schedule": SCHEDULE, "model_options": SMALL, "options": TrainingOptions(batch_size=4)}
    return train_network("gtzan-cnn", recordings, recordings, ("blues", "jazz"), out, **(given | changes))


def test_every_example_comes_once_in_an_epoch_with_its_label(recordings: Recordings) -> None:
    batches = _batches(recordings)
    numbers = torch.cat(batches.order(0))
    assert sorted(numbers.tolist()) == list(range(30))
    assert not torch.equal(numbers, torch.cat(batches.order(1)))
    made = list(batches(0))
    assert len(made) == len(batches(0)) == 8
    for numbers, (waves, boxes, labels) in zip(batches.order(0), made, strict=True):
        assert torch.equal(labels, recordings.labels[numbers // 3])
        assert boxes.shape == (len(numbers), 4)
        for number, wave in zip(numbers, waves, strict=True):
            assert torch.equal(wave, batches.example(0, int(number))[0])


def test_the_batches_do_not_depend_on_the_threads(recordings: Recordings) -> None:
    one, four = (list(_batches(recordings, threads=count)(2)) for count in (1, 4))
    assert all(
        torch.equal(a, b) for first, second in zip(one, four, strict=True) for a, b in zip(first, second, strict=True)
    )


def test_an_example_does_not_depend_on_the_other_tracks(recordings: Recordings) -> None:
    fewer = dataclasses.replace(
        recordings, tracks=recordings.tracks[4:], waves=recordings.waves[4:], labels=recordings.labels[4:]
    )
    assert torch.equal(_batches(recordings).example(1, 4 * 3 + 2)[0], _batches(fewer).example(1, 2)[0])


def test_no_batch_has_a_single_example(recordings: Recordings) -> None:
    for size in range(2, 12):
        batches = _batches(recordings, batch_size=size, crops=1)
        sizes = [len(labels) for *_, labels in batches(0)]
        assert sum(sizes) == 10
        assert 2 <= min(sizes) <= max(sizes) <= max(size, 3)
        assert len(sizes) == batches.count


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"crops": 0}, {"threads": 0}])
def test_batches_of_no_size_are_refused(recordings: Recordings, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        _batches(recordings, **change)


def test_tracks_that_cannot_be_decoded_are_named_and_never_silence(
    tmp_path: Path, gtzan_like: Callable[..., Path]
) -> None:
    root = gtzan_like(tmp_path, numbers=range(3), seconds=0.5)
    tracks = find_tracks(root).tracks
    silent, cut = Path(tracks[0].path), Path(tracks[4].path)
    soundfile.write(silent, np.zeros(RATE), RATE)
    cut.write_bytes(cut.read_bytes()[:5000])
    found = read_recordings(tracks, ("blues", "jazz"), RATE)
    assert len(found) == len(found.waves) == len(found.labels) == 4
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert len(found.skipped) == 2
    assert str(silent) in found.skipped[0]
    assert str(cut) in found.skipped[1]
    assert all(float(wave.abs().max()) > 0.1 for wave in found.waves)


def test_only_unusable_tracks_or_a_genre_without_a_class_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    track = Track(str(tmp_path / "a.wav"), "blues", "blues/a", 1.0)
    with pytest.raises(InputError, match=r"none of 1 tracks can be used; the first: .*a\.wav"):
        read_recordings([track], ("blues",), RATE)
    with pytest.raises(InputError, match=r"genre='blues': of .*a\.wav.* is not one of jazz, rock"):
        read_recordings([track], ("jazz", "rock"), RATE)


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.3])
def test_a_recording_is_cut_as_the_decoder_cuts_a_file(tmp_path: Path, seconds: float) -> None:
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, RATE, subtype="FLOAT")
    patches = torch.cat([block.inputs for block in iter_patches(Clip(str(tmp_path / "a.wav")), RATE, 8000, 8000)])
    assert torch.equal(chunks(torch.from_numpy(signal), 8000), patches)


def test_a_track_is_the_mean_of_the_logits_of_all_its_chunks() -> None:
    model = build_model("gtzan-cnn", n_classes=3, **SMALL)
    waves = torch.randn(7, model.patch_samples, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([model(wave[None])[0] for wave in waves]).mean(0)
    assert torch.allclose(track_logits(model, waves, batch_size=3), alone, atol=1e-5)


def test_loss_and_metrics_agree_with_references(recordings: Recordings, tmp_path: Path) -> None:
    weights = _train(recordings, tmp_path, schedule=dataclasses.replace(SCHEDULE, epochs=1))
    epoch = json.loads((tmp_path / "run.json").read_text())["history"][0]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    for name in ("loss", "accuracy", "f1"):
        for stage in ("train", "val"):
            assert [event.value for event in events.Scalars(f"{stage}_{name}")] == pytest.approx(
                [epoch[f"{stage}_{name}"]]
            )
    model, _ = load_checkpoint(weights, "gtzan-cnn")
    logits = torch.stack([track_logits(model, chunks(wave, model.patch_samples)) for wave in recordings.waves]).detach()
    truth, said = recordings.labels.numpy(), logits.argmax(1).numpy()
    assert epoch["val_loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, recordings.labels).item(), abs=1e-5
    )
    assert epoch["val_accuracy"] == pytest.approx((truth == said).mean())
    assert epoch["val_f1"] == pytest.approx(sklearn.metrics.f1_score(truth, said, average="macro"))
    module = GenreTraining(build_model("gtzan-cnn", n_classes=2, **SMALL), TrainingOptions(learning_rate=1e-3))
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.eval()  # without dropout
    waves, labels = torch.stack([wave[: module.model.patch_samples] for wave in recordings.waves]), recordings.labels
    logs = torch.log_softmax(module.model(waves), 1)
    smoothed = -(0.85 * logs[torch.arange(10), labels] + 0.15 * logs.mean(1)).mean()
    assert module.training_step((waves, torch.zeros(10, 4), labels), 0).item() == pytest.approx(
        smoothed.item(), abs=1e-6
    )


def test_the_defaults_are_those_of_the_checklist() -> None:
    options = TrainingOptions()
    assert (options.label_smoothing, options.weight_decay, options.augmentation.hiss) == (0.15, 8e-4, 0.002)
    schedule = Schedule()
    assert (schedule.epochs, schedule.patience, schedule.clip) == (60, 15, 1.0)
    assert options.batch_size == 16
    assert LEARNING_RATES["gtzan-vgg16"] == 4e-5
    for name, rate in (("gtzan-cnn", 5e-3), ("gtzan-cnn2", 4e-5)):
        module = GenreTraining(build_model(name), dataclasses.replace(options, learning_rate=LEARNING_RATES[name]))
        found = module.configure_optimizers()
        assert found["optimizer"].param_groups[0]["lr"] == rate
        assert found["optimizer"].param_groups[0]["weight_decay"] == 8e-4
        assert (found["lr_scheduler"]["scheduler"].factor, found["lr_scheduler"]["scheduler"].patience) == (0.75, 8)


def test_a_network_learns_to_tell_two_tones_apart(recordings: Recordings, tmp_path: Path) -> None:
    """Tracks of blues and jazz differ in pitch; before training the loss is that of chance."""
    options = TrainingOptions(batch_size=4, crops=2, augmentation=Augmentation.none())
    weights = _train(recordings, tmp_path, schedule=dataclasses.replace(SCHEDULE, epochs=8), options=options)
    history = json.loads((tmp_path / "run.json").read_text())["history"]
    assert min(epoch["val_loss"] for epoch in history) < 0.35 < history[0]["val_loss"]
    model, classes = load_checkpoint(weights, "gtzan-cnn")
    assert classes == ("blues", "jazz")
    said = [int(track_logits(model, chunks(wave, model.patch_samples)).argmax()) for wave in recordings.waves]
    assert said == recordings.labels.tolist()


def test_the_weights_are_a_backbone_and_say_how_they_came_about(recordings: Recordings, tmp_path: Path) -> None:
    weights = _train(recordings, tmp_path, described={"split": "stratified"})
    metadata = read_weights(weights)[1]
    told = json.loads(metadata["training"])
    assert told["options"]["augmentation"]["snr_db"] == [15.0, 35.0]
    assert told["options"]["split"] == "stratified"
    assert told["options"]["learning_rate"] == 5e-3
    backbone = cc.load_backbone("gtzan-cnn", weights=str(weights), device="cpu")
    assert tuple(backbone.classes) == ("blues", "jazz")
    with pytest.raises(InputError, match="of 'gtzan-cnn', not of gtzan-cnn2"):
        load_checkpoint(weights, "gtzan-cnn2")


def test_other_options_or_data_in_the_same_folder_are_refused(recordings: Recordings, tmp_path: Path) -> None:
    _train(recordings, tmp_path)
    with pytest.raises(InputError, match=r"a run with label_smoothing=0\.15, not 0\.1;"):
        _train(recordings, tmp_path, options=TrainingOptions(batch_size=4, label_smoothing=0.1))
    with pytest.raises(InputError, match="a run with data="):
        _train(dataclasses.replace(recordings, digest="other"), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"weight_decay": -1.0}, {"label_smoothing": 1.0}],
)
def test_options_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        TrainingOptions(**change)  # type: ignore[arg-type]


_CHILD = """
import sys
from test_training import run
run(sys.argv[1], sys.argv[2])
"""


def run(data: str, out: str) -> None:
    """What the killed process does, and the one that resumes."""
    train_and_test(
        "gtzan-cnn",
        data,
        out,
        schedule=dataclasses.replace(SCHEDULE, epochs=3),
        options=TrainingOptions(batch_size=4, crops=8),
        model_options=SMALL,
        split_options=SplitOptions("stratified"),
    )


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(recordings: Recordings, tmp_path: Path) -> None:
    """It is killed once its first epoch is on disk, with two to go."""
    data, out, whole = str(Path(recordings.tracks[0].path).parents[2]), tmp_path / "killed", tmp_path / "whole"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    running = subprocess.Popen([sys.executable, "-c", _CHILD, data, str(out)], env=environment)
    deadline = time.monotonic() + 300
    while not (out / "last.ckpt").exists():
        assert running.poll() is None, "it ended before its first epoch did"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not json.loads((out / "run.json").read_text())["finished"]
    run(data, str(out))
    run(data, str(whole))
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (out / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
