"""Exact betweenness centrality, by whichever algorithm is fastest for the graph."""

from captum_concepts.miners.centrality.api import betweenness

__all__ = [
    "betweenness",
]
