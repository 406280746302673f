"""Griffe extension for the generated reference: reads docstrings as this project writes them.

Griffe knows a section ``Examples:``, this project writes ``Example:``; Markdown knows no roles of Sphinx; and one line
of ``Args:`` may describe several arguments (``positives, negatives:``), all of which must be in the signature.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc|data):`~?([^`]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
ARGUMENTS = re.compile(r"^Args:\n((?: {4}.*\n|\n)+)", re.MULTILINE)
NAMES = re.compile(r"^ {4}((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:(?: |$)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Prepare every docstring for Griffe's parser, and warn of described arguments that do not exist."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            if isinstance(obj, griffe.Attribute) and isinstance(obj.parent, griffe.Class):
                obj.public = False  # the class describes it under Attributes
            return
        text = ROLE.sub(r"`\1`", obj.docstring.value)
        obj.docstring.value = EXAMPLE.sub(r"\1Examples:", text)
        if isinstance(obj, griffe.Function | griffe.Class):
            self._check_arguments(obj, text)

    @staticmethod
    def _check_arguments(obj: griffe.Function | griffe.Class, text: str) -> None:
        known = {parameter.name for parameter in obj.parameters} | set(obj.members)
        for block in ARGUMENTS.findall(text + "\n"):
            for names in NAMES.findall(block):
                for name in names.replace("*", "").split(", "):
                    if known and name not in known:
                        griffe.logger.warning(f"{obj.path}: Args describes {name}, which is no argument")
