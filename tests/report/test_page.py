from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from captum_concepts.errors import InputError
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.report import render, write_report

from .conftest import EDGES, NAMES, explain

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data: blob:; img-src data:"
)
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&amp;<!--"


def embedded(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_policy_is_strict_and_nothing_is_loaded_from_elsewhere(sounding: Explanation) -> None:
    page = render(sounding)
    assert f'content="{POLICY}"' in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=(?!\"data:,\")", page)
    assert not re.search(r"\son\w+=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page)


def test_hostile_text_stays_data() -> None:
    names = (HOSTILE, *NAMES[1:])
    edges = [(HOSTILE if a == "music" else a, b, w, s) for a, b, w, s in EDGES]
    page = render(
        explain(names, edges, targets=(HOSTILE,), backbone=HOSTILE, warnings=[HOSTILE], provenance={HOSTILE: HOSTILE})
    )
    assert "<img" not in page and "\u2028" not in page
    assert page.count("</script>") == 3
    data = embedded(page, "data")
    assert isinstance(data, dict) and data["names"][0] == HOSTILE and data["targets"] == [HOSTILE]


def test_unpaired_surrogates_and_nul_do_not_break_the_file(tmp_path: Path) -> None:
    explanation = explain(("b\x00", *NAMES[1:]), (), backbone="a\ud800", warnings=["\udfff"])
    path = write_report(explanation, tmp_path / "r.html")
    data = embedded(path.read_text(encoding="utf-8"), "data")
    assert isinstance(data, dict)
    assert (data["names"][0], data["model"], data["warnings"]) == ("b\x00", "a\ud800", ["\udfff"])


def test_same_explanation_same_bytes(sounding: Explanation) -> None:
    assert render(sounding) == render(sounding)


def test_each_sound_is_stored_once(sounding: Explanation) -> None:
    sounds = embedded(render(sounding), "sounds")
    assert isinstance(sounds, list) and len(sounds) == len(set(sounds)) == 3


def test_a_missing_file_is_said_in_the_log_and_the_page(
    sounding: Explanation, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = embedded(render(sounding), "data")
    assert "gone.wav" in caplog.text
    assert isinstance(data, dict)
    gone = next(clip for clip in data["clips"] if clip["name"] == "gone.wav")
    assert "sound" not in gone and "could not be read" in gone["missing"]


def test_render_leaves_out_the_least_important_sound_beyond_the_limit(
    sounding: Explanation, caplog: pytest.LogCaptureFixture
) -> None:
    full = render(sounding)
    limit = (len(full) - 1000) / 1e6
    with caplog.at_level(logging.WARNING):
        page = render(sounding, limit_mb=limit)
    data, sounds = embedded(page, "data"), embedded(page, "sounds")
    assert len(page) <= limit * 1e6 and "left out" in caplog.text
    assert isinstance(data, dict) and isinstance(sounds, list) and len(sounds) == 2
    assert [clip["name"] for clip in data["clips"] if "sound" in clip] == ["song.wav", "near.wav"]


def test_write_report_puts_sound_beside_a_page_that_would_be_too_big(sounding: Explanation, tmp_path: Path) -> None:
    small = write_report(sounding, tmp_path / "deep" / "small.html")
    assert small.read_text(encoding="utf-8") == render(sounding)
    assert [p.name for p in small.parent.iterdir()] == ["small.html"]
    big = write_report(sounding, tmp_path / "big.html", limit_mb=0.01)
    sounds = embedded(big.read_text(encoding="utf-8"), "sounds")
    assert isinstance(sounds, list)
    assert sorted(sounds) == sorted(f"big_audio/{p.name}" for p in (tmp_path / "big_audio").iterdir())


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_limit_must_be_positive(limit: float) -> None:
    with pytest.raises(InputError, match="limit_mb"):
        render(explain(), limit_mb=limit)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(explain(), tmp_path / "file" / "r.html")
