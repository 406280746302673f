"""The program ``captum-concepts``: its group of commands, and the commands demo, explain, extract and plugins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts import __version__
from captum_concepts.choices import CORRECTIONS
from captum_concepts.cli import attribute as cli_attribute
from captum_concepts.cli import check as cli_check
from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.cli import saved as cli_saved
from captum_concepts.cli import timeline as cli_timeline
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts.activations.extraction import Extraction
    from captum_concepts.backbones.protocol import Backbone
    from captum_concepts.concepts.names import Skipped
    from captum_concepts.explanation.explanation import Explanation

TREE_LINES = 60
COLUMNS = ("target", "concept", "score", "low", "high", "magnitude", "p_unconditional", "q_value", "cav_auc")


class _Lazy(console.Commands):
    """The group of all commands; plugins add theirs when a command is first looked up."""

    _asked = False

    def _ask_plugins(self) -> None:
        if not self._asked:
            from captum_concepts.plugins.registry import add_commands

            add_commands(self)
            self._asked = True

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands in the order in which they were added, those of plugins last."""
        self._ask_plugins()
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)


@click.group(
    name=console.PROGRAM,
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="captum-concepts")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Explain an audio classifier by a hierarchy of concepts: which concepts its decisions depend on, how these
    concepts relate, and how certain that is.

    \b
    Start with:
      captum-concepts demo                 explain a small model with known ground truth
      captum-concepts plugins              list models, concept sources and methods
      captum-concepts explain --help       your model, your concepts, your clips
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command(short_help="Explain a small model with known ground truth.")
@click.option(
    "--out", type=click.Path(file_okay=False), default="out/demo", show_default=True, help="Folder for the results."
)
@cli_options.seed
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@cli_options.terminal
def demo(out: str, seed: int, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Explain a small classifier of synthetic music with known ground truth, and say how well it was recovered.

    Needs only this package. Writes the music, the files of `explain`, and report.html, the page to open.
    """
    console.set_up_logging(quiet, verbose)
    cli_options.check_writable(out, "--out")
    from captum_concepts.demo.run import run_demo

    with console.progress_bars(quiet) as progress:
        result = run_demo(Path(out), seed=seed, progress=progress)
    if as_json:
        console.print_json(result.figures)
    else:
        console.print_table(result.table, f"Concepts that each genre depends on, by magnitude (layer {result.layer})")
        for line in result.lines:
            click.echo(line)
    _say_warnings(result.explanation, quiet)
    if as_json:
        console.say(f"report: {result.report}", quiet)
    else:
        click.echo(f"report: {result.report}")


@main.command(short_help="Say which concepts your model's decisions depend on.")
@cli_options.model
@cli_options.concepts
@cli_options.clips
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the results.")
@cli_options.fitting
@click.option(
    "--similarity",
    default="discriminant",
    show_default=True,
    metavar="NAME",
    help=cli_options.method_help("similarities", "Similarity of two concepts"),
)
@cli_options.mining
@click.option(
    "--nulls",
    type=click.IntRange(min=19),
    help="Null concepts of the rank test.  [default: 1999 to 9999, by the number of tests]",
)
@click.option(
    "--correction",
    type=click.Choice(CORRECTIONS),
    default=CORRECTIONS[0],
    show_default=True,
    help="Correction for multiple tests; hierarchical goes down a hierarchy mined from one half of the groups.",
)
@click.option(
    "--min-groups",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Concepts with fewer positive or negative groups are reported, not fitted.",
)
@click.option(
    "--support",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Bootstrap samples of the groups: each link of the hierarchy gets the share of samples that have it.",
)
@click.option(
    "--shares",
    is_flag=True,
    help="Compute the contribution of each concept and subtree to each class (shares.csv and the page); takes longer.",
)
@cli_options.seed
@click.option("--no-report", is_flag=True, help="Write no HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print all scores as JSON instead of tables.")
@cli_options.keeping
@cli_options.terminal
def explain(out: str, no_report: bool, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Say which concepts a model's decisions depend on, and how the concepts relate.

    \b
    captum-concepts explain --backbone msd-vgg --weights MSD_vgg.h5 --layer pool4 --layer pool5 \\
        --concepts clips.csv --concept-column instrument --clips music/ \\
        --target jazz --target rock --out out/

    \b
    Files in --out:
      report.html              the page; opens in a browser without a network
      scores.csv               one row per layer, target and concept; columns below
      shares.csv               with --shares: contributions of concepts and subtrees to classes
      hierarchy-LAYER.graphml  and .gexf (Gephi): the hierarchy mined at each layer
      explanation.json         everything else, with versions, hashes and options; `report`, `mine`, `evaluate`
      arrays.safetensors       and `export` read these two

    \b
    Columns of scores.csv:
      score, low, high         TCAV score: share of the explained clips with a positive sensitivity of the target to
                               the concept, and its 95 % interval over groups of clips
      smooth                   the same share, with clips near zero counted in part; its 95 % interval:
      smooth_low, smooth_high
      magnitude                mean sensitivity: slope of the target's logit along the CAV; its 95 % interval:
      magnitude_low, magnitude_high
      p_value                  share of null concepts with an effect at least as strong, among null concepts that
                               passed the quality gate
      p_unconditional          share of all null concepts with an effect at least as strong
      q_value                  p_unconditional corrected for all concepts of the family, where those that failed the
                               gate count as not significant (see --correction)
      n_nulls                  null concepts behind p_value, which is at least 1 / (1 + n_nulls)
      n_groups                 groups of explained clips (not of the concept's examples) behind score and interval
      cav_auc, cav_accuracy    quality of the CAV on held-out groups; 0.5 is chance, 1 is perfect
      cav_p                    share of null concepts with a CAV of at least this quality
      status                   ok, or why the concept has no scores
    """
    console.set_up_logging(quiet, verbose)
    clips, concepts, arguments = _prepare(out, given)
    from captum_concepts.explanation.explainer import ConceptHierarchyExplainer

    _say_skipped(concepts.skipped, quiet or not verbose, None)  # a note says how many, and the first
    with console.progress_bars(quiet) as progress, console.resumable(arguments["store"]):
        explainer = ConceptHierarchyExplainer(**arguments, progress=progress)
        explanation = explainer.explain(clips, concepts, list(given["targets"]) or None)
    explanation.save(out)
    page = None if no_report else explanation.to_html(Path(out) / "report.html")
    if as_json:
        console.print_json(explanation.scores.to_dict("records"))
    else:
        _show(explanation)
    for line in explanation.diagnostics.summary():
        console.say(f"check: {line}", quiet)
    _say_warnings(explanation, quiet)
    console.say(f"written to {out}" + ("" if page is None else f"; open {page}"), quiet)


def _prepare(out: str, given: dict[str, Any]) -> tuple[list[Any], Any, dict[str, Any]]:
    """Clips, concepts and the explainer's arguments, cheapest checks first; no pass over audio here."""
    from captum_concepts.plugins.registry import lookup

    _require(given, "concept_spec", "--concepts")
    cav_options = cli_options.method_options("cav_methods", given["cav"], given["cav_options"], "--cav-option")
    miner_options = cli_options.method_options("miners", given["miner"], given["miner_options"], "--miner-option")
    lookup("similarities", given["similarity"])
    backbone = cli_options.load_model(given)
    if backbone.classes:
        _require(given, "clip_spec", "--clips")
    concepts = cli_options.read_concepts(given)
    clips = cli_options.read_clips(given["clip_spec"], given["clip_group_column"]) if given["clip_spec"] else []
    cli_options.try_cav(given["cav"], cav_options)
    cli_options.try_miner(given["miner"], miner_options, given["similarity"], len(concepts))
    store = cli_options.store_folder(given)
    cli_options.check_writable(out, "--out")
    arguments = {
        "backbone": backbone,
        "layers": given["layers"] or None,
        "cav_options": cav_options,
        "miner_options": miner_options,
        "n_nulls": given["nulls"],
        "shares": given["shares"],
        "store": store,
        **{
            name: given[name]
            for name in (
                "cav",
                "similarity",
                "miner",
                "max_parents",
                "support",
                "pool",
                "min_groups",
                "seed",
                "batch_size",
                "correction",
            )
        },
        "on_error": given["on_error"],
    }
    return clips, concepts, arguments


@main.command(short_help="Compute activations in advance, on one machine or many.")
@cli_options.model
@cli_options.concepts
@cli_options.clips
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Process part I of N of the clips.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@cli_options.keeping
@cli_options.terminal
def extract(shard: str, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Compute the activations of clips and keep them in the store for later runs of explain.

    Run the same command with --shard 1/8 to 8/8 on eight machines that share the store (a Slurm array, xargs, ...).
    A stopped run keeps its results; running it again does the rest. With --clips and --target, the gradients of
    those clips are kept too. Prints the numbers of clips, of clips computed now, of clips left out, and of table rows
    or files without a usable clip.

    \b
    captum-concepts extract --backbone msd-vgg --weights MSD_vgg.h5 --concepts clips.csv --concept-column instrument \\
        --store activations/ --shard 1/8
    """
    console.set_up_logging(quiet, verbose)
    number, total = cli_options.parse_shard(shard)
    if not given["concept_spec"] and not given["clip_spec"]:
        raise InputError("--concepts and --clips: both missing; give at least one of them")
    if given["no_store"]:
        raise InputError("--no-store: extract only fills the store; leave it out")
    if given["targets"]:
        _require(given, "clip_spec", "--clips")
    folder = cli_options.store_folder(given)
    backbone, passes, skipped = _passes(given)
    _say_skipped(skipped, quiet, None if verbose else 5)
    from captum_concepts.activations.extraction import extract as run
    from captum_concepts.activations.extraction import shard_of
    from captum_concepts.storage.activation_store import ActivationStore

    options = {name: given[name] for name in ("pool", "batch_size", "on_error")}
    counts = {}
    with console.progress_bars(quiet) as progress, console.resumable(folder):
        store = None if folder is None else ActivationStore(folder)
        for what, clips, targets in passes:
            part = shard_of(clips, number, total)
            counts[what] = {"clips": len(part), "computed": 0, "left_out": 0}
            if what == "concepts":
                counts[what]["skipped"] = len(skipped)
            if part:
                layers, stage = given["layers"] or tuple(backbone.layers), f"listening to {what}"
                result = run(
                    backbone, part, layers, targets=targets, store=store, progress=progress, stage=stage, **options
                )
                counts[what] |= {"computed": result.computed, "left_out": len(result.problems)}
                _say_problems(result, quiet or verbose)
    if as_json:
        console.print_json(counts)
        return
    for what, row in counts.items():
        skips = f"; {row['skipped']} rows or files skipped" if row.get("skipped") else ""
        click.echo(f"{what}: {row['clips']} clips, {row['computed']} computed now, {row['left_out']} left out{skips}")


def _passes(
    given: dict[str, Any],
) -> tuple[Backbone, list[tuple[str, Sequence[Any], list[int]]], Sequence[Skipped]]:
    """The backbone, the clips to process with their targets, and skipped rows; no pass over audio here."""
    from captum_concepts.backbones.options import target_index

    backbone = cli_options.load_model(given)
    if backbone.fingerprint() is None:
        raise InputError(
            f"--backbone={given['backbone']}: the model cannot be hashed, so nothing can be kept; --verbose says why"
        )
    passes: list[tuple[str, Sequence[Any], list[int]]] = []
    skipped: Sequence[Skipped] = ()
    if given["concept_spec"]:
        concepts = cli_options.read_concepts(given)
        skipped = concepts.skipped
        passes.append(("concepts", concepts.clips, []))
    if given["clip_spec"]:
        found = cli_options.read_clips(given["clip_spec"], given["clip_group_column"])
        passes.append(("clips", found, [target_index(backbone, target) for target in given["targets"]]))
    return backbone, passes, skipped


for _command in (
    cli_check.check,
    cli_timeline.timeline,
    cli_attribute.attribute,
    cli_saved.mine,
    cli_saved.why,
    cli_saved.evaluate,
    cli_saved.compare,
    cli_saved.report,
    cli_saved.export,
):
    main.add_command(_command)


@main.command(short_help="List models, concept sources and methods.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def plugins(as_json: bool) -> None:
    """List the loaded plugins, what each provides, and which distribution it comes from.

    The names are those that --backbone, --concepts NAME:..., --cav, --similarity, --miner and `export` take.
    """
    from captum_concepts.plugins.registry import list_plugins

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
        click.echo(
            console.one_line(f"{info.name}  ({info.distribution or 'registered directly'} {info.version}".strip() + ")")
        )
        for kind, names in info.provides.items():
            click.echo(console.one_line(f"  {kind.replace('_', ' ')}: {', '.join(names)}"))


def _require(given: dict[str, Any], key: str, option: str) -> None:
    if not given[key]:
        raise InputError(f"{option}: missing; see {click.get_current_context().command_path} --help")


def _show(explanation: Explanation) -> None:
    for layer in explanation.layers:
        if explanation.targets:
            console.print_table(
                explanation.top(layer, 5)[list(COLUMNS)], f"Strongest concepts at layer {console.plain(layer)}"
            )
        click.echo(f"Hierarchy at layer {console.plain(layer)}:")
        console.print_tree(explanation.hierarchies[layer].to_text() + "\n", TREE_LINES)


def _say_warnings(explanation: Explanation, quiet: bool, most: int = 8) -> None:
    for line in explanation.warnings[:most]:
        console.say(f"note: {line}", quiet)
    if len(explanation.warnings) > most:
        console.say(f"note: {len(explanation.warnings) - most} more notes in explanation.json", quiet)


def _say_skipped(skipped: Sequence[Skipped], quiet: bool, most: int | None) -> None:
    """List the rows and files without a usable clip, all of them or at most ``most``."""
    for path, status, message in skipped[:most]:
        console.say(f"skipped: {short_repr(path, 200)}: {status} ({message})", quiet)
    if most is not None and len(skipped) > most:
        console.say(f"skipped: {len(skipped) - most} more; --verbose names them", quiet)


def _say_problems(found: Extraction, quiet: bool, most: int = 5) -> None:
    for problem in found.problems[:most]:
        console.say(f"left out: {problem.message}", quiet)
    if len(found.problems) > most:
        console.say(f"left out: {len(found.problems) - most} more; --verbose names them", quiet)
