"""How much of a class its concepts account for, along the hierarchy."""

from captum_concepts.contributions.completeness import Completeness, contributions_of_layers
from captum_concepts.contributions.owen import owen_values

__all__ = [
    "Completeness",
    "contributions_of_layers",
    "owen_values",
]
