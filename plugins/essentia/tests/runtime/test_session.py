"""Essentia itself, and that its known faults do no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from captum_concepts_essentia.backbones import FACTORIES
from captum_concepts_essentia.graphdef.builder import GraphBuilder
from captum_concepts_essentia.importer.graph_module import import_graph
from captum_concepts_essentia.runtime.session import Session, load_essentia

from captum_concepts.audio import AudioError, Clip
from captum_concepts.errors import InputError

pytest.importorskip("essentia")
LAYER = "model/dense/BiasAdd"


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 4, (9, 187, 96)).astype(np.float32)


def test_tensorflow_agrees_with_the_import(models, x):
    path = models / "tiny-tagger-1.pb"
    wanted = ["model/Sigmoid", LAYER, "model/norm", "model/Squeeze"]
    found = Session(path, "model/Placeholder", wanted)(x)
    module = import_graph(path)
    for node in wanted:
        expected = module(torch.from_numpy(x), output=node).numpy()
        np.testing.assert_allclose(found[node], expected, rtol=1e-4, atol=1e-4)
    again = Session(path, LAYER, ["model/Sigmoid"])(found[LAYER])
    np.testing.assert_array_equal(again["model/Sigmoid"], found["model/Sigmoid"])


def test_an_output_of_unknown_rank_is_whole(tmp_path):
    """Essentia gives one number per row of it."""
    unknown = GraphBuilder()
    unknown.add("Relu", "y", unknown.placeholder("x", None))
    (tmp_path / "u.pb").write_bytes(unknown.content)
    x = np.abs(np.random.default_rng(0).normal(size=(7, 5))).astype(np.float32)
    np.testing.assert_array_equal(Session(tmp_path / "u.pb", "x", ["y"])(x)["y"], x)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_a_graph_frozen_for_a_number_of_rows_takes_others(tmp_path, batch, rows):
    """As EffNet is for 64 and MAEST for 1; started at an inner node it reshapes to as many, too."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(6, 2)).astype(np.float32)
    graph = GraphBuilder()
    inner = graph.add("Relu", "inner", graph.placeholder("x", (batch, 3, 2)))
    flat = graph.add("Reshape", "flat", inner, graph.constant("sizes", np.array([batch, 6], np.int32)))
    graph.add("MatMul", "y", flat, graph.constant("kernel", kernel))
    (tmp_path / "f.pb").write_bytes(graph.content)
    x = random.normal(size=(rows, 3, 2)).astype(np.float32)
    expected = np.maximum(x, 0).reshape(rows, 6) @ kernel
    np.testing.assert_allclose(Session(tmp_path / "f.pb", "x", ["y"])(x)["y"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        Session(tmp_path / "f.pb", "inner", ["y"])(np.maximum(x, 0))["y"], expected, rtol=1e-5, atol=1e-6
    )
    found = import_graph(tmp_path / "f.pb")(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_unusual_operations_are_tensorflows(tmp_path):
    """Whole numbers that are divided and averaged, casts that wrap, a choice of rows, a range of fractions."""
    number, whole, byte = (np.dtype(name) for name in ("float32", "int32", "uint8"))
    graph = GraphBuilder()
    x = graph.placeholder("x", (None, 4))
    axis = graph.constant("axis", np.array([1], np.int32))
    ints = graph.add("Cast", "ints", x, SrcT=number, DstT=whole)
    quotient = graph.add("Div", "quotient", ints, graph.constant("two", np.array(-2, np.int32)), T=whole)
    mean = graph.add("Mean", "mean", ints, axis, T=whole, Tidx=whole, keep_dims=True)
    small = graph.add("Cast", "small", x, SrcT=number, DstT=byte)
    for name, source, kind in (("a", quotient, whole), ("b", mean, whole), ("c", small, byte)):
        graph.add("Cast", name, source, SrcT=kind, DstT=number)
    total = graph.add("Sum", "total", x, axis, Tidx=whole, keep_dims=False)
    rows = graph.add("Greater", "rows", total, graph.constant("zero", np.array(0, np.float32)))
    graph.add("Select", "d", rows, x, graph.add("Neg", "minus", x))
    steps = [graph.constant(f"step{i}", np.array(v, np.float32)) for i, v in enumerate((0.5, 2.5, 0.5))]
    graph.add("Mul", "e", x, graph.add("Range", "range", *steps, Tidx=number))
    (tmp_path / "g.pb").write_bytes(graph.content)
    values = np.array([[1, 2, -3, 4], [0, 5, -6, -7], [300, -1, 255, 7], [-9, -8, 1.7, -2.7]], np.float32)
    found = Session(tmp_path / "g.pb", "x", list("abcde"))(values)
    module = import_graph(tmp_path / "g.pb", output="a")
    for node, expected in found.items():
        np.testing.assert_array_equal(module(torch.from_numpy(values), output=node).numpy(), expected, node)


def test_large_outputs_of_convolutions(models, x):
    """Signal-level algorithms refuse them: more tokens than a buffer holds."""
    found = Session(models / "tiny-tagger-1.pb", "model/Placeholder", ["model/conv/Relu"])(x)["model/conv/Relu"]
    assert found.shape == (9, 183, 88, 6)


def test_many_rows_are_taken_in_parts(models, x):
    session = Session(models / "tiny-tagger-1.pb", LAYER, ["model/Sigmoid"])
    rows = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    found = session(rows)["model/Sigmoid"]
    np.testing.assert_allclose(found[500:], session(rows[500:])["model/Sigmoid"], atol=1e-6)


def test_threads_give_the_same(models, x):
    session = Session(models / "tiny-tagger-1.pb", "model/Placeholder", ["model/Sigmoid"])
    expected = session(x)["model/Sigmoid"]
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: session(x)["model/Sigmoid"], range(8)):
            np.testing.assert_allclose(found, expected, atol=1e-7)


def test_what_tensorflow_does_not_take_is_one_line(models, x, tmp_path):
    path = models / "tiny-tagger-1.pb"
    session = Session(path, "model/Placeholder", ["model/Sigmoid"])
    for bad in (x[:0], x[:, :, :1], x[0, 0], x[..., :3]):
        with pytest.raises(InputError) as error:
            session(bad)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no node 'model/Sigmoide'"):
        Session(path, "model/Placeholder", ["model/Sigmoide"])
    graph = GraphBuilder()
    graph.add("NoSuchOperation", "y", graph.placeholder("x", (None, 2)))
    (tmp_path / "bad.pb").write_bytes(graph.content)
    with pytest.raises(InputError, match="Essentia cannot load it") as error:
        Session(tmp_path / "bad.pb", "x", ["y"])
    assert "\n" not in str(error.value)


def test_a_forked_process_is_told_so_instead_of_hanging():
    load_essentia()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            load_essentia()
            os.write(write, b"no complaint")
        except InputError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    assert b"spawn" in os.read(read, 1000)
    os.waitpid(child, 0)


def test_without_essentia_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "essentia", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'captum-concepts-essentia\[runtime\]'"):
        load_essentia()


def test_nothing_is_written_to_the_terminal(models, tmp_path):
    """Essentia warns about every patch, TensorFlow about every library that it does not find."""
    code = (
        "import numpy as np; from captum_concepts_essentia.runtime.session import Session;"
        f"s = Session({str(models / 'tiny-tagger-1.pb')!r}, 'model/Placeholder', ['model/Sigmoid']);"
        "print(s(np.ones((40, 187, 96)))['model/Sigmoid'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(40, 3)\n" and done.stderr == ""


@pytest.fixture
def backbones(models):
    make = FACTORIES["essentia-musicnn"]
    path = str(models / "tiny-tagger-1.pb")
    return make(path, "cpu"), make(path, "cpu", gradients="differences")


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return 0.4 * np.sin(2 * np.pi * 440 * time * (1 + 0.1 * time))


def test_differences_are_the_gradients(backbones, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(6), 16000)
    exact, differences = backbones
    assert tuple(differences.classes) == tuple(exact.classes) and differences.layers == (LAYER,)
    inputs = next(iter(differences.read(Clip(str(tmp_path / "a.wav"))))).inputs
    one, other = (backbone.gradients(inputs, [LAYER], [0, 2]) for backbone in backbones)
    torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.activations[LAYER], one.activations[LAYER], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.gradients[LAYER], one.gradients[LAYER], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("op", ["Sigmoid", "Softmax"])
def test_logits_hidden_in_a_function(tmp_path, tiny, op):
    """TensorFlow cannot be asked for them: log-odds of sigmoids, log-probabilities of a softmax."""
    arrays = tiny.weights()
    arrays["out"] = arrays["out"] / 20  # far from certainty, where single precision is exact enough
    graph, body = tiny.tagger(arrays), GraphBuilder()
    body.add("Identity", "before", "x")
    body.add(op, "inner", "before:output:0")
    name = {"Sigmoid": "y", "Softmax": "softmax"}[op]
    graph.function("last", ["x"], {"out": f"inner:{name}:0"}, body)
    graph.call("PartitionedCall", "last", "model/dense_1/BiasAdd")
    (tmp_path / "hidden.pb").write_bytes(graph.content)
    options = {"output": "PartitionedCall", "embedding": LAYER, "layers": LAYER}
    both = [
        FACTORIES["essentia-musicnn"](str(tmp_path / "hidden.pb"), "cpu", gradients=kind, **options)
        for kind in ("exact", "differences")
    ]
    inputs = torch.from_numpy(tone(3.1)[: both[0].patch_samples]).float()[None]
    one, other = (backbone.gradients(inputs, [LAYER], [0, 1]) for backbone in both)
    expected, gradient = one.logits, one.gradients[LAYER]
    if op == "Softmax":
        expected = expected.log_softmax(1)
        every = both[0].gradients(inputs, [LAYER], [0, 1, 2]).gradients[LAYER]
        gradient = gradient - (one.logits.softmax(1)[:, None] @ every)
    torch.testing.assert_close(other.logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.gradients[LAYER], gradient, rtol=2e-2, atol=1e-3)


def test_sensitivities_along_cavs_at_a_map(backbones, tmp_path):
    """A layer with time: all its frames move together, as the pooled activation does."""
    soundfile.write(tmp_path / "a.wav", tone(6), 16000)
    exact, differences = backbones
    inputs = next(iter(differences.read(Clip(str(tmp_path / "a.wav"))))).inputs
    directions = np.random.default_rng(0).normal(size=(3, 6))
    values, errors = differences.sensitivities(inputs, "model/Squeeze", [1], directions)
    gradient = exact.gradients(inputs, ["model/Squeeze"], [1]).gradients["model/Squeeze"]
    expected = gradient.numpy() @ directions.T
    assert values.shape == errors.shape == (len(inputs), 1, 3)
    assert (np.abs(values - expected) <= np.maximum(4 * errors, 5e-3 * np.abs(expected).max())).all()
    with pytest.raises(InputError, match=r"directions of 5 numbers.* 6 "):
        differences.sensitivities(inputs, "model/Squeeze", [1], directions[:, :5])


def test_layers_and_targets_that_are_not_there(backbones):
    _, differences = backbones
    with pytest.raises(InputError, match=r"essentia-musicnn: layer='nowhere': is not one.*model/Sigmoid"):
        differences.check_layers(["nowhere"])
    silence = torch.zeros(1, differences.frontend.patch_samples)
    with pytest.raises(InputError, match="target=3: is out of range"):
        differences.gradients(silence, [LAYER], [3])


def test_opus_short_and_empty_files(backbones, tmp_path):
    """MonoLoader ends the process on Opus; an empty signal raises in Essentia, a short one gives nothing."""
    soundfile.write(tmp_path / "a.opus", tone(4, 48000), 48000, format="OGG", subtype="OPUS")
    soundfile.write(tmp_path / "short.wav", tone(0.7), 16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for backbone in backbones:
        for name in ("a.opus", "short.wav"):
            (block,) = backbone.read(Clip(str(tmp_path / name)))
            assert backbone.activations(block.inputs, [LAYER])[LAYER].shape == (len(block.inputs), 4)
        with pytest.raises(AudioError, match="empty"):
            list(backbone.read(Clip(str(tmp_path / "empty.wav"))))


def test_fingerprints_follow_the_file(models, backbones):
    _, first = backbones
    again = FACTORIES["essentia-musicnn"](str(models / "tiny-tagger-1.pb"), "cpu", gradients="differences")
    assert first.fingerprint() == again.fingerprint()
    before = first.fingerprint()
    with open(first.path, "ab") as file:
        file.write(b"\x22\x00")  # an empty field: other bytes, the same graph
    assert first.fingerprint() != before


def test_fingerprints_can_be_read(backbones):
    assert all(backbone.fingerprint() for backbone in backbones)
