"""The command ``timeline``: presence of concepts and sensitivity to them along one track."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr, suggest

if TYPE_CHECKING:
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.explanation.segments import Segment
    from captum_concepts.results.timeline import Timeline


@click.command(short_help="Show where in a track concepts affect its class: table, plot and sound.")
@click.argument("folder", type=click.Path())
@click.argument("track", type=click.Path())
@cli_options.model
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="Explained class; may be repeated.  [default: the class that the model predicts for the track]",
)
@click.option(
    "--hop", type=float, default=0.5, show_default=True, help="Seconds between values; at most the length of a patch."
)
@click.option(
    "--segments",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Segments per concept; 0 writes none.",
)
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    metavar="NAME",
    help="Concept for plot and segments; may be repeated.  [default: those with scores]",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for the files.  [default: FOLDER/timeline-TRACK]")
@click.option("--no-plot", is_flag=True, help="Plot nothing (plots need matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="Print the segments as JSON instead of a table.")
@cli_options.terminal
def timeline(
    folder: str, track: str, out: str | None, no_plot: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Presence of every concept, and sensitivity to it, over time in TRACK, from overlapping patches.

    FOLDER is the folder that `explain --out FOLDER` wrote; nothing is fitted again. The timeline is saved in it, and
    its report.html is rewritten. Give the same model options as to explain.

    \b
    captum-concepts timeline out/ song.flac --backbone gtzan-cnn --weights model.safetensors --hop 0.5

    \b
    Files in --out:
      timeline.csv               layer, target, concept, start, end, presence, sensitivity
      timeline-LAYER-NUMBER.png  the same as a plot, one file per target
      segments/                  the seconds with the largest sensitivity to each concept, as WAV, and segments.csv
    """
    console.set_up_logging(quiet, verbose)
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.explanation.segments import strongest_segments, write_segments
    from captum_concepts.explanation.timeline import add_timelines, extract_timelines
    from captum_concepts.report.figures import require_matplotlib

    explanation = Explanation.load(folder)
    for name in given["concepts"]:
        if name not in explanation.concepts:
            raise InputError(
                f"--concept={short_repr(name)}: not explained; {suggest(name, explanation.concepts, 'concepts')}"
            )
    pool = explanation.provenance["options"]["pool"]
    given_pool = click.get_current_context().get_parameter_source("pool") is click.core.ParameterSource.COMMANDLINE
    if given_pool and given["pool"] != pool:
        raise InputError(f"--pool={given['pool']}: the explanation was made with {pool}; leave it out")
    if not no_plot:
        require_matplotlib()
    where = Path(out) if out is not None else Path(folder) / f"timeline-{Path(track).stem}"
    cli_options.check_writable(where, "--out")
    # Targets are checked against those of the explanation, with a better message.
    backbone = cli_options.load_model({**given, "targets": ()})
    with console.progress_bars(quiet) as progress:
        lines = extract_timelines(
            explanation,
            backbone,
            track,
            list(given["targets"]) or None,
            hop=given["hop"],
            layers=given["layers"] or None,
            batch_size=given["batch_size"],
            progress=progress,
        )
    write_timelines(explanation, lines, where / "timeline.csv")
    segments: list[Segment] = []
    for line in lines:
        names = list(given["concepts"]) or _scored(explanation, line)
        if given["segments"]:
            segments += strongest_segments(line, explanation.banks[line.layer].names, names, k=given["segments"])
        if not no_plot:
            _draw(explanation, line, names, where)
    if given["segments"]:
        write_segments(segments, where / "segments")
    add_timelines(explanation, lines)
    explanation.save(folder)
    page = explanation.to_html(Path(folder) / "report.html")
    _print_segments(segments, as_json)
    console.say(f"classes explained: {', '.join(dict.fromkeys(line.target for line in lines))}", quiet)
    console.say(f"written to {where}; open {page}", quiet)


def _print_segments(segments: Sequence[Segment], as_json: bool) -> None:
    rows = [
        {
            **{key: getattr(segment, key) for key in ("layer", "target", "concept", "rank")},
            "start": segment.clip.start,
            "end": segment.clip.end,
            "sensitivity": segment.sensitivity,
            "presence": segment.presence,
        }
        for segment in segments
    ]
    if as_json:
        console.print_json(rows)
    elif rows:
        import pandas as pd

        ranked = sorted(rows, key=lambda row: (row["layer"], row["target"], -row["sensitivity"]))
        console.print_table(pd.DataFrame(ranked[:30]), "Segments with the largest sensitivity to a concept")


def _scored(explanation: Explanation, line: Timeline) -> list[str]:
    """Concepts with a score at a layer; without any, all that have a CAV."""
    quality = explanation.banks[line.layer].quality
    usable = [name for name, status in zip(quality["concept"], quality["status"], strict=True) if status == "ok"]
    return usable or list(explanation.banks[line.layer].names)


def _draw(explanation: Explanation, line: Timeline, names: Sequence[str], where: Path) -> None:
    import numpy as np

    from captum_concepts.report.figures import MAX_CONCEPTS, timeline_figure
    from captum_concepts.results.files import layer_files

    bank = list(explanation.banks[line.layer].names)
    strength = {name: np.abs(line.sensitivity[:, bank.index(name)]).max(initial=0.0) for name in names}
    strongest = sorted(names, key=lambda name: -strength[name])[:MAX_CONCEPTS]
    figure = timeline_figure(line, bank, strongest)
    number = explanation.targets.index(line.target)
    figure.savefig(where / f"timeline-{layer_files(explanation.layers)[line.layer]}-{number}.png", dpi=150)


def write_timelines(explanation: Explanation, lines: Sequence[Timeline], path: Path) -> None:
    """Write one row per layer, target, concept and patch; NaN becomes an empty cell."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("layer", "target", "concept", "start", "end", "presence", "sensitivity"))
        for line in lines:
            for k, name in enumerate(explanation.banks[line.layer].names):
                for patch in range(len(line.starts)):
                    presence = None if line.presence is None else line.presence[patch, k]
                    numbers = (line.starts[patch], line.ends[patch], presence, line.sensitivity[patch, k])
                    cells = ["" if value is None or value != value else f"{value:.9g}" for value in numbers]
                    table.writerow((line.layer, line.target, name, *cells))
