from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import sklearn.metrics
import soundfile
import torch
from captum_concepts_gtzan.checkpoints import save_checkpoint
from captum_concepts_gtzan.dataset import find_tracks
from captum_concepts_gtzan.evaluation import (
    Evaluation,
    NetworkClassifier,
    draw_confusion,
    evaluate,
    learnt_from,
    load_classifier,
    predict,
)
from captum_concepts_gtzan.experiments import SplitOptions, pooled
from captum_concepts_gtzan.models import build_model
from click.testing import CliRunner

from captum_concepts.cli import main
from captum_concepts.errors import InputError

SMALL = {"seconds": 0.25, "n_mels": 16, "channels": 4, "n_fft": 256}


def write_track(path: Path, seconds: float) -> Path:
    """Noise."""
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * 22050)), 22050)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_checkpoint(path, build_model("gtzan-cnn", 4, n_classes=2, **SMALL), ("blues", "jazz"))
    return path


def _random(rows: int = 40) -> Evaluation:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), rows)
    names = ("blues", "jazz", "pop", "never seen")
    return Evaluation(names, tuple(map(str, range(rows))), random.integers(0, 3, rows), probabilities)


def test_probabilities_are_those_of_mean_logits(tmp_path: Path) -> None:
    model = build_model("gtzan-cnn", 4, n_classes=2, **SMALL)
    path = write_track(tmp_path / "a.wav", seconds=2.9)
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    parts = samples.unfold(0, model.patch_samples, model.patch_samples)
    assert len(parts) == 11
    with torch.no_grad():
        expected = model(parts).mean(0).softmax(0)
    (found,), skipped = predict(NetworkClassifier(model, ("blues", "jazz"), "cpu", batch_size=4), [str(path)])
    assert not skipped
    assert found.chunks == 11
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-6)


def test_a_track_shorter_than_a_chunk_is_repeated(tmp_path: Path, weights: Path) -> None:
    short = write_track(tmp_path / "short.wav", seconds=0.1)
    samples = soundfile.read(short, dtype="float32")[0]
    soundfile.write(tmp_path / "thrice.wav", np.tile(samples, 3)[: round(0.25 * 22050)], 22050, subtype="FLOAT")
    soundfile.write(short, samples, 22050, subtype="FLOAT")
    found, _ = predict(load_classifier(weights, device="cpu"), [str(short), str(tmp_path / "thrice.wav")])
    np.testing.assert_allclose(found[0].probabilities, found[1].probabilities, atol=1e-6)


@pytest.mark.parametrize(("ending", "rate", "channels"), [(".flac", 44100, 2), (".mp3", 32000, 1), (".ogg", 16000, 2)])
def test_any_format_rate_and_channels_are_classified(
    tmp_path: Path, weights: Path, ending: str, rate: int, channels: int
) -> None:
    time = np.arange(2 * rate) / rate
    signal = np.repeat(0.3 * np.sin(2 * np.pi * 330 * time)[:, None], channels, 1)
    soundfile.write(tmp_path / f"a{ending}", signal, rate)
    (found,), _ = predict(load_classifier(weights, device="cpu"), [str(tmp_path / f"a{ending}")])
    assert found.chunks >= 7
    assert found.probabilities.sum() == pytest.approx(1)


def test_the_figures_are_those_of_scikit_learn() -> None:
    found = _random()
    said = found.probabilities.argmax(1)
    reference: Any = sklearn.metrics.classification_report(
        found.truth, said, labels=range(4), target_names=found.classes, output_dict=True, zero_division=0.0
    )
    for name in found.classes:
        assert found.report[name]["f1"] == pytest.approx(reference[name]["f1-score"])
        assert found.report[name]["precision"] == pytest.approx(reference[name]["precision"])
        assert found.report[name]["recall"] == pytest.approx(reference[name]["recall"])
        assert found.report[name]["tracks"] == reference[name]["support"]
    assert found.report["macro mean"]["f1"] == pytest.approx(reference["macro avg"]["f1-score"])
    assert found.report["weighted mean"]["recall"] == pytest.approx(reference["weighted avg"]["recall"])
    matrix = sklearn.metrics.confusion_matrix(found.truth, said, labels=range(4))
    np.testing.assert_array_equal(found.confusion, matrix)
    assert found.accuracy == sklearn.metrics.accuracy_score(found.truth, said)


def test_the_interval_is_wilsons() -> None:
    found = _random(50)
    p, n, z = found.accuracy, 50, 1.959963984540054
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert found.interval == pytest.approx((centre - half, centre + half))


