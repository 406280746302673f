"""Names of concepts."""

from __future__ import annotations

import unicodedata
from typing import TypeAlias


def concept_name(text: object) -> str:
    """The normalised spelling of a concept's name: Unicode NFC, no white space at the ends.

    Args:
        text: the name as given.

    Returns:
        the name; nothing else is changed.

    Example:
        >>> concept_name(" violin ")
        'violin'
    """
    return unicodedata.normalize("NFC", str(text)).strip()


#: (path, status, message) of a row or file that could not be used.
Skipped: TypeAlias = "tuple[str, str, str]"
