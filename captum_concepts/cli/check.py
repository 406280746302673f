"""The command ``check``: the sanity battery on the user's model, concepts and clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from captum_concepts.choices import MAX_DEFAULT_TARGETS
from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError

COLUMNS = ["check", "layer", "verdict", "value", "low", "high", "bound"]


@click.command(short_help="Run sanity checks on explanations of your model.")
@cli_options.model
@cli_options.concepts
@cli_options.clips
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the page; created if needed.")
@cli_options.fitting
@click.option(
    "--nulls", type=click.IntRange(min=99), default=999, show_default=True, help="Null concepts of the rank test."
)
@click.option(
    "--min-groups", type=click.IntRange(min=2), default=5, show_default=True, help="Concepts with fewer are left out."
)
@click.option(
    "--randomisations",
    type=click.IntRange(min=3),
    default=5,
    show_default=True,
    help="Copies of the model with random weights; each needs one pass over all audio.",
)
@click.option(
    "--permutations",
    type=click.IntRange(min=100),
    default=400,
    show_default=True,
    help="Permutations of labels.",
)
@cli_options.seed
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@cli_options.keeping
@cli_options.terminal
def check(out: str, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Put model, concepts and clips through five checks; exit code 1 if one fails.

    \b
    randomised weights    with random weights, effects of concepts on classes must differ
    randomised head       the same with random weights in the last layer only
    permuted labels       concepts with permuted labels must have uniform p-values
    added sound           adding the sound of a concept with a positive effect must raise the class
    second negative pool  two halves of the negatives must give similar ranks of the concepts

    \b
    captum-concepts check --backbone msd-vgg --weights MSD_vgg.h5 --layer pool5 \\
        --concepts clips.csv --concept-column instrument --clips music/ --target jazz --target rock --out check/

    Writes check.html (one page, to attach to a paper), check.md and check.json. Every copy of the
    model with random weights needs one pass over all audio besides the passes of explain.
    """
    console.set_up_logging(quiet, verbose)
    for key, option in (("concept_spec", "--concepts"), ("clip_spec", "--clips")):
        if not given[key]:
            raise InputError(f"{option}: missing; see captum-concepts check --help")
    options = cli_options.method_options("cav_methods", given["cav"], given["cav_options"], "--cav-option")
    backbone = cli_options.load_model(given)
    concepts = cli_options.read_concepts(given)
    clips = cli_options.read_clips(given["clip_spec"], given["clip_group_column"])
    cli_options.try_cav(given["cav"], options)
    store = cli_options.store_folder(given)
    cli_options.check_writable(out, "--out")
    if not given["targets"] and len(backbone.classes) > MAX_DEFAULT_TARGETS:
        raise InputError(f"--target: missing, and {backbone.name} has {len(backbone.classes)} classes; give some")
    from captum_concepts.sanity.battery import sanity_check as run

    taken = ("cav", "pool", "min_groups", "randomisations", "permutations", "seed", "batch_size", "on_error")
    with console.progress_bars(quiet) as progress, console.resumable(store):
        report = run(
            backbone,
            clips,
            concepts,
            list(given["targets"]) or None,
            layers=given["layers"] or None,
            cav_options=options,
            n_nulls=given["nulls"],
            store=store,
            progress=progress,
            **{name: given[name] for name in taken},
        )
    page = report.save(Path(out))
    if as_json:
        console.print_json(report.to_dict())
    else:
        console.print_table(
            report.table()[COLUMNS], f"Sanity checks of {console.plain(backbone.name)}: {report.verdict}"
        )
        for line in report.checks:
            click.echo(console.one_line(f"{line.verdict}: {line.check}, {line.layer}: {line.sentence}"))
    total = sum(report.seconds.values())
    console.say(f"{total:.0f} s; {report.provenance['patches through the model']} patches; page: {page}", quiet)
    if not report.passed:
        raise click.exceptions.Exit(1)
