"""The options that several commands share, and how their values become a model, concepts, clips and folders.

Everything that can be checked before a pass over audio is checked here, since such a pass takes minutes.
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

from captum_concepts.choices import BUILT_IN, NEGATIVES, ON_ERROR, POOLINGS, TABLE_SUFFIXES
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts.audio.clips import Clip
    from captum_concepts.backbones.protocol import Backbone
    from captum_concepts.concepts.concept_set import ConceptSet

TRIAL = 50  # maximum number of concepts in the trial run of a miner


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def method_help(kind: str, what: str) -> str:
    """Help text of an option that names a registered method."""
    return f"{what}: {', '.join(BUILT_IN[kind])}, or one of a plugin."


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
        help="Layer to explain; may be repeated; a wrong name lists all.  [default: the backbone's choice]",
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
        type=click.Choice(POOLINGS),
        default=POOLINGS[0],
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
        help="Examples: a folder (one subfolder per concept; one named `random` is the pool of negatives), a table "
        "(csv, tsv or parquet with a column file and optional columns start and end in seconds), or NAME:ARGUMENT for "
        "a plugin's source.",
    ),
    click.option(
        "--concept-column",
        "columns",
        multiple=True,
        metavar="NAME",
        help="Column of the table that names concepts; may be repeated. A | separates several concepts in a cell, see "
        "--concept-separator.",
    ),
    click.option(
        "--concept-separator",
        "separator",
        metavar="TEXT",
        help='Separator of several concepts in one cell; "" if a cell is one concept.  [default: |]',
    ),
    click.option(
        "--group-column",
        metavar="NAME",
        help="Column with the track, artist or recording of each clip; such a group is never split.  "
        "[default: each file is a group]",
    ),
    click.option(
        "--negatives",
        type=click.Choice(NEGATIVES),
        help="Negatives of each concept: the random pool (clips without any concept), all other clips, or, for "
        "in-domain, the other concepts' clips of the same length and loudness.  "
        "[default: random if there is a random pool, else rest]",
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
        help="Audio to explain: a file, a folder, or a table with a column file (and optional start, end).",
    ),
    click.option("--clip-group-column", metavar="NAME", help="Column of that table with the group of each clip."),
    click.option(
        "--target",
        "targets",
        multiple=True,
        metavar="CLASS",
        help="Class to explain; may be repeated; a wrong name lists similar ones.  [default: all, if at most 20]",
    ),
)
keeping = _together(
    click.option(
        "--store",
        type=click.Path(file_okay=False),
        help="Folder that keeps activations for the next run.  [default: $CAPTUM_CONCEPTS_STORE, else "
        "captum-concepts in the user's cache]",
    ),
    click.option("--no-store", is_flag=True, help="Keep no activations."),
    click.option(
        "--on-error",
        "--on-bad",  # an earlier name of the option
        "on_error",
        type=click.Choice(ON_ERROR),
        default=ON_ERROR[0],
        show_default=True,
        help="Skip and report clips that cannot be used, or stop at the first.",
    ),
)
seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Same seed, same bytes.",
)
fitting = _together(
    click.option(
        "--cav",
        default="pattern",
        show_default=True,
        metavar="NAME",
        help=method_help("cav_methods", "How CAVs are fitted"),
    ),
    click.option(
        "--cav-option",
        "cav_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option of the CAV method.",
    ),
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
        help="Above 1, a concept that is about as similar to others as to its parent gets these as parents too.",
    ),
)


def parse_options(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """``key=value`` texts as a dictionary; values that are valid JSON (a number, true, a list) are parsed."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option}={short_repr(pair)}: not an option with its value; give KEY=VALUE")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)  # NaN and Infinity are not valid JSON

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
    """The options of a registered factory, checked against its signature.

    Raises:
        InputError: an unknown name, an option that the factory lacks, or a value of the wrong type.
    """
    from captum_concepts.plugins.registry import CALLS, lookup

    factory = lookup(kind, name).factory
    options = parse_options(pairs, option)
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except ValueError:  # some callables written in C have no signature
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
            raise InputError(f"{option}={short_repr(key)}: {name} has no such option; {listed}")
    return options


def _typed(value: Any, raw: str, annotation: Any, option: str, name: str) -> Any:
    """The value; as text if the annotation is str ("5" is a number in JSON). Only plain annotations are checked."""
    wanted = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    parts = wanted.split(" | ")
    plain = set(parts) <= _KINDS.keys()
    if (plain and type(value) in [kind for part in parts for kind in _KINDS[part]]) or (not plain and value != raw):
        return value
    if "str" in parts:
        return raw
    if plain or "Tensor" in wanted:
        raise InputError(f"{option}={short_repr(value)}: not what {name} takes; give {wanted}")
    return value


