"""Text in messages: untrusted values in one line, and numbers with their nouns."""

from __future__ import annotations

import re


def short_repr(value: object, limit: int = 60) -> str:
    """``repr`` of an untrusted value, cut to ``limit`` characters, for use in a one-line message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """``1 concept``, ``2 concepts``.

    Args:
        number: how many.
        one: the noun for one.
        many: the noun for any other number; default: ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def escape(found: re.Match[str]) -> str:
    """What was found as its Python escape, e.g. ``\\x00``."""
    return found.group().encode("unicode_escape").decode("ascii")


def one_line(name: str) -> str:
    """A name without control characters, line ends and lone surrogates: these as their Python escapes."""
    return re.sub("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff]", escape, name)
