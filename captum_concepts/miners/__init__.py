"""From a similarity matrix to a hierarchy: one file per miner."""

from captum_concepts.miners.api import Miner, mine
from captum_concepts.miners.baselines import concept_graph, embedding_hierarchy, neighbour_distance
from captum_concepts.miners.bootstrap import ResampledDiscriminant, ResampledSimilarity, bootstrap_support
from captum_concepts.miners.builtin import MINERS
from captum_concepts.miners.centrality.api import betweenness
from captum_concepts.miners.several_parents import add_parents

__all__ = [
    "MINERS",
    "Miner",
    "ResampledDiscriminant",
    "ResampledSimilarity",
    "add_parents",
    "betweenness",
    "bootstrap_support",
    "concept_graph",
    "embedding_hierarchy",
    "mine",
    "neighbour_distance",
]
