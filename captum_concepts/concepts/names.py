"""Names of concepts."""

from __future__ import annotations

import unicodedata
from typing import TypeAlias


def concept_name(text: object) -> str:
    """The one spelling of a concept's name: Unicode NFC, no white space at the ends; otherwise kept as it is."""
    return unicodedata.normalize("NFC", str(text)).strip()


Skipped: TypeAlias = "tuple[str, str, str]"
