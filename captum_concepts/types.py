"""Types that several modules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

#: Called as ``progress(stage, done, total)`` while long work goes on.
Progress: TypeAlias = Callable[[str, int, int], None]
