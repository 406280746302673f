"""Option values and package versions as JSON values."""

from __future__ import annotations

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

PACKAGES = ("captum-concepts", "torch", "torchaudio", "captum", "numpy", "scipy", "networkx", "soundfile")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine the numbers."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def plain_value(value: object) -> Any:
    """An option as a JSON value; functions and other objects by their name, infinite numbers as text."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return plain_value(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value) if isinstance(value, Path) else getattr(value, "__qualname__", type(value).__qualname__)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
