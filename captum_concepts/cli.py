"""The command line: results on stdout, progress and messages on stderr, exit code 2 for bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts import __version__, console
from captum_concepts.errors import InputError, shown

if TYPE_CHECKING:
    from captum_concepts.activations import Extraction
    from captum_concepts.backbones import Backbone
    from captum_concepts.explanation import Explanation


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_terminal = _together(
    click.option("-q", "--quiet", is_flag=True, help="No progress and no messages, only results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more, e.g. name every clip that was left out."),
)
_model = _together(
    click.option("--backbone", required=True, help="Name of the model; `captum-concepts plugins` lists them."),
    click.option("--weights", type=click.Path(), help="Your weights file, where the backbone needs one."),
    click.option(
        "--layer", "layers", multiple=True, help="Layer to look into; may be repeated. Default: the backbone's."
    ),
    click.option(
        "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the backbone; may be repeated."
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    click.option(
        "--pool",
        type=click.Choice(["time", "none", "time_freq"]),
        default="time",
        show_default=True,
        help="What activations are averaged over.",
    ),
    click.option("--batch-size", default=32, show_default=True, help="Patches per pass."),
)
_concepts = _together(
    click.option(
        "--concepts", "concept_spec", help="Folder (one subfolder per concept), table, or source name:argument."
    ),
    click.option(
        "--concept-column", "columns", multiple=True, help="Column of the table that names concepts; may be repeated."
    ),
    click.option("--group-column", help="Column that names the track or recording a clip is from. Default: each file."),
    click.option(
        "--negatives",
        type=click.Choice(["random", "rest"]),
        help="What concepts are held against.  [default: the random pool if there is one, else the rest]",
    ),
    click.option("--reference", help="JSON of parents, {child: parent}; used only to measure the mined hierarchy."),
)
_clips = _together(
    click.option("--clips", "clip_spec", help="Audio to explain: a file, a folder, or a table with a column of files."),
    click.option("--clip-group-column", help="Column of that table that names each clip's group."),
    click.option(
        "--target", "targets", multiple=True, help="Class to explain, by name; may be repeated. Default: all, up to 20."
    ),
)
_keeping = _together(
    click.option(
        "--store",
        type=click.Path(),
        help="Folder where activations are kept.  [default: CAPTUM_CONCEPTS_STORE or the user's cache]",
    ),
    click.option("--no-store", is_flag=True, help="Keep no activations."),
    click.option(
        "--on-bad",
        type=click.Choice(["skip", "refuse"]),
        default="skip",
        show_default=True,
        help="Leave out clips that cannot be used and report them, or stop at the first.",
    ),
)


class _Lazy(console.Commands):
    """Plugins are asked for their commands only when a command is looked for."""

    _asked = False

    def _ask_plugins(self) -> None:
        if not self._asked:
            self._asked = True
            from captum_concepts.plugins import add_commands

            add_commands(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="captum-concepts")
def main() -> None:
    """Explain an audio classifier by a hierarchy of concepts.

    \b
    Begin with:
      captum-concepts demo                 a model whose truth is known, explained
      captum-concepts plugins              which models, concept sources and methods there are
      captum-concepts explain --help       your model, your concepts, your clips
    """


@main.command()
@_model
@_concepts
@_clips
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the results; made if need be.")
@click.option("--cav", default="pattern", show_default=True, help="How CAVs are fitted.")
@click.option("--cav-option", "cav_options", multiple=True, metavar="KEY=VALUE", help="Option of the CAV method.")
@click.option("--similarity", default="activation", show_default=True, help="How alike two concepts are.")
@click.option("--miner", default="generality", show_default=True, help="How the hierarchy is mined.")
@click.option("--miner-option", "miner_options", multiple=True, metavar="KEY=VALUE", help="Option of the miner.")
@click.option(
    "--nulls", type=int, help="Random concepts of the rank test.  [default: 999 to 4999, by the number of tests]"
)
@click.option("--min-groups", default=5, show_default=True, help="Fewer positive or negative groups: not fitted.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--no-report", is_flag=True, help="Write no HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Scores as JSON on stdout instead of a table.")
@_keeping
@_terminal
def explain(out: str, no_report: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Say which concepts a model's decisions rest on, and how the concepts relate.

    Writes explanation.json, scores.csv, hierarchy-<layer>.graphml and .gexf, arrays.safetensors and report.html.

    \b
    captum-concepts explain --backbone msd-vgg --weights MSD_vgg.h5 --layer pool4 --layer pool5 \\
        --concepts clips.csv --concept-column instrument --clips music/ \\
        --target jazz --target rock --out out/
    """
    console.set_up_logging(verbose)
    _require(given, "concept_spec", "--concepts")
    concepts = _read_concepts(given)
    backbone = _load(given)
    if backbone.classes:
        _require(given, "clip_spec", "--clips")
    clips = console.read_clips(given["clip_spec"], given["clip_group_column"]) if given["clip_spec"] else []
    from captum_concepts.explainer import ConceptHierarchyExplainer

    with console.progress_bars(quiet) as progress:
        explainer = ConceptHierarchyExplainer(
            backbone,
            given["layers"] or None,
            cav=given["cav"],
            cav_options=console.parse_options(given["cav_options"], "--cav-option"),
            similarity=given["similarity"],
            miner=given["miner"],
            miner_options=console.parse_options(given["miner_options"], "--miner-option"),
            pool=given["pool"],
            n_nulls=given["nulls"],
            min_groups=given["min_groups"],
            seed=given["seed"],
            store=_store(given),
            batch_size=given["batch_size"],
            on_bad=given["on_bad"],
            progress=progress,
        )
        explanation = explainer.explain(clips, concepts, list(given["targets"]) or None)
    explanation.save(out)
    if not no_report:
        explanation.to_html(Path(out) / "report.html")
    _show(explanation, as_json)
    _say_warnings(explanation, quiet)
    console.say(f"written to {out}" + ("" if no_report else f"; open {Path(out) / 'report.html'}"), quiet)


