"""The commands that work on a saved explanation: mine, why, evaluate, compare, report, export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.choices import AGREEMENT, HIERARCHY_SUFFIXES, REPORT_LIMIT_MB
from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    import numpy as np

    from captum_concepts.explanation.explanation import Explanation
    from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy


@click.command(short_help="Mine the hierarchies of a saved explanation again.")
@click.argument("folder", type=click.Path())
@click.option("--layer", "layers", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
@click.option(
    "--similarity",
    metavar="NAME",
    help="Measure that needs only the CAVs, e.g. cosine.  [default: the saved similarities]",
)
@cli_options.mining
@click.option("--combine", is_flag=True, help="One hierarchy for all layers instead of one for each.")
@click.option(
    "--consensus",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Instead of mining: the consensus of at least this share of the bootstrap samples of `explain --support`; a "
    "concept with weaker links moves to an ancestor.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False),
    help="File for the hierarchy: .graphml, .gexf, .nwk (Newick) or .json. With several layers, -LAYER is added "
    "to the name.",
)
@click.option("--json", "as_json", is_flag=True, help="{layer: {names, edges}} as JSON instead of trees.")
def mine(
    folder: str,
    layers: tuple[str, ...],
    combine: bool,
    consensus: float | None,
    out: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Mine the hierarchies of an explanation that `explain --out FOLDER` saved, without a pass over audio.

    FOLDER is not changed. Concepts that could not be tested are left out.

    \b
    captum-concepts mine out/ --miner heymann --miner-option min_sim=0.3
    captum-concepts mine out/ --similarity cosine --miner agglomerative --layer pool5 --out tree.graphml
    captum-concepts mine out/ --combine --max-parents 2
    captum-concepts mine out/ --consensus 0.7
    """
    options = cli_options.method_options("miners", given["miner"], given["miner_options"], "--miner-option")
    if out is not None and Path(out).suffix not in HIERARCHY_SUFFIXES:
        raise InputError(
            f"--out={short_repr(out, 200)}: unknown format; give a file that ends in {', '.join(HIERARCHY_SUFFIXES)}"
        )
    from captum_concepts.miners.api import mine as run
    from captum_concepts.results.files import layer_files

    explanation = _load(folder)
    options["max_parents"] = given["max_parents"]
    trees = {}
    if consensus is not None:
        _refuse_mining_options()
        trees = {layer: explanation.consensus(layer, consensus) for layer in _layers(explanation, layers)}
    elif combine:
        if given["similarity"] is not None:
            raise InputError("--combine: uses the saved similarities; leave out --similarity")
        chosen = _layers(explanation, layers)
        trees[" + ".join(chosen)] = explanation.combined(chosen, given["miner"], **options)
    for layer in () if trees else _layers(explanation, layers):
        names, matrix = _similarities(explanation, layer, given["similarity"])
        if not (matrix == matrix.T).all():
            saved = explanation.provenance.get("options", {}).get("similarity", "what was saved")
            cli_options.try_miner(given["miner"], options, str(given["similarity"] or saved), len(names))
        trees[layer] = run(matrix, names, given["miner"], **options)
    for layer, tree in trees.items():
        if out is not None:
            stem = f"-{layer_files(explanation.layers)[layer]}" if len(trees) > 1 else ""
            path = Path(out).with_name(f"{Path(out).stem}{stem}{Path(out).suffix}")
            cli_options.check_writable(path.parent, "--out")
            _write_hierarchy(tree, path)
            console.say(f"written: {path}")
        if not as_json:
            click.echo(f"Hierarchy at layer {console.plain(layer)}:")
            console.print_tree(tree.to_text() + "\n")
    if as_json:
        console.print_json({layer: tree.to_dict() for layer, tree in trees.items()})


def _refuse_mining_options() -> None:
    """Raise InputError for options of mining, since a consensus is computed from saved hierarchies."""
    context = click.get_current_context()
    for option in ("similarity", "miner", "miner_options", "max_parents", "combine"):
        if context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
            name = "--miner-option" if option == "miner_options" else f"--{option.replace('_', '-')}"
            raise InputError(f"--consensus: uses the saved hierarchies; leave out {name}")


def _write_hierarchy(tree: ConceptHierarchy, path: Path) -> None:
    """Write a hierarchy in the format of the file's ending, one of ``HIERARCHY_SUFFIXES``."""
    if path.suffix == ".graphml":
        tree.to_graphml(path)
    elif path.suffix == ".gexf":
        tree.to_gexf(path)
    elif path.suffix == ".nwk":
        path.write_text(tree.to_newick() + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(tree.to_dict(), indent=1) + "\n", encoding="ascii")


