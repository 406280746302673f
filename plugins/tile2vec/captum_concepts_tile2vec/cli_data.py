"""The options that name recordings, and which recordings each command takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from captum_concepts.cli import console
from captum_concepts.errors import InputError
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts_tile2vec.checkpoints import Tile2Vec
    from captum_concepts_tile2vec.data import Recording, Split


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --data and what says how to read it."""
    for option in (
        click.option("--hop", type=float, help="Seconds between the starts of tiles.  [default: the length of a tile]"),
        click.option(
            "--held-out",
            "share",
            default=0.2,
            show_default=True,
            help="Share of the recordings that is held out; DCASE has its own parts.",
        ),
        click.option(
            "--split-seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Which recordings are held out; give the same to train, classify and evaluate.",
        ),
        click.option(
            "--fold", type=click.IntRange(min=1), default=1, show_default=True, help="Fold of DCASE's development set."
        ),
        click.option(
            "--layout",
            type=click.Choice(["auto", "folder", "dcase", "gtzan"]),
            default="auto",
            show_default=True,
            help="What --data is; auto takes a folder with meta.txt or evaluation_setup/ for DCASE 2018 task 5, any "
            "other for folders.",
        ),
        click.option(
            "--data",
            required=True,
            type=click.Path(),
            help="Recordings: a folder (a subfolder per class where there are classes), DCASE 2018 task 5, or GTZAN.",
        ),
    ):
        command = option(command)
    return command


def _split(data: dict[str, Any]) -> Split:
    from captum_concepts_tile2vec.data import recordings_from

    _refuse_unused(data)
    return recordings_from(data["data"], data["layout"], data["fold"], data["share"], data["split_seed"])


def _all(data: dict[str, Any]) -> list[Recording]:
    from captum_concepts_tile2vec.data import all_recordings

    _refuse_unused(data)
    return all_recordings(data["data"], data["layout"], data["fold"])


def training_split(data: dict[str, Any]) -> Split:
    """Recordings to train an embedding on, and those that are held out.

    Raises:
        InputError: there is nothing to train on.
    """
    split = _split(data)
    if not split.train:
        raise InputError(
            f"--data {short_repr(data['data'], 200)}: is the evaluation set of DCASE 2018 task 5, which is not for "
            "training; give the development set"
        )
    return split


def evaluation_recordings(data: dict[str, Any], part: str) -> list[Recording]:
    """All recordings, or those that are held out."""
    return _all(data) if part == "all" else _split(data).evaluate


def classification_parts(data: dict[str, Any], folds: int, test: str | None) -> tuple[list[Recording], list[Recording]]:
    """Recordings to train and to test a classifier on; none of the latter for cross-validation.

    Args:
        data: what the data options were given.
        folds: of the cross-validation; 0 trains on one part and tests on the other.
        test: recordings to test on, or None.

    Raises:
        InputError: see `all_recordings` and `recordings_from`; a recording is in both, or an option has no use.
    """
    from captum_concepts_tile2vec.data import all_recordings, layout_of

    if test is not None:
        _refuse_given("folds", "with --test all of --data is used for training")
        recordings, judged = _all(data), all_recordings(test)
        both = {os.path.realpath(r.path) for r in recordings} & {os.path.realpath(r.path) for r in judged}
        if both:
            raise InputError(f"{short_repr(min(both), 200)} is in --data and in --test; test on other recordings")
        return recordings, judged
    if layout_of(data["data"], data["layout"]) != "dcase":
        if folds:
            return _all(data), []
        split = _split(data)
        return split.train, split.evaluate
    _refuse_given("folds", "DCASE has its own parts, see --fold")
    split = _split(data)
    if not split.train:
        raise InputError(
            f"--data {short_repr(data['data'], 200)}: is the evaluation set of DCASE 2018 task 5; give it with "
            "--test and the development set with --data"
        )
    return split.train, split.evaluate


def _refuse_unused(data: dict[str, Any]) -> None:
    """Options that the layout has no use for were meant for something else."""
    from captum_concepts_tile2vec.data import layout_of

    if layout_of(data["data"], data["layout"]) == "dcase":
        for name in ("share", "split_seed"):
            _refuse_given(name, "DCASE has its own parts, see --fold")
    else:
        _refuse_given("fold", "only DCASE has folds of its own")


def _refuse_given(name: str, reason: str) -> None:
    context = click.get_current_context()
    if context.get_parameter_source(name) in (None, ParameterSource.DEFAULT):
        return
    option = next(option.opts[0] for option in context.command.params if option.name == name)
    raise InputError(f"{option} {short_repr(context.params[name])}: {reason}; leave it out")


def warn_trained_on(model: Tile2Vec, recordings: Sequence[Recording], quiet: bool) -> None:
    """Warn how many of the recordings to test on the embedding was trained on."""
    from captum_concepts_tile2vec.checkpoints import learnt_from

    known = learnt_from(model)
    shared = sum(recording.identity in known for recording in recordings)
    if shared:
        console.say(
            f"warning: the embedding was trained, without labels, on {shared} of these {len(recordings)} recordings: "
            "on new ones it may do worse",
            quiet,
        )
