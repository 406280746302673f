from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from captum_concepts_tile2vec.checkpoints import Settings, load_tile2vec, save_tile2vec
from captum_concepts_tile2vec.data import folder_recordings
from captum_concepts_tile2vec.discriminants import _directions, fit_discriminants
from captum_concepts_tile2vec.tiles import find_tiles
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from captum_concepts.cli import main
from captum_concepts.errors import InputError

SETTINGS = Settings("ContrastNet", size=3, seconds=0.4)


@pytest.fixture
def tiles(write_folder):
    return find_tiles(folder_recordings(write_folder(per_class=2)), 0.4)


def test_directions_are_those_of_discriminant_analysis():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 40)
    scatter = random.standard_normal((6, 6))
    rows = 2 * random.standard_normal((5, 6))[groups] + random.standard_normal((200, 6)) @ scatter
    rows -= rows.mean(0)
    expected = LinearDiscriminantAnalysis(solver="eigen").fit(rows, groups).scalings_[:, :3]
    found = _directions(torch.from_numpy(rows), torch.from_numpy(groups), 1e-9, 3).numpy().T
    for column in range(3):
        cosine = found[:, column] @ expected[:, column]
        cosine /= np.linalg.norm(found[:, column]) * np.linalg.norm(expected[:, column])
        assert abs(cosine) == pytest.approx(1, abs=1e-4)
        spread = rows - np.stack([rows[groups == group].mean(0) for group in range(5)])[groups]
        ratio = np.var([rows[groups == group].mean(0) @ found[:, column] for group in range(5)])
        inner = (spread @ found[:, column]).var()
        # Weighted by the share between groups: variance within is the weight squared.
        assert inner == pytest.approx(ratio / inner / (ratio / inner + 1), rel=1e-5)


def test_an_embedding_of_tones_keeps_recordings_together(tiles, tmp_path):
    model = fit_discriminants(tiles, SETTINGS, tmp_path / "cache")
    waveforms = torch.stack([tiles.read(index) for index in range(len(tiles))])
    rows = model.embed(waveforms)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    same = torch.from_numpy(tiles.owner[:, None] == tiles.owner)
    distances = torch.cdist(rows, rows)
    assert distances[same].mean() < 0.3 * distances[~same].mean()
    again = fit_discriminants(tiles, SETTINGS, tmp_path / "other")
    save_tile2vec(tmp_path / "a.safetensors", model)
    save_tile2vec(tmp_path / "b.safetensors", again)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    torch.testing.assert_close(load_tile2vec(tmp_path / "a.safetensors").embed(waveforms), rows)


def test_mistakes(tiles, tmp_path):
    with pytest.raises(InputError, match="6 recordings or sessions for an embedding of 6 numbers: give more"):
        fit_discriminants(tiles, Settings("ContrastNet", size=6, seconds=0.4), tmp_path)
    with pytest.raises(InputError, match="architecture='GRUNet': give StatisticsNet or ContrastNet"):
        fit_discriminants(tiles, Settings("GRUNet", size=3, seconds=0.4), tmp_path)
    for shrinkage in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="shrinkage="):
            fit_discriminants(tiles, SETTINGS, tmp_path, shrinkage=shrinkage)


def test_the_command_writes_what_the_others_take(write_folder, tmp_path, capsys):
    root, out = write_folder(per_class=3), tmp_path / "run"

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(["tile2vec", *arguments, "--data", str(root), "-q"])
        return int(end.value.code)

    learn = ("discriminants", "--out", str(out), "--tile", "0.4", "--json")
    assert call(*learn, "--size", "3") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recordings"] == 7  # of nine, a fifth being held out
    judge = ("classify", "--model", told["weights"], "--out", str(tmp_path / "c"), "--folds", "3", "--device", "cpu")
    assert call(*judge, "--json") == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["accuracy"] > 0.6
    assert call(*learn, "--size", "7") == 2
    assert "7 recordings or sessions for an embedding of 7 numbers: give more" in capsys.readouterr().err
