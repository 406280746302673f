"""``captum-concepts gtzan``: train, cross-validate, evaluate and predict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts_gtzan.evaluation import Evaluation

_log = logging.getLogger("captum_concepts.gtzan")
MODELS = {"cnn": "gtzan-cnn", "vgg16": "gtzan-vgg16", "cnn2": "gtzan-cnn2"}
_DEFAULT_CHUNKS = "29.1 of the cnn, 3.96 of the others"


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_data = click.option(
    "--data",
    required=True,
    type=click.Path(),
    help="Folder with one subfolder of audio per genre: GTZAN in any layout, or your own.",
)
_out = click.option(
    "--out", required=True, type=click.Path(file_okay=False), help="Folder of the run; made if need be."
)
_device = click.option(
    "--device", default="auto", show_default=True, help="auto (CUDA if there is one), cpu or cuda[:N]."
)
_json = click.option("--json", "as_json", is_flag=True, help="The whole result as JSON on stdout.")
_split = click.option(
    "--split",
    default="auto",
    show_default=True,
    metavar="NAME|FOLDER",
    help="filtered: GTZAN's fault-filtered parts without a common artist; stratified: half, a quarter, a quarter of "
    "every genre; a folder with train_filtered.txt, valid_filtered.txt, test_filtered.txt; auto: filtered if the data "
    "are GTZAN, else stratified.",
)
_folds = _together(
    click.option("--folds", type=click.IntRange(min=2), help="Cross-validation by track instead: so many folds."),
    click.option("--fold", type=click.IntRange(min=1), help="The fold that is tested, from 1."),
)
_learning = _together(
    click.option(
        "--seconds", type=float, help=f"Length of a chunk.  [default: {_DEFAULT_CHUNKS}; the cnn takes 3.96 too]"
    ),
    click.option(
        "--crops", type=click.IntRange(min=1), default=1, show_default=True, help="Chunks of each track in an epoch."
    ),
    click.option("--batch-size", type=click.IntRange(min=2), default=16, show_default=True, help="Chunks per step."),
    click.option("--learning-rate", type=float, help="Of Adam.  [default: 0.005 of the cnn, 0.00004 of the others]"),
    click.option("--weight-decay", type=float, default=8e-4, show_default=True, help="L2 penalty."),
    click.option(
        "--label-smoothing", type=float, default=0.15, show_default=True, help="Share spread over all genres."
    ),
    click.option("--noise-level", type=float, default=0.002, show_default=True, help="White noise on every chunk."),
    click.option("--no-augment", is_flag=True, help="Random crops and the noise only, no other change of the audio."),
    click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True, help="At most."),
    click.option(
        "--patience", type=click.IntRange(min=1), default=15, show_default=True, help="Epochs without a better one."
    ),
    click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "32-true", "16-mixed", "bf16-mixed"]),
        default="auto",
        show_default=True,
        help="auto: mixed on a GPU, full elsewhere.",
    ),
    cli_options.seed,
    _device,
)


@click.group()
def gtzan() -> None:
    """Train, test and use the genre classifiers people build on GTZAN.

    \b
    captum-concepts gtzan train cnn --data GTZAN --out runs/cnn
    captum-concepts gtzan evaluate --weights runs/cnn/model.safetensors --data GTZAN
    captum-concepts gtzan predict song.mp3 --weights runs/cnn/model.safetensors
    captum-concepts explain --backbone gtzan-cnn --weights runs/cnn/model.safetensors ...
    """


@gtzan.group()
def train() -> None:
    """Train a classifier and test it on tracks it has not seen.

    Repeat the command to resume a run that was stopped or killed; a finished one is only tested again. --out gets
    model.safetensors (the best epoch), run.json (options, seed, versions, history), evaluation.json, confusion.png, and
    logs/ for TensorBoard. Tracks that cannot be decoded are named and left out.
    """


def _network_command(short: str, help_text: str) -> None:
    @train.command(short, help=help_text, short_help=help_text.split(":")[0] + ".")
    @_data
    @_out
    @_split
    @_folds
    @_learning
    @_json
    @cli_options.terminal
    def command(**given: Any) -> None:
        _train_network(short, given)


_network_command(
    "cnn",
    "The small network (40,124 parameters): five convolution blocks on 29.1 s of log-mel. Minutes on a laptop for a "
    "hundred tracks; with few tracks, --seconds 3.96 --crops 8 learns more from each.",
)
_network_command(
    "vgg16",
    "VGG16 with batch normalisation (134 million parameters): 3.96 s of log-mel as an image. Wants a GPU.",
)
_network_command("cnn2", "Four wide convolution blocks (3.9 million parameters): 3.96 s of log-mel.")


def _set_up(given: dict[str, Any]) -> None:
    console.set_up_logging(given["quiet"], given["verbose"])


def _training(given: dict[str, Any]) -> dict[str, Any]:
    """Schedule, options and the network's options of a command."""
    from captum_concepts.training import Schedule
    from captum_concepts_gtzan.augmentations import Augmentation
    from captum_concepts_gtzan.training import TrainingOptions

    schedule = Schedule(**{name: given[name] for name in ("epochs", "seed", "patience", "clip", "device", "precision")})
    hiss = given["noise_level"]
    chosen = {name: given[name] for name in ("learning_rate", "weight_decay", "label_smoothing", "batch_size", "crops")}
    augmentation = Augmentation.none(hiss) if given["no_augment"] else Augmentation(hiss=hiss)
    return {
        "schedule": schedule,
        "options": TrainingOptions(**chosen, augmentation=augmentation),
        "model_options": {} if given["seconds"] is None else {"seconds": given["seconds"]},
    }


