from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from captum_concepts_tile2vec.checkpoints import load_tile2vec, save_tile2vec
from captum_concepts_tile2vec.cli import ARCHITECTURES
from captum_concepts_tile2vec.models import BUILDERS
from safetensors import safe_open

from captum_concepts.cli import main

TRAIN = ["--model", "ConvNet1D", "--tile", "0.5", "--neighbourhood", "0.5", "--features", "mfcc", "--epochs", "2"]


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["tile2vec", *map(str, arguments)], prog_name="captum-concepts")
    return int(ended.value.code or 0)


@pytest.fixture
def trained(write_folder, tmp_path, capsys) -> tuple[Path, Path]:
    root = write_folder(per_class=4)
    assert call("train", "--data", root, "--out", tmp_path / "run", *TRAIN, "--device", "cpu", "-q") == 0
    capsys.readouterr()
    return root, tmp_path / "run" / "model.safetensors"


def test_dcase_from_end_to_end(dcase, tmp_path, capsys):
    run, classified, seen = (tmp_path / name for name in ("run", "classified", "seen"))
    options = ["--data", dcase, "--device", "cpu", "--json"]
    assert call("train", *options, "--out", run, *TRAIN, "--channels", "all", "--batch-size", 16) == 0
    told = json.loads(capsys.readouterr().out)
    assert np.isfinite(told["val_loss"])
    weights = run / "model.safetensors"
    assert load_tile2vec(weights).settings.channels == 4

    assert call("classify", "--model", weights, *options, "--out", classified) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["input"] for row in told["scores"]] == [
        "embedding",
        "untrained",
        "pooled features",
        "embedding − untrained",
        "embedding − pooled features",
    ]
    predictions = pd.read_csv(classified / "predictions.csv")
    fold = {line.split("\t")[0] for line in (dcase / "evaluation_setup/fold1_evaluate.txt").read_text().splitlines()}
    assert set(predictions["recording"]) == fold  # judged by the sessions of the fold, and by no others
    accuracy = (predictions["embedding"] == predictions["label"]).mean()
    assert told["scores"][0]["accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.6  # three tones
    with safe_open(classified / "classifier.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["absence", "cooking", "working"]

    assert call("evaluate", "--model", weights, *options, "--out", seen, "--map", "pca") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tiles"] == 48 and told["recordings"] == 12
    assert told == json.loads((seen / "figures.json").read_text())
    assert told["triplets"] == told["triplets_trivial"] + told["triplets_within_margin"] + told["triplets_hard"] == 48
    assert len((seen / "projector" / "tensors.tsv").read_text().splitlines()) == 48
    assert (seen / "embedding.html").read_text().count("<circle") == 96
    assert pd.read_csv(seen / "centroid_distances.csv", index_col="label").shape == (3, 3)


def test_dcase_evaluation_set_judges_what_was_learnt(dcase, dcase_evaluation, tmp_path, capsys):
    weights, device = tmp_path / "run" / "model.safetensors", ["--device", "cpu"]
    train = [*TRAIN, *device, "--channels", "all", "-q"]
    assert call("train", "--data", dcase_evaluation, "--out", tmp_path / "no", *train) == 2
    assert "is the evaluation set of DCASE 2018 task 5, which is not for training" in error(capsys)
    assert call("train", "--data", dcase, "--out", tmp_path / "run", *train) == 0
    options = ["--model", weights, *device, "--json"]
    out = ["--out", tmp_path / "c"]
    capsys.readouterr()
    assert call("classify", *options, "--data", dcase, "--test", dcase_evaluation, *out) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["scores"][0]["accuracy"] > 0.6
    assert "the embedding was trained" not in told.err  # ex0 of the evaluation set is another session
    assert pd.read_csv(tmp_path / "c" / "predictions.csv")["recording"].tolist() == [
        f"audio/{n}.wav" for n in range(1, 7)
    ]

    assert call("evaluate", *options, "--data", dcase_evaluation, "--out", tmp_path / "e", "--map", "pca") == 0
    assert json.loads(capsys.readouterr().out)["recordings"] == 6
    assert call("classify", *options, "--data", dcase_evaluation, *out) == 2
    assert "give it with --test and the development set with --data" in error(capsys)
    assert call("classify", *options, "--data", dcase, "--test", dcase, *out) == 2
    assert "is in --data and in --test" in error(capsys)


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("evaluate", ["--fold", "2"], "--fold 2: only DCASE has folds"),
        ("classify", ["--test", ".", "--folds", "3"], "--folds 3: with --test all of --data is used for training"),
        ("classify", ["--layout", "dcase", "--folds", "3"], "--folds 3: DCASE has its own parts"),
        ("evaluate", ["--layout", "dcase", "--held-out", "0.3"], r"--held-out 0\.3: DCASE has its own parts"),
        ("evaluate", ["--layout", "dcase", "--split-seed", "1"], "--split-seed 1: DCASE has its own parts"),
    ],
)
def test_options_that_would_do_nothing_are_refused(trained, tmp_path, capsys, command, given, words):
    root, weights = trained
    assert call(command, "--model", weights, "--data", root, "--out", tmp_path / "o", *given) == 2
    assert re.search(words, error(capsys))


