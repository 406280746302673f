"""The command line ``captum-concepts``."""

from captum_concepts.cli.app import main

__all__ = ["main"]
