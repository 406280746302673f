"""The machine computes what scikit-learn's does, learns nothing from held-out rows, and keeps without pickles."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum_concepts_gtzan.features import FeatureTable
from captum_concepts_gtzan.svm import CorrelationFilter, SvmModel, nested_accuracy, svm_pipeline, train_svm
from safetensors.torch import save_file
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from captum_concepts.errors import InputError

RBF = ({"C": [5], "kernel": ["rbf"], "gamma": ["scale"]},)


def table(classes: int = 4, rows: int = 25, features: int = 6, spread: float = 1.5, seed: int = 0) -> FeatureTable:
    """Overlapping clouds; columns of very different size, one of them a copy, one constant."""
    random = np.random.default_rng(seed)
    centres = spread * random.standard_normal((classes, features))
    values = np.repeat(centres, rows, axis=0) + random.standard_normal((classes * rows, features))
    values = values * np.logspace(-3, 3, features) + 7
    values = np.column_stack([values, 0.5 * values[:, 0], np.full(len(values), 3.0)])
    names = tuple(f"f{place}" for place in range(values.shape[1]))
    labels = tuple(f"genre {place // rows}" for place in range(len(values)))
    return FeatureTable(tuple(map(str, range(len(values)))), names, values, labels)


def sklearn_machine(data: FeatureTable, **options: Any) -> Pipeline:
    steps = [("scale", StandardScaler()), ("svm", SVC(decision_function_shape="ovo", **options))]
    return Pipeline(steps).fit(data.values[:, :6], np.array(data.labels))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "rbf", "C": 5, "gamma": "scale"},
        {"kernel": "rbf", "C": 0.3, "gamma": 0.2},
        {"kernel": "linear", "C": 1},
    ],
)
def test_margins_and_votes_are_those_of_scikit_learn(classes: int, options: dict[str, Any]) -> None:
    data, unseen = table(classes), table(classes, seed=9)
    grid = ({name: [value] for name, value in options.items()},)
    model = train_svm(data, data.names[:6], grid, threshold=1.0).model
    reference = sklearn_machine(data, **options)
    rows = model.standardise(unseen.values[:, :6])
    expected = reference.decision_function(unseen.values[:, :6])
    expected = -expected[:, None] if classes == 2 else expected
    np.testing.assert_allclose(model.margins(rows).numpy(), expected, atol=1e-9)
    votes = np.array(model.classes)[model.vote(rows).numpy()]
    assert votes.tolist() == reference.predict(unseen.values[:, :6]).tolist()


def test_probabilities_come_from_pairwise_margins() -> None:
    data, unseen = table(spread=1.0, rows=60), table(spread=1.0, rows=60, seed=0)
    half = np.arange(len(data.ids)) % 2 == 0
    seen = FeatureTable(data.ids, data.names, data.values[half], tuple(np.array(data.labels)[half]))
    model = train_svm(seen, data.names, RBF).model
    rows = model.standardise(unseen.select(model.features)[~half])
    found = model(rows).exp().numpy()
    margins = model.margins(rows).numpy() * float(model.slope)
    for row, margin in zip(found[:20], margins[:20], strict=True):
        matrix = np.full((4, 4), np.nan)
        matrix[np.triu_indices(4, 1)] = margin
        pair = 1 / (1 + np.exp(-np.where(np.isnan(matrix), -matrix.T, matrix)))
        expected = np.array([1 / (np.nansum(1 / np.delete(pair[c], c)) - 2) for c in range(4)])
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-9)
    truth = np.array(data.labels)[~half]
    assert log_loss(truth, found) < 0.8 * np.log(4)
    assert (np.array(model.classes)[found.argmax(1)] == truth).mean() > 0.6


def test_gradients_are_those_of_finite_differences() -> None:
    data = table()
    model = train_svm(data, data.names, RBF).model
    row = model.standardise(data.select(model.features)[:3]).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: model(x), (row,), eps=1e-6, atol=1e-7)


def test_the_filter_drops_copies_and_constants_whatever_the_order() -> None:
    data = table()
    kept = CorrelationFilter().fit(data.values).kept_
    assert kept.tolist() == [0, 1, 2, 3, 4, 5]
    order = np.random.default_rng(1).permutation(data.values.shape[1])
    turned = CorrelationFilter().fit(data.values[:, order]).kept_
    assert sorted(order[turned].tolist()) == kept.tolist()
    assert CorrelationFilter(0.9999).fit(np.arange(6.0).reshape(3, 2)).kept_.tolist() == [0]


def test_nothing_of_a_fold_is_learnt_from_its_test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fit of filter and scaler sees training rows only: 4/5 of the table at most."""
    data = table()
    seen: list[int] = []
    for step in (CorrelationFilter, StandardScaler):
        fit = step.fit

        def spied(self: Any, X: np.ndarray, *rest: Any, _fit: Any = fit, **more: Any) -> Any:
            seen.append(len(X))
            return _fit(self, X, *rest, **more)

        monkeypatch.setattr(step, "fit", spied)
    nested_accuracy(data, data.names, RBF)
    assert len(seen) >= 2 * 5 * 6 and max(seen) == len(data.ids) * 4 // 5


