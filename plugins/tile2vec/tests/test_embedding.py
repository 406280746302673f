from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from captum_concepts_tile2vec.checkpoints import Settings, untrained
from captum_concepts_tile2vec.data import folder_recordings
from captum_concepts_tile2vec.embedding import embed_side_by_side, embed_tiles, pooled_tiles
from captum_concepts_tile2vec.tiles import Tiles, find_tiles

from captum_concepts.errors import InputError

SETTINGS = Settings("ConvNet1D", size=4, features="mfcc", seconds=0.5)


def test_side_by_side_equals_separate_passes(write_folder, monkeypatch):
    tiles = find_tiles(folder_recordings(write_folder(per_class=1)), 0.5)
    models = [untrained(SETTINGS, seed) for seed in (0, 1)]
    extracted: list[int] = []
    read = Tiles.read
    monkeypatch.setattr(Tiles, "read", lambda tiles, index: extracted.append(index) or read(tiles, index))
    told: list[tuple[str, int, int]] = []
    embeddings, features = embed_side_by_side(models, tiles, batch_size=5, progress=lambda *step: told.append(step))
    assert extracted == list(range(12))
    assert [done for _, done, _ in told] == [0, 5, 10, 12]
    for model, found in zip(models, embeddings, strict=True):
        np.testing.assert_array_equal(found, embed_tiles(model, tiles, batch_size=5))
    np.testing.assert_array_equal(features, pooled_tiles(models[0].features, tiles, batch_size=5))


def test_tiles_that_a_model_does_not_take(write_folder):
    tiles = find_tiles(folder_recordings(write_folder(per_class=1)), 0.25)
    for embed in (lambda model: embed_tiles(model, tiles), lambda model: embed_side_by_side([model], tiles)):
        with pytest.raises(InputError, match=r"tiles have 0\.25 seconds where the model takes 0\.5"):
            embed(untrained(SETTINGS, 0))
    with pytest.raises(InputError, match="tiles have 1 channels where the model takes 4; give recordings with as many"):
        embed_tiles(untrained(replace(SETTINGS, channels=4, seconds=0.25), 0), tiles)
