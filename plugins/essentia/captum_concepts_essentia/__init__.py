"""Essentia's pretrained TensorFlow models for captum_concepts: frozen graphs as torch modules, with exact gradients.

Public: `import_graph`. Packages: ``graphdef`` (the file format, read and written), ``ops`` (TensorFlow's operations in
torch), ``importer`` (from a graph to a torch module), ``runtime`` (graphs that only Essentia can run). Modules:
``cards`` (the models' metadata), ``models`` (the files of a model), ``frontends`` and ``backbones``.
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
