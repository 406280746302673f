"""Sanity checks of explanations: checks that a broken model, method or data set fails."""

from captum_concepts.sanity.battery import SanityReport, sanity_check
from captum_concepts.sanity.checks import Check
from captum_concepts.sanity.deletion import deletion_effects, paired_clips

__all__ = [
    "Check",
    "SanityReport",
    "deletion_effects",
    "paired_clips",
    "sanity_check",
]
