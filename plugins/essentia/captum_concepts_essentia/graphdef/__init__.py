"""TensorFlow's GraphDef messages: read, flattened and written without TensorFlow."""

from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.graphdef.functions import FlatNode, flatten
from captum_concepts_essentia.graphdef.protobuf import Attributes, Graph, Node, parse_graph, read_graph

__all__ = [
    "Attributes",
    "FlatNode",
    "Graph",
    "GraphBuilder",
    "Node",
    "flatten",
    "parse_graph",
    "read_graph",
]
