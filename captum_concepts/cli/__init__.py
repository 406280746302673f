"""The command line ``captum-concepts``; ``console`` and ``options`` are for the commands of plugins too."""

from captum_concepts.cli import console, options
from captum_concepts.cli.app import main

__all__ = ["console", "main", "options"]
