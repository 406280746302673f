"""A small spectrogram transformer, of the operations that MAEST's kind is made of, compared with torch's own layers.

MAEST's graph itself is not available.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum_concepts_essentia.backbones import FACTORIES
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.importer.graph_module import import_graph
from torch import nn

INT = np.dtype("int32")
FRAMES, BANDS, WIDTH, HEADS, CLASSES = 316, 96, 16, 4, 3
PATCH, STRIDE = (16, 16), (20, 16)
TOKENS = 16 * 6 + 1


class Transformer(nn.Module):
    """The reference: patches by a convolution, a class token, positions, one block, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, STRIDE)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.block = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(WIDTH, 1e-6)
        self.dense = nn.Linear(WIDTH, CLASSES)

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x[:, None]).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return self.norm(self.block(tokens))[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.embedding(x)).sigmoid()


class _Writer:
    """Writes layers as TensorFlow freezes them."""

    def __init__(self) -> None:
        self.graph = GraphBuilder()
        self.count = 0

    def const(self, value: np.ndarray) -> str:
        self.count += 1
        return self.graph.constant(f"const_{self.count}", np.asarray(value))

    def ints(self, *numbers: int) -> str:
        return self.const(np.array(numbers, np.int32))

    def add(self, op: str, *inputs: str, name: str = "", **settings) -> str:  # type: ignore[no-untyped-def]
        self.count += 1
        return self.graph.add(op, name or f"{op}_{self.count}", *inputs, **settings)

    def rows(self, x: str) -> str:
        """Number of rows, from Shape and StridedSlice."""
        shape = self.add("Shape", x, out_type=INT)
        return self.add(
            "StridedSlice", shape, self.ints(0), self.ints(1), self.ints(1), shrink_axis_mask=1, T=INT, Index=INT
        )

    def reshape(self, x: str, rows: str, *sizes: int) -> str:
        parts = [rows, *(self.const(np.array(size, np.int32)) for size in sizes)]
        return self.add("Reshape", x, self.add("Pack", *parts, axis=0, N=len(parts), T=INT))

    def dense(self, x: str, layer: nn.Linear, name: str = "") -> str:
        """Of three axes by Einsum, of two by MatMul."""
        weight = self.const(layer.weight.detach().numpy().T.copy())
        op = ("Einsum", {"equation": "abc,cd->abd", "N": 2}) if not name else ("MatMul", {})
        product = self.add(op[0], x, weight, **op[1])
        return self.add("AddV2", product, self.const(layer.bias.detach().numpy()), name=name)

    def norm(self, x: str, layer: nn.LayerNorm) -> str:
        mean = self.add("Mean", x, self.ints(2), keep_dims=True)
        squares = self.add("SquaredDifference", x, self.add("StopGradient", mean))
        variance = self.add("Mean", squares, self.ints(2), keep_dims=True)
        raised = self.add("AddV2", variance, self.const(np.array(layer.eps, np.float32)))
        scale = self.add("Mul", self.add("Rsqrt", raised), self.const(layer.weight.detach().numpy()))
        shift = self.add("Sub", self.const(layer.bias.detach().numpy()), self.add("Mul", mean, scale))
        return self.add("AddV2", self.add("Mul", x, scale), shift)

    def attention(self, x: str, rows: str, layer: nn.MultiheadAttention) -> str:
        both = nn.Linear(WIDTH, 3 * WIDTH)
        both.weight, both.bias = layer.in_proj_weight, layer.in_proj_bias
        heads = self.reshape(self.dense(x, both), rows, TOKENS, 3, HEADS, WIDTH // HEADS)
        turned = self.add("Transpose", heads, self.ints(2, 0, 3, 1, 4))
        query, key, value = (f"{self.add('Unpack', turned, num=3, axis=0)}:{k}" for k in range(3))
        products = self.add("BatchMatMulV2", query, key, adj_y=True)
        scale = self.const(np.array((WIDTH // HEADS) ** -0.5, np.float32))
        weights = self.add("Softmax", self.add("Mul", products, scale))
        mixed = self.add("Transpose", self.add("BatchMatMulV2", weights, value), self.ints(0, 2, 1, 3))
        return self.dense(self.reshape(mixed, rows, TOKENS, WIDTH), layer.out_proj)

    def gelu(self, x: str) -> str:
        erf = self.add("Erf", self.add("Mul", x, self.const(np.array(0.5**0.5, np.float32))))
        half = self.add("Mul", x, self.const(np.array(0.5, np.float32)))
        return self.add("Mul", half, self.add("AddV2", erf, self.const(np.array(1, np.float32))))


def written(model: Transformer) -> GraphBuilder:
    w = _Writer()
    x = w.graph.placeholder("melspectrogram", (None, FRAMES, BANDS))
    rows = w.rows(x)
    kernel = w.const(model.patches.weight.detach().numpy().transpose(2, 3, 1, 0).copy())
    found = w.add("ExpandDims", x, w.const(np.array(3, np.int32)), Tdim=INT)
    found = w.add("Conv2D", found, kernel, strides=[1, *STRIDE, 1], padding="VALID")
    found = w.add("BiasAdd", found, w.const(model.patches.bias.detach().numpy()))
    found = w.reshape(found, rows, TOKENS - 1, WIDTH)
    sizes = w.add("Pack", rows, *(w.const(np.array(n, np.int32)) for n in (1, WIDTH)), axis=0, N=3, T=INT)
    token = w.add("BroadcastTo", w.const(model.token.detach().numpy()), sizes)
    found = w.add("ConcatV2", token, found, w.const(np.array(1, np.int32)), N=2)
    found = w.add("AddV2", found, w.const(model.places.detach().numpy()))
    block = model.block
    found = w.add("AddV2", found, w.attention(w.norm(found, block.norm1), rows, block.self_attn))
    hidden = w.gelu(w.dense(w.norm(found, block.norm2), block.linear1))
    found = w.norm(w.add("AddV2", found, w.dense(hidden, block.linear2)), model.norm)
    first = w.add("StridedSlice", found, w.ints(0, 0, 0), w.ints(0, 1, 0), w.ints(1, 1, 1), name="embedding",
                  begin_mask=5, end_mask=5, shrink_axis_mask=2, Index=INT)  # fmt: skip
    w.add("Sigmoid", w.dense(first, model.dense, "logits"), name="Identity")
    return w.graph


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer().eval()


@pytest.fixture
def path(model, tmp_path) -> Path:
    (tmp_path / "transformer.pb").write_bytes(written(model).content)
    return tmp_path / "transformer.pb"


X = np.random.default_rng(0).normal(size=(3, FRAMES, BANDS)).astype(np.float32)


def test_values_and_gradients_are_those_of_torch(model, path):
    module = import_graph(path)
    x = torch.from_numpy(X)
    torch.testing.assert_close(module(x), model(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module(x[:1], output="embedding"), model.embedding(x[:1]), rtol=1e-4, atol=1e-5)
    point, other = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(model(point).sum(), point)
    # The layer norm's mean stands still for the gradient of the variance, which it does not change.
    (found,) = torch.autograd.grad(module(other).sum(), other)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_values_are_those_of_essentia(path):
    pytest.importorskip("essentia")
    from captum_concepts_essentia.runtime.session import Session

    outputs = ["embedding", "logits", "Identity"]
    found = Session(path, "melspectrogram", outputs)(X)
    module = import_graph(path)
    for node in outputs:
        expected = module(torch.from_numpy(X), output=node).numpy()
        assert np.abs(found[node] - expected).max() < 1e-5 * max(1, np.abs(found[node]).max())


def test_it_is_explained_at_its_tokens(model, path):
    options = {"output": "Identity", "embedding": "embedding", "classes": "a, b, c"}
    backbone = FACTORIES["essentia-maest"](str(path), "cpu", **options)
    wave = 0.1 * torch.randn(2, backbone.patch_samples, generator=torch.Generator().manual_seed(0))
    found = backbone.gradients(wave, ["embedding"], [2])
    x = backbone.frontend(wave)
    torch.testing.assert_close(found.activations["embedding"], model.embedding(x), rtol=1e-4, atol=1e-4)
    expected = model.dense.weight[2].expand(2, -1)
    torch.testing.assert_close(found.gradients["embedding"][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert found.logits.shape == (2, 3) and backbone.logits_layer == "logits"
