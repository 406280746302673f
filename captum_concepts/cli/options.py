"""The options that several commands share, and how their texts become a model, concepts, clips and folders.

All that can be found wrong without listening is found here, since listening takes minutes.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts.audio.clips import Clip
    from captum_concepts.backbones.protocol import Backbone
    from captum_concepts.concepts.concept_set import ConceptSet

# What the help says of methods without importing them; a test holds it against what is registered.
BUILT_IN = {
    "cav_methods": ("lda", "logistic", "pattern", "sgd"),
    "similarities": ("activation", "correlation", "cosine", "diffusion", "discriminant", "overlap", "sensitivity"),
    "miners": ("agglomerative", "branching", "generality", "heymann", "spanning_tree", "subsumption"),
}
TABLES = (".csv", ".tsv", ".txt", ".parquet")
TRIAL = 50  # concepts, at most, of the trial run of a miner


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def method_help(kind: str, what: str) -> str:
    """Help of an option that names a registered method."""
    return f"{what}: {', '.join(BUILT_IN[kind])}, or a plugin's."


terminal = _together(
    click.option("-q", "--quiet", is_flag=True, help="No progress and no messages, only results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more, e.g. name every clip that was left out."),
)
model = _together(
    click.option(
        "--backbone", required=True, metavar="NAME", help=f"The model; `{'captum-concepts plugins'}` lists the names."
    ),
    click.option("--weights", type=click.Path(), help="Your weights file, where the backbone needs one."),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME",
        help="Layer to look into; may be repeated; a wrong name lists all.  [default: the backbone's choice]",
    ),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option of the backbone, e.g. hop_seconds=1.5; may be repeated. --card FILE is short for "
        "--option card=FILE.",
    ),
    click.option("--card", type=click.Path(), hidden=True, help="Short for --option card=FILE."),
    click.option("--device", default="auto", show_default=True, help="auto (CUDA if there is one), cpu or cuda[:N]."),
    click.option(
        "--pool",
        type=click.Choice(["time", "none", "time_freq"]),
        default="time",
        show_default=True,
        help="What each activation is averaged over.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        help="Patches per pass; fewer need less memory.",
    ),
)
concepts = _together(
    click.option(
        "--concepts",
        "concept_spec",
        metavar="PATH|SOURCE:ARG",
        help="Examples: a folder (one subfolder per concept; one called `random` is the pool of negatives), a table "
        "(csv, tsv, parquet with a column file and perhaps start and end in seconds), or a plugin's source.",
    ),
    click.option(
        "--concept-column",
        "columns",
        multiple=True,
        metavar="NAME",
        help="Column of the table that names concepts; may be repeated. A | in a cell parts several concepts: see "
        "--concept-separator.",
    ),
    click.option(
        "--concept-separator",
        "separator",
        metavar="TEXT",
        help='What parts several concepts in one cell; "" if nothing does, as names hold a |.  [default: |]',
    ),
    click.option(
        "--group-column",
        metavar="NAME",
        help="Column that names the track, artist or recording a clip is from; groups are never split.  "
        "[default: each file is its own]",
    ),
    click.option(
        "--negatives",
        type=click.Choice(["random", "rest", "in-domain"]),
        help="What each concept is held against: the random pool (clips that show no concept), all other clips, or, "
        "in-domain, the other concepts' clips that are as long and as loud.  "
        "[default: the random pool if there is one, else the rest]",
    ),
    click.option(
        "--reference",
        type=click.Path(),
        help="JSON of parents, {child: parent}; kept with the result for `evaluate`, never used in mining.",
    ),
)
clips = _together(
    click.option(
        "--clips",
        "clip_spec",
        type=click.Path(),
        help="Audio to explain: a file, a folder, or a table with a column file (and perhaps start, end).",
    ),
    click.option("--clip-group-column", metavar="NAME", help="Column of that table that names each clip's group."),
    click.option(
        "--target",
        "targets",
        multiple=True,
        metavar="CLASS",
        help="Class to explain; may be repeated; a wrong name lists the nearest.  [default: all, if 20 at most]",
    ),
)
keeping = _together(
    click.option(
        "--store",
        type=click.Path(file_okay=False),
        help="Folder where activations are kept for the next run.  [default: $CAPTUM_CONCEPTS_STORE, else "
        "captum-concepts in the user's cache]",
    ),
    click.option("--no-store", is_flag=True, help="Keep no activations."),
    click.option(
        "--on-error",
        "--on-bad",  # the name before
        "on_error",
        type=click.Choice(["skip", "refuse"]),
        default="skip",
        show_default=True,
        help="Leave out clips that cannot be used and report them, or stop at the first.",
    ),
)
seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Same seed, same bytes."
)
fitting = _together(
    click.option(
        "--cav",
        default="pattern",
        show_default=True,
        metavar="NAME",
        help=method_help("cav_methods", "How CAVs are fitted"),
    ),
    click.option("--cav-option", "cav_options", multiple=True, metavar="KEY=VALUE", help="Option of the CAV method."),
)
mining = _together(
    click.option(
        "--miner",
        default="spanning_tree",
        show_default=True,
        metavar="NAME",
        help=method_help("miners", "How the hierarchy is mined"),
    ),
    click.option(
        "--miner-option",
        "miner_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option of the miner, e.g. min_sim=0.3; may be repeated; a wrong name lists all.",
    ),
    click.option(
        "--max-parents",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Above 1, a concept about as near to others as to its parent hangs under these too.",
    ),
)


def parse_options(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """``key=value`` texts; a value that reads as JSON (a number, true, a list) is that, anything else is text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {short_repr(pair)}: give KEY=VALUE")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)  # NaN and Infinity are no numbers to compare with

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def method_options(kind: str, name: str, pairs: Sequence[str], option: str) -> dict[str, Any]:
    """The options of a registered factory, held against its signature.

    Raises:
        InputError: an unknown name, an option that it has not, or a value of another type than it says.
    """
    from captum_concepts.plugins.registry import CALLS, lookup

    factory = lookup(kind, name).factory
    options = parse_options(pairs, option)
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except ValueError:  # some callables written in C do not tell
        return options
    rest = parameters[len(CALLS[kind]) :]
    known = {p.name: p for p in rest if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    raw = dict(pair.split("=", 1) for pair in pairs)
    for key, value in options.items():
        if key in known:
            options[key] = _typed(value, raw[key], known[key].annotation, f"{option} {key}", name)
        elif not takes_any or key in ("name", *CALLS[kind]):
            listed = f"it has {', '.join(known)}" if known else "it has none" if not takes_any else "it is set already"
            raise InputError(f"{option} {short_repr(key)}: {name} has no such option; {listed}")
    return options


def _typed(value: Any, raw: str, annotation: Any, option: str, name: str) -> Any:
    """The value, as text where text is wanted ("5" is a number in JSON); annotations other than plain types pass."""
    wanted = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    parts = wanted.split(" | ")
    plain = set(parts) <= _KINDS.keys()
    if (plain and type(value) in [kind for part in parts for kind in _KINDS[part]]) or (not plain and value != raw):
        return value
    if "str" in parts:
        return raw
    if plain or "Tensor" in wanted:
        raise InputError(f"{option}={short_repr(value)}: {name} wants {wanted} there")
    return value


def try_miner(miner: str, options: dict[str, Any], measure: str, concepts: int) -> None:
    """Run a miner on noise, so that options out of range or a measure it cannot take are known before listening."""
    import torch

    from captum_concepts.miners.api import mine
    from captum_concepts.plugins.registry import registered

    if any(isinstance(value, (list, dict)) for value in options.values()):
        return  # one number for each concept: how many will be testable is not known yet
    k = min(concepts, TRIAL)
    noise = torch.rand(k, k, generator=torch.Generator().manual_seed(0))
    names = [str(number) for number in range(k)]
    measures = registered("similarities")
    symmetric = [name for name, entry in measures.items() if getattr(entry.factory, "symmetric", False)]
    _trial(lambda: mine((noise + noise.T) / 2, names, miner, **options), f"--miner {miner}")
    if measure not in symmetric:
        try:
            _trial(lambda: mine(noise, names, miner, **options), f"--miner {miner}")
        except InputError:
            raise InputError(
                f"--miner {miner} needs a symmetric similarity, which {measure} is not; give --similarity "
                f"{' or '.join(symmetric)}, or another miner"
            ) from None


def try_cav(method: str, options: dict[str, Any]) -> None:
    """Fit noise with a CAV method that was given options, so that one out of range is known before listening."""
    if not options:
        return
    import torch

    from captum_concepts.cavs.methods import resolve_method, run_fit

    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    positives = torch.arange(64)[:, None] % 2 == torch.arange(2)
    weights = torch.ones(64)
    _trial(lambda: run_fit(resolve_method(method), rows, positives, ~positives, weights, options), f"--cav {method}")


def _trial(action: Callable[[], Any], option: str) -> Any:
    try:
        return action()
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{option}: cannot work with its options: {' '.join(str(error).split())}") from error


def load_model(given: dict[str, Any]) -> Backbone:
    """The backbone, with the layers and targets that were asked for."""
    from captum_concepts.backbones.load import load_backbone
    from captum_concepts.backbones.options import target_index

    name = given["backbone"]
    card = () if given["card"] is None else (f"card={given['card']}",)
    options = method_options("backbones", name, (*given["options"], *card), "--option")
    try:
        backbone = load_backbone(name, weights=given["weights"], device=given["device"], **options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise InputError(f"--option: {name} cannot work with {short_repr(options)}: {error}") from error
    backbone.check_layers(given["layers"] or backbone.layers)
    for target in given["targets"]:
        target_index(backbone, target)
    return backbone


def read_concepts(given: dict[str, Any]) -> ConceptSet:
    """Concepts from a folder, a table, or a registered source ``name:argument``."""
    from captum_concepts.concepts.concept_set import ConceptSet
    from captum_concepts.concepts.reference import read_parents

    spec, columns, group, separator = (given[key] for key in ("concept_spec", "columns", "group_column", "separator"))
    parents = read_parents(given["reference"])
    name, colon, argument = spec.partition(":")
    table = os.path.isfile(spec)
    of_tables = {"--concept-column": columns or None, "--concept-separator": separator, "--group-column": group}
    for option, value in of_tables.items():
        if value is not None and not table and (colon or os.path.isdir(spec)):
            raise InputError(f"{option} {short_repr(value)}: only a table has columns, {short_repr(spec, 200)} is none")
    if colon and not os.path.exists(spec):
        from captum_concepts.plugins.registry import lookup

        found: ConceptSet = lookup("concept_sources", name).factory(argument)
        found = found if parents is None else dataclasses.replace(found, parents=parents)
        return found if given["negatives"] is None else found.with_negatives(given["negatives"])
    if not os.path.exists(spec):
        raise InputError(f"--concepts {short_repr(spec, 200)}: no such file or folder; check the path")
    # What is None is left to from_table; a folder would not know it.
    return ConceptSet.from_spec(
        spec,
        column=list(columns) or None,
        group=group,
        separator=separator,
        negatives=given["negatives"],
        parents=parents,
    )


def read_clips(spec: str, group: str | None = None) -> list[Clip]:
    """Clips to explain: a file, a folder searched for audio, or a table of files (and start, end, group)."""
    from captum_concepts.audio.clips import Clip
    from captum_concepts.audio.files import find_audio
    from captum_concepts.concepts.tables import read_clip_table

    if not os.path.exists(spec):
        raise InputError(
            f"--clips {short_repr(spec, 200)}: no such file or folder; give audio, a folder of it, or a table of files"
        )
    if os.path.isfile(spec) and spec.lower().endswith(TABLES):
        return read_clip_table(spec, group)
    if group is not None:
        raise InputError(
            f"--clip-group-column {short_repr(group)}: only a table has columns, {short_repr(spec, 200)} is none"
        )
    if os.path.isfile(spec):
        return [Clip(spec)]
    found = [Clip(path) for path in find_audio(spec)]
    if not found:
        raise InputError(f"--clips {short_repr(spec, 200)}: no audio file in it; give a folder that holds some")
    return found


def store_folder(given: dict[str, Any]) -> Path | None:
    """Where activations are kept: --store, CAPTUM_CONCEPTS_STORE, else the user's cache; None with --no-store.

    A folder that is not there yet is made, to see that it can be; one that is there may be read-only.
    """
    if given["no_store"]:
        return None
    named = given["store"] or os.environ.get("CAPTUM_CONCEPTS_STORE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(named or Path(base) / "captum-concepts")
    except RuntimeError:
        raise InputError("--store is missing and there is no home folder; give it, or --no-store") from None
    if not folder.is_dir():
        check_writable(folder, "--store", "another folder, or --no-store")
    return folder


def check_writable(folder: str | Path, option: str, remedy: str = "another folder") -> None:
    """Make a folder and see that files can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option} {short_repr(str(folder), 200)}: cannot be written to ({error.strerror}); give {remedy}"
        ) from None


def parse_shard(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers."""
    number, slash, total = text.partition("/")
    digits = all(part.isascii() and part.isdigit() and len(part) < 10 for part in (number, total))
    if not (slash and digits and 1 <= int(number) <= int(total)):
        raise InputError(f"--shard {short_repr(text)}: give I/N with 1 <= I <= N, e.g. 1/8")
    return int(number), int(total)
