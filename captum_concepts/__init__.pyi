from ._version import __version__
from .audio.clips import Clip
from .audio.frontends import frontend
from .backbones.embedding_backbone import EmbeddingBackbone
from .backbones.load import load_backbone
from .backbones.torch_backbone import TorchBackbone
from .cavs.bank import ConceptBank
from .cavs.fit import fit_cavs
from .concepts.concept_set import ConceptSet
from .diagnostics.pushforward import push_forward
from .errors import InputError
from .explanation.explainer import ConceptHierarchyExplainer
from .explanation.explanation import Explanation
from .hierarchy.concept_hierarchy import ConceptHierarchy
from .hierarchy.evaluation import evaluate_hierarchy
from .miners.api import mine
from .miners.centrality.api import betweenness
from .plugins.hookspecs import hookimpl
from .sanity.battery import SanityReport, sanity_check
from .significance.rank_tests import rank_test
from .similarities.api import similarity
from .tcav.batched_tcav import BatchedTCAV

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
    "evaluate_hierarchy",
    "fit_cavs",
    "frontend",
    "hookimpl",
    "load_backbone",
    "mine",
    "push_forward",
    "rank_test",
    "sanity_check",
    "similarity",
]
