"""Say which human concepts the decisions of an audio classifier rest on, how they relate, and how sure we are.

The public names are imported when they are first used, so that ``import captum_concepts`` need not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_concepts.audio import Clip
    from captum_concepts.backbones import TorchBackbone, load_backbone
    from captum_concepts.batched_tcav import BatchedTCAV
    from captum_concepts.cavs import ConceptBank, fit_cavs
    from captum_concepts.centrality import betweenness
    from captum_concepts.concepts import ConceptSet
    from captum_concepts.embedding_backbone import EmbeddingBackbone
    from captum_concepts.errors import InputError
    from captum_concepts.evaluation import evaluate_hierarchy
    from captum_concepts.explainer import ConceptHierarchyExplainer
    from captum_concepts.explanation import Explanation
    from captum_concepts.frontends import frontend
    from captum_concepts.hierarchy import ConceptHierarchy
    from captum_concepts.hookspecs import hookimpl
    from captum_concepts.miners import mine
    from captum_concepts.pushforward import push_forward
    from captum_concepts.sanity import SanityReport, check
    from captum_concepts.significance import rank_test
    from captum_concepts.similarity import similarity

__version__ = "0.1.0"

__all__ = [
    "BatchedTCAV",
    "Clip",
    "ConceptBank",
    "ConceptHierarchy",
    "ConceptHierarchyExplainer",
    "ConceptSet",
    "EmbeddingBackbone",
    "Explanation",
    "InputError",
    "SanityReport",
    "TorchBackbone",
    "__version__",
    "betweenness",
    "check",
    "evaluate_hierarchy",
    "fit_cavs",
    "frontend",
    "hookimpl",
    "load_backbone",
    "mine",
    "push_forward",
    "rank_test",
    "similarity",
]

_HOMES = {
    "BatchedTCAV": "batched_tcav",
    "Clip": "audio",
    "ConceptBank": "cavs",
    "ConceptHierarchy": "hierarchy",
    "ConceptHierarchyExplainer": "explainer",
    "ConceptSet": "concepts",
    "EmbeddingBackbone": "embedding_backbone",
    "Explanation": "explanation",
    "InputError": "errors",
    "SanityReport": "sanity",
    "TorchBackbone": "backbones",
    "betweenness": "centrality",
    "check": "sanity",
    "evaluate_hierarchy": "evaluation",
    "fit_cavs": "cavs",
    "frontend": "frontends",
    "hookimpl": "hookspecs",
    "load_backbone": "backbones",
    "mine": "miners",
    "push_forward": "pushforward",
    "rank_test": "significance",
    "similarity": "similarity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package with one name protected: ``similarity`` is the public function and also a submodule.

    Importing a submodule sets it as an attribute of its package, which would replace the function by the module for
    whoever imported the submodule first. A property comes before the attributes of a module and takes no notice.
    """

    @property
    def similarity(self) -> Any:
        return __getattr__("similarity")

    @similarity.setter
    def similarity(self, _: ModuleType) -> None:
        """The import system calls this with the submodule."""


sys.modules[__name__].__class__ = _Package
