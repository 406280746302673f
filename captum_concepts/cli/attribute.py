"""The command ``attribute``: Captum's attributions of one track, beside the concepts of a saved explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError

METHODS = ("saliency", "integrated_gradients", "gradient_shap", "deep_lift_shap")


@click.command(short_help="Which parts of a track's spectrogram spoke for its class, by Captum's methods.")
@click.argument("track", type=click.Path())
@cli_options.model
@click.option(
    "--baselines",
    required=True,
    type=click.Path(),
    help="Real audio to compare with: a folder or a table of files; from each file its middle.",
)
@click.option("--target", metavar="CLASS", help="Class to explain.  [default: the one the model gives the track]")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help=f"May be repeated; a wrong name lists all.  [default: {', '.join(METHODS)}]",
)
@click.option(
    "--most",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Baselines at most, spread evenly over those given.",
)
@click.option(
    "--explanation", "folder", type=click.Path(), help="Folder that explain wrote: draws its concepts' push beside."
)
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the results.")
@click.option("--no-plot", is_flag=True, help="Draw no picture (which needs matplotlib).")
@click.option("--json", "as_json", is_flag=True, help="What attributions.json says, on stdout.")
@cli_options.terminal
def attribute(
    track: str, folder: str | None, out: str, no_plot: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Attribute a class to what the model gets as input, patch by patch, held against real clips.

    \b
    captum-concepts attribute song.flac --backbone gtzan-cnn --weights model.safetensors --baselines music/ \\
        --explanation out/ --out attributions/

    Writes attributions.json, attributions.safetensors and attributions.png: the input, every method, and with
    --explanation the push of its concepts, side by side. A method that cannot follow the model is an error; nothing
    takes its place.
    """
    console.set_up_logging(quiet, verbose)
    if not no_plot:
        from captum_concepts.report.figures import require_matplotlib

        require_matplotlib()
    from captum_concepts.plugins.registry import lookup

    methods = list(given["methods"]) or list(METHODS)
    for name in methods:
        lookup("explainers", name)
    backbone = cli_options.load_model({**given, "targets": [given["target"]] if given["target"] else []})
    try:
        clips = cli_options.read_clips(given["baselines"])
    except InputError as error:
        raise InputError(str(error).replace("--clips", "--baselines")) from None
    step = max(1, -(-len(clips) // given["most"]))
    cli_options.check_writable(out, "--out")
    from captum_concepts.attributions.api import attribute as run
    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.explanation.timeline import extract_timelines
    from captum_concepts.results.timeline import Timeline

    line: Timeline | None = None
    names: tuple[str, ...] = ()
    found = run(backbone, track, clips[::step], given["target"], methods)
    if folder is not None:
        explanation = Explanation.load(folder)
        layer = (given["layers"] or tuple(explanation.banks))[-1]
        hop = min(0.5, float(getattr(backbone, "patch_seconds", 0.5)))
        line = extract_timelines(explanation, backbone, track, found.target, hop=hop, layers=[layer])[0]
        names = explanation.banks[layer].names
    found.save(out)
    if not no_plot:
        from captum_concepts.report.figures import attribution_figure

        attribution_figure(found, line, names).savefig(Path(out) / "attributions.png", dpi=150)
    if as_json:
        click.echo((Path(out) / "attributions.json").read_text(encoding="ascii"), nl=False)
    else:
        click.echo(f"class explained: {console.plain(found.target)}; held against {len(found.baselines)} clips")
        for name in methods:
            if name != "saliency":
                share = found.gap(name)
                click.echo(f"{name}: misses the change of the logit it should sum to by {100 * share:.2f} %")
    console.say(f"written to {out}", quiet)