def _train_network(short: str, given: dict[str, Any]) -> None:
    _set_up(given)
    from captum_concepts_gtzan.experiments import SplitOptions, train_and_test

    split_options = SplitOptions(given["split"], given["folds"], given["fold"], given["seed"])
    with console.progress_bars(given["quiet"]) as progress, console.resumable_training(given["out"]):
        found = train_and_test(
            MODELS[short],
            given["data"],
            given["out"],
            split_options=split_options,
            progress=progress,
            **_training(given),
        )
    _print_evaluation(found, given["as_json"], f"{short}, tested on {len(found.truth)} tracks")
    console.say(f"weights: {Path(given['out']) / 'model.safetensors'}", given["quiet"])


@train.command("svm", short_help="A support vector machine on 56 named features.")
@click.option("--data", type=click.Path(), help="Folder with one subfolder of audio per genre; or")
@click.option("--features", type=click.Path(), help="a table of features in Kaggle's layout.")
@_out
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Of the nested cross-validation."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of the grid search.")
@cli_options.seed
@_json
@cli_options.terminal
def train_svm(**given: Any) -> None:
    """A support vector machine on 56 named features, its parameters found by a grid search.

    The accuracy is that of nested cross-validation: the filter of correlated features, the scaling and the grid search
    see the training part of each fold only. The machine that is kept is then fitted to all tracks.
    """
    _set_up(given)
    from captum_concepts_gtzan.experiments import train_support_vectors

    with console.progress_bars(given["quiet"]) as progress:
        card = train_support_vectors(
            given["out"],
            data=given["data"],
            features=given["features"],
            folds=given["folds"],
            seed=given["seed"],
            jobs=given["jobs"],
            progress=progress,
        )
    if given["as_json"]:
        console.print_json(card)
        return
    folds = ", ".join(f"{value:.3f}" for value in card["fold_accuracies"])
    click.echo(f"accuracy {card['accuracy']:.3f} on {card['tracks']} tracks by nested cross-validation (folds {folds})")
    click.echo(f"kept: {', '.join(f'{name}={value}' for name, value in card['best'].items())}, fitted to all tracks")
    console.say(f"weights: {Path(given['out']) / 'model.safetensors'}", given["quiet"])


@gtzan.command("cross-validate")
@click.argument("model", type=click.Choice(list(MODELS)))
@_data
@_out
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True)
@_learning
@_json
@cli_options.terminal
def cross_validate(model: str, **given: Any) -> None:
    """Train and test a network once per fold, so that every track is tested by a network that was not trained on it.

    Runs are in OUT/fold-1, OUT/fold-2, ...; those that are finished are not trained again.
    """
    _set_up(given)
    from captum_concepts_gtzan.experiments import cross_validate as run

    with console.progress_bars(given["quiet"]) as progress, console.resumable_training(given["out"]):
        found = run(
            MODELS[model], given["data"], given["out"], folds=given["folds"], progress=progress, **_training(given)
        )
    if given["as_json"]:
        console.print_json(found.as_json())
        return
    _print_evaluation(found.pooled, False, f"{model}, {given['folds']} folds, {len(found.pooled.truth)} tracks")
    folds = ", ".join(f"{value:.3f}" for value in found.accuracies)
    click.echo(f"mean accuracy {found.mean:.3f} over the folds {folds}")


_weights = _together(
    click.option("--weights", required=True, type=click.Path(), help="model.safetensors of a run, or a state_dict."),
    click.option(
        "--model", type=click.Choice([*MODELS, "svm"]), help="Which classifier it is, where the file does not say."
    ),
    click.option("--seconds", type=float, help="Length of its chunks, where the file does not say."),
    _device,
)


