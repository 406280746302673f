"""The shipped network is the one that the training script makes, is as good as it claims, and rests on the causes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_concepts.audio.frontends import frontend
from captum_concepts.demo.instruments import PARENTS
from captum_concepts.demo.model import FRONTEND, LAYERS, WEIGHTS, DemoCNN, demo_backbone, demo_model, demo_training
from captum_concepts.demo.music import CONCEPTS, DISTRACTORS, GENERATOR_VERSION, GENRES, MusicGenerator, Piece
from captum_concepts.demo.recovery import causal_auc
from captum_concepts.demo.train import accuracy, genre_set, train

FRESH_SEED = 77  # of no piece that the network was trained or tested on


def logmel(pieces: Sequence[Piece]) -> torch.Tensor:
    """The first two patches of each piece: (2 * pieces, frames, mel)."""
    preset = frontend(FRONTEND)
    padded = nn.functional.pad(torch.stack([torch.from_numpy(piece.waveform) for piece in pieces]), preset.pad)
    with torch.no_grad():
        return preset(padded.unfold(1, preset.patch_samples, preset.hop_samples)[:, :2].flatten(0, 1))


def logits(model: DemoCNN, pieces: Sequence[Piece]) -> np.ndarray:
    """Mean logits of each piece, (pieces, classes)."""
    with torch.no_grad():
        return model(logmel(pieces)).reshape(len(pieces), 2, -1).mean(1).numpy()


def test_the_weights_are_small_and_say_where_they_come_from():
    assert WEIGHTS.stat().st_size < 1_000_000
    training = demo_training()
    assert json.loads(training["classes"]) == list(GENRES)
    assert training["generator_version"] == GENERATOR_VERSION
    assert float(training["held_out_accuracy"]) >= 0.9
    assert {"seed", "epochs", "pieces", "held_out_pieces"} <= set(training)


def test_the_layers_have_the_shapes_that_they_promise():
    model, classes = demo_model()
    assert not model.training
    seen: dict[str, tuple[int, ...]] = {}
    for name in ("pool1", "conv3", *LAYERS, "dense_relu"):
        hook = lambda _module, _inputs, output, name=name: seen.update({name: tuple(output.shape)})  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    assert model(torch.zeros(2, 187, 96)).shape == (2, len(classes))
    assert seen["pool1"] == (2, 8, 93, 48)
    assert seen["conv3"] == (2, 32, 46, 24)
    assert seen["pool4"] == (2, 48, 11, 6)
    assert seen["dense_relu"] == (2, 64)


def test_the_accuracy_on_fresh_pieces_is_the_one_claimed():
    model, _ = demo_model()
    training = demo_training()
    claimed = float(training["held_out_accuracy"])
    measured = accuracy(model, genre_set(MusicGenerator(FRESH_SEED), 12))
    spread = np.sqrt(claimed * (1 - claimed) * (1 / 96 + 1 / int(training["held_out_pieces"])))
    assert abs(measured - claimed) < 3 * spread


def test_taking_a_cause_away_lowers_the_genre_and_a_distractor_hardly_matters():
    """Counterfactual pieces: the same index with one concept turned round, everything else equal."""
    model, classes = demo_model()
    generator = MusicGenerator(FRESH_SEED, strength=1.0)
    drops: list[float] = []
    distractions: list[float] = []
    for genre, causes in GENRES.items():
        place = classes.index(genre)
        pieces = [generator.clip(index, genre=genre) for index in range(4)]
        before = logits(model, pieces)[:, place]
        for concept in (*causes, *DISTRACTORS):
            turned = [
                generator.clip(index, {concept: not piece.truth[concept]}, genre) for index, piece in enumerate(pieces)
            ]
            change = before - logits(model, turned)[:, place]
            if concept in causes:
                drops.append(float(change.mean()))
            else:
                distractions.append(float(np.abs(change).mean()))
    assert min(drops) > 0.5
    assert np.mean(drops) > 3 * np.mean(distractions)


def test_training_repeats_itself():
    data = genre_set(MusicGenerator(0, duration=4.0), 2)
    first, again = (train(data, epochs=2, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_backbone_has_the_classes_and_gradients_of_the_model():
    backbone = demo_backbone()
    model, classes = demo_model()
    assert list(backbone.classes) == classes
    assert tuple(backbone.layers) == LAYERS
    assert backbone.name == "demo-cnn"
    waveform = torch.from_numpy(MusicGenerator(FRESH_SEED).clip(0).waveform[: frontend(FRONTEND).patch_samples])[None]
    found = backbone.gradients(waveform, ["pool4"], [2], "time")
    kept: list[torch.Tensor] = []
    model.pool4.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    expected = model(frontend(FRONTEND)(waveform))
    (gradient,) = torch.autograd.grad(expected[0, 2], kept)
    torch.testing.assert_close(found.logits.cpu(), expected.detach())
    # the layer's map is (B, C, T, F); pooled rows are flattened in the order F, C
    torch.testing.assert_close(
        found.gradients["pool4"][:, 0].cpu(), gradient.sum(2).transpose(1, 2).flatten(1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_mean_difference_vectors_recover_the_causes_at_pool4():
    """The whole explanation in plain tensors, small: an explanation by the package has to do at least as well."""
    model, classes = demo_model()
    generator = MusicGenerator(FRESH_SEED)
    instruments = [concept for concept in CONCEPTS if PARENTS.get(concept, "percussion") != "percussion"]
    pieces = [generator.clip(index, [instruments[index % 9]]) for index in range(180)]
    marked = torch.tensor([[piece.truth[concept] for concept in CONCEPTS] for piece in pieces]).repeat_interleave(2, 0)
    explained = [generator.clip(1000 + index, genre=classes[index % 8]) for index in range(48)]
    with torch.no_grad():
        rows = _to_pool4(model, logmel(pieces)).mean(2).flatten(1)
    vectors = torch.stack([rows[column].mean(0) - rows[~column].mean(0) for column in marked.T])
    vectors = nn.functional.normalize(vectors, dim=1)
    maps = _to_pool4(model, logmel(explained)).detach().requires_grad_()
    outputs = model.logits(torch.relu(model.dense(maps.mean(2).flatten(1))))
    table = []
    for target, genre in enumerate(classes):
        (gradient,) = torch.autograd.grad(outputs[:, target].sum(), maps, retain_graph=True)
        magnitudes = (gradient.sum(2).flatten(1) @ vectors.T).mean(0)
        table += [("pool4", genre, name, value) for name, value in zip(CONCEPTS, magnitudes.tolist(), strict=True)]
    scores = pd.DataFrame(table, columns=["layer", "target", "concept", "magnitude"])
    assert causal_auc(scores, GENRES, PARENTS).layers["pool4"] >= 0.9


def _to_pool4(model: DemoCNN, patches: torch.Tensor) -> torch.Tensor:
    maps = patches[:, None]
    for block in range(1, 5):
        for kind in ("conv", "norm", "relu", "pool"):
            maps = model.get_submodule(f"{kind}{block}")(maps)
    return maps
