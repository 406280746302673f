"""Numbers in the lines that people read."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 concept``, ``2 concepts``.

    Args:
        number: how many.
        one: the noun for one.
        many: the noun for any other number; default: ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
