"""What a user did wrong, said in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input from outside: a file, an argument, a label, a weights file.

    The message is one line that names the file or argument, the value and the remedy. The command
    line prints it as it is and exits with code 2; it never shows a traceback for it.
    """
