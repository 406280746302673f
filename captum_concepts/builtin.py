"""What captum_concepts itself provides, registered through the same hooks as any plugin.

Each hook imports its module only when it is asked, so that loading the plugin manager stays cheap.
"""

from __future__ import annotations

from captum_concepts.hookspecs import Factories, hookimpl


@hookimpl
def captum_concepts_cav_methods() -> Factories:
    from captum_concepts.captum_sgd import fit_sgd
    from captum_concepts.cavs import CAV_METHODS

    return {**CAV_METHODS, "sgd": fit_sgd}


@hookimpl
def captum_concepts_similarities() -> Factories:
    from captum_concepts.similarity import SIMILARITIES

    return dict(SIMILARITIES)


@hookimpl
def captum_concepts_miners() -> Factories:
    from captum_concepts.miners import MINERS

    return dict(MINERS)


@hookimpl
def captum_concepts_explainers() -> Factories:
    from captum_concepts.attributions import METHODS

    return dict(METHODS)


@hookimpl
def captum_concepts_exporters() -> Factories:
    from captum_concepts.explanation import Explanation

    return {"folder": Explanation.save, "html": Explanation.to_html}
