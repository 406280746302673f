"""Embeddings of audio learned without labels, by temporal proximity (Tile2Vec), for captum_concepts.

Modules: ``data`` (recordings), ``tiles``, ``features``, ``triplets``, ``models``, ``loss``, ``checkpoints``,
``training``, ``embedding``, ``classifiers`` and ``comparison``, ``embedding_analysis``, ``page`` and ``evaluation``,
``cli``.
"""

__version__ = "0.1.0"