def test_the_result_is_written_whole(tmp_path: Path) -> None:
    found = _random()
    found.save(tmp_path)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["confusion"] == found.confusion.tolist()
    assert len(content["tracks"]) == 40
    assert content["tracks"][3]["predicted"] == found.classes[int(found.predicted[3])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "evaluation.json"]


def test_the_picture_is_dark_on_the_diagonal_of_a_perfect_classifier(tmp_path: Path) -> None:
    """In the axes the cells of the diagonal are the only dark ones; names with $ are no formulas."""
    draw_confusion(np.diag([3, 3]), ("a $x$ b", "jazz"), tmp_path / "right.png")
    draw_confusion(np.diag([3, 3])[::-1], ("a $x$ b", "jazz"), tmp_path / "wrong.png")
    right, wrong = (matplotlib.image.imread(tmp_path / name)[..., :3].mean(2) for name in ("right.png", "wrong.png"))
    assert right.shape == wrong.shape
    rows, columns = np.nonzero(np.abs(right - wrong) > 0.5)
    quarter = right[rows.min() : (rows.min() + rows.max()) // 2, columns.min() : (columns.min() + columns.max()) // 2]
    assert np.median(quarter) < 0.4


def test_tracks_that_cannot_be_heard_count_nowhere(
    tmp_path: Path, weights: Path, gtzan_like: Callable[..., Path]
) -> None:
    root = gtzan_like(tmp_path, seconds=0.5)
    tracks = find_tracks(root).tracks
    Path(tracks[1].path).write_bytes(Path(tracks[1].path).read_bytes()[:3000])
    found = evaluate(load_classifier(weights, device="cpu"), tracks)
    assert len(found.truth) == 5
    assert len(found.skipped) == 1
    assert tracks[1].path in found.skipped[0]
    assert tracks[1].track_id not in found.track_ids


def test_folds_are_pooled_and_other_classes_refused() -> None:
    found = _random()
    both = pooled([found, found])
    assert len(both.truth) == 80
    assert both.accuracy == found.accuracy
    other = Evaluation(("x",), ("a",), np.zeros(1, int), np.ones((1, 1)))
    with pytest.raises(InputError, match="different classes"):
        pooled([found, other])


def test_a_genre_without_a_class_is_refused(tmp_path: Path, weights: Path, gtzan_like: Callable[..., Path]) -> None:
    tracks = find_tracks(gtzan_like(tmp_path, genres=("polka",))).tracks
    with pytest.raises(InputError, match=r"genre='polka': of .* is not one of blues, jazz"):
        evaluate(load_classifier(weights, device="cpu"), tracks)


def test_invalid_split_options_are_refused(tmp_path: Path, gtzan_like: Callable[..., Path]) -> None:
    tracks = find_tracks(gtzan_like(tmp_path, numbers=range(5)))
    with pytest.raises(InputError, match="folds, fold: belong together"):
        SplitOptions(folds=3).parts(tracks)
    with pytest.raises(InputError, match="fold=4: give 1 to 3"):
        SplitOptions(folds=3, fold=4).parts(tracks)
    folds = [SplitOptions(folds=3, fold=number).parts(tracks).test for number in (1, 2, 3)]
    assert sorted(track.track_id for fold in folds for track in fold) == [track.track_id for track in tracks.tracks]
    assert SplitOptions().parts(tracks) == SplitOptions("stratified").parts(
        tracks
    )  # for two genres no list of GTZAN is complete


# ---------------------------------------------------------------------- the command line


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["gtzan", *map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, gtzan_like: Callable[..., Path]) -> tuple[Path, Path]:
    """A data set and a run of one epoch on it."""
    data = gtzan_like(tmp_path_factory.mktemp("data"), numbers=range(5), seconds=0.6)
    out = tmp_path_factory.mktemp("run") / "cnn"
    done = _run("train", "cnn", "--data", data, "--out", out, "--seconds", 0.3, "--epochs", 1, "--device", "cpu")
    assert done.exception is None, done.exception
    assert "accuracy" in done.output
    return data, out


def test_a_finished_run_is_only_tested_again(trained: tuple[Path, Path]) -> None:
    data, out = trained
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {"model.safetensors", "run.json", "evaluation.json", "confusion.png", "logs"}
    before = {name: (out / name).read_bytes() for name in ("model.safetensors", "run.json", "evaluation.json")}
    again = _run("train", "cnn", "--data", data, "--out", out, "--seconds", 0.3, "--epochs", 1, "--device", "cpu", "-q")
    assert again.exception is None
    assert {name: (out / name).read_bytes() for name in before} == before
    other = _run("train", "cnn", "--data", data, "--out", out, "--seconds", 0.3, "--epochs", 2, "--device", "cpu", "-q")
    assert isinstance(other.exception, InputError)
    assert "holds a run with epochs=1, not 2" in str(other.exception)


def test_evaluate_takes_the_test_part_of_the_run(
    trained: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, out = trained
    weights = out / "model.safetensors"
    done = _run("evaluate", "--weights", weights, "--data", data, "--device", "cpu", "--json", "--out", tmp_path, "-q")
    assert done.exception is None
    expected = json.loads((out / "evaluation.json").read_text())
    assert json.loads(done.stdout) == expected
    assert json.loads((tmp_path / "evaluation.json").read_text()) == expected
    assert "no test" not in caplog.text
    everything = _run("evaluate", "--weights", weights, "--data", data, "--part", "all", "--json", "-q")
    assert len(json.loads(everything.stdout)["tracks"]) == 10
    assert f"{10 - len(expected['tracks'])} of these 10 tracks were used in training" in caplog.text
    assert not learnt_from(weights) & {track["track"] for track in expected["tracks"]}


def test_predict_gives_probabilities_of_every_file(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = trained
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    files = [data / "genres" / "jazz", tmp_path / "bad.wav"]
    done = _run("predict", *files, "--weights", out / "model.safetensors", "--device", "cpu", "--json", "-q")
    assert done.exception is None
    content = json.loads(done.stdout)
    assert len(content["files"]) == 5
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in content["files"])
    assert len(content["skipped"]) == 1
    assert "bad.wav" in content["skipped"][0]
    table = _run("predict", files[0], "--weights", out / "model.safetensors", "--device", "cpu", "-q")
    assert "jazz.00003.wav" in table.output
    only_bad = _run("predict", tmp_path / "bad.wav", "--weights", out / "model.safetensors", "-q")
    assert isinstance(only_bad.exception, InputError)


def test_cross_validation_tests_every_track_once(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = trained
    arguments = [
        "--data",
        data,
        "--out",
        tmp_path,
        "--folds",
        2,
        "--seconds",
        0.3,
        "--epochs",
        1,
        "--device",
        "cpu",
        "-q",
    ]
    done = _run("cross-validate", "cnn", *arguments, "--json")
    assert done.exception is None
    content = json.loads(done.stdout)
    assert sorted(track["track"] for track in content["tracks"]) == [
        f"{genre}.{number:05d}" for genre in ("blues", "jazz") for number in range(5)
    ]
    assert content["mean_accuracy"] == pytest.approx(np.mean(content["fold_accuracies"]))
    assert json.loads((tmp_path / "cross-validation.json").read_text()) == content
    for fold in (1, 2):
        run = json.loads((tmp_path / f"fold-{fold}" / "run.json").read_text())
        assert (run["options"]["folds"], run["options"]["fold"]) == (2, fold)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_bad_weights_are_refused_and_run_nothing(tmp_path: Path, weights: Path, trained: tuple[Path, Path]) -> None:
    data, _ = trained
    target = tmp_path / "executed"
    torch.save({"state_dict": _Bomb(target)}, tmp_path / "bomb.pt")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(_Bomb(target)))
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:500])
    cases: list[tuple[list[object], str]] = [
        (["--weights", tmp_path / "bomb.pt", "--model", "cnn"], "refused, nothing in it was run"),
        (["--weights", tmp_path / "bomb.pkl", "--model", "cnn"], "refused, nothing in it was run"),
        (["--weights", tmp_path / "bomb.pt"], "do not say of which network"),
        (["--weights", tmp_path / "cut.safetensors", "--model", "cnn"], "not a whole safetensors file"),
        (["--weights", tmp_path / "none", "--model", "cnn"], "cannot be opened"),
        (["--weights", weights, "--model", "cnn2"], "not of gtzan-cnn2"),
        (["--weights", weights, "--model", "svm"], "not of gtzan-svm"),
        (["--weights", weights, "--part", "test"], "do not say how their data were split"),
    ]
    for arguments, message in cases:
        done = _run("evaluate", *arguments, "--data", data, "-q")
        assert isinstance(done.exception, InputError), arguments
        assert message in str(done.exception)
        assert "\n" not in str(done.exception)
    assert not target.exists()


