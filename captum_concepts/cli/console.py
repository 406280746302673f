"""What the commands share: error messages and exit codes, progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.cli.option_names import name_options
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import ProgressColumn

    from captum_concepts.types import Progress

PROGRAM = "captum-concepts"
BAD_INPUT, BUG, INTERRUPTED = 2, 1, 130
MIN_SECONDS = 0.05
MAX_LABEL = 60  # characters of a label in a tree
_BRANCH = re.compile(r"(?P<lead>(?:│  |   )*(?:[├└]─ )?)(?P<label>.*?)(?P<note> \(above\)| \(\+\d+\))?")


class Stopped(Exception):
    """The user pressed Ctrl-C; the message is one line for the terminal."""


class Commands(click.Group):
    """A group whose commands end with one line on stderr and exit code 2 for bad input, 130 for Ctrl-C."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command. Its return value is not an exit code, so nothing is returned."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt:  # click would print an empty line for it
            raise Stopped("stopped") from None
        except InputError as error:
            error.args = (name_options(str(error), self._options_of(ctx)),)
            raise

    def _options_of(self, ctx: click.Context) -> set[str]:
        """The options of the command that was run."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        return {option for parameter in (command.params if command else ()) for option in parameter.opts}

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As in click; in standalone mode it ends the process with the right exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end the run
                stream.reconfigure(errors="backslashreplace")
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except Exception as error:
            sys.exit(_end(error))


def _end(error: Exception) -> int:
    """Print in one line why the run ends; returns the exit code."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 has none
        error.show()  # type: ignore[attr-defined]
        return BAD_INPUT
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        return _fail(" ".join(error.format_message().split()).rstrip(".") + f" (see {path} --help)", BAD_INPUT)
    if isinstance(error, click.ClickException):
        return _fail(" ".join(error.format_message().split()), error.exit_code)
    if isinstance(error, (Stopped, click.Abort)):
        return _fail(str(error) or "stopped", INTERRUPTED)
    if isinstance(error, InputError):
        return _fail(str(error), BAD_INPUT)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"{short_repr(str(error.filename), 200)}: {error.strerror}", BAD_INPUT)
    traceback.print_exception(error)
    return _fail("this is a bug in the program, not in your input; please report it with the lines above", BUG)


def _fail(message: str, code: int) -> int:
    click.echo(f"{PROGRAM}: {one_line(message)}", err=True)
    return code


@contextlib.contextmanager
def resumable(store: Path | None) -> Iterator[None]:
    """On Ctrl-C, say where the results so far are kept."""
    try:
        yield
    except KeyboardInterrupt:
        if store is None:
            raise
        raise Stopped(
            f"stopped; the activations computed so far are kept in {short_repr(str(store), 200)}; "
            "run the command again to continue"
        ) from None


@contextlib.contextmanager
def resumable_training(out: str | Path) -> Iterator[None]:
    """On Ctrl-C, say what the folder of one training run, or of several, keeps."""
    try:
        yield
    except KeyboardInterrupt:
        from captum_concepts.training.run_folder import STATE, WEIGHTS

        begun = any(True for name in (STATE, WEIGHTS) for _ in Path(out).rglob(name))
        kept = "every finished epoch is kept" if begun else "no epoch was finished, so nothing is kept"
        then = "to continue" if begun else "to start again"
        raise Stopped(f"stopped; {kept} in {short_repr(str(out), 200)}; run the same command {then}") from None


# ---------------------------------------------------------------------- stderr


