"""The command ``timeline``: one track heard closely, with the concepts of a saved explanation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError

if TYPE_CHECKING:
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.results.timeline import Timeline


@click.command(short_help="Where in a track concepts push its class, as table, picture and sound.")
@click.argument("folder", type=click.Path())
@click.argument("track", type=click.Path())
@cli_options.model
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="Explained class; may be repeated.  [default: the class the model gives the track]",
)
@click.option(
    "--hop", type=float, default=0.5, show_default=True, help="Seconds between values; at most the length of a patch."
)
@click.option(
    "--segments", type=click.IntRange(min=0), default=3, show_default=True, help="Of each concept; 0 writes none."
)
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    metavar="NAME",
    help="Concept for picture and segments; may be repeated.  [default: those with scores]",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for the files.  [default: FOLDER/timeline-TRACK]")
@click.option("--no-plot", is_flag=True, help="Draw no picture (which needs matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="The segments as JSON on stdout instead of a table.")
@cli_options.terminal
def timeline(
    folder: str, track: str, out: str | None, no_plot: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Hear TRACK with overlapping patches: presence and push of every concept over time.

    FOLDER is what `explain --out FOLDER` saved; nothing is fitted again. The timeline is kept in it, and its
    report.html is written anew. Give the model as you gave it to explain.

    \b
    captum-concepts timeline out/ song.flac --backbone gtzan-cnn --weights model.safetensors --hop 0.5

    \b
    Files in --out:
      timeline.csv               layer, target, concept, start, end, presence, push
      timeline-LAYER-NUMBER.png  the same as a picture, a file per target
      segments/                  the seconds in which each concept pushes the class most, as WAV, and segments.csv
    """
    console.set_up_logging(quiet, verbose)
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.explanation.segments import Segment, strongest_segments, write_segments
    from captum_concepts.explanation.timeline import add_timelines, extract_timelines
    from captum_concepts.report.figures import require_matplotlib

    explanation = Explanation.load(folder)
    for name in given["concepts"]:
        if name not in explanation.concepts:
            raise InputError(f"--concept {name!r}: not explained; choose among {', '.join(explanation.concepts[:20])}")
    pool = explanation.provenance["options"]["pool"]
    given_pool = click.get_current_context().get_parameter_source("pool") is click.core.ParameterSource.COMMANDLINE
    if given_pool and given["pool"] != pool:
        raise InputError(f"--pool {given['pool']}: the explanation was made with {pool}; leave it out")
    if not no_plot:
        require_matplotlib()
    where = Path(out) if out is not None else Path(folder) / f"timeline-{Path(track).stem}"
    cli_options.check_writable(where, "--out")
    # Classes are of the explanation, which says better what is wrong with one.
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
    rows = [
        {
            **{key: getattr(segment, key) for key in ("layer", "target", "concept", "rank")},
            "start": segment.clip.start,
            "end": segment.clip.end,
            "push": segment.push,
            "presence": segment.presence,
        }
        for segment in segments
    ]
    if as_json:
        console.print_json(rows)
    elif rows:
        import pandas as pd

        ranked = sorted(rows, key=lambda row: (row["layer"], row["target"], -row["push"]))
        console.print_table(pd.DataFrame(ranked[:30]), "Segments in which a concept pushes the class most")
    console.say(f"heard for {', '.join(dict.fromkeys(line.target for line in lines))}", quiet)
    console.say(f"written to {where}; open {page}", quiet)


def _scored(explanation: Explanation, line: Timeline) -> list[str]:
    """Concepts with a score at a layer; all that have a CAV where there are none."""
    quality = explanation.banks[line.layer].quality
    usable = [name for name, status in zip(quality["concept"], quality["status"], strict=True) if status == "ok"]
    return usable or list(explanation.banks[line.layer].names)


def _draw(explanation: Explanation, line: Timeline, names: Sequence[str], where: Path) -> None:
    import numpy as np

    from captum_concepts.report.figures import MAX_CONCEPTS, timeline_figure
    from captum_concepts.results.files import layer_files

    bank = list(explanation.banks[line.layer].names)
    strength = {name: np.abs(line.push[:, bank.index(name)]).max(initial=0.0) for name in names}
    strongest = sorted(names, key=lambda name: -strength[name])[:MAX_CONCEPTS]
    figure = timeline_figure(line, bank, strongest)
    number = explanation.targets.index(line.target)
    figure.savefig(where / f"timeline-{layer_files(explanation.layers)[line.layer]}-{number}.png", dpi=150)


def write_timelines(explanation: Explanation, lines: Sequence[Timeline], path: Path) -> None:
    """A row per layer, target, concept and patch; what is not a number is left empty."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("layer", "target", "concept", "start", "end", "presence", "push"))
        for line in lines:
            for k, name in enumerate(explanation.banks[line.layer].names):
                for patch in range(len(line.starts)):
                    presence = None if line.presence is None else line.presence[patch, k]
                    numbers = (line.starts[patch], line.ends[patch], presence, line.push[patch, k])
                    cells = ["" if value is None or value != value else f"{value:.9g}" for value in numbers]
                    table.writerow((line.layer, line.target, name, *cells))