@main.command()
@_model
@_concepts
@_clips
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Do the I-th of N parts of the clips.")
@click.option("--json", "as_json", is_flag=True, help="The counts as JSON on stdout.")
@_keeping
@_terminal
def extract(shard: str, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Hear the clips and keep the activations, so that explain need not.

    Run the same command with --shard 1/8 to 8/8 on eight machines that share the store (a Slurm array, xargs, ...).
    What a killed run has done is kept; running it again does the rest. With --clips and --target, the gradients of
    those clips are kept too.

    \b
    captum-concepts extract --backbone msd-vgg --weights MSD_vgg.h5 --concepts clips.csv --concept-column instrument \\
        --store activations/ --shard 1/8
    """
    console.set_up_logging(verbose)
    number, total = _shard(shard)
    if not given["concept_spec"] and not given["clip_spec"]:
        raise InputError("--concepts and --clips are missing: give at least one of them")
    if given["no_store"]:
        raise InputError("--no-store: extract does nothing but keep activations; leave it out")
    from captum_concepts.activations import extract as run
    from captum_concepts.activations import shard_of
    from captum_concepts.backbones import target_index

    backbone = _load(given)
    layers = given["layers"] or tuple(backbone.layers)
    targets = [target_index(backbone, target) for target in given["targets"]]
    if backbone.fingerprint() is None:
        raise InputError(
            f"--backbone {given['backbone']}: nothing can be kept of a model that cannot be hashed; give version="
        )
    passes: list[tuple[str, Sequence[Any], list[int]]] = []
    if given["concept_spec"]:
        passes.append(("concepts", _read_concepts(given).clips, []))
    if given["clip_spec"]:
        passes.append(("clips", console.read_clips(given["clip_spec"], given["clip_group_column"]), targets))
    counts = {}
    with console.progress_bars(quiet) as progress:
        for what, clips, wanted in passes:
            part = shard_of(clips, number, total)
            if not part:
                counts[what] = {"clips": 0, "computed": 0, "left_out": 0}
                continue
            found = run(
                backbone,
                part,
                layers,
                targets=wanted,
                pool=given["pool"],
                store=_store(given),
                batch_size=given["batch_size"],
                on_bad=given["on_bad"],
                progress=progress,
                stage=f"listening to {what}",
            )
            counts[what] = {"clips": len(part), "computed": found.computed, "left_out": len(found.problems)}
            _say_problems(found, quiet)
    if as_json:
        console.print_json(counts)
        return
    for what, row in counts.items():
        click.echo(f"{what}: {row['clips']} clips, {row['computed']} computed now, {row['left_out']} left out")


@main.command()
@click.argument("folder", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False), help="Where to write the page.  [default: FOLDER/report.html]"
)
@click.option(
    "--limit-mb", default=25.0, show_default=True, help="Largest page; beyond it sounds go into files beside it."
)
def report(folder: str, out: str | None, limit_mb: float) -> None:
    """Write the page of an explanation that `explain --out FOLDER` saved."""
    from captum_concepts.explanation import Explanation

    explanation = Explanation.load(folder)
    click.echo(explanation.to_html(out or Path(folder) / "report.html", limit_mb=limit_mb))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def plugins(as_json: bool) -> None:
    """List what is loaded, what each plugin provides, and which distribution it is from."""
    from captum_concepts.plugins import list_plugins

    infos = list_plugins()
    if as_json:
        rows = [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "hooks": list(info.hooks),
                "provides": {kind: list(names) for kind, names in info.provides.items()},
            }
            for info in infos
        ]
        console.print_json(rows)
        return
    for info in infos:
        click.echo(f"{info.name}  ({info.distribution or 'registered by hand'} {info.version})".rstrip())
        for kind, names in info.provides.items():
            click.echo(f"  {kind.replace('_', ' ')}: {', '.join(names)}")


@main.command()
@click.option(
    "--out", type=click.Path(file_okay=False), default="out/demo", show_default=True, help="Folder for the results."
)
@click.option("--seed", default=0, show_default=True, help="Of the music, and of everything after it.")
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
@_terminal
def demo(out: str, seed: int, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Explain a small classifier of synthetic music whose truth is known, and say how well it was recovered."""
    console.set_up_logging(verbose)
    from captum_concepts.demo.run import run_demo

    with console.progress_bars(quiet) as progress:
        result = run_demo(Path(out), seed=seed, progress=progress)
    if as_json:
        console.print_json(result.figures)
    else:
        console.print_table(
            result.table, "Concepts that each genre rests on, by magnitude (layer " + result.layer + ")"
        )
        for line in result.lines:
            click.echo(line)
    _say_warnings(result.explanation, quiet)
    click.echo(f"report: {result.report}", err=as_json)


def _require(given: dict[str, Any], key: str, option: str) -> None:
    if not given[key]:
        raise InputError(f"{option} is missing; see captum-concepts explain --help")


def _read_concepts(given: dict[str, Any]) -> Any:
    return console.read_concepts(
        given["concept_spec"], given["columns"], given["group_column"], given["negatives"], given["reference"]
    )


def _load(given: dict[str, Any]) -> Backbone:
    from captum_concepts.backbones import load_backbone

    options = console.parse_options(given["options"], "--option")
    backbone = load_backbone(given["backbone"], weights=given["weights"], device=given["device"], **options)
    backbone.check_layers(given["layers"] or backbone.layers)
    return backbone


def _store(given: dict[str, Any]) -> Path | None:
    if given["no_store"]:
        return None
    return Path(given["store"]) if given["store"] else console.default_store()


def _shard(text: str) -> tuple[int, int]:
    number, slash, total = text.partition("/")
    if not (slash and number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise InputError(f"--shard {shown(text)}: give I/N with 1 <= I <= N, e.g. 1/8")
    return int(number), int(total)


def _show(explanation: Explanation, as_json: bool) -> None:
    if as_json:
        console.print_json(explanation.scores.to_dict("records"))
        return
    columns = ["target", "concept", "score", "low", "high", "magnitude", "p_value", "q_value", "cav_auc"]
    for layer in explanation.layers:
        if explanation.targets:
            console.print_table(
                explanation.top(layer, 5)[columns], f"Strongest concepts at layer {console.plain(layer)}"
            )
        click.echo(f"Hierarchy at layer {console.plain(layer)}:\n{explanation.hierarchies[layer].to_text()}\n")


def _say_warnings(explanation: Explanation, quiet: bool, most: int = 8) -> None:
    for line in explanation.warnings[:most]:
        console.say(f"note: {line}", quiet)
    if len(explanation.warnings) > most:
        console.say(f"note: {len(explanation.warnings) - most} more notes in explanation.json", quiet)


def _say_problems(found: Extraction, quiet: bool, most: int = 5) -> None:
    for problem in found.problems[:most]:
        console.say(f"left out: {problem.message}", quiet)
    if len(found.problems) > most:
        console.say(f"left out: {len(found.problems) - most} more; --verbose names them", quiet)
