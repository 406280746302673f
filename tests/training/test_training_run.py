from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import captum_concepts
import captum_concepts.training
from captum_concepts.errors import InputError
from captum_concepts.seeding import draw_seed, generator, seeded
from captum_concepts.storage.safetensors_files import read_weights
from captum_concepts.training.run_folder import RunFolder
from captum_concepts.training.schedule import Schedule
from captum_concepts.training.training_run import fit

pytest.importorskip("lightning", reason="the extra `training` is not installed")
pytest.importorskip("tensorboard", reason="the extra `training` is not installed")

SCRIPT = Path(__file__).parents[1] / "helpers" / "tiny_training.py"


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finished(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    tiny.run(out)
    return out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_anywhere_and_started_again_the_weights_are_the_same(finished: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)["kills"]
    assert kills > 20  # nine batches, and two events for each of the files written in three epochs
    wanted = (finished / "model.safetensors").read_bytes()
    history = _history(finished)
    for number in range(kills + 1):
        assert (tmp_path / str(number) / "model.safetensors").read_bytes() == wanted
        assert _history(tmp_path / str(number)) == history
        left = {path.name for path in (tmp_path / str(number)).iterdir()} - {".lock"}
        assert left == {"logs", "model.safetensors", "run.json"}


def _history(out: Path) -> list[dict[str, float]]:
    epochs = json.loads((out / "run.json").read_text())["history"]
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    tiny: ModuleType, tmp_path: Path, finished: Path
) -> None:
    other = dataclasses.replace(tiny.SCHEDULE, seed=8)
    again, changed = tiny.run(tmp_path / "again"), tiny.run(tmp_path / "changed", other)
    assert again.read_bytes() == (finished / "model.safetensors").read_bytes()
    assert not all(
        torch.equal(value, load_file(again)[name]) for name, value in load_file(changed).items()
    )  # dropout draws from the seed of the schedule


def test_the_batches_need_no_length(tiny: ModuleType, tmp_path: Path, finished: Path) -> None:
    def stream(epoch: int) -> Iterator[Any]:
        yield from tiny.Epoch(epoch)

    path = fit(
        tiny.tiny(), stream, tiny.validation, out=tmp_path, model="tiny", schedule=tiny.SCHEDULE, data="d",
        options={"rate": 0.5},
    )  # fmt: skip
    assert path.read_bytes() == (finished / "model.safetensors").read_bytes()


def test_the_weights_are_those_of_the_best_epoch_and_not_of_the_last(tiny: ModuleType, tmp_path: Path) -> None:
    """The second epoch is worse than the first, so the file holds what one epoch alone gives."""
    out = tmp_path / "all"
    tiny.run(out, dataclasses.replace(tiny.SCHEDULE, epochs=2))
    best = json.loads((out / "run.json").read_text())["best_epoch"]
    values = [epoch["val_loss"] for epoch in _history(out)]
    assert best == 1 + values.index(min(values))
    assert best < len(values)
    short = tiny.run(tmp_path / "short", dataclasses.replace(tiny.SCHEDULE, epochs=best))
    kept, alone = load_file(out / "model.safetensors"), load_file(short)
    assert all(torch.equal(kept[name], alone[name]) for name in alone)
    model = tiny.tiny().model
    model.load_state_dict(kept)
    losses = [torch.nn.functional.cross_entropy(model.eval()(x), y).item() for x, y in tiny.validation()]
    assert sum(losses) / len(losses) == pytest.approx(min(values), abs=1e-6)


def test_it_stops_when_patience_is_at_an_end(tiny: ModuleType, tmp_path: Path) -> None:
    schedule = dataclasses.replace(tiny.SCHEDULE, epochs=50, patience=1)
    tiny.run(tmp_path, schedule)
    values = [epoch["val_loss"] for epoch in _history(tmp_path)]
    assert len(values) < 50
    assert values[-1] >= min(values[:-1])
    assert all(b < min(values[: i + 1]) for i, b in enumerate(values[1:-1]))


