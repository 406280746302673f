"""Essentia's pretrained TensorFlow models for captum_concepts: frozen graphs as torch modules, with exact gradients.

Public: `import_graph`. Modules: ``graph`` (the importer), ``protobuf``, ``functions``, ``ops`` and ``fusion`` (its
parts), ``cards`` (the models' metadata), ``frontends``, ``backbones``, ``runtime`` and ``differences`` (without
gradients, through Essentia itself), ``builder`` (writes small graphs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_concepts_essentia.importer.graph_module import import_graph

__all__ = ["import_graph"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "import_graph":  # importing the package imports no torch
        from captum_concepts_essentia.importer.graph_module import import_graph

        return import_graph
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
