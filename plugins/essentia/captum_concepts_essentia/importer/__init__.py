"""From a frozen graph to a torch module: the import, faster pooling, and the axes of each layer."""

from captum_concepts_essentia.importer.axes import layer_axes, observed
from captum_concepts_essentia.importer.graph_module import GraphModule, UnsupportedOperation, import_graph

__all__ = [
    "GraphModule",
    "UnsupportedOperation",
    "import_graph",
    "layer_axes",
    "observed",
]