def test_the_card_and_the_metadata_say_what_was_done(tiny: ModuleType, finished: Path) -> None:
    card = json.loads((finished / "run.json").read_text())
    assert card["finished"]
    assert card["options"]["rate"] == 0.5
    assert card["options"]["seed"] == 7
    assert card["options"]["device"] == "cpu"
    assert card["data"] == "d"
    assert card["versions"]["torch"] == torch.__version__.split("+")[0]
    assert card["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in card["history"]))
    assert {"train_loss", "val_loss", "learning_rate", "gradient_norm", "epoch"} <= card["history"][0].keys()
    tensors, metadata = read_weights(finished / "model.safetensors")
    assert tensors.keys() == tiny.tiny().model.state_dict().keys()
    told = json.loads(metadata["training"])
    assert told["options"] == card["options"]
    assert told["epoch"] == card["best_epoch"] - 1
    assert told["val_loss"] == card["history"][card["best_epoch"] - 1]["val_loss"]


def _logged(out: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(out / "logs")).Reload()


def test_tensorboard_has_the_learning_rate_and_the_gradient_norm(finished: Path) -> None:
    events = _logged(finished)
    assert {"learning_rate", "gradient_norm", "train_loss", "val_loss"} <= set(events.Tags()["scalars"])
    logged = [event.value for event in events.Scalars("gradient_norm")]
    assert logged == pytest.approx([epoch["gradient_norm"] for epoch in _history(finished)])


def test_a_run_that_goes_on_logs_no_step_twice(tiny: ModuleType, tmp_path: Path) -> None:
    class Talkative(tiny.Tiny):  # type: ignore[name-defined, misc]
        def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
            self.log("one_step", 1.0, on_step=True, on_epoch=False)
            self.logger.experiment.flush()

    def train(progress: Any) -> None:
        with seeded(7, "weights"):
            module = Talkative()
        common = {"out": tmp_path, "model": "talkative", "schedule": tiny.SCHEDULE, "data": "d"}
        fit(module, tiny.Epoch, tiny.validation, progress=progress, **common)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stop)
    assert [event.step for event in _logged(tmp_path).Scalars("one_step")][-1] >= 3
    train(None)
    assert [event.step for event in _logged(tmp_path).Scalars("one_step")] == list(range(9))


