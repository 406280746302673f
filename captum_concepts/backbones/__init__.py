"""Models that are explained: the protocol, PyTorch modules, black boxes."""

from captum_concepts.backbones.base import BackboneBase, check_backbone
from captum_concepts.backbones.embedding_backbone import EmbeddingBackbone
from captum_concepts.backbones.fingerprint import Unhashable, fingerprint
from captum_concepts.backbones.layers import LayerTap, check_pooling, find_layer, pool_map
from captum_concepts.backbones.load import load_backbone
from captum_concepts.backbones.options import class_names, resolve_device, target_index, whole_samples
from captum_concepts.backbones.protocol import Backbone, Gradients
from captum_concepts.backbones.torch_backbone import TorchBackbone

__all__ = [
    "Backbone",
    "BackboneBase",
    "EmbeddingBackbone",
    "Gradients",
    "LayerTap",
    "TorchBackbone",
    "Unhashable",
    "check_backbone",
    "check_pooling",
    "class_names",
    "find_layer",
    "fingerprint",
    "load_backbone",
    "pool_map",
    "resolve_device",
    "target_index",
    "whole_samples",
]
