from __future__ import annotations

import numpy as np
import pytest
import torch
from captum_concepts_tile2vec.classifiers import (
    Predictions,
    as_module,
    fit_classifier,
    predict_held_out,
    report,
    score,
    score_difference,
)
from sklearn.metrics import accuracy_score, f1_score

from captum_concepts.errors import InputError


def clusters(classes: int = 3, recordings: int = 6, tiles: int = 4, apart: float = 4.0, seed: int = 0):
    """Rows, labels, recordings, groups of tiles that lie around one point per class."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(classes * recordings), tiles)
    labels = np.array([f"class{index % classes}" for index in owner], dtype=object)
    centres = apart * np.eye(classes, 5)
    rows = centres[owner % classes] + random.standard_normal((len(owner), 5))
    names = np.array([f"r{index:03}" for index in owner], dtype=object)
    return rows.astype(np.float32), labels, names, names


def predictions(truth, predicted, groups=None) -> Predictions:
    names = np.array([f"r{index}" for index in range(len(truth))], dtype=object)
    return Predictions(
        ("a", "b", "c"), names, names if groups is None else groups, np.array(truth), np.eye(3)[predicted]
    )


@pytest.mark.parametrize("kind", ["logistic", "dense"])
def test_what_can_be_learnt_is_learnt(kind):
    found = predict_held_out(*clusters(), kind=kind, folds=3)
    assert len(found.recordings) == 18
    assert (found.predicted == found.truth).mean() > 0.9
    np.testing.assert_allclose(found.probabilities.sum(1), 1)


def test_noise_is_not_learnt():
    found = predict_held_out(*clusters(apart=0.0, recordings=40), folds=5)
    assert 0.15 < (found.predicted == found.truth).mean() < 0.52


def test_nothing_leaks_from_a_recording_to_itself():
    # Every recording has a place of its own; only its own training examples tell its class.
    random = np.random.default_rng(1)
    owner = np.repeat(np.arange(60), 10)
    rows = 10 * random.standard_normal((60, 30))[owner] + 0.1 * random.standard_normal((600, 30))
    labels = np.array([f"class{index}" for index in random.integers(0, 3, 60)], dtype=object)[owner]
    names = owner.astype(str).astype(object)
    assert score(predict_held_out(rows, labels, names, names)).accuracy < 0.6


def test_order_of_tiles_does_not_matter():
    rows, labels, names, groups = clusters(apart=1.0)
    order = np.random.default_rng(0).permutation(len(rows))
    one = predict_held_out(rows, labels, names, groups, folds=3)
    other = predict_held_out(rows[order], labels[order], names[order], groups[order], folds=3)
    assert np.array_equal(one.recordings, other.recordings)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)


def test_given_parts():
    rows, labels, names, groups = clusters()
    held_out = np.isin(names, ["r000", "r001", "r002", "r003"])
    found = predict_held_out(rows, labels, names, groups, held_out=held_out)
    assert found.recordings.tolist() == ["r000", "r001", "r002", "r003"]
    expected = fit_classifier(rows[~held_out], labels[~held_out]).predict_proba(rows[:4]).mean(0)
    np.testing.assert_allclose(found.probabilities[0], expected)


def test_tiles_without_label_are_left_out():
    rows, labels, names, groups = clusters()
    labels[:4] = ""
    assert "r000" not in predict_held_out(rows, labels, names, groups, folds=3).recordings


@pytest.mark.parametrize("kind", ["logistic", "dense"])
@pytest.mark.parametrize("classes", [2, 3])
def test_as_a_module_it_says_the_same(kind, classes):
    rows, labels, _, _ = clusters(classes)
    rows = rows * 3 + 7
    fitted = fit_classifier(rows, labels, kind)
    logits = as_module(fitted)(torch.from_numpy(rows))
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), fitted.predict_proba(rows), atol=1e-4)
    expected = [5 * 256 + 256, 256 * 256 + 256, 256 * classes + classes] if kind == "dense" else [5 * classes + classes]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in as_module(fitted)]
    assert [count for count in counts if count] == expected


def test_scores_are_sklearns():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 3, 50), random.integers(0, 3, 50)
    result = score(predictions(truth, predicted))
    assert result.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert result.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert result.accuracy_low < result.accuracy < result.accuracy_high
    assert result.macro_f1_low < result.macro_f1 < result.macro_f1_high


def test_intervals_draw_groups_not_recordings():
    truth, predicted = [0, 1] * 20, [0, 0] * 20
    alone = score(predictions(truth, predicted))
    paired = score(predictions(truth, predicted, np.repeat(np.arange(20), 2).astype(object)))
    assert paired.accuracy_low == paired.accuracy_high == 0.5
    width = alone.accuracy_high - alone.accuracy_low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.2)


def test_differences_are_paired():
    truth = [0, 1, 2] * 10
    right = predictions(truth, truth)
    wrong = predictions(truth, [(t + (i < 15)) % 3 for i, t in enumerate(truth)])
    difference = score_difference(right, wrong)
    assert difference.accuracy == pytest.approx(0.5)
    assert 0 < difference.accuracy_low < 0.5 < difference.accuracy_high
    same = score_difference(wrong, wrong)
    assert (same.accuracy, same.accuracy_low, same.macro_f1_high) == (0, 0, 0)
    with pytest.raises(InputError, match="of other recordings"):
        score_difference(right, predictions([0, 1], [0, 1]))


def test_report_by_hand():
    table = report(predictions([0, 0, 1, 1], [0, 1, 1, 1]))
    assert table["class"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(table["precision"], [1, 2 / 3, 0])
    np.testing.assert_allclose(table["recall"], [0.5, 1, 0])
    np.testing.assert_allclose(table["f1"], [2 / 3, 0.8, 0])
    assert table["recordings"].tolist() == [2, 2, 0]


def test_mistakes():
    rows, labels, names, groups = clusters()
    with pytest.raises(InputError, match="'class0' has 6 recordings or sessions: 7 folds need as many"):
        predict_held_out(rows, labels, names, groups, folds=7)
    with pytest.raises(InputError, match="no recording has a label"):
        predict_held_out(rows, np.full(len(rows), "", dtype=object), names, groups)
    with pytest.raises(InputError, match="all recordings have the label 'x'"):
        predict_held_out(rows, np.full(len(rows), "x", dtype=object), names, groups)
    with pytest.raises(InputError, match="classifier='tree'"):
        fit_classifier(rows, labels, "tree")
    with pytest.raises(InputError, match="no recording to learn 'class2' from"):
        predict_held_out(rows, labels, names, groups, held_out=labels == "class2")
    with pytest.raises(InputError, match="folds=1"):
        predict_held_out(rows, labels, names, groups, folds=1)
