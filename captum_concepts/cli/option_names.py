"""Error messages of the library in the words of the command line: options instead of Python arguments."""

from __future__ import annotations

import re
from collections.abc import Collection

#: Python argument -> options it may be given by; the first that the command has is named. Arguments that are not
#: listed have the option of the same name: ``min_groups`` is ``--min-groups``.
OPTIONS: dict[str, tuple[str, ...]] = {
    "cav_options": ("--cav-option",),
    "clips": ("--clips", "--baselines"),
    "column": ("--concept-column",),
    "columns": ("--concept-column",),
    "group": ("--group-column",),
    "k": ("--segments",),
    "layers": ("--layer",),
    "least": ("--consensus",),
    "method": ("--method", "--cav"),
    "methods": ("--method",),
    "miner_options": ("--miner-option",),
    "n_nulls": ("--nulls",),
    "n_permutations": ("--permutations",),
    "n_support": ("--support",),
    "options": ("--option",),
    "parents": ("--reference",),
    "path": ("--out",),
    "separator": ("--concept-separator",),
    "targets": ("--target",),
}
_START = re.compile(r"(?P<name>[a-z][a-z0-9_]*)\s*=\s*(?P<value>'[\w.-]+'(?=[:; ]|$))?")
_ARGUMENT = re.compile(r"(?<![\w.-])(?P<name>[a-z][a-z0-9_]*)=(?P<value>'[\w.-]+'|\d+(?:\.\d+)?)(?![\w.(-])")


def option_of(argument: str, known: Collection[str]) -> str | None:
    """The option of a command that sets a Python argument.

    Args:
        argument: its name.
        known: the options that the command has.

    Returns:
        the option; None if the command has none for it.

    Example:
        >>> option_of("n_nulls", ["--nulls", "--seed"]), option_of("n_nulls", ["--seed"])
        ('--nulls', None)
    """
    candidates = OPTIONS.get(argument, ("--" + argument.replace("_", "-"),))
    return next((option for option in candidates if option in known), None)


def name_options(message: str, known: Collection[str]) -> str:
    """An error message with options in place of the Python arguments at its start and in its remedy.

    Args:
        message: ``name=value: reason; remedy``.
        known: the options that the command has; arguments without an option stay as they are.

    Returns:
        the message; values that need no quotes have none.

    Example:
        >>> name_options("target='Jazz': no such class; did you mean 'jazz'?", ["--target"])
        "--target=Jazz: no such class; did you mean 'jazz'?"
        >>> name_options("device='cuda': no GPU; use device='cpu'", ["--device"])
        '--device=cuda: no GPU; use --device cpu'
    """
    start = _START.match(message)
    if start is not None and (option := option_of(start["name"], known)) is not None:
        value = (start["value"] or "").strip("'")
        message = f"{option}={value}{message[start.end() :]}"
    reason, semicolon, remedy = message.rpartition("; ")

    def as_option(found: re.Match[str]) -> str:
        option = option_of(found["name"], known)
        return found.group() if option is None else f"{option} {found['value'].strip(chr(39))}"

    return f"{reason}{semicolon}{_ARGUMENT.sub(as_option, remedy)}" if semicolon else message
