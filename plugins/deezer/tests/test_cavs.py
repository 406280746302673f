from __future__ import annotations

import json
import os

import networkx as nx
import numpy as np
import pytest
import torch
from captum_concepts_deezer.cavs import load_published_cavs, load_published_hierarchy, read_published_cavs

from captum_concepts.errors import InputError

NAMES = ["Funk Rock", "Ska", "</script>"]


def contents(names=NAMES):
    random = np.random.default_rng(0)
    sizes = {0: 1536, 1: 768, 2: 128, 3: 50}
    weights = {layer: random.normal(size=(size, len(NAMES))).astype(np.float32) for layer, size in sizes.items()}
    biases = {layer: random.normal(size=(1, len(NAMES))).astype(np.float32) for layer in sizes}
    return [weights, biases, names]


@pytest.fixture
def save(tmp_path):
    def write(parts):
        array = np.empty(len(parts), object)
        for place, part in enumerate(parts):
            array[place] = part
        np.save(tmp_path / "cavs.npy", array, allow_pickle=True)
        return tmp_path / "cavs.npy"

    return write


def test_what_was_saved_is_read(save):
    weights, biases, names = contents()
    found = read_published_cavs(save([weights, biases, names]))
    assert found.names == tuple(names)
    for layer in range(4):
        np.testing.assert_array_equal(found.weights[layer], weights[layer])
        np.testing.assert_array_equal(found.biases[layer], biases[layer][0])


@pytest.mark.parametrize(("layer", "name"), [(0, "pool3"), ("pool4", "pool4"), (2, "pool5"), ("output", "output")])
def test_logits_of_the_bank_are_those_of_the_file(save, layer, name):
    weights, biases, _ = contents()
    bank = load_published_cavs(save(contents()), layer)
    index = ["pool3", "pool4", "pool5", "output"].index(name)
    activations = np.random.default_rng(1).normal(size=(7, len(weights[index])))
    expected = activations @ weights[index].astype(float) + biases[index]
    found = bank.logits(torch.tensor(activations, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(bank.directions.norm(dim=1), 1, atol=1e-6)
    assert (bank.layer, bank.names) == (name, tuple(NAMES))


def refused(action, *words):
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_layers_that_are_not_there(save):
    for layer in ("pool2", 4, True, -1):
        refused(lambda layer=layer: load_published_cavs(save(contents()), layer), "pool3", repr(layer))


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_files_that_are_not_cavs(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights, biases, names = contents()
    for parts, word in (
        ([weights, biases], "not a file of CAVs"),
        ([1, 2, 3], "not a file of CAVs"),
        ([weights, biases, names[:2]], "does not fit 2"),
        ([weights, biases, ["a", "a", "b"]], "different texts"),
        ([weights, biases, ["a", 2, "b"]], "different texts"),
        ([weights, {0: biases[0]}, names], "layers"),
        ([{7: weights[0]}, {7: biases[0]}, names], "layers"),
        ([weights, biases | {1: biases[1].T}, names], "biases of layer 1"),
        ([weights | {1: weights[1][0]}, biases, names], "weights of layer 1"),
        ([weights | {1: weights[1].astype(int)}, biases, names], "weights of layer 1"),
        ([weights | {1: weights[1] * np.nan}, biases, names], "NaN"),
        ([weights, biases, Evil()], "system"),
        ([weights | {1: [Evil()]}, biases, names], "system"),
    ):
        refused(lambda parts=parts: read_published_cavs(save(parts)), word)
    assert not (tmp_path / "executed").exists()
    weights[2][:, 1] = 0
    refused(lambda: load_published_cavs(save([weights, biases, names]), 2), "'Ska' is zero")


def test_the_published_cavs(published):
    path = published("apm_genres_cav.npy")
    cavs = read_published_cavs(path)
    assert [cavs.weights[layer].shape for layer in range(4)] == [(1536, 219), (768, 219), (128, 219), (50, 219)]
    assert cavs.names[:3] == ("Funk Rock", "West Coast R&B", "Latin Influenced")
    bank = load_published_cavs(path, "pool5")
    # Scale times unit direction gives the weights back.
    np.testing.assert_allclose((bank.scales[:, None] * bank.directions).T, cavs.weights[2], rtol=1e-5, atol=1e-7)


def test_the_published_tree(published):
    tree = load_published_hierarchy(published("apm_genres_published_hierarchy.json"))
    assert (len(tree), tree.number_of_edges()) == (219, 218)
    assert [node for node in tree if not tree.in_degree(node)] == ["Children"]
    assert nx.dag_longest_path_length(tree) == 13
    assert sum(not tree.out_degree(node) for node in tree) == 143
    assert max(dict(tree.out_degree).values()) == 11
    assert len(set(nx.get_node_attributes(tree, "cluster").values())) == 23
    assert set(tree) == set(read_published_cavs(published("apm_genres_cav.npy")).names)


@pytest.fixture
def page(tmp_path):
    def write(links, labels=("a", "b", "c")):
        nodes = [{"id": str(i), "label": label, "color": "rgb(1,2,3)"} for i, label in enumerate(labels)]
        path = tmp_path / "tree.json"
        path.write_text(json.dumps({"nodes": nodes, "links": [{"source": a, "target": b} for a, b in links]}))
        return path

    return write


def test_trees(page, tmp_path):
    tree = load_published_hierarchy(page([("0", "1"), ("0", "2")]))
    assert set(tree.edges) == {("a", "b"), ("a", "c")}
    assert tree.nodes["b"] == {"cluster": "rgb(1,2,3)"}
    for links, labels, word in (
        ([("0", "9")], "abc", "not there"),
        ([("0", "2"), ("1", "2")], "abc", "two parents"),
        ([("0", "1"), ("1", "0")], "abc", "circle"),
        ([("0", "0")], "abc", "circle"),
        ([], "aba", "same id or label"),
        ([(0, 1)], "abc", "not a published hierarchy"),
    ):
        refused(lambda links=links, labels=labels: load_published_hierarchy(page(links, labels)), word)
    for text in ("{", "[]", "{}", "[" * 100000, '{"nodes": [], "links": 3}'):
        (tmp_path / "bad.json").write_text(text)
        refused(lambda: load_published_hierarchy(tmp_path / "bad.json"), "not a published hierarchy")
    refused(lambda: load_published_hierarchy(tmp_path / "none.json"), "check the path")
