"""The models and data of "Learning Unsupervised Hierarchies of Audio Concepts" (ISMIR 2022) for captum_concepts.

Modules: ``msd_vgg`` (the tagger), ``backbones``, ``cavs`` (published CAVs and tree), ``playlists`` (the paper's
concepts), ``tensors`` and ``pickles`` (its file formats, read without TensorFlow and without unpickling).
"""

__version__ = "0.1.0"
