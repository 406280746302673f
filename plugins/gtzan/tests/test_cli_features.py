"""``gtzan features`` writes the table, says what it left out, and ends with 2 for bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from captum_concepts_gtzan.cli import _training
from captum_concepts_gtzan.features import COLUMNS, read_features
from click.testing import CliRunner

from captum_concepts.cli import main


def test_the_table_is_written_and_what_is_left_out_is_told(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, numbers=range(1), seconds=1.1)
    (root / "genres/jazz/jazz.00054.wav").write_bytes(b"broken")
    out = tmp_path / "t.csv"
    result = CliRunner().invoke(main, ["gtzan", "features", "--data", str(root), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["tracks"] == 2 and told["features"] == list(COLUMNS) and "jazz.00054" in told["skipped"][0]
    assert "left out" in result.stderr and "jazz.00054" in result.stderr
    table = read_features(out)
    assert table.ids == ("blues.00000.wav", "jazz.00000.wav") and table.labels == ("blues", "jazz")


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, gtzan_like: Callable) -> None:
    root = gtzan_like(tmp_path, numbers=range(1))
    for data, out, message in (
        (tmp_path / "none", "t.csv", "no such folder"),
        (root, "t.xlsx", "ends in .csv"),
        (root, "t.csv", "none of 2 tracks could be used"),
    ):
        arguments = ["gtzan", "features", "--data", str(data), "--out", str(tmp_path / out), "--quiet"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and message in result.stderr, result.output
        assert not (tmp_path / out).exists()


def test_shap_refuses_other_weights_and_runs_nothing(tmp_path: Path) -> None:
    weights, table = tmp_path / "model.pkl", tmp_path / "features.csv"
    weights.write_bytes(b"cos\nsystem\n(S'touch run'\ntR.")
    table.write_text("filename,rms_mean,label\na.wav,0.1,jazz\n")
    result = CliRunner().invoke(
        main, ["gtzan", "shap", "a.wav", "--weights", str(weights), "--features", str(table), "--out", str(tmp_path)]
    )
    assert result.exit_code == 2 and "model.pkl" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "run").exists() and not Path("run").exists()


def test_options_of_zero_are_zero_and_not_the_defaults() -> None:
    command = main.get_command(None, "gtzan").commands["train"].commands["cnn"]
    zeros = ("--label-smoothing", "--weight-decay", "--noise-level")
    arguments = ["--data", "d", "--out", "o", *(part for name in zeros for part in (name, "0.0"))]
    given = command.make_context("cnn", list(arguments)).params
    options = _training(given)["options"]
    assert (options.label_smoothing, options.weight_decay, options.augmentation.hiss) == (0.0, 0.0, 0.0)
    assert _training(command.make_context("cnn", arguments[:4]).params)["options"].label_smoothing == 0.15
