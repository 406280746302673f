"""Small graphs of the kinds that Essentia publishes, written here so that the tests need no download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from captum_concepts_essentia.graphdef.builder import GraphBuilder

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
INT = np.dtype("int32")


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """The path of a published file below models/; skips where it is not available."""

    def path(name: str) -> Path:
        if not (SHARED / "models" / name).is_file():
            pytest.skip(f"the published {name} is not available")
        return SHARED / "models" / name

    return path


def weights(seed: int = 0, frames: int = 187, features: int = 6) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"conv": (5, 9, 1, features), "bias": (features,), "gain": (features,), "offset": (features,)}
    shapes |= {"dense": (features, 4), "dense_bias": (4,), "out": (4, 3), "out_bias": (3,)}
    found = {name: random.normal(size=shape) for name, shape in shapes.items()}
    found["mean"], found["var"] = random.normal(size=features), random.uniform(0.5, 2, features)
    return {name: value.astype(np.float32) for name, value in found.items()}


def tagger(arrays: dict[str, np.ndarray], frames: int = 187, bands: int = 96, batch: int | None = None) -> GraphBuilder:
    """A tagger as MusiCNN is built: convolution, bias, ReLU, normalisation, pooling over all bands, mean over time,
    two dense layers, sigmoid. ``model/dense/BiasAdd`` is the embedding (4), ``model/Sigmoid`` the predictions (3)."""
    graph = GraphBuilder()
    const = {name: graph.constant(f"weights/{name}", value) for name, value in arrays.items()}
    x = graph.placeholder("model/Placeholder", (batch, frames, bands))
    x = graph.add("ExpandDims", "model/ExpandDims", x, graph.constant("last", np.array(3, np.int32)), Tdim=INT)
    x = graph.add("Conv2D", "model/conv/Conv2D", x, const["conv"], strides=[1, 1, 1, 1], padding="VALID")
    x = graph.add("BiasAdd", "model/conv/BiasAdd", x, const["bias"])
    x = graph.add("Relu", "model/conv/Relu", x)
    parameters = (const["gain"], const["offset"], const["mean"], const["var"])
    x = graph.add("FusedBatchNorm", "model/norm", x, *parameters, is_training=False, epsilon=1e-3)
    width = bands - arrays["conv"].shape[1] + 1
    x = graph.add("MaxPool", "model/pool", x, ksize=[1, 1, width, 1], strides=[1, 1, width, 1], padding="VALID")
    x = graph.add("Squeeze", "model/Squeeze", x, squeeze_dims=[2])
    x = graph.add("Mean", "model/Mean", x, graph.constant("time", np.array([1], np.int32)), Tidx=INT, keep_dims=False)
    x = graph.add("MatMul", "model/dense/MatMul", x, const["dense"], transpose_a=False, transpose_b=False)
    x = graph.add("BiasAdd", "model/dense/BiasAdd", x, const["dense_bias"])
    x = graph.add("Relu", "model/dense/Relu", x)
    x = graph.add("MatMul", "model/dense_1/MatMul", x, const["out"], transpose_a=False, transpose_b=False)
    x = graph.add("BiasAdd", "model/dense_1/BiasAdd", x, const["out_bias"])
    graph.add("Sigmoid", "model/Sigmoid", x)
    return graph


def head(seed: int = 1, inputs: int = 4) -> GraphBuilder:
    """A head of the TF2 generation, two functions deep: softmax(relu(x) @ kernel + bias), 2 classes."""
    random = np.random.default_rng(seed)
    inner = GraphBuilder()
    inner.add("Relu", "model/Relu", "x")
    inner.add("MatMul", "model/MatMul", "model/Relu:activations:0", "kernel", transpose_a=False, transpose_b=False)
    inner.add("AddV2", "model/add", "model/MatMul:product:0", "bias")
    inner.add("Softmax", "model/Softmax", "model/add:z:0")
    wrapper = GraphBuilder()
    wrapper.call("PartitionedCall", "__inference_call", "a", "b", "c")
    wrapper.add("Identity", "Identity", "PartitionedCall:output:0")
    graph = GraphBuilder()
    graph.function("__inference_call", ["x", "kernel", "bias"], {"Identity": "model/Softmax:softmax:0"}, inner)
    graph.function("__inference_wrapper", ["a", "b", "c"], {"Identity": "Identity:output:0"}, wrapper)
    x = graph.placeholder("serving_default_model_Placeholder", (None, inputs))
    kernel = graph.constant("Const", random.normal(size=(inputs, 2)).astype(np.float32))
    bias = graph.constant("Const_1", random.normal(size=2).astype(np.float32))
    graph.call("PartitionedCall", "__inference_wrapper", x, kernel, bias)
    return graph


TAGGER_CARD = {
    "name": "Tiny tagger",
    "version": "1",
    "link": "https://example.org/tiny-tagger-1.pb",
    "framework_version": "1.15.0",
    "classes": ["rock", "jazz", "sad"],
    "schema": {
        "inputs": [{"name": "model/Placeholder", "type": "float", "shape": [187, 96]}],
        "outputs": [
            {"name": "model/Sigmoid", "shape": [1, 3], "op": "Sigmoid", "output_purpose": "predictions"},
            {"name": "model/dense/BiasAdd", "shape": [1, 4], "op": "fully connected", "output_purpose": "embeddings"},
        ],
    },
    "inference": {"sample_rate": 16000, "algorithm": "TensorflowPredictMusiCNN"},
}
HEAD_CARD = {
    "name": "Tiny moods",
    "version": "1",
    "link": "https://example.org/tiny-moods-1.pb",
    "framework_version": "2.8.0",
    "classes": ["happy", "sad"],
    "schema": {
        "inputs": [{"name": "serving_default_model_Placeholder", "type": "float", "shape": ["batch_size", 4]}],
        "outputs": [{"name": "PartitionedCall", "shape": ["batch_size", 2], "output_purpose": "predictions"}],
    },
    "inference": {
        "sample_rate": 16000,
        "algorithm": "TensorflowPredict2D",
        "embedding_model": {"algorithm": "TensorflowPredictMusiCNN", "model_name": "tiny-tagger-1"},
    },
}


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """The makers above."""
    return SimpleNamespace(
        weights=weights, tagger=tagger, head=head, tagger_card=TAGGER_CARD, head_card=HEAD_CARD, shared=SHARED
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with tiny-tagger-1 and, for its embeddings, tiny-moods-1, each with its card."""
    for name, graph, card in (
        ("tiny-tagger-1", tagger(weights()), TAGGER_CARD),
        ("tiny-moods-1", head(), HEAD_CARD),
    ):
        (tmp_path / f"{name}.pb").write_bytes(graph.content)
        (tmp_path / f"{name}.json").write_text(json.dumps(card))
    return tmp_path
