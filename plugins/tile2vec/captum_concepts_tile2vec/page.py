"""One self-contained page about an embedding: map, heatmap and neighbours with audio. No script, nothing fetched."""

from __future__ import annotations

import base64
import colorsys
import logging
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from captum_concepts.errors import InputError
from captum_concepts.report import encode
from captum_concepts_tile2vec.embedding_analysis import Clusters, cluster_name
from captum_concepts_tile2vec.tiles import Tiles

ASSETS = Path(__file__).parent / "assets"
WIDTH, HEIGHT, MARGIN = 600, 450, 15
UNLABELLED = "no label"
_GREY = "#999999"

logger = logging.getLogger(__name__)


def render_page(
    tiles: Tiles,
    places: np.ndarray,
    drawn: np.ndarray,
    clusters: Clusters,
    neighbours: list[tuple[int, np.ndarray]],
    distances: pd.DataFrame,
    figures: list[tuple[str, str]],
    *,
    method: str,
    title: str,
    sound: bool = True,
) -> str:
    """The page as HTML. Labels and file names are untrusted and are escaped.

    Args:
        tiles: N tiles.
        places: float (M, 2), where the tiles of the map are on it.
        drawn: int64 (M,), which tiles these are.
        clusters: of the tiles.
        neighbours: a tile and the tiles nearest to it, of each cluster in order.
        distances: between the centroids of classes; may be empty.
        figures: names and values for the table at the top.
        method: that made ``places``.
        title: one line about the model and the data.
        sound: put the audio of the neighbours into the page, as MP3.
    """
    labels = np.array([label or UNLABELLED for label in tiles.labels], dtype=object)
    named = [("by cluster", np.array([cluster_name(number) for number in clusters.assigned], dtype=object))]
    if any(tiles.labels):
        named.insert(0, ("by label", labels))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    dots = _scaled(places)
    return environment.get_template("page.html.jinja").render(
        title=title,
        figures=figures,
        method=method,
        hidden=len(tiles) - len(drawn),
        omitted=len(clusters.centres) - len(neighbours),
        maps=[_map(tiles, caption, names, dots, drawn) for caption, names in named],
        heat_names=list(distances.index),
        heat=_heat(distances),
        widest=max((len(found) for _, found in neighbours), default=1) or 1,
        neighbours=[
            {"cluster": number + 1, "tiles": [_tile(tiles, index, sound) for index in (query, *found)]}
            for number, (query, found) in enumerate(neighbours)
        ],
    )


def _map(tiles: Tiles, caption: str, names: np.ndarray, dots: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    distinct = sorted(set(names), key=lambda name: (name == UNLABELLED, len(name), name))
    colours = dict(zip(distinct, _palette(len(distinct)), strict=True))
    if UNLABELLED in colours:
        colours[UNLABELLED] = _GREY
    return {
        "caption": caption,
        "key": list(colours.items()),
        "dots": [
            {
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "colour": colours[names[index]],
                "name": f"{tiles.name(index)} · {names[index]}",
            }
            for index, (x, y) in zip(drawn, dots, strict=True)
        ],
    }


def _scaled(places: np.ndarray) -> np.ndarray:
    low, high = places.min(0), places.max(0)
    area = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    return MARGIN + (places - low) / np.where(high > low, high - low, 1.0) * area


def _palette(count: int) -> list[str]:
    """Hues around the circle, in two lightnesses so that neighbours differ."""
    colours = [colorsys.hls_to_rgb(index / count, (0.45, 0.62)[index % 2], 0.65) for index in range(count)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in colours]


def _heat(distances: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of values with colours: near is dark, far is light."""
    most = float(distances.to_numpy().max(initial=0.0)) or 1.0
    return [
        (str(name), [(f"{value:.2f}", f"hsl(210 70% {55 + 40 * value / most:.0f}%)") for value in row])
        for name, row in zip(distances.index, distances.to_numpy(), strict=True)
    ]


def _tile(tiles: Tiles, index: int, sound: bool) -> dict[str, str]:
    result = {"name": tiles.name(index), "label": str(tiles.labels[index]), "sound": ""}
    if sound:
        try:
            data = encode(tiles.clip(index), tiles.seconds).data
        except InputError as error:
            logger.warning("no sound for %s: %s", tiles.name(index), error)
        else:
            result["sound"] = "data:audio/mpeg;base64," + base64.b64encode(data).decode("ascii")
    return result
