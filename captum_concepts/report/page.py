"""The page: data, style, script and sound in one file."""

from __future__ import annotations

import base64
import json
import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from captum_concepts.choices import REPORT_LIMIT_MB
from captum_concepts.errors import InputError
from captum_concepts.report.audio import Sound, encode_all
from captum_concepts.report.data import page_data
from captum_concepts.text import short_repr

if TYPE_CHECKING:
    from captum_concepts.results.explanation_data import ExplanationData

logger = logging.getLogger(__name__)
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("core.js", "sound.js", "outline.js", "map.js", "details.js", "summary.js", "checks.js", "main.js")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src {}; img-src data:"
INLINE_MEDIA = "data: blob:"
FOLDER_MEDIA = "'self' file: data: blob:"
MEGABYTE = 1_000_000
BYTES_PER_CLIP = 64  # at most, for saying where a clip's sound is
# Characters that could end the script element, start a comment in it, or end a line in older script parsers.
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(explanation: ExplanationData, *, limit_mb: float = REPORT_LIMIT_MB) -> str:
    """One self-contained HTML page: opens from disk, offline, under a strict content security policy.

    Sound is added in order of importance (explained clips, then the best example of every concept, then the second
    best ...) until the page would grow beyond ``limit_mb`` megabytes (10^6 bytes); a player whose sound was left out
    says so and a warning is logged. The same explanation gives the same text.

    Raises:
        InputError: the limit is not positive, or a hierarchy has a cycle.
    """
    return _Parts.of(explanation, _limit(limit_mb)).inline()


def write_report(explanation: ExplanationData, path: str | Path, *, limit_mb: float = REPORT_LIMIT_MB) -> Path:
    """Write the page to ``path`` and return it.

    Up to ``limit_mb`` megabytes it is one self-contained file. Beyond, the sound is stored beside it, each clip once,
    in ``<stem>_audio/<content hash>.mp3``, and the page plays it from there: move both together.

    Raises:
        InputError: the limit is not positive, a hierarchy has a cycle, or the folder cannot be written.
    """
    path = Path(path)
    limit = _limit(limit_mb)
    parts = _Parts.of(explanation)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page = parts.inline()
        if len(page) <= limit:
            path.write_text(page, encoding="utf-8", newline="\n")
            return path
        folder = path.with_name(f"{path.stem}_audio")
        folder.mkdir(exist_ok=True)
        for sound in parts.sounds:
            (folder / f"{sound.digest}.mp3").write_bytes(sound.data)
        path.write_text(parts.beside(folder.name), encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(
            f"path={short_repr(str(path))}: cannot be written ({error.strerror}); give another path"
        ) from error
    return path


def _limit(limit_mb: float) -> float:
    if not limit_mb > 0:
        raise InputError(f"limit_mb={short_repr(limit_mb)}: not a size; give a positive number of megabytes")
    return limit_mb * MEGABYTE


@dataclass
class _Parts:
    """The parts of the page; ``sounds`` are unique, ``content`` refers to them by index."""

    content: dict[str, Any]
    sounds: list[Sound]

    @classmethod
    def of(cls, explanation: ExplanationData, limit: float = math.inf) -> _Parts:
        """With all its sound, or with as much as a page of ``limit`` bytes holds."""
        page = page_data(explanation)
        room = limit - len(_page(page.content, [], INLINE_MEDIA)) - BYTES_PER_CLIP * len(page.spans)
        left = f"Left out to keep this page under {limit / MEGABYTE:g} MB."
        for clip in page.content["clips"]:
            clip["missing"] = left
        unique: dict[str, int] = {}
        sounds: list[Sound] = []
        done = 0
        for clip, sound in zip(page.content["clips"], encode_all(page.spans), strict=False):
            if sound is None:
                clip["missing"] = "The audio file could not be read when this page was made."
            else:
                if sound.digest not in unique:
                    room -= _base64_size(sound)
                    if room < 0:
                        break
                    unique[sound.digest] = len(sounds)
                    sounds.append(sound)
                del clip["missing"]
                clip.update(sound=unique[sound.digest], seconds=round(sound.seconds, 3))
            done += 1
        if done < len(page.spans):
            logger.warning(
                "%d of %d clips left out of the report: limit_mb reached", len(page.spans) - done, len(page.spans)
            )
        return cls(page.content, sounds)

    def inline(self) -> str:
        encoded = [base64.b64encode(sound.data).decode("ascii") for sound in self.sounds]
        return _page({**self.content, "inline": True}, encoded, INLINE_MEDIA)

    def beside(self, folder: str) -> str:
        # The browser reads a relative address: "%", "#" and "?" in a folder's name would mean something else there.
        paths = [f"{jinja2.filters.do_urlencode(folder)}/{sound.digest}.mp3" for sound in self.sounds]
        return _page({**self.content, "inline": False}, paths, FOLDER_MEDIA)


def _base64_size(sound: Sound) -> int:
    return 4 * ((len(sound.data) + 2) // 3) + len('"",')


def _json(value: Any) -> Markup:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - every character HTML gives a meaning to is escaped above


@cache
def _template() -> tuple[jinja2.Template, Markup, Markup]:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((ASSETS / "template.html.j2").read_text(encoding="utf-8"))
    style = Markup((ASSETS / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    script = Markup("\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS))  # noqa: S704
    return template, style, script


def _page(content: dict[str, Any], sounds: list[str], media: str) -> str:
    template, style, script = _template()
    title = " ".join(content["model"].split())[:80].encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    return template.render(
        policy=Markup(POLICY.format(media)),  # noqa: S704 - a constant
        title=title,
        style=style,
        script=script,
        data=_json(content),
        sounds=_json(sounds),
    )
