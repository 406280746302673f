"""The one place that imports torchaudio, so that a broken installation is explained once and in one line."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from captum_concepts.errors import InputError


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def load() -> tuple[ModuleType, ModuleType]:
    """``torchaudio.functional`` and ``torchaudio.transforms``.

    Returns:
        the two modules.

    Raises:
        InputError: torchaudio is missing, or its compiled part does not load next to the installed torch; the
            message names both versions and the command that installs a matching pair.
    """
    try:
        return importlib.import_module("torchaudio.functional"), importlib.import_module("torchaudio.transforms")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        torch_version, torchaudio_version = _version("torch"), _version("torchaudio")
        wanted = torch_version.split("+")[0]
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"torchaudio {torchaudio_version}: does not load with torch {torch_version} ({reason[:120]}); "
            f"install the pair that belongs together, e.g. pip install torch=={wanted} torchaudio=={wanted}"
        ) from error
