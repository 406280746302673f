"""Text of messages: untrusted values in one line, numbers with their nouns, lists of names, near misses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def short_repr(value: object, limit: int = 60) -> str:
    """``repr`` of an untrusted value, cut to ``limit`` characters, for a one-line message.

    Args:
        value: anything.
        limit: characters at most, above 0.

    Returns:
        the text; a cut one ends in "…".

    Example:
        >>> short_repr("violin"), short_repr("a" * 100, 6)
        ("'violin'", "'aaaa…")
    """
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Args:
        number: how many.
        one: the noun for one.
        many: the noun for any other number; default: ``one`` with an s.

    Returns:
        the number, with commas between thousands, and the noun.

    Example:
        >>> pluralize(1, "concept"), pluralize(1200, "class", "classes")
        ('1 concept', '1,200 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def near_misses(name: object, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known names that are most like a name, nearest first, whatever their case.

    Args:
        name: what was given.
        known: what there is.
        n: names at most.
        cutoff: similarity from 0 to 1 that a name needs, see ``difflib.get_close_matches``.

    Returns:
        up to ``n`` of ``known``.

    Example:
        >>> near_misses("Jazz", ["blues", "jazz"])
        ['jazz']
    """
    folded: dict[str, str] = {}
    for other in known:
        folded.setdefault(other.casefold(), other)
    # difflib's time grows with the square of the length; nobody's near miss is that long.
    wanted = str(name)[:200].casefold()
    return [folded[key] for key in difflib.get_close_matches(wanted, folded, n=n, cutoff=cutoff)]


def listed_names(names: Iterable[str], limit: int = 20) -> str:
    """The first names, and how many more there are.

    Args:
        names: in the order in which they are listed.
        limit: names at most.

    Returns:
        the names, separated by commas.

    Example:
        >>> listed_names(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    every = list(names)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")


def suggest(name: object, known: Iterable[str], what: str = "known names", limit: int = 20) -> str:
    """The remedy of a message about an unknown name: the nearest known one if there is any, and the known names.

    Args:
        name: what was given.
        known: what there is.
        what: what the known names are called.
        limit: known names listed at most; near ones come first.

    Returns:
        text to put after the semicolon of a message.

    Example:
        >>> suggest("saxophon", ["flute", "saxophone"], "concepts")
        "did you mean 'saxophone'? concepts: saxophone, flute"
        >>> suggest("x", ["flute", "saxophone"], "concepts")
        'concepts: flute, saxophone'
    """
    every = list(dict.fromkeys(known))
    if not every:
        return f"{what}: none"
    near = near_misses(name, every)
    ordered = list(dict.fromkeys([*near, *near_misses(name, every, cutoff=0.3), *every]))
    shown = [other if other.isprintable() and len(other) <= 60 else short_repr(other) for other in ordered]
    question = f"did you mean {short_repr(near[0])}? " if near else ""
    return f"{question}{what}: {listed_names(shown, limit)}"


def escape(found: re.Match[str]) -> str:
    """What was found as its Python escape, e.g. ``\\x00``; the second argument of ``re.sub``.

    Args:
        found: the match.

    Returns:
        ASCII text.
    """
    return found.group().encode("unicode_escape").decode("ascii")


def one_line(name: str) -> str:
    """A name with control characters, line ends and lone surrogates as their Python escapes.

    Args:
        name: any text.

    Returns:
        text of one line.

    Example:
        >>> print(one_line("two\\nlines"))
        two\\nlines
    """
    return re.sub("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff]", escape, name)
