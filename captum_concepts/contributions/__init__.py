"""How much of a class its concepts account for, along the hierarchy."""

from captum_concepts.contributions.completeness import Completeness, share_out
from captum_concepts.contributions.owen import owen_values

__all__ = [
    "Completeness",
    "owen_values",
    "share_out",
]