def test_the_gradient_norm_is_that_of_all_gradients_before_clipping(tiny: ModuleType, tmp_path: Path) -> None:
    one = dataclasses.replace(tiny.SCHEDULE, epochs=1, clip=1e-3)
    tiny.run(tmp_path, one)
    module = tiny.tiny()
    optimizer = module.configure_optimizers()["optimizer"]
    norms = []
    for index, (inputs, labels) in enumerate(tiny.Epoch(0)):
        torch.manual_seed(draw_seed(7, "step", 0, index))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module.model(inputs), labels).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(module.model.parameters(), 1e-3)))
        optimizer.step()
    assert _history(tmp_path)[0]["gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)


def test_a_finished_run_is_not_trained_again(tiny: ModuleType, finished: Path) -> None:
    def untouchable(epoch: int) -> Any:
        raise AssertionError("trained again")

    before = (finished / "run.json").read_bytes()
    path = fit(
        tiny.tiny(), untouchable, tiny.validation, out=finished, model="tiny", schedule=tiny.SCHEDULE, data="d",
        options={"rate": 0.5},
    )  # fmt: skip
    assert path == finished / "model.safetensors"
    assert (finished / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.1}, "holds a run with rate=0.5, not 0.1"),
        ({"data": "e"}, "holds a run with data='d', not 'e'"),
        ({"schedule": Schedule(epochs=3, seed=9, patience=None, device="cpu")}, "seed=7, not 9"),
        ({"schedule": Schedule(epochs=4, seed=7, patience=None, device="cpu")}, "epochs=3, not 4"),
    ],
)
def test_a_run_with_other_options_is_refused(
    tiny: ModuleType, finished: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tiny.run(finished, **change)
    assert "\n" not in str(caught.value)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("kind", ["bomb", "pickle", "cut", "text", "foreign", "history", "stack", "empty"])
def test_a_bad_state_is_refused_and_nothing_in_it_is_executed(tiny: ModuleType, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    _stopped(tiny, out)
    state, target = out / "last.ckpt", tmp_path / "executed"
    if kind == "bomb":
        torch.save({"state_dict": {}, "callbacks": _Bomb(target)}, state)
    elif kind == "pickle":
        state.write_bytes(pickle.dumps(_Bomb(target)))
    elif kind == "foreign":
        torch.save({"state_dict": tiny.tiny().state_dict()}, state)
    elif kind == "history":
        torch.save({"state_dict": {}, "callbacks": {"captum_concepts": {"history": [{"loss": 1.0}]}}}, state)
    elif kind == "stack":  # a pickle that takes from an empty stack: IndexError
        state.write_bytes(b"\x80\x020.")
    else:
        whole = state.read_bytes()
        state.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no state", "empty": b""}[kind])
    with pytest.raises(InputError, match=r"last\.ckpt.*remove it to (start|begin) this run again") as caught:
        tiny.run(out)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def _stopped(
    tiny: ModuleType, out: Path, error: type[BaseException] = RuntimeError, schedule: Schedule | None = None
) -> None:
    """A run that ended in its second epoch."""

    def failing(epoch: int) -> Iterator[Any]:
        for index, batch in enumerate(tiny.Epoch(epoch)):
            if (epoch, index) == (1, 1):
                raise error
            yield batch

    with pytest.raises(error):
        fit(
            tiny.tiny(), failing, tiny.validation, out=out, model="tiny", schedule=schedule or tiny.SCHEDULE, data="d",
            options={"rate": 0.5},
        )  # fmt: skip


def test_ctrl_c_stops_and_the_run_goes_on_later(tiny: ModuleType, tmp_path: Path, finished: Path) -> None:
    import signal

    handler = signal.getsignal(signal.SIGINT)
    _stopped(tiny, tmp_path, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]
    assert tiny.run(tmp_path).read_bytes() == (finished / "model.safetensors").read_bytes()


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are(tiny: ModuleType, tmp_path: Path) -> None:
    schedule = dataclasses.replace(tiny.SCHEDULE, monitor="val_f2")
    with pytest.raises(InputError, match=r"monitor='val_f2': the model logs .*val_loss"):
        tiny.run(tmp_path, schedule)


def test_other_metrics_may_be_infinite_and_are_null_wherever_they_are_told(tiny: ModuleType, tmp_path: Path) -> None:
    class Odd(tiny.Tiny):  # type: ignore[name-defined, misc]
        def validation_step(self, batch: Any, index: int) -> None:
            super().validation_step(batch, index)
            self.log("ratio", float("inf"), batch_size=1)

    one = dataclasses.replace(tiny.SCHEDULE, epochs=1)
    weights = fit(Odd(), tiny.Epoch, tiny.validation, out=tmp_path, model="tiny", schedule=one, data="d")
    for text in ((tmp_path / "run.json").read_text(), read_weights(weights)[1]["training"]):
        told = json.loads(text, parse_constant=pytest.fail)
        assert told.get("history", [told])[0]["ratio"] is None


def test_a_loss_that_is_not_finite_ends_the_run(tiny: ModuleType, tmp_path: Path) -> None:
    def bad() -> Any:
        inputs, labels = tiny.validation()[0]
        return [(inputs * float("nan"), labels)]

    with pytest.raises(InputError, match="val_loss is nan in epoch 1: training diverged"):
        fit(tiny.tiny(), tiny.Epoch, bad, out=tmp_path, model="tiny", schedule=tiny.SCHEDULE, data="d")


def test_progress_counts_batches_and_nothing_is_printed(
    tiny: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    seen: list[tuple[str, int, int]] = []
    before = torch.get_rng_state()
    tiny.run(tmp_path, progress=lambda *report: seen.append(report))
    assert seen == [("train", number, 9) for number in range(1, 10)]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"seed": -1}, "seed=-1"),
        ({"patience": 0}, "patience=0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"mode": "most"}, "mode='most'"),
        ({"precision": "8"}, "precision='8'"),
    ],
)
def test_a_schedule_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(**change)


