"""Hierarchies of concepts: the value, its formats, its description and its evaluation."""

from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.hierarchy.description import describe
from captum_concepts.hierarchy.evaluation import evaluate_hierarchy
from captum_concepts.hierarchy.strength import link_strengths
from captum_concepts.hierarchy.support import Support

__all__ = [
    "ConceptHierarchy",
    "Support",
    "describe",
    "evaluate_hierarchy",
    "link_strengths",
]
