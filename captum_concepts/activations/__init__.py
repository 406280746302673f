"""Passes over audio: activations, logits and gradients."""

from captum_concepts.activations.batching import Problem
from captum_concepts.activations.extraction import Extraction, extract, shard_of

__all__ = [
    "Extraction",
    "Problem",
    "extract",
    "shard_of",
]