def test_recordings_that_were_trained_on_are_reported(trained, tmp_path, capsys):
    root, weights = trained
    common = ["--model", weights, "--data", root, "--out", tmp_path / "o", "--no-sound", "--map", "pca"]
    assert call("evaluate", *common) == 0
    assert "the embedding was trained" not in capsys.readouterr().err
    assert call("evaluate", *common, "--split-seed", "5") == 0
    assert re.search(r"warning: the embedding was trained, without labels, on [12] of these 2", capsys.readouterr().err)
    assert call("classify", *common[:6], "--folds", "4") == 0
    assert "on 10 of these 12 recordings" in capsys.readouterr().err


def test_an_embedding_that_tells_nothing_apart(trained, tmp_path, capsys):
    root, weights = trained
    model = load_tile2vec(weights)
    with torch.no_grad():
        model.network.embedding.weight.zero_()
        model.network.embedding.bias.fill_(1.0)
    save_tile2vec(tmp_path / "same.safetensors", model)
    assert call("evaluate", "--model", tmp_path / "same.safetensors", "--data", root, "--out", tmp_path / "e") == 0
    assert "all 8 tiles have the same embedding" in capsys.readouterr().err


def test_one_recording_can_be_looked_at(trained, tmp_path, capsys):
    root, weights = trained
    for path in sorted(root.rglob("*.wav"))[1:]:
        path.unlink()
    options = ["--data", root, "--out", tmp_path / "e", "--part", "all", "--map", "pca", "--json"]
    assert call("evaluate", "--model", weights, *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recordings"] == 1 and told["adjusted_rand"] is None and told["clusters"] == 4


def test_what_cannot_be_judged_is_known_before_listening(trained, tmp_path, capsys):
    root, weights = trained
    options = ["--model", weights, "--data", root, "--out", tmp_path / "c"]
    for given, words in ((["--folds", "5"], "5 folds need as many"), (["--folds", "1"], "folds=1")):
        assert call("classify", *options, *given) == 2
        said = capsys.readouterr().err
        assert words in said and "embed" not in said.replace("the embedding was trained", "")


def test_triplets_are_judged_as_they_were_trained(write_folder, tmp_path, capsys):
    root = write_folder(per_class=4)
    options = ["--data", root, "--device", "cpu", "-q"]
    assert call("train", *options, "--out", tmp_path / "run", *TRAIN, "--margin", "100", "--epochs", "1") == 0
    common = ["--model", tmp_path / "run" / "model.safetensors", "--out", tmp_path / "e", "--no-sound", "--map", "pca"]
    capsys.readouterr()
    assert call("evaluate", *options, *common, "--json") == 0
    assert json.loads(capsys.readouterr().out)["triplets_trivial"] == 0  # squared distances are 4 at most


def test_impossible_devices_are_known_before_listening(write_folder, tmp_path, capsys):
    assert call("train", "--data", write_folder(), "--out", tmp_path / "r", *TRAIN, "--device", "abacus") == 2
    said = capsys.readouterr().err
    assert "device=abacus: is not a device" in said and "find tiles" not in said


def test_a_folder_in_words(trained, tmp_path, capsys):
    root, weights = trained
    assert call("classify", "--model", weights, "--data", root, "--out", tmp_path / "c", "--folds", "4", "-q") == 0
    out = capsys.readouterr()
    assert "logistic classifier, 12 recordings" in out.out and out.err == ""
    assert len(pd.read_csv(tmp_path / "c" / "predictions.csv")) == 12
    assert call("classify", "--model", weights, "--data", root, "--out", tmp_path / "d", "--folds", "0", "-q") == 0
    assert len(pd.read_csv(tmp_path / "d" / "predictions.csv")) == 2  # a fifth of 12 groups
    capsys.readouterr()
    assert (
        call("evaluate", "--model", weights, "--data", root, "--out", tmp_path / "e", "--no-sound", "--map", "pca") == 0
    )
    assert "purity: " in capsys.readouterr().out


def test_the_check_counts_triplets(write_folder, capsys):
    root = write_folder(per_class=4)
    assert call("check", "--data", root, "--tile", "0.5", "--neighbourhood", "0.5", "--json", "--device", "cpu") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["triplets"] == told["triplets_trivial"] + told["triplets_within_margin"] + told["triplets_hard"] == 40
    assert 0 < told["triplets_sharing_a_label"] < 40
    assert told["triplets_hard"] < 10  # half of them would be by chance


def test_all_recordings_can_be_looked_at(trained, tmp_path, capsys):
    root, weights = trained
    options = ["--data", root, "--out", tmp_path / "e", "--no-sound", "--map", "pca", "--json"]
    assert call("evaluate", "--model", weights, *options, "--part", "all") == 0
    assert json.loads(capsys.readouterr().out)["recordings"] == 12


def test_going_on_with_a_finished_run(trained, capsys):
    root, weights = trained
    before = weights.read_bytes()
    assert call("train", "--data", root, "--out", weights.parent, *TRAIN, "--device", "cpu", "-q") == 0
    assert weights.read_bytes() == before
    assert call("train", "--data", root, "--out", weights.parent, *TRAIN, "--margin", "2", "--device", "cpu") == 2
    assert "a run with margin=1.0, not 2.0" in capsys.readouterr().err


def test_the_help_knows_all_architectures():
    assert tuple(BUILDERS) == ARCHITECTURES


def error(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("captum-concepts: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda root: [p.unlink() for p in sorted(root.rglob("*.wav"))[1:]],
            "1 recording or session: a split needs two",
        ),
        (lambda root: [p.unlink() for p in sorted(root.rglob("*.wav"))[2:]], "only one recording or session"),
        (lambda root: [p.unlink() for p in (root / "absence").glob("*.wav")], "only one recording or session"),
        (lambda root: [p.unlink() for p in root.rglob("*.wav")], "no audio in this folder"),
        (
            lambda root: [soundfile.write(p, np.full(3000, 0.1), 16_000) for p in root.rglob("*.wav")],
            "has a usable tile of 0.5 s: .*too short: 0.19 s",
        ),
        (
            lambda root: [soundfile.write(p, np.zeros(32_000), 16_000) for p in root.rglob("*.wav")],
            "has a usable tile of 0.5 s: .*silent: all 4 tiles are below -80 dBFS",
        ),
        (
            lambda root: [soundfile.write(p, np.full(12_000, 0.1), 16_000) for p in root.rglob("*.wav")],
            "no recording can be used: .*no tile has a neighbour within 0.5 s",
        ),
        (lambda root: (root / "meta.txt").write_text("audio/a.wav\tx\ts\n"), "fold1_train.txt'?: cannot be read"),
    ],
)
def test_bad_recordings_end_in_one_line(write_folder, tmp_path, capsys, spoil, words):
    root = write_folder(per_class=1)
    spoil(root)
    assert call("train", "--data", root, "--out", tmp_path / "run", *TRAIN, "--device", "cpu") == 2
    assert re.search(words, error(capsys))