@click.command(short_help="Explain the position of a concept in the hierarchy.")
@click.argument("folder", type=click.Path())
@click.argument("concept")
@click.option("--layer", metavar="NAME", help="Layer of the hierarchy.  [default: the last layer with one]")
def why(folder: str, concept: str, layer: str | None) -> None:
    """Explain in words the position of CONCEPT in the hierarchy that `explain --out FOLDER` saved.

    \b
    captum-concepts why out/ "acid jazz"
    """
    for line in _load(folder).why(concept, layer).splitlines():
        click.echo(console.one_line(line))


@click.command(short_help="Evaluate mined hierarchies against a reference.")
@click.argument("folder", type=click.Path())
@click.option(
    "--reference",
    type=click.Path(),
    help="JSON of parents, {child: parent} or a nested tree.  [default: the one of explain --reference]",
)
@click.option("--layer", "layers", multiple=True, metavar="NAME", help="May be repeated.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="{layer: figures} as JSON, with names not compared.")
def evaluate(folder: str, reference: str | None, layers: tuple[str, ...], as_json: bool) -> None:
    """Say how well each layer's hierarchy agrees with a reference. Shares run from 0 to 1.

    \b
    parent_accuracy       correct parents, of the concepts that have a parent in the reference
    root_*, ancestor_*    precision and recall of roots and of (ancestor, descendant) pairs; f1 combines the two
    triplet_agreement     triplets of concepts in which the same two are closest
    robinson_foulds       subtrees that are in one of the two hierarchies only: here 0 is best
    adjusted_rand         agreement of clusters when both are cut into the same number, 2 to 10; 0 is chance
    same_cluster_*        edges: links within one root of the reference; chance: expected; ceiling: the maximum

    \b
    captum-concepts evaluate out/ --reference parents.json
    """
    import pandas as pd

    from captum_concepts.concepts.reference import read_parents
    from captum_concepts.hierarchy.evaluation import evaluate_hierarchy

    explanation = _load(folder)
    parents = read_parents(reference if reference is not None else explanation.provenance.get("reference"))
    if parents is None:
        raise InputError(f"--reference: missing, and {short_repr(folder, 200)} has none; give a JSON file of parents")
    roots = {name: _root(name, parents) for name in {*parents, *filter(None, parents.values())}}
    found = {
        layer: evaluate_hierarchy(explanation.hierarchies[layer], parents, roots)
        for layer in _layers(explanation, layers)
    }
    if as_json:
        console.print_json(found)
        return
    rows = pd.DataFrame({layer: [figures[name] for name in AGREEMENT] for layer, figures in found.items()})
    rows.insert(0, "agreement", AGREEMENT)
    console.print_table(rows.astype(dict.fromkeys(found, float)), "Mined hierarchies and the reference")
    for layer, figures in found.items():
        lacking = [len(figures[f"unmatched_{side}"]) for side in ("mined", "reference")]  # type: ignore[arg-type]
        click.echo(
            f"{console.plain(layer)}: {figures['n_concepts']} concepts compared; only mined: {lacking[0]}, only in the "
            f"reference: {lacking[1]} (--json names them)"
        )
        if not figures["n_with_parent"]:
            console.say(
                f"note: at {layer} no concept has its reference parent among the concepts, so only the same_cluster "
                "lines are informative"
            )


@click.command(short_help="Compare two mined hierarchies.")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path(), required=False)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME",
    help="Given twice: the layer of the first and of the second.  [default: all common layers]",
)
@click.option("--json", "as_json", is_flag=True, help="Print figures and differences as JSON.")
def compare(first: str, second: str | None, layers: tuple[str, ...], as_json: bool) -> None:
    """Compare the hierarchies of two explanations, or of two layers of one explanation.

    FIRST and SECOND are folders that `explain --out FOLDER` wrote, e.g. for two models, or for one model before and
    after fine-tuning. Differences: - only in the first, + only in the second, ~ another parent.

    \b
    captum-concepts compare before/ after/
    captum-concepts compare out/ --layer pool4 --layer pool5
    """
    one = _load(first)
    other = one if second is None else _load(second)
    if second is None and len(layers) != 2:
        raise InputError("SECOND: missing; give a SECOND folder, or --layer twice to compare two layers of one")
    if len(layers) > 2:
        raise InputError(f"--layer: given {len(layers)} times; give it twice at most, for the first and the second")
    both = [layer for layer in one.hierarchies if layer in other.hierarchies]
    if not layers and not both:
        raise InputError("--layer: missing, and no layer is in both; give --layer twice, for the first and the second")
    pairs = [(layers[0], layers[-1])] if layers else [(layer, layer) for layer in both]
    found = {
        f"{a} -> {b}": _compared(one.hierarchies[_layers(one, [a])[0]], other.hierarchies[_layers(other, [b])[0]])
        for a, b in pairs
    }
    if as_json:
        console.print_json(found)
        return
    for pair, about in found.items():
        old_links, new_links = about["links"]
        click.echo(
            f"{console.plain(pair)}: {about['links_in_common']} links in common, of {old_links} and {new_links}; "
            f"ancestor_f1 {about['ancestor_f1']:.3g}, triplet_agreement {about['triplet_agreement']:.3g}, "
            f"robinson_foulds {about['robinson_foulds']:.3g}"
        )
        for line in about["differences"] or ["no differences"]:
            click.echo(f"  {console.one_line(line)}")


