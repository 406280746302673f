"""The graphs that Essentia publishes, where they are available, compared with Essentia itself and with Keras."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_essentia import import_graph

from captum_concepts.audio import frontend, load_torchaudio


@pytest.fixture(scope="module")
def patches(tiny) -> torch.Tensor:
    """Log-mel patches (4, 187, 96) of real music."""
    folder = tiny.shared / "gtzan_mini" / "genres"
    if not folder.is_dir():
        pytest.skip("the GTZAN tracks are not available")
    found = []
    front = frontend("musicnn")
    for genre in ("blues", "classical", "hiphop", "metal"):
        samples, rate = soundfile.read(sorted((folder / genre).iterdir())[0], dtype="float32")
        wave = load_torchaudio()[0].resample(torch.from_numpy(samples), rate, 16000)
        found.append(wave[80000 : 80000 + front.patch_samples])
    return front(torch.stack(found))


def test_msd_vgg_is_what_keras_computes(published):
    module = import_graph(published("essentia/msd-vgg.pb"), output="model/Sigmoid")
    keras = np.load(published("deezer/msd_vgg_keras_reference.npz"))
    x = torch.from_numpy(keras["x"])
    for name, node in (
        ("o0", "pool3/MaxPool"),
        ("o1", "pool4/MaxPool"),
        ("o2", "pool5/MaxPool"),
        ("o3", "model/Sigmoid"),
    ):
        np.testing.assert_allclose(module(x, output=node).numpy(), keras[name], atol=1e-4, rtol=0)


def essentia_values(path, input_name: str, x: np.ndarray, outputs: list[str]) -> dict[str, np.ndarray]:
    runtime = pytest.importorskip("captum_concepts_essentia.runtime.session")
    pytest.importorskip("essentia")
    return runtime.Session(path, input_name, outputs)(x)


def test_musicnn_is_what_essentia_computes(published, patches):
    path = published("essentia/msd-musicnn-1.pb")
    module = import_graph(path)
    wanted = ["model/Sigmoid", "model/dense/BiasAdd", "model/concat_1"]
    found = essentia_values(path, "model/Placeholder", patches.numpy(), wanted)
    assert np.abs(module(patches).numpy() - found["model/Sigmoid"]).max() < 1e-5
    for node in wanted[1:]:
        ours, theirs = module(patches, output=node).numpy(), found[node]
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_msd_vgg_is_what_essentia_computes(published, patches):
    path = published("essentia/msd-vgg.pb")
    module = import_graph(path, output="model/Sigmoid")
    found = essentia_values(path, "model/Placeholder", patches.numpy(), ["model/Sigmoid", "model/pool4"])
    assert np.abs(module(patches).numpy() - found["model/Sigmoid"]).max() < 1e-4
    assert np.abs(module(patches, output="model/pool4").numpy() - found["model/pool4"]).max() < 1e-4


@pytest.fixture(scope="module")
def rows(published, patches):
    """Rows for a head of 200 or 1280 inputs, by where they come from.

    200: MusiCNN's embeddings of real music, as the head was trained on. 1280: EffNet's graph is not available, so there
    are none of its embeddings; a tagger's activations on real music (MSD VGG, third pooling) stand in, shifted and
    scaled to mean 0 and variance 1. Whether outputs make sense on them says nothing; whether both sides agree does.
    """

    def make(size: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0).normal(size=(50, size))
        if size == 200:
            real = import_graph(published("essentia/msd-musicnn-1.pb"))(patches, output="model/dense/BiasAdd")
        else:
            vgg = import_graph(published("essentia/msd-vgg.pb"), output="model/Sigmoid")
            real = vgg(patches, output="pool3/MaxPool").flatten(2).flatten(0, 1)[:, :size]
            real = (real - real.mean()) / real.std()
        found = {"random": random, "sparse": np.maximum(random - 1, 0) * 5, "real": real.numpy()}
        return {name: values.astype(np.float32) for name, values in found.items()}

    return make


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("moods_mirex-msd-musicnn-1", 5),
        ("genre_discogs400-discogs-effnet-1", 400),
        ("danceability-discogs-effnet-1", 2),
    ],
)
def test_heads_are_what_essentia_computes(published, rows, name, classes):
    pytest.importorskip("essentia")
    from captum_concepts_essentia.runtime.session import load_essentia

    path = published(f"essentia/{name}.pb")
    module = import_graph(path)
    size = module.input_shape[1]
    essentia = load_essentia().TensorflowPredict2D(
        graphFilename=str(path), input=module.input_name, output=module.output_name, dimensions=size
    )
    for kind, values in rows(size).items():
        ours, theirs = module(torch.from_numpy(values)).numpy(), np.asarray(essentia(values))
        assert ours.shape == theirs.shape == (len(values), classes)
        assert np.abs(ours - theirs).max() < 1e-5, kind
        assert len(np.unique(theirs.round(3), axis=0)) > 1, kind  # it depends on the rows


@pytest.mark.parametrize(
    "name",
    ["moods_mirex-msd-musicnn-1", "genre_discogs400-discogs-effnet-1", "danceability-discogs-effnet-1"],
)
def test_gradients_of_heads_against_differences(published, rows, name):
    module = import_graph(published(f"essentia/{name}.pb")).double()
    logits = module.find_logits()
    point = torch.from_numpy(rows(module.input_shape[1])["real"][:3]).double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(point, output=logits)[:, 1].sum(), point)
    direction = torch.randn(point.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        ends = [module(point + sign * 1e-6 * direction, output=logits)[:, 1] for sign in (1, -1)]
    torch.testing.assert_close(gradient @ direction, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-9)


def test_heads_need_no_card_to_find_their_output(published, tmp_path):
    """What the TF2 generation saves files with is not taken for an output."""
    for name in ("moods_mirex-msd-musicnn-1", "genre_discogs400-discogs-effnet-1", "danceability-discogs-effnet-1"):
        (tmp_path / f"{name}.pb").write_bytes(published(f"essentia/{name}.pb").read_bytes())
        expected = import_graph(published(f"essentia/{name}.pb")).output_name.removesuffix(":0")
        assert import_graph(tmp_path / f"{name}.pb").output_name == expected


def test_musicnn_gradient_against_differences(published, patches):
    module = import_graph(published("essentia/msd-musicnn-1.pb")).double()
    embedding = module(patches[:2].double(), output="model/dense/BiasAdd").requires_grad_(True)
    logits = module(embedding, output="model/dense_1/BiasAdd", input="model/dense/BiasAdd")
    (gradient,) = torch.autograd.grad(logits[:, 9].sum(), embedding)
    direction = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # ReLU is piecewise linear: with a step that crosses no kink the difference is exact.
    ends = [
        module(
            embedding.detach() + sign * 1e-7 * direction, output="model/dense_1/BiasAdd", input="model/dense/BiasAdd"
        )
        for sign in (1, -1)
    ]
    difference = (ends[0] - ends[1])[:, 9] / 2e-7
    torch.testing.assert_close(gradient @ direction, difference, rtol=1e-6, atol=0)


def test_musicnn_gradient_to_its_input_against_differences(published, patches):
    module = import_graph(published("essentia/msd-musicnn-1.pb")).double()
    x = patches[:1].double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(x, output="model/dense_1/BiasAdd")[0, 9], x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The model takes the variance about a mean that it holds fixed for the gradient; it does not reach the tags.
    with torch.no_grad():
        ends = [module(x + sign * 1e-7 * direction, output="model/dense_1/BiasAdd")[0, 9] for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / 2e-7
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=0)
