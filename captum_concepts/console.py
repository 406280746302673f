"""What the commands share: one-line errors, progress on stderr, tables on stdout, input given as text."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

    from captum_concepts.activations import Progress
    from captum_concepts.audio import Clip
    from captum_concepts.concepts import ConceptSet

INTERRUPTED = 130


class Commands(click.Group):
    """A group whose commands answer bad input with one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"captum-concepts: {str(error).splitlines()[0]}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("captum-concepts: stopped; what was heard so far is kept, run again to go on", err=True)
            ctx.exit(INTERRUPTED)


@contextlib.contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """A progress callback that draws one bar per stage on stderr; where stderr is no terminal, one line per stage."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def set_up_logging(verbose: bool) -> None:
    """Messages of the library go to stderr; each clip that was left out only with ``verbose``."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )


def say(text: str, quiet: bool = False) -> None:
    """A message to the person at the terminal (stderr)."""
    if not quiet:
        click.echo(text, err=True)


def print_table(table: pd.DataFrame, title: str) -> None:
    """A table on stdout; numbers to three digits, labels cut and without control characters."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        drawn.add_column(str(name), justify="left" if table[name].dtype == object else "right", overflow="fold")
    for row in table.itertuples(index=False):
        drawn.add_row(*(escape(plain(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def plain(value: object) -> str:
    """A table cell: three digits, or a label that cannot move the cursor."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3g}"
    text = "".join(letter if letter.isprintable() else "·" for letter in str(value))
    return text if len(text) <= 40 else text[:39] + "…"


def print_json(content: object) -> None:
    """JSON on stdout; NaN becomes null."""
    click.echo(json.dumps(_without_nan(content), indent=1, ensure_ascii=True, allow_nan=False))


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and content != content else content


def default_store() -> Path:
    """Where activations are kept unless said otherwise: CAPTUM_CONCEPTS_STORE, else the user's cache folder."""
    if named := os.environ.get("CAPTUM_CONCEPTS_STORE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "captum-concepts"


def parse_options(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """``key=value`` texts; a value that reads as JSON (a number, true, a list) is that, anything else is text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {shown(pair)}: give key=value")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def read_concepts(
    spec: str, columns: Sequence[str], group: str | None, negatives: str | None, parents: str | None
) -> ConceptSet:
    """Concepts from a folder, a table, or a registered source ``name:argument``."""
    from captum_concepts.concepts import ConceptSet

    name, colon, argument = spec.partition(":")
    if colon and not Path(spec).exists():
        from captum_concepts.plugins import lookup

        concepts: ConceptSet = lookup("concept_sources", name).factory(argument)
        return concepts if negatives is None else concepts.with_negatives(negatives)
    column = columns[0] if len(columns) == 1 else list(columns) or None
    return ConceptSet.from_spec(spec, column=column, group=group, negatives=negatives, parents=parents)


def read_clips(spec: str, group: str | None = None) -> list[Clip]:
    """Clips to explain: a file, a folder searched for audio, or a table of files (and start, end, group)."""
    from captum_concepts.concept_sources import read_clip_table
    from captum_concepts.explainer import as_clips

    path = Path(spec)
    if not path.exists():
        raise InputError(
            f"clips {shown(spec)}: no such file or folder; give audio, a folder of it, or a table of files"
        )
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet"):
        return read_clip_table(path, group)
    return as_clips(path)
