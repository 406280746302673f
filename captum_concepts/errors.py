"""Exceptions for invalid user input."""

from __future__ import annotations


class InputError(ValueError):
    """Invalid input from outside: a file, an argument, a label, a weights file.

    The message is one line, ``name=value: reason; remedy``. The command line prints it as it is and exits with code 2,
    without a traceback. Code never reads the message: where a caller has to treat one cause differently, the cause has
    a subclass.

    Example:
        >>> raise InputError("batch_size=0: must be at least 1; give a positive whole number")
        Traceback (most recent call last):
        captum_concepts.errors.InputError: batch_size=0: must be at least 1; give a positive whole number
    """


class NotWaveformsError(InputError):
    """A backbone whose patches are no waveforms, where a sound has to be changed."""
