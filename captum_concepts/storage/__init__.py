"""Activations and weights on disk."""

from captum_concepts.storage import protobuf_wire
from captum_concepts.storage.activation_store import ActivationStore
from captum_concepts.storage.safetensors_files import read_weights, write_weights, written

__all__ = [
    "ActivationStore",
    "protobuf_wire",
    "read_weights",
    "write_weights",
    "written",
]
