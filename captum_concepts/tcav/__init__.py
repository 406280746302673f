"""Captum's TCAV for thousands of sets of concepts at once."""

from captum_concepts.tcav.batched_tcav import BatchedTCAV
from captum_concepts.tcav.captum_sgd import CaptumSGD
from captum_concepts.tcav.relative_scores import relative_directions, relative_scores
from captum_concepts.tcav.set_fits import fit_sets

__all__ = [
    "BatchedTCAV",
    "CaptumSGD",
    "fit_sets",
    "relative_directions",
    "relative_scores",
]
