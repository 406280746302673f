"""Whether an explanation deserves to be believed: checks that a broken model or method fails."""

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
