"""Say which human concepts the decisions of an audio classifier rest on, how they relate, and how sure we are."""

__version__ = "0.1.0"