@gtzan.command("evaluate")
@_weights
@_data
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train", "all"]),
    help="Which tracks.  [default: the test part of the run that the weights are from; all where they do not say]",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for evaluation.json and confusion.png.")
@_json
@cli_options.terminal
def evaluate(**given: Any) -> None:
    """Test a classifier on whole tracks: the mean of the logits of all their chunks.

    Prints accuracy with its 95 % interval, and precision, recall and F1 of every genre.
    """
    _set_up(given)
    from captum_concepts_gtzan.dataset import find_tracks
    from captum_concepts_gtzan.evaluation import evaluate as run
    from captum_concepts_gtzan.evaluation import learnt_from, trained_with
    from captum_concepts_gtzan.experiments import SplitOptions

    classifier = _classifier(given)
    tracks = find_tracks(given["data"], classifier.classes)
    split_options = SplitOptions.of_run(trained_with(given["weights"]))
    part = given["part"] or ("all" if split_options is None else "test")
    if part == "all":
        chosen = tracks.tracks
    elif split_options is None:
        raise InputError(f"--part {part}: the weights do not say how their data were split; give --part all")
    else:
        chosen = getattr(split_options.parts(tracks), part)
    for line in tracks.skipped:
        console.say(f"left out: {line}", given["quiet"])
    with console.progress_bars(given["quiet"]) as progress:
        found = run(classifier, chosen, progress)
    for line in found.skipped:
        console.say(f"left out: {line}", given["quiet"])
    known = learnt_from(given["weights"])
    if classifier.name == "gtzan-svm":
        _log.warning("gtzan-svm was fitted to all tracks of its table: on these the figures below are no test")
    elif shared := sum(track.track_id in known for track in chosen):
        _log.warning(
            "%d of these %d tracks were used in training: on them the figures below are no test", shared, len(chosen)
        )
    if given["out"]:
        cli_options.check_writable(given["out"], "--out")
        found.save(given["out"])
    _print_evaluation(found, given["as_json"], f"{classifier.name}, {part} part, {len(found.truth)} tracks")


@gtzan.command("predict")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@_weights
@_json
@cli_options.terminal
def predict(files: tuple[str, ...], **given: Any) -> None:
    """Say the genre of files, or of all audio in folders: any format and length that the decoder reads.

    A file is cut into chunks without a remainder, a shorter one is repeated; the probabilities are the softmax of the
    mean logits of all chunks.
    """
    _set_up(given)
    from captum_concepts.audio import find_audio
    from captum_concepts_gtzan.evaluation import predict as run

    classifier = _classifier(given)
    paths = [path for name in files for path in (find_audio(name) if Path(name).is_dir() else [name])]
    if not paths:
        raise InputError(f"{short_repr(files[0], 200)}: no audio in this folder; give files")
    with console.progress_bars(given["quiet"]) as progress:
        found, skipped = run(classifier, paths, progress)
    for line in skipped:
        console.say(f"left out: {line}", given["quiet"])
    if not found:
        raise InputError(f"none of {len(paths)} files can be used; the first: {skipped[0]}")
    rows = [
        {
            "file": each.path,
            "genre": classifier.classes[int(each.probabilities.argmax())],
            "chunks": each.chunks,
            "probabilities": dict(zip(classifier.classes, map(float, each.probabilities), strict=True)),
        }
        for each in found
    ]
    if given["as_json"]:
        console.print_json({"model": classifier.name, "files": rows, "skipped": skipped})
        return
    import pandas as pd

    # A path is too long for a table; JSON has it whole.
    table = pd.DataFrame(
        [{"file": Path(row["file"]).name, "genre": row["genre"], **row["probabilities"]} for row in rows]
    )
    console.print_table(table, f"{classifier.name}: probabilities")


def _classifier(given: dict[str, Any]) -> Any:
    from captum_concepts_gtzan.evaluation import load_classifier

    name = given["model"] and f"gtzan-{given['model']}"
    return load_classifier(given["weights"], name, given["device"], given["seconds"])


def _print_evaluation(found: Evaluation, as_json: bool, title: str) -> None:
    if as_json:
        console.print_json(found.as_json())
        return
    import pandas as pd

    table = pd.DataFrame([{"genre": name, **row} for name, row in found.report.items()])
    console.print_table(table.astype({"tracks": int}), title)
    low, high = found.interval
    click.echo(f"accuracy {found.accuracy:.3f} (95 % interval {low:.3f} to {high:.3f}), {len(found.skipped)} left out")
