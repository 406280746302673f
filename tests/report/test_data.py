from __future__ import annotations

import base64
import json
import random

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from captum_concepts.cavs.fit import fit_cavs
from captum_concepts.errors import InputError
from captum_concepts.explanation.explanation import Explanation
from captum_concepts.hierarchy.concept_hierarchy import ConceptHierarchy
from captum_concepts.report.data import number, page_data, plain

from .conftest import EDGES, NAMES, explain, hierarchy


def test_scores_are_keyed_by_index_and_a_reason_stands_for_a_missing_number() -> None:
    explanation = explain()
    content = page_data(explanation).content
    table = content["scores"][1][0]
    frame = explanation.scores[(explanation.scores.layer == "high") & (explanation.scores.target == "jazz")]
    expected = [None if np.isnan(v) else pytest.approx(v, rel=1e-3) for v in frame["magnitude"]]
    assert table["magnitude"] == expected
    assert [content["statuses"][s] for s in table["status"]] == ["ok", "not testable"] + ["ok"] * 6
    assert table["score"][1] is None


def test_shuffled_rows_give_the_same_page() -> None:
    explanation = explain()
    shuffled = explain(scores=explanation.scores.sample(frac=1, random_state=1))
    assert page_data(explanation).content == page_data(shuffled).content


def test_missing_rows_and_columns_are_left_open() -> None:
    scores = explain().scores.query("concept != 'violin'").drop(columns=["q_value", "cav_auc", "status"])
    table = page_data(explain(scores=scores)).content["scores"][0][0]
    assert table["status"][NAMES.index("violin")] is None and table["status"][0] == 0
    assert "q" not in table and "auc" not in table


def test_counts_below_agree_with_networkx_on_a_random_dag() -> None:
    rng = random.Random(0)
    names = [f"c{i}" for i in range(60)]
    edges = [(names[a], names[b], 1.0, 1.0) for b in range(60) for a in rng.sample(range(b), min(b, rng.randint(0, 3)))]
    raw = page_data(explain(names, edges)).content["trees"][0]
    graph = hierarchy(edges, names).graph
    assert raw["below"] == [len(nx.descendants(graph, name)) for name in names]
    assert {(names[p], names[c]) for p, c in zip(raw["parent"], raw["child"], strict=True)} == set(graph.edges)


def test_groups_that_are_not_concepts_are_nodes_without_scores() -> None:
    content = page_data(explain(edges=(*EDGES, ("everything", "music", 1.0, 1.0)))).content
    assert content["names"][-1] == "everything" and content["scored"] == len(NAMES)


def test_a_real_hierarchy_and_bank_fill_the_page() -> None:
    bank = fit_cavs(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), np.eye(40, 3, dtype=bool))
    names = bank.names
    tree = ConceptHierarchy.from_edges(names, [(names[0], names[1], 0.5), (names[0], names[2], 0.25)])
    content = page_data(explain(names, hierarchies={"low": tree}, banks={"low": bank})).content
    assert content["trees"][0]["weight"] == [0.5, 0.25] and content["trees"][0]["support"] == [None, None]
    assert content["quality"][0]["groups"] == [number(v) for v in bank.quality["n_positive_groups"]]


def test_a_cycle_is_refused() -> None:
    with pytest.raises(InputError, match="cycle"):
        page_data(explain(edges=(*EDGES, ("violin", "music", 1.0, 1.0))))


def test_the_timeline_survives_its_bytes(sounding: Explanation) -> None:
    line = page_data(sounding).content["timelines"][0]
    sensitivity = sounding.timelines[0].sensitivity
    steps = np.frombuffer(base64.b64decode(line["push"]), np.int8).reshape(sensitivity.shape[::-1]).T
    decoded = steps / 127 * np.array(line["scale"])
    assert np.abs(decoded - sensitivity).max() <= np.abs(sensitivity).max() / 127


def test_presence_survives_its_bytes_and_a_track_heard_closely_is_whole(sounding: Explanation) -> None:
    without, line = page_data(sounding), sounding.timelines[0]
    assert without.content["timelines"][0]["presence"] is None and not without.content["timelines"][0]["close"]
    assert without.spans[0] == (line.clip, 30.0)
    line.close = True
    line.presence = np.random.default_rng(0).random(line.sensitivity.shape)
    line.presence[:, 2] = np.nan
    line.ends[-1] = 200.0
    page = page_data(sounding)
    assert page.content["timelines"][0]["close"]
    marked = np.frombuffer(base64.b64decode(page.content["timelines"][0]["presence"]), np.uint8)
    wanted = np.nan_to_num(line.presence)
    np.testing.assert_allclose(marked.reshape(wanted.T.shape).T / 255, wanted, atol=0.5 / 255 + 1e-9)
    assert page.spans[page.content["timelines"][0]["clip"]] == (line.clip, 200.0)


def test_too_many_timelines_keep_the_first_of_every_target(
    sounding: Explanation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    low, high = sounding.timelines
    monkeypatch.setattr("captum_concepts.report.data.TIMELINE_BYTES", 2 * low.sensitivity.size)
    content = page_data(explain(timelines=[low, low, low, high])).content
    assert [line["layer"] for line in content["timelines"]] == [0, 1]
    assert "2 of 4 timelines" in caplog.text


def test_clips_appear_once_and_in_order_of_importance(sounding: Explanation) -> None:
    page = page_data(sounding)
    assert [clip["name"] for clip in page.content["clips"]] == ["song.wav", "near.wav", "far.wav", "gone.wav"]
    saxophone, violin = (page.content["examples"][0][str(NAMES.index(name))] for name in ("saxophone", "violin"))
    assert saxophone == [1, 2] and violin == [1, 3]


def test_no_folder_of_this_machine_enters_the_page(sounding: Explanation, tmp_path: object) -> None:
    assert str(tmp_path) not in json.dumps(page_data(sounding).content)


def test_without_scores_or_hierarchies() -> None:
    explanation = explain(targets=(), scores=pd.DataFrame(), hierarchies={}, banks={}, provenance={})
    content = page_data(explanation).content
    assert content["scores"] == [[], []] and content["trees"][0]["parent"] == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.123456, 0.1235), (3.0, 3), (np.nan, None), (np.inf, None), (None, None), ("x", None), (1e-12, 1e-12)],
)
def test_number(value: object, expected: object) -> None:
    assert number(value) == expected


def test_a_hash_for_every_file_is_summarised() -> None:
    def hash_line(hashes: dict[str, str]) -> object:
        return page_data(explain(provenance={"seed": 0, "clips": hashes})).content["provenance"]

    hashes = {f"/home/me/{i}.wav": str(i) for i in range(100)}
    assert hash_line(hashes) == hash_line(dict(reversed(hashes.items())))
    assert hash_line(hashes) != hash_line(hashes | {"/home/me/0.wav": "other"})
    assert "100 entries" in str(hash_line(hashes)) and "/home" not in str(hash_line(hashes))


def test_provenance_is_plain_json() -> None:
    value = plain({"a": (np.float32(0.5), {3, 1}), "b": {"c": None, "d": float("nan")}, 1: np.int64(2), "p": pd.NaT})
    expected = {"a": [0.5, [1, 3]], "b": {"c": None, "d": "nan"}, "1": 2, "p": "NaT"}
    assert json.loads(json.dumps(value, allow_nan=False)) == expected
