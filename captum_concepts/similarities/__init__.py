"""Similarities of concepts: one file per measure."""

from captum_concepts.similarities.api import find_measure, similarity
from captum_concepts.similarities.builtin import SIMILARITIES
from captum_concepts.similarities.combine import combine
from captum_concepts.similarities.measure import Bank, Measure

__all__ = [
    "SIMILARITIES",
    "Bank",
    "Measure",
    "combine",
    "find_measure",
    "similarity",
]
