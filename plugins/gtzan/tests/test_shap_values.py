"""SHAP values of the chosen files' features."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from captum_concepts.errors import InputError

shap_values = pytest.importorskip("captum_concepts_gtzan.shap_values")
pytest.importorskip("librosa")
pytest.importorskip("shap")

from captum_concepts_gtzan.evaluation import load_classifier  # noqa: E402
from captum_concepts_gtzan.features import FeatureTable  # noqa: E402
from captum_concepts_gtzan.shap_values import explain_features  # noqa: E402
from captum_concepts_gtzan.svm import SvmModel, train_svm  # noqa: E402

FEATURES = ("rms_mean", "spectral_centroid_mean", "zero_crossing_rate_mean")
CENTRE, SPREAD = np.array([0.2, 1500.0, 0.05]), np.array([0.05, 400.0, 0.02])


@pytest.fixture(scope="module")
def world(gtzan_like, tmp_path_factory):
    """A machine on three features of very different size, its table, and two files to explain."""
    rng = np.random.default_rng(0)
    labels = ["blues", "jazz", "metal"] * 15
    shifts = np.array([["blues", "jazz", "metal"].index(label) for label in labels])[:, None] * [1.0, 2.0, -1.0]
    table = FeatureTable(
        tuple(f"{i}.wav" for i in range(45)),
        FEATURES,
        CENTRE + SPREAD * (shifts + rng.normal(size=(45, 3))),
        tuple(labels),
    )
    trained = train_svm(table, FEATURES, [{"kernel": ["rbf"], "C": [1.0], "gamma": [0.2]}], threshold=1.0)
    root = gtzan_like(tmp_path_factory.mktemp("tracks"), seconds=1.5, numbers=range(1))
    return trained.model, table, sorted(root.rglob("*.wav"))


def log_probability(model, rows: np.ndarray, target: str) -> np.ndarray:
    with torch.no_grad():
        return model(model.standardise(rows))[:, list(model.classes).index(target)].numpy()


def test_values_add_up_from_the_background_to_the_chosen_file(world) -> None:
    model, table, files = world
    found = explain_features(model, files, table, "jazz", max_background=10, seed=3)
    chosen = np.sort(np.random.default_rng(3).permutation(45)[:10])
    np.testing.assert_allclose(found.base, log_probability(model, table.values[chosen], "jazz").mean(), rtol=1e-6)
    own = log_probability(model, found.rows, "jazz")
    np.testing.assert_allclose(found.base + found.values.sum(1), own, rtol=1e-6)


def test_values_are_shapleys_by_their_definition(world) -> None:
    """All 8 coalitions, samples and background standardised in the same way."""
    model, table, files = world
    found = explain_features(model, files[:1], table, "blues", max_background=8)
    background = table.values[np.sort(np.random.default_rng(0).permutation(45)[:8])]

    def worth(coalition: tuple[int, ...]) -> float:
        rows = background.copy()
        rows[:, list(coalition)] = found.rows[0, list(coalition)]
        return float(log_probability(model, rows, "blues").mean())

    wanted = []
    for k in range(3):
        a, b = (j for j in range(3) if j != k)
        steps = [((), 1 / 3), ((a,), 1 / 6), ((b,), 1 / 6), ((a, b), 1 / 3)]
        wanted.append(sum(share * (worth((*rest, k)) - worth(rest)) for rest, share in steps))
    # Twenty permutations forwards and backwards, of the six there are.
    np.testing.assert_allclose(found.values[0], wanted, atol=0.15 * np.abs(wanted).max())


def test_the_chosen_file_is_explained_and_the_class_is_named(world, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model, table, files = world
    one, other = (explain_features(model, [file], table, "jazz") for file in files)
    assert not np.allclose(one.rows, other.rows) and not np.allclose(one.values, other.values)
    both = explain_features(model, files, table, "jazz")
    np.testing.assert_allclose(both.rows, np.concatenate([one.rows, other.rows]))
    folder = both.save(tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    assert names == {"shap.json", "waterfall-0.png", "waterfall-1.png", "beeswarm.png", "heatmap.png"}
    content = json.loads((folder / "shap.json").read_text())
    assert content["target"] == "jazz" and [track["file"] for track in content["tracks"]] == list(map(str, files))
    best = explain_features(model, files[:1], table)
    wanted = max(model.classes, key=lambda name: log_probability(model, best.rows, name)[0])
    assert best.target == wanted


def test_a_long_file_is_explained_as_it_is_classified_piece_by_piece(world, tmp_path: Path) -> None:
    """A machine of 30 s pieces classifies the same pieces, whatever the length of the file; here they are of 1.2 s."""
    model, table, files = world
    short = SvmModel(model.features, model.classes, model.state_dict(), model.gamma, seconds=1.2)
    short.save(tmp_path / "svm.safetensors")
    parts = [soundfile.read(file, dtype="float32")[0][:26460] for file in files]
    soundfile.write(tmp_path / "long.wav", np.concatenate([*parts, parts[0][:4000]]), 22050, subtype="FLOAT")
    for number, part in enumerate(parts):
        soundfile.write(tmp_path / f"{number}.wav", part, 22050, subtype="FLOAT")
    found = explain_features(short, [tmp_path / "long.wav", tmp_path / "0.wav"], table)
    logits, count = load_classifier(tmp_path / "svm.safetensors").logits(str(tmp_path / "long.wav"))
    assert count == len(parts) and found.target == short.classes[int(logits.argmax())]
    np.testing.assert_allclose(found.base + found.values[0].sum(), logits.max(), rtol=1e-6)
    one = explain_features(short, [tmp_path / "0.wav", tmp_path / "1.wav"], table, found.target)
    np.testing.assert_allclose(found.rows, [one.rows.mean(0), one.rows[0]], rtol=1e-12)


def test_what_cannot_be_explained_is_one_line(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, table, files = world
    (tmp_path / "no.wav").write_bytes(b"RIFF")
    less = FeatureTable(table.ids, FEATURES[:2], table.values[:, :2], table.labels)
    for action, text in (
        (lambda: explain_features(model, [], table), "files: none given"),
        (lambda: explain_features(model, files, table, "disco"), "'disco': is not a class"),
        (lambda: explain_features(model, files, less), "zero_crossing_rate_mean"),
        (lambda: explain_features(model, [tmp_path / "no.wav"], table), "no.wav"),
        (lambda: explain_features(model, files, table, max_background=0), "max_background=0"),
    ):
        with pytest.raises(InputError, match=text) as caught:
            action()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(InputError, match=r"captum-concepts-gtzan\[shap\]"):
        explain_features(model, files, table)