def test_labels_without_meaning_give_chance() -> None:
    data = table(classes=4, rows=50, features=6)
    shuffled = tuple(np.random.default_rng(3).permutation(np.array(data.labels)))
    result = nested_accuracy(FeatureTable(data.ids, data.names, data.values, shuffled), data.names, RBF)
    assert 0.15 < result.mean < 0.36
    assert nested_accuracy(data, data.names, RBF).mean > 0.8


def test_nested_results_fit_together_and_repeat() -> None:
    data = table()
    grid = ({"C": [0.1, 5], "kernel": ["linear", "rbf"]},)
    steps: list[tuple[str, int, int]] = []
    first = nested_accuracy(data, data.names, grid, progress=lambda *step: steps.append(step))
    second = nested_accuracy(data, data.names, grid)
    assert first.predicted == second.predicted and first.best == second.best
    assert np.mean(np.array(first.predicted) == np.array(data.labels)) == pytest.approx(first.mean)
    assert first.features == (6,) * 5 and len(first.best) == 5 and set(first.best[0]) == {"C", "kernel"}
    assert steps == [("folds", done, 5) for done in range(1, 6)]


def test_the_search_takes_the_best_point() -> None:
    data = table(spread=1.0)
    trained = train_svm(data, data.names, ({"C": [5], "kernel": ["rbf"], "gamma": [100.0, 0.1]},))
    assert trained.best == {"C": 5, "kernel": "rbf", "gamma": 0.1}
    assert trained.accuracy == max(point["accuracy"] for point in trained.grid) and len(trained.grid) == 2
    assert trained.model.features == data.names[:6]


def test_svm_pieces_are_as_long_as_its_training_tracks() -> None:
    data = table()
    assert train_svm(data, data.names, RBF).model.seconds == 30.0
    lengths = np.full(len(data.ids), 220_500.0)
    lengths[:9] = 9_000_000.0  # a few long ones change nothing
    timed = FeatureTable(data.ids, (*data.names, "length"), np.column_stack([data.values, lengths]), data.labels)
    assert train_svm(timed, data.names, RBF).model.seconds == 10.0


def test_a_machine_comes_back_as_it_was(tmp_path: Path) -> None:
    data = table()
    model = train_svm(data, data.names, RBF).model
    model.save(tmp_path / "svm.safetensors")
    loaded = SvmModel.load(tmp_path / "svm.safetensors")
    rows = model.standardise(data.select(model.features))
    assert torch.equal(loaded(rows), model(rows)) and loaded.version() == model.version()
    assert (loaded.features, loaded.classes, loaded.seconds) == (model.features, model.classes, model.seconds)
    assert [path.name for path in tmp_path.iterdir()] == ["svm.safetensors"]


class Hostile:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sentinel),)


def test_pickles_and_other_files_are_refused_and_run_nothing(tmp_path: Path) -> None:
    data = table()
    path = tmp_path / "svm_genre_classifier.pkl"
    for content in (Hostile(tmp_path / "run"), svm_pipeline().fit(data.values, data.labels)):
        path.write_bytes(pickle.dumps({"model": content}))
        with pytest.raises(InputError, match="not a safetensors file"):
            SvmModel.load(path)
    assert not (tmp_path / "run").exists()
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a support vector machine"):
        SvmModel.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "damage", ["nan", "shape", "missing", "scale", "json", "deep", "gamma", "nan gamma", "classes", "seconds"]
)
def test_damaged_machines_are_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    data = table()
    model = train_svm(data, data.names, RBF).model
    tensors = {name: value.detach().clone() for name, value in model.named_parameters()}
    names = ("features", "classes", "gamma", "seconds")
    described: dict[str, Any] = {name: getattr(model, name) for name in names}
    if damage == "nan":
        tensors["support"][0, 0] = torch.nan
    elif damage == "shape":
        tensors["weights"] = tensors["weights"][:, :-1].clone()
    elif damage == "missing":
        del tensors["intercept"]
    elif damage == "scale":
        tensors["scale"][0] = 0
    elif damage == "gamma":
        described["gamma"] = "wide"
    elif damage == "nan gamma":
        described["gamma"] = float("nan")
    elif damage == "seconds":
        described["seconds"] = 1e9
    elif damage == "classes":
        described["classes"] = 7
    text = {"json": "[", "deep": "[" * 100_000}.get(damage) or json.dumps(described)
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "captum-concepts-gtzan svm 1", "svm": text})
    with pytest.raises(InputError) as caught:
        SvmModel.load(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_cannot_be_learnt_from_are_refused() -> None:
    data = table(classes=2, rows=3)
    with pytest.raises(InputError, match=r"folds=5.*at most the 3 tracks"):
        train_svm(data, data.names, RBF)
    one = FeatureTable(data.ids[:3], data.names, data.values[:3], data.labels[:3])
    with pytest.raises(InputError, match="1 genre in the table"):
        train_svm(one, data.names, RBF, folds=2)
    with pytest.raises(InputError, match="there is no 'loudness'"):
        train_svm(data, ["loudness"], RBF, folds=2)