@contextlib.contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """A progress callback that draws one bar per stage on stderr; where stderr is no terminal, one line per stage."""
    if quiet:
        yield lambda stage, done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        lines = _StageLines()
        try:
            yield lines.report
        finally:
            lines.close()
        return
    from rich.progress import Progress as Bars

    # Results that a plugin prints meanwhile belong on stdout, where rich would not put them.
    with Bars(*_columns(), console=console, redirect_stdout=False) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:  # what an earlier run computed must not count as speed
                tasks[stage] = bars.add_task(stage, total=total, completed=done)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def _columns() -> tuple[ProgressColumn, ...]:
    """Stage, bar, done of all, throughput, elapsed and remaining time: 80 characters or fewer."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")

    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Speed(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )


class _StageLines:
    """One line on stderr for each stage, when the stage or the run ends."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[float, int, int, int]] = {}  # stage -> start, done at first, done, total
        self._ended: set[str] = set()

    def report(self, stage: str, done: int, total: int) -> None:
        if stage in self._ended and done >= total:
            return
        self._ended.discard(stage)
        # A first report of 1 is the first item; of more, what an earlier run has kept.
        begun, first, *_ = self._running.get(stage, (time.monotonic(), done if done > 1 else 0))
        self._running[stage] = (begun, first, done, total)
        if done >= total:
            self._end(stage)

    def close(self) -> None:
        for stage in list(self._running):
            self._end(stage)

    def _end(self, stage: str) -> None:
        begun, first, done, total = self._running.pop(stage)
        self._ended.add(stage)
        seconds = time.monotonic() - begun
        parts = [f"{stage}: {done}/{total}"]
        if done > first:
            speed = f", {(done - first) / seconds:.3g}/s" if seconds >= MIN_SECONDS else ""
            parts.append(f"in {seconds:.1f} s{speed}")
        if first:
            parts.append(f"({first} already there)")
        say(" ".join(parts))


class _ToStderr(logging.Handler):
    """Writes each record as one line to whatever ``sys.stderr`` is at that time, so that bars stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}")
        except Exception:
            self.handleError(record)


def set_up_logging(quiet: bool, verbose: bool) -> None:
    """Send the library's messages to stderr; with ``verbose`` also each clip left out, and Python's warnings."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _ToStderr)]:
        root.removeHandler(old)
    handler = _ToStderr(logging.ERROR if quiet else logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)
    logging.getLogger("captum_concepts").setLevel(logging.INFO if verbose else logging.WARNING)


def say(text: str, quiet: bool = False) -> None:
    """Print one line on stderr."""
    if not quiet:
        click.echo(one_line(text), err=True)


def one_line(text: str) -> str:
    """``text`` with escapes for everything that could break the line or the terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


# ---------------------------------------------------------------------- stdout


def print_table(table: pd.DataFrame, title: str) -> None:
    """A table on stdout; numbers to three digits, labels cut and without control characters."""
    from pandas.api.types import is_numeric_dtype
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        justify: Any = "right" if is_numeric_dtype(table[name]) else "left"
        grid.add_column(Text(str(name)), justify=justify, overflow="fold")
    for row in table.itertuples(index=False):
        grid.add_row(*(Text(plain(value)) for value in row))
    click.echo(one_line(title))
    Console(width=None if sys.stdout.isatty() else 160).print(grid)


def plain(value: object) -> str:
    """A table cell: three digits, or a label that cannot move the cursor."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    text = "".join(letter if letter.isprintable() else "·" for letter in str(value))
    return text if len(text) <= 40 else text[:39] + "…"


def print_tree(text: str, most: int | None = None) -> None:
    """A tree of concepts (``ConceptHierarchy.to_text``) on stdout, at most ``most`` lines of it, long labels cut."""
    lines = text.split("\n")
    for line in lines[:most]:
        click.echo(_branch(one_line(line)))
    if most is not None and len(lines) > most:
        click.echo(f"… {len(lines) - most} more lines, see the page and the graph files")


def _branch(line: str) -> str:
    parts = _BRANCH.fullmatch(line)
    if parts is None or len(parts["label"]) <= MAX_LABEL:
        return line
    return f"{parts['lead']}{parts['label'][: MAX_LABEL - 1]}…{parts['note'] or ''}"


def print_json(content: object) -> None:
    """JSON on stdout; NaN and infinities become null."""
    click.echo(json.dumps(_finite(content), indent=1, ensure_ascii=True, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