def try_miner(miner: str, options: dict[str, Any], measure: str, concepts: int) -> None:
    """Run a miner on noise, to reject options out of range or an unsuitable measure before any pass over audio."""
    import torch

    from captum_concepts.miners.api import mine
    from captum_concepts.plugins.registry import registered

    if any(isinstance(value, (list, dict)) for value in options.values()):
        return  # one value per concept; the number of testable concepts is not known yet
    k = min(concepts, TRIAL)
    noise = torch.rand(k, k, generator=torch.Generator().manual_seed(0))
    names = [str(number) for number in range(k)]
    measures = registered("similarities")
    symmetric = [name for name, entry in measures.items() if getattr(entry.factory, "symmetric", False)]
    _trial(lambda: mine((noise + noise.T) / 2, names, miner, **options), f"--miner={miner}")
    if measure not in symmetric:
        try:
            _trial(lambda: mine(noise, names, miner, **options), f"--miner={miner}")
        except InputError:
            raise InputError(
                f"--miner={miner}: needs a symmetric similarity, and {measure} is not symmetric; give --similarity "
                f"{' or '.join(symmetric)}, or another miner"
            ) from None


def try_cav(method: str, options: dict[str, Any]) -> None:
    """Fit a CAV method to noise, to reject options out of range before any pass over audio."""
    if not options:
        return
    import torch

    from captum_concepts.cavs.methods import resolve_method, run_fit

    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    positives = torch.arange(64)[:, None] % 2 == torch.arange(2)
    weights = torch.ones(64)
    _trial(lambda: run_fit(resolve_method(method), rows, positives, ~positives, weights, options), f"--cav={method}")


def _trial(action: Callable[[], Any], option: str) -> Any:
    try:
        return action()
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{option}: failed with its options; {' '.join(str(error).split())}") from error


def load_model(given: dict[str, Any]) -> Backbone:
    """The backbone, after a check of the layers and targets that were given."""
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
        raise InputError(f"--option={short_repr(options)}: {name} rejects it; {error}") from error
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
            raise InputError(
                f"{option}={short_repr(value)}: {short_repr(spec, 200)} is not a table and has no columns; leave it out"
            )
    if colon and not os.path.exists(spec):
        from captum_concepts.plugins.registry import lookup

        found: ConceptSet = lookup("concept_sources", name).factory(argument)
        found = found if parents is None else dataclasses.replace(found, parents=parents)
        return found if given["negatives"] is None else found.with_negatives(given["negatives"])
    if not os.path.exists(spec):
        raise InputError(f"--concepts={short_repr(spec, 200)}: no such file or folder; check the path")
    # from_table has defaults for arguments that are None; folders do not take them.
    return ConceptSet.from_spec(
        spec,
        column=list(columns) or None,
        group=group,
        separator=separator,
        negatives=given["negatives"],
        parents=parents,
    )


def read_clips(spec: str, group: str | None = None, option: str = "--clips") -> list[Clip]:
    """Clips to explain: a file, a folder searched for audio, or a table of files (and start, end, group).

    ``option`` is the name in messages of the option that names them.
    """
    from captum_concepts.audio.clips import Clip
    from captum_concepts.audio.files import find_audio
    from captum_concepts.concepts.tables import read_clip_table

    if not os.path.exists(spec):
        raise InputError(
            f"{option}={short_repr(spec, 200)}: no such file or folder; give audio, a folder of audio, or a "
            "table of files"
        )
    if os.path.isfile(spec) and spec.lower().endswith(TABLE_SUFFIXES):
        return read_clip_table(spec, group)
    if group is not None:
        raise InputError(
            f"--clip-group-column={short_repr(group)}: {short_repr(spec, 200)} is not a table and has no columns; "
            "leave it out"
        )
    if os.path.isfile(spec):
        return [Clip(spec)]
    found = [Clip(path) for path in find_audio(spec)]
    if not found:
        raise InputError(f"{option}={short_repr(spec, 200)}: no audio file in it; give a folder with audio")
    return found


def store_folder(given: dict[str, Any]) -> Path | None:
    """Where activations are kept: --store, CAPTUM_CONCEPTS_STORE, else the user's cache; None with --no-store.

    A folder that does not exist is created, to check that this works; an existing one may be read-only.
    """
    if given["no_store"]:
        return None
    named = given["store"] or os.environ.get("CAPTUM_CONCEPTS_STORE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(named or Path(base) / "captum-concepts")
    except RuntimeError:
        raise InputError("--store: missing, and there is no home folder; give it, or --no-store") from None
    if not folder.is_dir():
        check_writable(folder, "--store", "another folder, or --no-store")
    return folder


def check_writable(folder: str | Path, option: str, remedy: str = "another folder") -> None:
    """Create a folder and check that files can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option}={short_repr(str(folder), 200)}: cannot be written to ({error.strerror}); give {remedy}"
        ) from None


def parse_shard(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers."""
    number, slash, total = text.partition("/")
    digits = all(part.isascii() and part.isdigit() and len(part) < 10 for part in (number, total))
    if not (slash and digits and 1 <= int(number) <= int(total)):
        raise InputError(f"--shard={short_repr(text)}: not a part; give I/N with 1 <= I <= N, e.g. 1/8")
    return int(number), int(total)
