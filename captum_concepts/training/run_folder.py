"""The folder of one training run: its card, last state and best weights, each file written completely or not at all.

``run.json`` has the options and the results, ``last.ckpt`` the state after the last finished epoch (until the run is
finished), ``model.safetensors`` the weights of the best epoch, ``logs/`` the files for TensorBoard.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from captum_concepts.errors import InputError
from captum_concepts.storage.safetensors_files import write_weights, written
from captum_concepts.text import short_repr

FORMAT = 1
CARD, STATE, WEIGHTS, LOGS = "run.json", "last.ckpt", "model.safetensors", "logs"
_PARTIAL = ".partial"
_LOCK = ".lock"


class RunFolder:
    """The files of a training run.

    Args:
        folder: created by `begin`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.card = self.folder / CARD
        self.state = self.folder / STATE
        self.weights = self.folder / WEIGHTS

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder and lock it against other runs, also of other processes, inside the block.

        Raises:
            InputError: another run uses it, or it cannot be written to.
        """
        lock = FileLock(self.folder / _LOCK)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"out={short_repr(str(self.folder), 200)}: another run is at work in this folder; wait for its end, or "
                "give another folder"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """Create the folder for a new run, or continue the run in it; call this while it is `held`.

        Args:
            card: ``model``, ``data`` and ``options`` of the run, as JSON values.

        Returns:
            The card on disk: that of the run in the folder, or ``card``, now written.

        Raises:
            InputError: the folder has another run (the message names the first difference), has weights without a
                card, or cannot be written to.
        """
        asked: dict[str, Any] = {"format": FORMAT, "finished": False, **card, "versions": _versions()}
        asked = json.loads(json.dumps(asked))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f".*{_PARTIAL}"):  # of a run that was killed while it wrote
                left.unlink()
            if self.card.exists():
                there = self.read()
                self._require_same(there, asked)
                return there
            if self.weights.exists() or self.state.exists():
                raise InputError(
                    f"out={short_repr(str(self.folder), 200)}: has {WEIGHTS} or {STATE}, but no "
                    f"{CARD}; give another folder"
                )
            self.write(asked)
        except OSError as error:
            raise self._unwritable(error) from None
        return asked

    def read(self) -> dict[str, Any]:
        """The run card.

        Raises:
            InputError: there is none, or it is damaged.
        """
        try:
            card = json.loads(self.card.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            card = None
        if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("options"), dict):
            raise InputError(
                f"{short_repr(str(self.card), 200)}: is not the card of a training run; give another folder"
            )
        return card

    def write(self, card: Mapping[str, Any]) -> None:
        """Write the card; NaN and infinities become null."""
        with written(self.card) as path:
            path.write_text(json.dumps(_finite(card), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def load_state(self) -> dict[str, Any] | None:
        """The state after the last finished epoch, or None before the first.

        Raises:
            InputError: the file is damaged or not a training state; nothing in it is executed.
        """
        if not self.state.exists():
            return None
        try:
            with warnings.catch_warnings():  # torch warns about foreign pickles before it rejects them
                warnings.simplefilter("ignore")
                state = torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception:  # a damaged file may raise anything
            state = None
        if not isinstance(state, dict) or "state_dict" not in state:
            raise InputError(
                f"{short_repr(str(self.state), 200)}: damaged or not the state of a training run; "
                "remove it to start this "
                "run again"
            )
        return state

    def write_weights(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write the weights of the best epoch; see ``safetensors_files.write_weights``."""
        write_weights(self.weights, tensors, metadata)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"out={short_repr(str(self.folder), 200)}: cannot be written to ({error.strerror}); give another folder"
        )

    def _require_same(self, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        before = {"model": there.get("model"), **there["options"], "data": there.get("data")}
        now = {"model": asked["model"], **asked["options"], "data": asked["data"]}
        for name in [*now, *before]:
            if before.get(name) != now.get(name) or (name in before) != (name in now):
                raise InputError(
                    f"out={short_repr(str(self.folder), 200)}: holds a run with "
                    f"{name}={short_repr(before.get(name))}, not "
                    f"{short_repr(now.get(name))}; give the same, or another folder"
                )


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in ("captum-concepts", "torch", "torchaudio", "lightning"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
