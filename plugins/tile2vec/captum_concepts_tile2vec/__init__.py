"""Embeddings of audio learnt without labels, by temporal proximity (Tile2Vec), for captum_concepts.

Modules: ``data`` (recordings), ``tiles``, ``features``, ``triplets``, ``models``, ``loss``, ``checkpoints``,
``training``, ``embedding``, ``classifiers`` and ``comparison``, ``looking``, ``page`` and ``evaluation``, ``commands``.
"""

__version__ = "0.1.0"
