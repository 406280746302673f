"""Genre classifiers of GTZAN for captum_concepts.

Modules: ``dataset`` and ``splits`` (tracks by genre, and how to part them), ``models`` (the networks),
``checkpoints``, ``backbones``, ``features`` and ``svm`` (56 named numbers per track, and the classifier on them),
``concepts`` (genres and tempo classes).
"""

__version__ = "0.1.0"