def test_bad_data_are_refused_in_one_line(tmp_path: Path, gtzan_like: Callable[..., Path], weights: Path) -> None:
    data = gtzan_like(tmp_path / "data", genres=("blues", "jazz", "polka"), numbers=range(4))
    cases: list[tuple[list[object], str]] = [
        (["train", "cnn", "--data", data, "--out", tmp_path / "a", "--split", tmp_path], r"train_filtered\.txt"),
        (["train", "cnn", "--data", tmp_path / "none", "--out", tmp_path / "b"], "no such folder"),
        (["train", "cnn", "--data", data, "--out", tmp_path / "c", "--folds", 9, "--fold", 1], "k=9"),
        (["evaluate", "--weights", weights, "--data", data], "'polka' is not one of the genres blues, jazz"),
        (["train", "svm", "--out", tmp_path / "d"], "data, features: give one of them"),
    ]
    for arguments, message in cases:
        done = _run(*arguments, "-q")
        assert isinstance(done.exception, InputError), arguments
        assert re.search(message, str(done.exception)), done.exception
        assert "\n" not in str(done.exception)


def test_svm_is_trained_from_a_table_and_not_again(tmp_path: Path) -> None:
    from captum_concepts_gtzan.features import COLUMNS

    random = np.random.default_rng(0)
    lines = ["filename," + ",".join(COLUMNS) + ",label"]
    for number in range(20):
        values = random.standard_normal(len(COLUMNS)) + (number % 2) * 2
        genre = ("blues", "jazz")[number % 2]
        lines.append(f"{genre}.{number:05d}.wav," + ",".join(map(repr, map(float, values))) + f",{genre}")
    table = tmp_path / "features.csv"
    table.write_text("\n".join(lines))
    out = tmp_path / "svm"
    arguments = ["train", "svm", "--features", table, "--out", out, "--folds", 3, "-q"]
    done = _run(*arguments, "--json")
    assert done.exception is None, done.exception
    card = json.loads(done.stdout)
    assert card["accuracy"] > 0.9
    assert card["tracks"] == 20
    first = (out / "model.safetensors").read_bytes()
    assert "accuracy" in _run(*arguments).output
    assert (out / "model.safetensors").read_bytes() == first
    assert load_classifier(out / "model.safetensors").classes == ("blues", "jazz")


