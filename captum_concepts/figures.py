"""Pictures for print; matplotlib is the optional extra ``plots``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_concepts.errors import InputError, shown
from captum_concepts.explanation import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12


def require_matplotlib() -> None:
    """Raise InputError unless matplotlib can be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError("figures need matplotlib: pip install 'captum-concepts[plots]'") from None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window and no global state.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(width, height), layout="constrained")


def timeline_figure(
    line: Timeline, names: Sequence[str], concepts: Sequence[str] | None = None, *, most: int = MOST
) -> Figure:
    """Presence and push of concepts along a track, a row per concept.

    Args:
        line: with K concepts.
        names: the K concepts' names.
        concepts: those to draw, in this order; default: the ``most`` that push hardest anywhere, for or against,
            strongest on top.
        most: how many, at most, of the default.

    Returns:
        A matplotlib figure: ``figure.savefig("timeline.png")``.

    Raises:
        InputError: matplotlib is not installed, an unknown concept, or nothing to draw.
    """
    columns = _columns(line, names, concepts, most)
    figure = new_figure(9.0, 1.8 + 0.5 * len(columns))
    rows: list[tuple[np.ndarray, str, str, tuple[float, float] | None]] = [(line.push, "push", "RdBu", None)]
    if line.presence is not None:
        rows.insert(0, (line.presence, "presence", "Greys", (0.0, 1.0)))
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (values, label, colours, limits) in zip(panels, rows, strict=True):
        shown_values = values[:, columns].T
        top = float(np.nanmax(np.abs(shown_values))) or 1.0
        low, high = limits or (-top, top)
        mesh = axes.pcolormesh(
            borders(line), np.arange(len(columns) + 1), shown_values, cmap=colours, vmin=low, vmax=high
        )
        axes.set_yticks(np.arange(len(columns)) + 0.5, [_plain(names[k]) for k in columns], fontsize=8)
        axes.invert_yaxis()
        figure.colorbar(mesh, ax=axes, label=label, pad=0.01)
    panels[0].set_title(
        f"{_plain(Path(line.clip.path).name, 60)}: concepts at {_plain(line.layer)} for {_plain(line.target)}",
        fontsize=10,
    )
    panels[-1].set_xlabel(f"seconds (each value is of a patch of {line.ends[0] - line.starts[0]:.2f} s)")
    return figure


def borders(line: Timeline) -> np.ndarray:
    """(P + 1,) seconds where one patch's value gives way to the next: half way between their centres."""
    centres = (line.starts + line.ends) / 2
    return np.concatenate([line.starts[:1], (centres[1:] + centres[:-1]) / 2, line.ends[-1:]])


def _columns(line: Timeline, names: Sequence[str], concepts: Sequence[str] | None, most: int) -> list[int]:
    if concepts is not None:
        for name in concepts:
            if name not in names:
                raise InputError(f"concept {shown(name)} is not in this timeline; it has {', '.join(names[:20])}")
        chosen = [list(names).index(name) for name in concepts]
    else:
        strength = np.abs(line.push).max(axis=0, initial=0.0)
        chosen = [int(k) for k in np.argsort(-strength, kind="stable") if np.isfinite(strength[k])][:most]
    if not chosen:
        raise InputError("concepts: none of them has a CAV at this layer, so there is nothing to draw")
    return chosen


def _plain(text: str, limit: int = 40) -> str:
    """A label matplotlib takes as it is: one line, and no dollar sign begins a formula."""
    flat = " ".join(text.split()).replace("$", r"\$")
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def draw_map(axes: Axes, values: np.ndarray, title: str, seconds: tuple[float, float], **options: Any) -> Any:
    """A (bands, frames) map over time, low bands at the bottom."""
    image = axes.imshow(
        values, origin="lower", aspect="auto", extent=(seconds[0], seconds[1], 0.0, float(len(values))), **options
    )
    axes.set_title(title, fontsize=9)
    return image
