"""Negatives from the concepts' own domain are as long and as loud as the concept's clips."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.audio import tone

from captum_concepts.audio.clips import Clip
from captum_concepts.concepts.concept_set import ConceptSet
from captum_concepts.concepts.matching import clip_properties, imbalance, imbalance_lines, matched
from captum_concepts.errors import InputError


def test_properties_are_seconds_and_decibels_of_the_span(tmp_path):
    clip = tone(tmp_path / "a.wav", 2.0, peak=0.5)
    silent = tone(tmp_path / "silent.wav", 1.0, peak=0.0)
    found = clip_properties([clip, Clip(clip.path, 0.5, 1.5), silent, Clip(str(tmp_path / "gone.wav"))])
    expected = 20 * np.log10(0.5 / np.sqrt(2))
    np.testing.assert_allclose(found[:3], [[2.0, expected], [1.0, expected], [1.0, -120.0]], atol=1e-3)
    assert np.isnan(found[3]).all()


@pytest.fixture
def loud_and_quiet():
    """Concept 0 is short and loud, 1 long and quiet, 2 of every kind."""
    rng = np.random.default_rng(0)
    n = 200
    shows = np.zeros((3 * n, 3), dtype=bool)
    shows[np.arange(3 * n), np.repeat([0, 1, 2], n)] = True
    seconds = np.concatenate([rng.uniform(0.5, 1, n), rng.uniform(4, 8, n), rng.uniform(0.5, 8, n)])
    level = np.concatenate([rng.uniform(-12, -6, n), rng.uniform(-40, -30, n), rng.uniform(-40, -6, n)])
    return shows, np.stack([seconds, level], 1), [f"clip {i}" for i in range(3 * n)]


def test_matching_balances_duration_and_loudness(loud_and_quiet):
    shows, properties, keys = loud_and_quiet
    before = np.abs(imbalance(shows, ~shows, properties))
    chosen = matched(shows, ~shows, properties, keys)
    after = np.abs(imbalance(shows, chosen, properties))
    assert not (chosen & shows).any() and chosen.any(axis=0).all()
    assert before[:2].min() > 0.7
    assert after[:2].max() < 0.25
    assert not chosen[shows[:, 1], 0].any(), "no long quiet clip against the short loud ones"


def test_the_choice_does_not_depend_on_the_order_of_clips_or_concepts(loud_and_quiet):
    shows, properties, keys = loud_and_quiet
    chosen = matched(shows, ~shows, properties, keys)
    mixed = np.random.default_rng(1).permutation(len(keys))
    again = matched(
        shows[mixed][:, [2, 0, 1]], ~shows[mixed][:, [2, 0, 1]], properties[mixed], [keys[i] for i in mixed]
    )
    assert (again == chosen[mixed][:, [2, 0, 1]]).all()


def test_unreadable_clips_are_nobodys_negatives_and_imbalance_is_said(loud_and_quiet):
    shows, properties, keys = loud_and_quiet
    properties[400:] = np.nan
    chosen = matched(shows, ~shows, properties, keys)
    assert not chosen.any(), "what is left of candidates is neither as long nor as loud"
    (line,) = imbalance_lines(["a\n", "b", "c"], shows, ~shows, properties)
    assert "of 2 concepts" in line and "'a\\n'" in line and "\n" not in line
    assert imbalance_lines(["a", "b", "c"], shows, chosen, properties) == []


@pytest.fixture
def folders(tmp_path):
    for name, seconds in (("short", (0.3, 0.35)), ("both", (0.3, 2.0)), ("long", (2.0, 2.2)), ("random", (9.0, 9.5))):
        (tmp_path / name).mkdir()
        for i in range(6):
            tone(tmp_path / name / f"{name}{i}.wav", seconds[i % 2])  # a copy of the same name would be one clip
    return tmp_path


def test_a_set_of_concepts_holds_them_against_each_other(folders):
    concepts = ConceptSet.from_folders(folders, negatives="in-domain")
    mask = concepts.negative_mask()
    column = concepts.names.index("short")
    against = {clip.path.split("/")[-2] for clip, own in zip(concepts.clips, mask[:, column], strict=True) if own}
    assert against == {"both"}
    assert not mask[concepts.pool].any() and not (mask & concepts.labels).any()
    assert concepts.check(2) == {} and set(concepts.check(4)) >= {"short"}
    kept = concepts.subset(["short"])
    assert kept.negative_mask()[:, 0].sum() == mask[:, column].sum()
    assert (concepts.with_negatives("random").negative_mask() != mask).any()


def test_nothing_alike_and_unknown_words_are_refused(folders):
    alone = ConceptSet.from_folders(folders, negatives="in-domain").subset(["short"])
    assert alone.negative_mask().any()
    with pytest.raises(InputError, match="'in-domain'"):
        alone.with_negatives("in domain")
    for i in range(6):
        tone(folders / "both" / f"both{i}.wav", 2.0)
    some = ConceptSet.from_folders(folders, negatives="in-domain")
    assert some.negative_mask().any(axis=0).tolist() == [name != "short" for name in some.names]
    assert some.check(2) == {"short": "negatives in 0 groups, 2 needed"}
    with pytest.raises(InputError, match="1 of 1 concepts have none"):
        some.subset(["short"]).negative_mask()
