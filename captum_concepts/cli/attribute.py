"""The command ``attribute``: Captum's input attributions of one track, beside the concepts of a saved explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from captum_concepts.choices import ATTRIBUTION_METHODS
from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options


@click.command(short_help="Attribute a track's class to its spectrogram by Captum's methods.")
@click.argument("track", type=click.Path())
@cli_options.model
@click.option(
    "--baselines",
    required=True,
    type=click.Path(),
    help="Real audio as baselines: a folder or a table of files; the middle of each file is used.",
)
@click.option("--target", metavar="CLASS", help="Class to explain.  [default: the predicted class]")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help=f"May be repeated; a wrong name lists all.  [default: {', '.join(ATTRIBUTION_METHODS)}]",
)
@click.option(
    "--most",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Maximum number of baselines, spread evenly over those given.",
)
@click.option(
    "--explanation",
    "folder",
    type=click.Path(),
    help="Saved explanation, to plot its concepts as well.",
)
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the results.")
@click.option("--no-plot", is_flag=True, help="Plot nothing (plots need matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="Print attributions.json.")
@cli_options.terminal
def attribute(
    track: str, folder: str | None, out: str, no_plot: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Attribute a class to the model's input, patch by patch, compared with real clips as baselines.

    \b
    captum-concepts attribute song.flac --backbone gtzan-cnn --weights model.safetensors --baselines music/ \\
        --explanation out/ --out attributions/

    Writes attributions.json, attributions.safetensors and attributions.png, which shows the input, every method, and
    with --explanation the sensitivity to its concepts. A method that does not support the model is an error; no other
    method replaces it.
    """
    console.set_up_logging(quiet, verbose)
    if not no_plot:
        from captum_concepts.report.figures import require_matplotlib

        require_matplotlib()
    from captum_concepts.plugins.registry import lookup

    methods = list(given["methods"]) or list(ATTRIBUTION_METHODS)
    for name in methods:
        lookup("explainers", name)
    backbone = cli_options.load_model({**given, "targets": [given["target"]] if given["target"] else []})
    clips = cli_options.read_clips(given["baselines"], option="--baselines")
    step = max(1, -(-len(clips) // given["most"]))
    cli_options.check_writable(out, "--out")
    from captum_concepts.attributions.api import attribute as run
    from captum_concepts.backbones.base import patch_length
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.explanation.timeline import extract_timelines
    from captum_concepts.results.timeline import Timeline

    line: Timeline | None = None
    names: tuple[str, ...] = ()
    found = run(backbone, track, clips[::step], given["target"], methods)
    if folder is not None:
        explanation = Explanation.load(folder)
        layer = (given["layers"] or tuple(explanation.banks))[-1]
        hop = min(0.5, patch_length(backbone) or 0.5)
        line = extract_timelines(explanation, backbone, track, found.target, hop=hop, layers=[layer])[0]
        names = explanation.banks[layer].names
    found.save(out)
    if not no_plot:
        from captum_concepts.report.figures import attribution_figure

        attribution_figure(found, line, names).savefig(Path(out) / "attributions.png", dpi=150)
    if as_json:
        click.echo((Path(out) / "attributions.json").read_text(encoding="ascii"), nl=False)
    else:
        click.echo(f"class explained: {console.plain(found.target)}; baselines: {len(found.baselines)} clips")
        for name in methods:
            if name != "saliency":
                share = found.gap(name)
                click.echo(f"{name}: sum of attributions differs from the logit's change by {100 * share:.2f} %")
    console.say(f"written to {out}", quiet)
