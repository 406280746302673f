"""What this distribution adds to captum_concepts; nothing else is imported before a backbone is asked for."""

from __future__ import annotations

from captum_concepts.plugins import Factories, hookimpl


@hookimpl
def captum_concepts_backbones() -> Factories:
    from captum_concepts_essentia.backbones import FACTORIES

    return dict(FACTORIES)
