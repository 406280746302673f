from __future__ import annotations

import json

import pytest
from captum_concepts_essentia.cards import find_card, read_card
from captum_concepts_essentia.graphdef.protobuf import read_graph
from captum_concepts_essentia.models import read_model

from captum_concepts.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(card: object) -> str:
        (tmp_path / "card.json").write_text(card if isinstance(card, str) else json.dumps(card))
        return str(tmp_path / "card.json")

    return write


def test_both_generations(tiny, write):
    card = read_card(write(tiny.tagger_card))
    assert (card.input, card.predictions, card.embeddings) == (
        "model/Placeholder",
        "model/Sigmoid",
        "model/dense/BiasAdd",
    )
    assert card.classes == ("rock", "jazz", "sad") and card.sample_rate == 16000
    assert card.algorithm == "TensorflowPredictMusiCNN" and card.embedding_model == ""
    head = read_card(write(tiny.head_card))
    assert head.predictions == "PartitionedCall" and head.embeddings is None
    assert (head.embedding_model, head.embedding_algorithm) == ("tiny-tagger-1", "TensorflowPredictMusiCNN")


def test_older_cards_lack_keys(write):
    card = read_card(write({"schema": {"outputs": [{"name": "x"}]}}))
    assert (card.input, card.predictions, card.classes, card.sample_rate) == (None, None, (), None)
    assert card.outputs[0].purpose == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "no 'schema'"),
        ({"schema": {"outputs": [{}]}}, "without a name"),
        ({"schema": {"outputs": "x"}}, "'outputs' is 'x'"),
        ({"schema": {}, "classes": [1]}, "list of names"),
        ({"schema": {}, "classes": ["a", "a"]}, "twice"),
        ({"schema": {}, "inference": {"sample_rate": -1}}, "sample_rate=-1"),
        ({"schema": {}, "inference": {"sample_rate": True}}, "'sample_rate' is True"),
        ({"schema": {}, "inference": {"embedding_model": "x"}}, "'embedding_model' is 'x'"),
        ({"schema": {}, "inference": {"embedding_model": {"model_name": "a\nb"}}}, "'model_name' is 'a"),
        ({"schema": {}, "inference": {"embedding_model": {"model_name": "a", "link": "\x1b[2J"}}}, "'link' is"),
        ({"schema": {}, "name": "a" * 5000}, "'name' is 'aaa"),
    ],
)
def test_one_line_for_a_bad_card(write, change, reason):
    with pytest.raises(InputError, match=reason) as error:
        read_card(write(change))
    assert "\n" not in str(error.value) and "card.json" in str(error.value)


def test_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_card(tmp_path / "none.json")
    assert find_card(tmp_path / "none.pb", None) is None


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_no_file_can_have(name):
    assert find_card(f"{name}.pb", None) is None
    for read in (read_card, read_graph):
        with pytest.raises(InputError, match="cannot be read") as error:
            read(name)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file; MTG publishes it"):
        read_model("essentia", f"{name}.pb")


@pytest.mark.parametrize(
    ("name", "predictions", "classes"),
    [
        ("msd-musicnn-1", "model/Sigmoid", 50),
        ("moods_mirex-msd-musicnn-1", "PartitionedCall", 5),
        ("genre_discogs400-discogs-effnet-1", "PartitionedCall:0", 400),
        ("danceability-discogs-effnet-1", "model/Softmax", 2),
        ("discogs-effnet-bs64-1", "PartitionedCall:0", 400),
    ],
)
def test_published_cards(published, name, predictions, classes):
    card = read_card(published(f"essentia/{name}.json"))
    assert card.predictions == predictions and len(card.classes) == classes and card.sample_rate == 16000
