"""The timeline as a picture."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import captum_concepts as cc
from captum_concepts.report.figures import borders, timeline_figure
from captum_concepts.results.timeline import Timeline

NAMES = ["a", "b", "$hostile_{", "no CAV"]


def line() -> Timeline:
    rng = np.random.default_rng(0)
    sensitivity = rng.normal(size=(9, 4)) * [1, 3, 2, np.nan]
    starts = np.arange(9) * 0.5
    return Timeline("layer", "jazz", cc.Clip("track.wav"), starts, starts + 2, sensitivity, rng.random((9, 4)))


def test_it_shows_the_strongest_concepts_and_their_very_values(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    given = line()
    figure = timeline_figure(given, NAMES)
    presence, sensitivity = figure.axes[:2]
    order = np.argsort(-np.abs(given.sensitivity[:, :3]).max(0))
    assert [text.get_text().replace("\\", "") for text in sensitivity.get_yticklabels()] == [NAMES[k] for k in order]
    np.testing.assert_array_equal(sensitivity.collections[0].get_array().reshape(3, 9), given.sensitivity[:, order].T)
    np.testing.assert_array_equal(presence.collections[0].get_array().reshape(3, 9), given.presence[:, order].T)
    limits = sensitivity.collections[0].get_clim()
    assert limits[0] == -limits[1] == -np.nanmax(np.abs(given.sensitivity))
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_a_concept_without_a_cav_that_is_asked_for_has_an_empty_row() -> None:
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        presence, sensitivity = timeline_figure(line(), NAMES, ["no CAV"]).axes[:2]
    assert sensitivity.collections[0].get_array().mask.all() and sensitivity.collections[0].get_clim() == (-1, 1)
    np.testing.assert_array_equal(presence.collections[0].get_array().reshape(9), line().presence[:, 3])


def test_borders_lie_between_the_centres_of_patches() -> None:
    np.testing.assert_allclose(borders(line()), [0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 6])


def test_bad_arguments() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(cc.InputError, match="concepts='x': not in this timeline"):
        timeline_figure(line(), NAMES, ["x"])
    empty = line()
    empty.sensitivity = np.full_like(empty.sensitivity, np.nan)
    with pytest.raises(cc.InputError, match="none has a CAV"):
        timeline_figure(empty, NAMES)


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(cc.InputError, match=r"captum-concepts\[plots\]"):
        timeline_figure(line(), NAMES)
