"""``captum-concepts gtzan features`` and ``shap``: the support vector machine's features, and what each adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr


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
        raise InputError(f"--out {short_repr(out, 200)}: give a name that ends in .csv")
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


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--weights", required=True, type=click.Path(), help="model.safetensors of `gtzan train svm`.")
@click.option(
    "--features", "table", required=True, type=click.Path(), help="Table of the tracks to compare with, see `features`."
)
@click.option("--target", metavar="GENRE", help="Class to explain.  [default: the most probable one of the first file]")
@click.option(
    "--background",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Tracks of the table, drawn at random.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for shap.json and the pictures.")
@cli_options.seed
@cli_options.terminal
def shap(files: tuple[str, ...], table: str, quiet: bool, verbose: bool, **given: Any) -> None:
    """Say what each feature of the chosen files adds to a genre, by SHAP values of the support vector machine.

    Features are computed from the files; values add up from the mean log-probability of the background to that of the
    file. Needs the extra `shap`.

    \b
    captum-concepts gtzan shap song.mp3 --weights runs/svm/model.safetensors --features features.csv --out shap/
    """
    console.set_up_logging(quiet, verbose)
    from captum_concepts_gtzan.features import read_features
    from captum_concepts_gtzan.shap_values import explain_features
    from captum_concepts_gtzan.svm import SvmModel

    model, background = SvmModel.load(given["weights"]), read_features(table)
    cli_options.check_writable(given["out"], "--out")
    found = explain_features(
        model, files, background, given["target"], max_background=given["background"], seed=given["seed"]
    )
    found.save(given["out"])
    for place, file in enumerate(found.tracks):
        order = sorted(range(len(found.features)), key=lambda k: -abs(found.values[place, k]))[:10]
        click.echo(
            console.one_line(f"{file}: {found.target}, log-probability {found.base + found.values[place].sum():.3f}")
        )
        for k in order:
            click.echo(f"  {found.features[k]}: {found.values[place, k]:+.3f}")
    console.say(f"written to {given['out']}", quiet)