def _compared(old: ConceptHierarchy, new: ConceptHierarchy) -> dict[str, Any]:
    from captum_concepts.hierarchy.evaluation import evaluate_hierarchy

    figures = evaluate_hierarchy(new, old)
    return {
        "links": [old.graph.number_of_edges(), new.graph.number_of_edges()],
        "links_in_common": len(set(old.graph.edges) & set(new.graph.edges)),
        **{name: figures[name] for name in ("ancestor_f1", "triplet_agreement", "robinson_foulds")},
        "differences": old.diff(new).splitlines(),
    }


@click.command(short_help="Write the HTML page of a saved explanation again.")
@click.argument("folder", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False), help="Where to write the page.  [default: FOLDER/report.html]"
)
@click.option(
    "--limit-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=REPORT_LIMIT_MB,
    show_default=True,
    help="Maximum size of the page; beyond it sounds go into files beside the page.",
)
def report(folder: str, out: str | None, limit_mb: float) -> None:
    """Write the page of an explanation that `explain --out FOLDER` saved, and print its path.

    The sounds are read from your audio files again, which must be at the same paths.

    \b
    captum-concepts report out/ --out page.html
    """
    click.echo(console.one_line(str(_load(folder).to_html(out or Path(folder) / "report.html", limit_mb=limit_mb))))


class _Formats(click.Command):
    """A command whose help lists the formats of the package and of plugins."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from captum_concepts.plugins.registry import BUILTIN, registered

        with formatter.section("Formats"):
            formatter.write_dl(
                [
                    (
                        console.one_line(name),
                        "built in" if entry.plugin == BUILTIN else f"from the plugin {entry.plugin}",
                    )
                    for name, entry in registered("exporters").items()
                ]
            )


@click.command(cls=_Formats, short_help="Write a saved explanation in another format.")
@click.argument("folder", type=click.Path())
@click.argument("format", metavar="FORMAT")
@click.argument("path", type=click.Path())
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the format, e.g. limit_mb=5; may be repeated; a wrong name lists all.",
)
def export(folder: str, format: str, path: str, options: tuple[str, ...]) -> None:
    """Write the explanation that `explain --out FOLDER` saved in another format, and print the path.

    PATH is the file or folder to write; FORMAT is one of those below.

    \b
    captum-concepts export out/ html page.html --option limit_mb=5
    """
    given = cli_options.method_options("exporters", format, options, "--option")
    explanation = _load(folder)
    cli_options.check_writable(Path(path).parent, "PATH")
    click.echo(console.one_line(str(explanation.export(format, path, **given))))


def _root(name: str, parents: Mapping[str, str | None]) -> str:
    while parent := parents.get(name):
        name = parent
    return name


def _load(folder: str) -> Explanation:
    from captum_concepts.explanation.explanation import Explanation

    return Explanation.load(folder)


def _layers(explanation: Explanation, wanted: Sequence[str]) -> list[str]:
    for layer in wanted:
        if layer not in explanation.hierarchies:
            known = ", ".join(explanation.hierarchies) or "none"
            raise InputError(f"--layer={short_repr(layer)}: not in the explanation; it has {known}")
    return list(dict.fromkeys(wanted)) or list(explanation.hierarchies)


def _similarities(explanation: Explanation, layer: str, measure: str | None) -> tuple[list[str], np.ndarray]:
    """The testable concepts of a layer and their similarities, as saved or computed from the CAVs."""
    import numpy as np

    if layer not in explanation.similarities or layer not in explanation.banks:
        raise InputError(f"--layer={short_repr(layer)}: its similarities are not in the explanation; explain again")
    saved, bank = explanation.similarities[layer], explanation.banks[layer]
    if saved.shape != (len(bank.names), len(bank.names)):
        raise InputError(f"--layer={short_repr(layer)}: damaged, similarities of shape {saved.shape}; explain again")
    usable = np.flatnonzero(np.isfinite(saved.diagonal()))
    names = [bank.names[i] for i in usable]
    if measure is None:
        return names, saved[np.ix_(usable, usable)]
    from captum_concepts.plugins.registry import lookup
    from captum_concepts.similarities.api import similarity

    needs = getattr(lookup("similarities", measure).factory, "needs", ())
    if needs:
        raise InputError(
            f"--similarity={measure}: needs {' and '.join(sorted(needs))}, which are not saved; explain again with it"
        )
    return names, similarity(bank.subset(names), measure).numpy()
