"""What this distribution adds to captum_concepts; each factory imports its module when it is asked for."""

from __future__ import annotations

import click

from captum_concepts.plugins import Factories, hookimpl


@hookimpl
def captum_concepts_backbones() -> Factories:
    from captum_concepts_tile2vec.backbones import tile2vec

    return {"tile2vec": tile2vec}


@hookimpl
def captum_concepts_commands(cli: click.Group) -> None:
    from captum_concepts_tile2vec.cli import tile2vec

    cli.add_command(tile2vec)
