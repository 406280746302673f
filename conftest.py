"""For the tests of the package and of every plugin: what one test does to logging is undone before the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """The command line sets up logging for the process; tests that run it share one process with others."""
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in ("captum_concepts", "py.warnings")]
    handlers, levels = list(root.handlers), [logger.level for logger in loggers]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.captureWarnings(False)
