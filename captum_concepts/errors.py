"""What a user did wrong, said in one line."""


class InputError(ValueError):
    """Bad input from outside: a file, an argument, a label, a weights file.

    The message is one line that names the file or argument, the value and the remedy. The command
    line prints it as it is and exits with code 2; it never shows a traceback for it.
    """


def shown(value: object, limit: int = 60) -> str:
    """``repr`` of an untrusted value, cut to ``limit`` characters, for use in a one-line message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
