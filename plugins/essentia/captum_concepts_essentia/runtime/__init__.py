"""Graphs that cannot be imported: run by Essentia itself, with gradients by central differences."""

from captum_concepts_essentia.runtime.backbone import RuntimeBackbone
from captum_concepts_essentia.runtime.differences import Derivatives, central_differences
from captum_concepts_essentia.runtime.session import Session, load_essentia

__all__ = [
    "Derivatives",
    "RuntimeBackbone",
    "Session",
    "central_differences",
    "load_essentia",
]
