"""Error messages and exit codes, progress, tables and JSON of the commands."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import time
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from captum_concepts.cli import console
from captum_concepts.errors import InputError
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy

HOSTILE = "a\nb\r\x1b[31m\x07\u202e\udcff"


@pytest.fixture
def group() -> click.Group:
    @click.group(cls=console.Commands)
    def cli() -> None:
        pass

    return cli


def failing(group: click.Group, error: BaseException) -> click.testing.Result:
    @group.command()
    def run() -> None:
        raise error

    return CliRunner().invoke(group, ["run"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("clips: none"), 2, "captum-concepts: clips: none\n"),
        (InputError(f"{HOSTILE}: silent"), 2, "captum-concepts: a\\nb\\r\\x1b[31m\\x07\\u202e\\udcff: silent\n"),
        (click.ClickException("no\nluck"), 1, "captum-concepts: no luck\n"),
        (KeyboardInterrupt(), 130, "captum-concepts: stopped\n"),
        (PermissionError(13, "Permission denied", "x\ny"), 2, "captum-concepts: 'x\\ny': Permission denied\n"),
    ],
)
def test_error_is_one_line_and_an_exit_code(group: click.Group, error: BaseException, code: int, text: str) -> None:
    result = failing(group, error)
    assert (result.exit_code, result.stderr, result.stdout) == (code, text, "")


@pytest.mark.parametrize(
    ("options", "message", "text"),
    [
        (["--target"], "target='Jazz': none; did you mean 'jazz'?", "--target=Jazz: none; did you mean 'jazz'?"),
        (["--pool"], "pool='tim': unknown; use time", "--pool=tim: unknown; use time"),
        (["--min-groups"], "min_groups=1: too few; give 2", "--min-groups=1: too few; give 2"),
        (["--max-parents"], "max_parents = 0; give 1", "--max-parents=0; give 1"),
        (["--nulls"], "n_nulls=9: too few; give 19", "--nulls=9: too few; give 19"),
        (["--on-error", "--on-bad"], "on_error='x': unknown; use skip", "--on-error=x: unknown; use skip"),
        (["--baselines"], "clips=[]: none; give some", "--baselines=[]: none; give some"),
        (["--device"], "x: no GPU; use device='cpu'", "x: no GPU; use --device cpu"),
        (["--target"], "target='two words': no class", "--target='two words': no class"),
        (["--seed"], "target='Jazz': no such class", "target='Jazz': no such class"),
        (["--pool"], "a sentence with pool='x' in it", "a sentence with pool='x' in it"),
    ],
)
def test_error_names_the_option_not_the_argument(
    group: click.Group, options: list[str], message: str, text: str
) -> None:
    @group.command()
    @click.option(*options, "value")
    def run(value: str | None) -> None:
        raise InputError(message)

    assert CliRunner().invoke(group, ["run"]).stderr == f"captum-concepts: {text}\n"


def test_a_bug_shows_its_traceback(group: click.Group) -> None:
    result = failing(group, ZeroDivisionError("oops"))
    assert result.exit_code == 1
    assert "ZeroDivisionError: oops" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("captum-concepts: this is a bug in the program")


def test_return_value_is_not_an_exit_code(group: click.Group) -> None:
    @group.command()
    def run() -> int:
        return 7

    assert CliRunner().invoke(group, ["run"]).exit_code == 0


def test_ctx_exit_keeps_its_code(group: click.Group) -> None:
    @group.command()
    @click.pass_context
    def run(ctx: click.Context) -> None:
        ctx.exit(5)

    assert CliRunner().invoke(group, ["run"]).exit_code == 5


def test_errors_are_raised_without_standalone_mode(group: click.Group) -> None:
    @group.command()
    def run() -> None:
        raise InputError("x")

    with pytest.raises(InputError):
        group.main(["run"], standalone_mode=False)


def test_ctrl_c_says_what_is_kept() -> None:
    with pytest.raises(console.Stopped, match="in 'store'; run the command again"), console.resumable(Path("store")):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), console.resumable(None):
        raise KeyboardInterrupt


def test_ctrl_c_in_training_says_what_is_kept(tmp_path: Path) -> None:
    for made, says in (
        (None, "no epoch was finished"),
        ("last.ckpt", "every finished epoch"),
        ("fold-1/model.safetensors", "every"),
    ):
        out = tmp_path / str(made).replace("/", "-")
        if made is not None:
            (out / made).parent.mkdir(parents=True)
            (out / made).touch()
        message = f"stopped; {says}.*run the same command"
        with pytest.raises(console.Stopped, match=message), console.resumable_training(out):
            raise KeyboardInterrupt


def test_progress_without_a_terminal_is_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bars(quiet=False) as progress:
        for done in range(11):
            progress("extracting", done, 10)
            time.sleep(0.01)
        progress("extracting", 10, 10)
        progress("kept", 4, 4)
        progress("cut short", 3, 9)
        time.sleep(0.1)
        progress("cut short", 5, 9)
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert first.startswith("extracting: 10/10 in ")
    assert first.endswith("/s")
    assert second == "kept: 4/4 (4 already there)"
    assert third.startswith("cut short: 5/9 in ")
    assert third.endswith("/s (3 already there)")


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bars(quiet=True) as progress:
        progress("extracting", 1, 1)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_shows_bars_and_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    with console.progress_bars(quiet=False) as progress:
        for done in range(5):
            progress("extracting [red]", done, 4)
            time.sleep(0.01)
    text = terminal.getvalue()
    assert "extracting [red]" in text  # no markup in the names of stages
    assert "4/4" in text
    assert "/s" in text
    assert "left" in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    texts = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        with console.progress_bars(quiet=False) as progress:
            progress("extracting", 4, 4)
        texts[no_color] = terminal.getvalue()
        terminal.truncate(0)
    assert "\x1b[3" in texts[""]
    assert "\x1b[3" not in texts["1"]


def test_messages_of_the_library_are_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("captum_concepts.some.module")
    found = {}
    for quiet, verbose in ((False, False), (False, True), (True, False)):
        console.set_up_logging(quiet, verbose)
        log.warning("%s is\nodd", HOSTILE[:-1])  # pytest-xdist cannot carry a record with a lone surrogate
        log.info("detail")
        logging.getLogger("py.warnings").warning("file.py:1: UserWarning: old")  # what warnings become
        out, found[quiet, verbose] = capsys.readouterr()
        assert out == ""
    usual = "warning: a b \\x1b[31m\\x07\\u202e is odd\n"
    assert found[False, False] == usual
    assert found[False, True].startswith(usual + "info: detail\nwarning: file.py:1: ")
    assert found[True, False] == ""


def test_table_escapes_hostile_names_and_marks_missing_values(capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame(
        {"concept": pd.Series(["[bold]x", HOSTILE, "y" * 99], dtype=object), "score": [0.123456, math.nan, 1.0]}
    )
    console.print_table(table, "Title\n[red]")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "Title\\n[red]"
    assert "[bold]x" in out
    assert "0.123" in out
    assert "0.1234" not in out
    assert "–" in out
    assert "y" * 39 + "…" in out
    assert not set("\x1b\x07\r\u202e\udcff") & set(out)
    assert len(out.splitlines()) == len(table) + 5  # title, blank, head, rule, blank


def test_tree_is_shortened_and_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_tree("a\n└─ \x1b[2Jb\nc\nd", most=2)
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "└─ \\x1b[2Jb",
        "… 2 more lines, see the page and the graph files",
    ]


def test_only_long_labels_of_a_tree_are_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    fits, long, odd = "f" * 60, "x" * 10_000, "├─ " * 40
    edges = [(fits, long, 1.0), (fits, "b", 1.0), ("b", long, 1.0), (long, odd, 1.0)]
    tree = ConceptHierarchy.from_edges([fits, long, "b", odd], edges)
    text = tree.to_text()
    console.print_tree(text)
    out = capsys.readouterr().out.splitlines()
    wanted = [line.replace(long, "x" * 59 + "…") for line in text.splitlines()]
    assert [line for line in out if "├─ ├─" not in line] == [line for line in wanted if "├─ ├─" not in line]
    assert any(line.endswith("… (above)") for line in out)
    assert max(map(len, out)) < 100


def test_json_has_null_for_nan_and_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [math.nan, math.inf, 1.5, ("x", None)], 3: {"b": HOSTILE}})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"a": [None, None, 1.5, ["x", None]], "3": {"b": HOSTILE}}
