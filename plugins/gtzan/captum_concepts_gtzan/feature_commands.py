"""``captum-concepts gtzan features``: the table that the support vector machine learns from."""

from __future__ import annotations

from pathlib import Path

import click

from captum_concepts import cli_options, console
from captum_concepts.errors import InputError, shown


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(),
    help="Folder with one subfolder of audio per genre: GTZAN in any layout, or your own.",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The table to write, a .csv file.")
@click.option("--json", "as_json", is_flag=True, help="What was done as JSON on stdout.")
@cli_options.terminal
def features(data: str, out: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Compute the features of every track, in the layout of Kaggle's features_30_sec.csv.

    File name, 58 features with Kaggle's names, genre; about 1.5 s of one core per track. Tracks that cannot be used are
    named and left out.
    """
    console.set_up_logging(quiet, verbose)
    from captum_concepts_gtzan.dataset import find_tracks
    from captum_concepts_gtzan.features import extract_features, write_features

    if Path(out).suffix.lower() != ".csv":
        raise InputError(f"--out {shown(out, 200)}: give a name that ends in .csv")
    cli_options.check_writable(Path(out).parent, "--out")
    tracks = find_tracks(data)
    with console.progress_bars(quiet) as progress:
        table = extract_features(tracks, progress)
    write_features(table, out)
    for line in table.skipped:
        console.say(f"left out: {line}", quiet)
    if as_json:
        console.print_json({"out": out, "tracks": len(table.ids), "features": table.names, "skipped": table.skipped})
    else:
        click.echo(f"{len(table.ids)} tracks x {len(table.names)} features: {out}")
