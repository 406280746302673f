"""For the tests of the package and of every plugin: what one test does to logging is undone before the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


def _reset() -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__ != "captum_concepts.console"]
    for name in ("captum_concepts", "py.warnings"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """The command line sets up logging for its process, which here goes on to other tests; fixtures run it too."""
    _reset()
    yield
    _reset()
