"""Say which human concepts the decisions of an audio classifier rest on, how they relate, and how sure we are.

The public names, listed in __init__.pyi, are imported when they are first used, so that import captum_concepts
need not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
