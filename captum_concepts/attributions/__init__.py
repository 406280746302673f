"""Captum's attributions on the model's input."""

from captum_concepts.attributions.api import Attributions, attribute, input_parts
from captum_concepts.attributions.builtin import METHODS

__all__ = [
    "METHODS",
    "Attributions",
    "attribute",
    "input_parts",
]