def test_draws_depend_on_all_their_parts_and_on_nothing_else() -> None:
    names: list[tuple[int | str, ...]] = [(0,), (1,), (0, 1), (0, "1"), (1, 0), (0, 1, 2), (0, 12), ("a",), ("a", "b")]
    seeds = {draw_seed(0, *parts) for parts in names} | {draw_seed(1, *parts) for parts in names}
    assert len(seeds) == 2 * len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert draw_seed(3, "noise", 1, 2) == int.from_bytes(bytes.fromhex(_NOISE), "big") >> 1
    torch.manual_seed(5)
    first = torch.rand(3, generator=generator(1, "x"))
    with seeded(1, "x"):
        assert torch.equal(torch.rand(3), first)


_NOISE = __import__("hashlib").sha256(b"int3\0strnoise\0int1\0int2").hexdigest()[:16]


def test_a_folder_that_cannot_be_a_run_is_refused(tmp_path: Path) -> None:
    card = {"model": "m", "data": "d", "options": {}}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        RunFolder(tmp_path / "file").begin(card)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_text("somebody's")
    with pytest.raises(InputError, match=r"no run\.json"):
        RunFolder(tmp_path / "weights").begin(card)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text('{"format": 1')
    with pytest.raises(InputError, match="is not the card of a training run"):
        RunFolder(tmp_path / "damaged").begin(card)


def test_two_runs_in_one_folder_at_once_are_refused(tiny: ModuleType, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held(), pytest.raises(InputError, match="another run is at work") as caught:
        tiny.run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert tiny.run(tmp_path / "run").is_file()


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_weights(tmp_path / "none")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(InputError, match="is not a safetensors file"):
        read_weights(tmp_path / "text")


def test_the_same_weights_and_metadata_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3).T, "a": torch.zeros(1)}
    files = []
    for number, items in enumerate([["é", "x", "y", "z"], ["z", "y", "x", "é"]]):
        run = RunFolder(tmp_path / str(number))
        run.folder.mkdir()
        run.write_weights(tensors, {key: f'"{key}"' for key in items})
        files.append(run.weights)
    assert files[0].read_bytes() == files[1].read_bytes()
    found, metadata = read_weights(files[0])
    assert metadata == {key: f'"{key}"' for key in ("x", "y", "z", "é")}
    assert torch.equal(found["b"], tensors["b"])


def test_importing_the_module_imports_no_lightning() -> None:
    code = "import sys, captum_concepts.training; sys.exit('lightning' in sys.modules or 'tensorboard' in sys.modules)"
    root = Path(captum_concepts.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_without_lightning_the_remedy_is_named(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "captum_concepts.training._lightning", raising=False)
    monkeypatch.delattr(captum_concepts.training, "_lightning", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"training needs tensorboard.*pip install 'captum-concepts\[training\]'"):
        tiny.run(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_training_is_in_mixed_precision_and_goes_on(tiny: ModuleType, tmp_path: Path) -> None:
    schedule = dataclasses.replace(tiny.SCHEDULE, device="cuda")
    tiny.run(tmp_path / "whole", schedule)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["options"]["precision"] == "16-mixed"
    _stopped(tiny, tmp_path / "stopped", schedule=schedule)
    tiny.run(tmp_path / "stopped", schedule)
    assert [epoch["val_loss"] for epoch in _history(tmp_path / "stopped")] == pytest.approx(
        [epoch["val_loss"] for epoch in _history(tmp_path / "whole")], rel=1e-2
    )
