"""For the tests of the package and of every plugin.

What one test does to logging is undone before the next; and each worker keeps what Numba compiled for librosa in a
folder of its own, as two processes that fill the same one at the same time may crash.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir(f"numba-{worker}"))


def _reset() -> None:
    root = logging.getLogger()
    root.handlers[:] = [
        handler for handler in root.handlers if type(handler).__module__ != "captum_concepts.cli.console"
    ]
    for name in ("captum_concepts", "py.warnings"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """The command line sets up logging for its process, which here goes on to other tests; fixtures run it too."""
    _reset()
    yield
    _reset()