def test_svm_is_trained_from_audio_and_tested_with_a_warning(
    tmp_path: Path, gtzan_like: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is broken is named, the table is kept and not computed again, and its own tracks are no test."""
    pytest.importorskip("librosa")
    data, out = gtzan_like(tmp_path / "data", numbers=range(4), seconds=1.1), tmp_path / "svm"
    soundfile.write(data / "genres/jazz/jazz.00009.wav", np.zeros(30000), 22050)
    arguments = ["train", "svm", "--data", data, "--out", out, "--folds", 2, "-q"]
    with monkeypatch.context() as killed:
        killed.setattr("captum_concepts_gtzan.svm.nested_accuracy", _stop)
        assert isinstance(_run(*arguments).exception, RuntimeError)
    table = (out / "features.csv").read_bytes()
    with monkeypatch.context() as untouched:
        untouched.setattr("captum_concepts_gtzan.features.extract_features", _stop)
        done = _run(*arguments, "--json")
    assert done.exception is None, done.exception
    card = json.loads(done.stdout)
    assert (card["tracks"], len(card["skipped"]), card["finished"]) == (8, 1, True)
    assert "jazz.00009" in card["skipped"][0]
    assert (out / "features.csv").read_bytes() == table
    weights = out / "model.safetensors"
    tested = _run("evaluate", "--weights", weights, "--data", data, "--json", "-q")
    assert len(json.loads(tested.stdout)["tracks"]) == 8
    assert any("are no test" in record.getMessage() for record in caplog.records)
    refused = _run("predict", data, "--weights", weights, "--seconds", 3, "-q").exception
    assert isinstance(refused, InputError)
    assert "leave it out" in str(refused)


def _stop(*given: object, **more: object) -> None:
    raise RuntimeError("killed")


def test_help_teaches() -> None:
    """Each command has its help, and the description of the command is in it."""
    commands = {
        (): ("train", "cross-validate", "evaluate", "predict", "features", "shap"),
        ("train",): ("cnn", "vgg16", "cnn2", "svm"),
    }
    for group, names in commands.items():
        listed = _run(*group, "--help").output
        for name in names:
            assert re.search(rf"^  {name} +[A-Z]", listed, re.MULTILINE), name
            assert "Usage:" in _run(*group, name, "--help").output
    assert "captum-concepts gtzan train cnn --data" in _run("--help").output
