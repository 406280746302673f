"""Figures for print; matplotlib is the optional extra ``plots``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from captum_concepts.errors import InputError
from captum_concepts.results.timeline import Timeline
from captum_concepts.text import short_repr, suggest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_concepts.attributions.api import Attributions

MAX_CONCEPTS = 12


def require_matplotlib() -> None:
    """Raise InputError unless matplotlib can be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError("figures: matplotlib is not installed; pip install 'captum-concepts[plots]'") from None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window and no global state.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(width, height), layout="constrained")


def timeline_figure(
    line: Timeline, names: Sequence[str], concepts: Sequence[str] | None = None, *, most: int = MAX_CONCEPTS
) -> Figure:
    """Presence of concepts and sensitivity to them along a track, one row per concept.

    Args:
        line: with K concepts.
        names: the K concepts' names.
        concepts: those to draw, in this order; default: the ``most`` with the largest absolute sensitivity anywhere,
            largest on top.
        most: how many, at most, of the default.

    Returns:
        A matplotlib figure: ``figure.savefig("timeline.png")``.

    Raises:
        InputError: matplotlib is not installed, an unknown concept, or nothing to draw.
    """
    columns = _columns(line, names, concepts, most)
    figure = new_figure(9.0, 1.8 + 0.5 * len(columns))
    rows: list[tuple[np.ndarray, str, str, tuple[float, float] | None]] = [
        (line.sensitivity, "sensitivity", "RdBu", None)
    ]
    if line.presence is not None:
        rows.insert(0, (line.presence, "presence", "Greys", (0.0, 1.0)))
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (values, label, colours, limits) in zip(panels, rows, strict=True):
        shown_values = values[:, columns].T
        # A concept that has no CAV at this layer has an empty row.
        top = float(np.abs(shown_values[np.isfinite(shown_values)]).max(initial=0.0)) or 1.0
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
    """(P + 1,) borders between patches in seconds, half way between their centres."""
    centres = (line.starts + line.ends) / 2
    return np.concatenate([line.starts[:1], (centres[1:] + centres[:-1]) / 2, line.ends[-1:]])


def _columns(line: Timeline, names: Sequence[str], concepts: Sequence[str] | None, most: int) -> list[int]:
    if concepts is not None:
        for name in concepts:
            if name not in names:
                raise InputError(
                    f"concepts={short_repr(name)}: not in this timeline; {suggest(name, names, 'concepts')}"
                )
        chosen = [list(names).index(name) for name in concepts]
    else:
        strength = np.abs(line.sensitivity).max(axis=0, initial=0.0)
        chosen = [int(k) for k in np.argsort(-strength, kind="stable") if np.isfinite(strength[k])][:most]
    if not chosen:
        raise InputError("concepts: none has a CAV at this layer, so there is nothing to plot; choose another layer")
    return chosen


def _plain(text: str, limit: int = 40) -> str:
    """A label for matplotlib: one line, with dollar signs escaped, as they would start a formula."""
    flat = " ".join(text.split()).replace("$", r"\$")
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def attribution_figure(found: Attributions, line: Timeline | None = None, names: Sequence[str] = ()) -> Figure:
    """The model's input and each method's attributions over time; below, the sensitivity to concepts.

    Args:
        found: attributions of one track.
        line: timeline of the same track and target, to stand beside them.
        names: the names of its concepts.

    Returns:
        A matplotlib figure. Red lowers the class, blue raises it; each method has its own scale.

    Raises:
        InputError: matplotlib is not installed, or the timeline is of another track or class.
    """
    if line is not None and (Path(line.clip.path).name, line.target) != (Path(found.clip.path).name, found.target):
        raise InputError(
            f"line={short_repr(line.clip.path, 200)}: another track or class ({short_repr(line.target)}); give the "
            "timeline of the attributed track and class"
        )
    maps = {"model input": found.inputs, **found.values}
    rows = len(maps) + (line is not None)
    figure = new_figure(9.0, 1.0 + 1.6 * rows)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, maps.items(), strict=False):
        picture = _over_time(values, found.axes)
        top = float(np.percentile(np.abs(picture), 99.5)) or 1.0
        style = {"cmap": "magma"} if name not in found.values else {"cmap": "RdBu", "vmin": -top, "vmax": top}
        span = (float(found.starts[0]), float(found.ends[-1]), 0.0, float(len(picture)))
        image = axes.imshow(picture, origin="lower", aspect="auto", extent=span, interpolation="nearest", **style)
        axes.set_title(name.replace("_", " "), fontsize=9, loc="left")
        figure.colorbar(image, ax=axes, pad=0.01)
    if line is not None:
        _plot_sensitivity(figure, panels[-1], line, names)
    panels[-1].set_xlabel("seconds")
    figure.suptitle(
        f"{_plain(Path(found.clip.path).name, 60)}: attributions of {_plain(found.target)}, "
        f"{len(found.baselines)} real clips as baselines",
        fontsize=10,
    )
    return figure


def _plot_sensitivity(figure: Figure, axes: Axes, line: Timeline, names: Sequence[str]) -> None:
    columns = _columns(line, names, None, 8)
    values = line.sensitivity[:, columns].T
    top = float(np.abs(values).max()) or 1.0
    rows = np.arange(len(columns) + 1)
    mesh = axes.pcolormesh(borders(line), rows, values, cmap="RdBu", vmin=-top, vmax=top)
    axes.set_yticks(np.arange(len(columns)) + 0.5, [_plain(names[k]) for k in columns], fontsize=7)
    axes.invert_yaxis()
    axes.set_title(f"sensitivity to concepts at {_plain(line.layer)}", fontsize=9, loc="left")
    figure.colorbar(mesh, ax=axes, pad=0.01)


def _over_time(values: np.ndarray, axes: str) -> np.ndarray:
    """(P, ...) to (bands, P x frames); without bands, one band."""
    letters = axes if len(axes) == values.ndim else "B" + "?" * (values.ndim - 2) + "T"
    moved = np.moveaxis(values, letters.index("T"), -1)
    rest = letters.replace("T", "")
    moved = moved if "F" not in rest else np.moveaxis(moved, rest.index("F"), -2)
    bands = moved.shape[-2] if "F" in rest else 1
    folded = moved.reshape(len(values), -1, bands, moved.shape[-1]).sum(1)
    return np.concatenate(list(folded), axis=-1)
