"""``captum-concepts tile2vec``: check, train, discriminants, classify, evaluate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captum_concepts.cli import console
from captum_concepts.cli import options as cli_options
from captum_concepts_tile2vec.cli_data import (
    classification_parts,
    data_options,
    evaluation_recordings,
    training_split,
    warn_trained_on,
)

if TYPE_CHECKING:
    from captum_concepts.types import Progress
    from captum_concepts_tile2vec.checkpoints import Tile2Vec
    from captum_concepts_tile2vec.tiles import Tiles

ARCHITECTURES = (
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ConvNet1D",
    "ConvNet2D",
    "ConvGRUNet",
    "GRUNet",
    "DenseNet",
    "StatisticsNet",
    "ContrastNet",
)


_out = click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder for the results.")
_json = click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
_device = click.option(
    "--device", default="auto", show_default=True, help="auto (CUDA if there is one), cpu or cuda[:N]."
)
_model = click.option("--model", "weights", type=click.Path(), required=True, help="model.safetensors of a run.")


@click.group(cls=console.Commands)
def tile2vec() -> None:
    """Embeddings learnt from unlabelled audio: train one, classify with it, evaluate it."""


@tile2vec.command(short_help="Say how hard triplets are, before training.")
@data_options
@click.option("--tile", "seconds", type=float, default=5.0, show_default=True, help="Seconds of a tile.")
@click.option("--neighbourhood", type=float, default=5.0, show_default=True, help="Seconds from anchor to neighbour.")
@click.option("--margin", type=float, default=1.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1234, show_default=True)
@_device
@_json
@cli_options.terminal
def check(
    seconds: float,
    neighbourhood: float,
    margin: float,
    seed: int,
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **data: Any,
) -> None:
    """Count triplets of the recordings to learn from: trivial, hard, and with one label for anchor and opposite.

    Measured on the network's input alone: means and deviations over time of the log-mel, standardised and scaled to
    length one as embeddings are. Many trivial triplets teach little; many that share a label teach the wrong thing.
    """
    console.set_up_logging(quiet, verbose)
    from captum_concepts.backbones import resolve_device
    from captum_concepts_tile2vec.evaluation import check_triplets

    where = resolve_device(device)
    with console.progress_bars(quiet) as progress:
        tiles = _tiles(training_split(data).train, {"seconds": seconds, "hop": data["hop"]}, progress, quiet)
        figures = check_triplets(tiles, neighbourhood, margin, seed, device=where, progress=progress)
    if as_json:
        console.print_json(figures)
    else:
        for name, value in figures.items():
            click.echo(f"{name}: {console.plain(value)}")


@tile2vec.command(short_help="Learn an embedding from recordings, without labels.")
@data_options
@_out
@click.option("--model", "architecture", type=click.Choice(ARCHITECTURES), default="ResNet18", show_default=True)
@click.option("--size", type=click.IntRange(1, 65_536), default=16, show_default=True, help="Numbers per embedding.")
@click.option("--features", type=click.Choice(["logmel", "mfcc", "raw"]), default="logmel", show_default=True)
@click.option("--tile", "seconds", type=float, default=5.0, show_default=True, help="Seconds of a tile.")
@click.option("--channels", type=click.Choice(["mono", "all"]), default="mono", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Triplets per step.")
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@click.option("--decay", type=float, default=0.95, show_default=True, help="Factor of the learning rate ...")
@click.option(
    "--decay-steps", type=click.IntRange(min=1), default=7500, show_default=True, help="... per so many steps."
)
@click.option("--margin", type=float, default=1.0, show_default=True)
@click.option("--strategy", type=click.Choice(["active", "all"]), default="active", show_default=True)
@click.option("--mining", type=click.Choice(["none", "semi-hard", "all"]), default="none", show_default=True)
@click.option("--l2", type=float, help="Weight of the squared kernels and biases.  [default: 0.1 for ResNets, else 0]")
@click.option("--neighbourhood", type=float, default=5.0, show_default=True, help="Seconds from anchor to neighbour.")
@click.option(
    "--opposite-buffer", type=click.IntRange(min=1), help="Opposites of a recording come from so many others."
)
@click.option("--seed", type=click.IntRange(min=0), default=1234, show_default=True)
@_device
@click.option(
    "--precision", type=click.Choice(["auto", "32-true", "16-mixed", "bf16-mixed"]), default="auto", show_default=True
)
@click.option("--data-parallel", is_flag=True, help="Split every batch over all CUDA devices.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read ahead.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder where features are kept once computed.")
@_json
@cli_options.terminal
def train(out: str, as_json: bool, quiet: bool, verbose: bool, **chosen: Any) -> None:
    """Learn an embedding: what is near in time should be near in it (Tile2Vec).

    Repeat the command with the same folder to resume a run that was stopped. `tensorboard --logdir OUT` shows the
    losses, both distances and the share of triplets that still teach something.
    """
    console.set_up_logging(quiet, verbose)
    cli_options.check_writable(out, "--out")
    import torch

    from captum_concepts.backbones import resolve_device
    from captum_concepts.training import RunFolder
    from captum_concepts_tile2vec.checkpoints import Settings
    from captum_concepts_tile2vec.models import default_l2
    from captum_concepts_tile2vec.training import TrainingOptions
    from captum_concepts_tile2vec.training import train as run

    l2 = chosen.pop("l2")
    names = [name for name in TrainingOptions.__dataclass_fields__ if name in chosen]
    options = TrainingOptions(
        **{name: chosen[name] for name in names}, l2=default_l2(chosen["architecture"]) if l2 is None else l2
    )
    resolve_device(chosen["device"])  # before all recordings are read
    if chosen["data_parallel"] and (count := torch.cuda.device_count()) < 2:
        console.say(f"warning: --data-parallel splits nothing: PyTorch sees {count} CUDA devices", quiet)
    with console.progress_bars(quiet) as progress, console.resumable_training(out):
        split = training_split(chosen)
        cut = {"seconds": chosen["seconds"], "hop": chosen["hop"], "channels": chosen["channels"]}
        tiles, held_out = (_tiles(part, cut, progress, quiet) for part in (split.train, split.evaluate))
        settings = Settings(
            chosen["architecture"], tiles.channels, chosen["size"], chosen["features"], chosen["seconds"]
        )
        rest = {name: chosen[name] for name in ("device", "precision", "data_parallel", "workers", "cache")}
        weights = run(tiles, held_out, out, settings, options, **rest, progress=progress)
    card = RunFolder(out).read()
    best = card["history"][card["best_epoch"] - 1]
    if as_json:
        console.print_json({"weights": str(weights), "best_epoch": card["best_epoch"], **best})
    else:
        click.echo(
            f"best epoch {card['best_epoch']} of {len(card['history'])}: held-out triplet loss {best['val_loss']:.4g}, "
            f"{best['val_active']:.0%} of triplets active"
        )
        click.echo(console.one_line(f"weights: {weights}"))


@tile2vec.command(short_help="Learn a linear embedding in closed form, without labels.")
@data_options
@_out
@click.option(
    "--model",
    "architecture",
    type=click.Choice(["StatisticsNet", "ContrastNet"]),
    default="ContrastNet",
    show_default=True,
)
@click.option("--size", type=click.IntRange(min=1), default=16, show_default=True, help="Numbers per embedding.")
@click.option("--tile", "seconds", type=float, default=5.0, show_default=True, help="Seconds of a tile.")
@click.option("--shrinkage", type=float, default=1.0, show_default=True, help="Of the scatter within recordings.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--cache", type=click.Path(file_okay=False), help="Folder where statistics are kept.  [default: OUT/cache]"
)
@_json
@cli_options.terminal
def discriminants(
    out: str,
    architecture: str,
    size: int,
    seconds: float,
    shrinkage: float,
    seed: int,
    cache: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **data: Any,
) -> None:
    """Separate recordings by a linear map of statistics (Fisher's discriminants of recordings).

    For sets too small for `train`: nothing is random and no epoch is chosen. Learns from the recordings that are not
    held out, and writes model.safetensors, which every other command takes.
    """
    console.set_up_logging(quiet, verbose)
    cli_options.check_writable(out, "--out")
    from captum_concepts_tile2vec.checkpoints import Settings, save_tile2vec
    from captum_concepts_tile2vec.discriminants import fit_discriminants

    settings = Settings(architecture, size=size, seconds=seconds)
    with console.progress_bars(quiet) as progress:
        tiles = _tiles(training_split(data).train, {"seconds": seconds, "hop": data["hop"]}, progress, quiet)
        where = cache or str(Path(out) / "cache")
        model = fit_discriminants(tiles, settings, where, shrinkage=shrinkage, seed=seed, progress=progress)
    weights = Path(out) / "model.safetensors"
    save_tile2vec(weights, model)
    if as_json:
        console.print_json({"weights": str(weights), "recordings": len(tiles.recordings), "tiles": len(tiles)})
    else:
        click.echo(console.one_line(f"weights: {weights}"))


@tile2vec.command(short_help="Classify recordings by small classifiers on a frozen embedding.")
@_model
@data_options
@click.option(
    "--test",
    type=click.Path(),
    help="Recordings to test on, after training on all of --data; e.g. DCASE's evaluation set.",
)
@_out
@click.option("--classifier", "kind", type=click.Choice(["logistic", "dense"]), default="logistic", show_default=True)
@click.option(
    "--folds",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Cross-validation; 0 trains on one part and tests on the other, as DCASE always does.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_device
@_json
@cli_options.terminal
def classify(
    weights: str,
    test: str | None,
    out: str,
    kind: Any,
    folds: int,
    seed: int,
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **data: Any,
) -> None:
    """Compare how well labels are predicted from the embedding, an untrained one and pooled input features.

    Writes scores.csv (accuracy and macro F1 over recordings with 95 % intervals, and by how much the embedding is
    better than each baseline), classes.csv (per class) and classifier.safetensors, fitted to all of it.
    """
    console.set_up_logging(quiet, verbose)
    cli_options.check_writable(out, "--out")
    from captum_concepts_tile2vec.comparison import compare_embeddings, write_comparison

    with console.progress_bars(quiet) as progress:
        model = _load(weights, device)
        recordings, judged = classification_parts(data, folds, test)
        warn_trained_on(model, judged or recordings, quiet)
        tiles = _tiles([*recordings, *judged], _cut_as(model, data), progress, quiet)
        apart = {recording.path for recording in judged} if judged else None
        result = compare_embeddings(model, tiles, held_out=apart, kind=kind, folds=folds, seed=seed, progress=progress)
    write_comparison(result, out)
    if as_json:
        console.print_json({"scores": result.scores.to_dict("records"), "classes": result.classes.to_dict("records")})
    else:
        console.print_table(result.scores, f"{kind} classifier, {result.recordings} recordings (95 % intervals)")
        console.print_table(result.classes, "Classes, on the embedding")


@tile2vec.command(short_help="Describe an embedding: clusters, distances, neighbours, a map.")
@_model
@data_options
@_out
@click.option("--part", type=click.Choice(["held-out", "all"]), default="held-out", show_default=True)
@click.option("--clusters", "k", type=click.IntRange(min=1), help="Of k-means.  [default: the number of labels, or 8]")
@click.option("--map", "method", type=click.Choice(["tsne", "umap", "pca"]), default="tsne", show_default=True)
@click.option("--sound/--no-sound", default=True, help="Put the audio of neighbours into the page.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_device
@_json
@cli_options.terminal
def evaluate(
    weights: str,
    out: str,
    part: str,
    k: int | None,
    method: Any,
    sound: bool,
    seed: int,
    device: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **data: Any,
) -> None:
    """Describe the embedding of the held-out recordings, or of all.

    Writes embedding.html, figures.json, centroid_distances.csv, projector/ (`tensorboard --logdir OUT/projector`), and
    clusters.safetensors: `explain --backbone tile2vec --option head=OUT/clusters.safetensors` then explains what each
    cluster rests on.
    """
    console.set_up_logging(quiet, verbose)
    cli_options.check_writable(out, "--out")
    from captum_concepts_tile2vec.evaluation import evaluate_embedding

    with console.progress_bars(quiet) as progress:
        model = _load(weights, device)
        recordings = evaluation_recordings(data, part)
        if part == "held-out":
            warn_trained_on(model, recordings, quiet)
        tiles = _tiles(recordings, _cut_as(model, data), progress, quiet)
        figures = evaluate_embedding(model, tiles, out, k=k, method=method, sound=sound, seed=seed, progress=progress)
    if as_json:
        console.print_json(figures)
    else:
        for name, value in figures.items():
            click.echo(f"{name}: {console.plain(value)}")
        click.echo(console.one_line(f"page: {Path(out) / 'embedding.html'}"))
        click.echo(console.one_line(f"projector: tensorboard --logdir {shlex.quote(str(Path(out) / 'projector'))}"))


def _load(weights: str, device: str) -> Tile2Vec:
    from captum_concepts.backbones import resolve_device
    from captum_concepts_tile2vec.checkpoints import load_tile2vec

    return load_tile2vec(weights, resolve_device(device))


def _cut_as(model: Tile2Vec, data: dict[str, Any]) -> dict[str, Any]:
    channels = "all" if model.settings.channels > 1 else "mono"
    return {"seconds": model.settings.seconds, "hop": data["hop"], "channels": channels}


def _tiles(recordings: Any, cut: dict[str, Any], progress: Progress, quiet: bool) -> Tiles:
    from captum_concepts_tile2vec.tiles import find_tiles

    tiles = find_tiles(recordings, **cut, progress=progress)
    for line in (*tiles.warnings, *(f"left out: {line}" for line in tiles.skipped)):
        console.say(f"warning: {line}", quiet)
    return tiles
