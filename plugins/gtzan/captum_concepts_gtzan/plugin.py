"""What this distribution adds to captum_concepts; each factory imports its module when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_concepts.plugins import Factories, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def captum_concepts_backbones() -> Factories:
    from captum_concepts_gtzan.backbones import gtzan_cnn, gtzan_cnn2, gtzan_svm, gtzan_vgg16

    return {"gtzan-cnn": gtzan_cnn, "gtzan-vgg16": gtzan_vgg16, "gtzan-cnn2": gtzan_cnn2, "gtzan-svm": gtzan_svm}


@hookimpl
def captum_concepts_concept_sources() -> Factories:
    from captum_concepts_gtzan.concepts import genre_concepts, tempo_concepts

    return {"gtzan-genres": genre_concepts, "gtzan-tempo": tempo_concepts}


@hookimpl
def captum_concepts_commands(cli: click.Group) -> None:
    from captum_concepts_gtzan.cli import gtzan
    from captum_concepts_gtzan.cli_features import features, shap

    gtzan.add_command(features)
    gtzan.add_command(shap)
    cli.add_command(gtzan)