def test_warnings_are_said(write_folder, tmp_path, capsys):
    root = write_folder(per_class=5)
    soundfile.write(root / "absence" / "0.wav", np.full(3000, 0.1), 16_000)
    samples = 0.1 * np.random.default_rng(0).standard_normal(88_200)
    soundfile.write(root / "cooking" / "0.wav", samples, 44_100)
    assert call("train", "--data", root, "--out", tmp_path / "run", *TRAIN, "--epochs", "1", "--device", "cpu") == 0
    said = capsys.readouterr().err
    assert "warning: mixed sample rates, 16000 Hz (" in said
    assert "warning: left out: " in said and "too short: 0.19 s where a tile has 0.5 s" in said


def test_weights_of_something_else(write_folder, tmp_path, capsys):
    (tmp_path / "m.safetensors").write_bytes(b"nonsense")
    arguments = ["--model", tmp_path / "m.safetensors", "--data", write_folder(), "--out", tmp_path / "o"]
    for command in ("classify", "evaluate"):
        assert call(command, *arguments) == 2
        assert "is not a safetensors file" in error(capsys)


def test_without_labels(trained, tmp_path, capsys):
    root, weights = trained
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(root.rglob("*.wav"))):
        path.rename(flat / f"{index}.wav")
    assert call("classify", "--model", weights, "--data", flat, "--out", tmp_path / "c") == 2
    assert "no recording has a label" in error(capsys)
    assert call("evaluate", "--model", weights, "--data", flat, "--out", tmp_path / "e", "--map", "pca", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["purity"] is None and told["triplets_sharing_a_label"] is None
