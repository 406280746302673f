"""TensorFlow's operations in torch: the table of operations, and the layers that nodes become."""

from captum_concepts_essentia.ops.layers import Constant, Operation, Placeholder
from captum_concepts_essentia.ops.table import OPERATIONS

__all__ = [
    "OPERATIONS",
    "Constant",
    "Operation",
    "Placeholder",
]
