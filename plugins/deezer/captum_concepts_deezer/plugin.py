"""What this distribution adds to captum_concepts; each factory imports its module when it is asked for."""

from __future__ import annotations

from captum_concepts.plugins import Factories, hookimpl


@hookimpl
def captum_concepts_backbones() -> Factories:
    from captum_concepts_deezer.backbones import deezer_embeddings, msd_vgg

    return {"msd-vgg": msd_vgg, "deezer-embeddings": deezer_embeddings}


@hookimpl
def captum_concepts_concept_sources() -> Factories:
    from captum_concepts_deezer.playlists import deezer_concepts

    return {"deezer": deezer_concepts}
