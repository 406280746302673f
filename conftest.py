"""Fixtures for the tests of the package and of every plugin, and so at the root of the repository.

Logging is reset after each test. Each worker has a folder of its own for code that Numba compiles for librosa, as two
processes that write to the same one at the same time may crash.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    cache = getattr(config, "cache", None)  # absent under -p no:cacheprovider
    if cache is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(cache.mkdir(f"numba-{worker}"))
        return
    folder = tempfile.mkdtemp(prefix=f"numba-{worker}-")
    os.environ["NUMBA_CACHE_DIR"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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
    """The command line sets up logging for its process; undo it, as the process goes on to other tests."""
    _reset()
    yield
    _reset()
