"""What captum_concepts itself provides, registered through the same hooks as any plugin.

Each hook imports its module only when it is asked, so that loading the plugin manager stays cheap.
"""

from __future__ import annotations

from captum_concepts.plugins.hookspecs import Factories, hookimpl


@hookimpl
def captum_concepts_interventions() -> Factories:
    from captum_concepts.interventions.builtin import INTERVENTIONS

    return dict(INTERVENTIONS)


@hookimpl
def captum_concepts_cav_methods() -> Factories:
    from captum_concepts.cavs.builtin import CAV_METHODS

    return dict(CAV_METHODS)


@hookimpl
def captum_concepts_similarities() -> Factories:
    from captum_concepts.similarities.builtin import SIMILARITIES

    return dict(SIMILARITIES)


@hookimpl
def captum_concepts_miners() -> Factories:
    from captum_concepts.miners.builtin import MINERS

    return dict(MINERS)


@hookimpl
def captum_concepts_explainers() -> Factories:
    from captum_concepts.attributions.builtin import METHODS

    return dict(METHODS)


@hookimpl
def captum_concepts_exporters() -> Factories:
    from captum_concepts.explanation.explanation import Explanation

    return {"folder": Explanation.save, "html": Explanation.to_html}
