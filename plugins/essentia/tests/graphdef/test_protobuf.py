from __future__ import annotations

import contextlib

import numpy as np
import pytest
from captum_concepts_essentia.graphdef.builder import GraphBuilder, field, shape_message, type_value, varint
from captum_concepts_essentia.graphdef.protobuf import MAX_NODES, parse_graph, read_graph

from captum_concepts.errors import InputError


def small() -> bytes:
    graph = GraphBuilder()
    x = graph.placeholder("x", (None, 3))
    graph.add("MatMul", "y", x, graph.constant("w", np.arange(6, dtype=np.float32).reshape(3, 2)), transpose_a=True)
    graph.add("LeakyRelu", "z", "y", alpha=0.5)
    return graph.content


def test_reads_what_the_builder_writes():
    nodes = parse_graph(small()).nodes
    assert list(nodes) == ["x", "w", "y", "z"]
    assert nodes["x"].attributes.shapes["shape"] == (-1, 3)
    assert nodes["y"].inputs == ("x", "w") and nodes["y"].attributes.ints["transpose_a"] == 1
    assert nodes["z"].attributes.floats["alpha"] == 0.5
    np.testing.assert_array_equal(nodes["w"].attributes.tensors["value"], [[0, 1], [2, 3], [4, 5]])


def constant(tensor: bytes) -> bytes:
    entry = field(5, field(1, b"value") + field(2, field(8, tensor)))
    return field(1, field(1, b"c") + field(2, b"Const") + entry)


def test_other_ways_to_give_numbers():
    float_type, half, shape = field(1, 1), field(1, 19), field(2, shape_message((2, 2)))
    floats = np.array([1, 2, 3], "<f4").tobytes()

    def value(tensor: bytes) -> np.ndarray:
        return parse_graph(constant(tensor)).nodes["c"].attributes.tensors["value"]

    np.testing.assert_array_equal(value(float_type + shape + field(5, floats)), [[1, 2], [3, 3]])
    single = b"".join(b"\x2d" + floats[i : i + 4] for i in range(0, 12, 4))
    np.testing.assert_array_equal(value(float_type + shape + single), [[1, 2], [3, 3]])
    np.testing.assert_array_equal(value(field(1, 3) + shape + field(7, varint(-5))), np.full((2, 2), -5))
    bits = int(np.array(1.5, np.float16).view(np.uint16))
    np.testing.assert_array_equal(value(half + shape + field(13, varint(bits))), np.full((2, 2), 1.5))
    np.testing.assert_array_equal(value(float_type + shape), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no nodes"),
        (b"\x0a\xff\xff\xff\xff\x0f", "bytes early"),
        (b"\xff" * 20, "more than 10 bytes"),
        (b"\x12\x00\x0b", "wire type"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "wire type|field|early|number"),
        (field(1, field(2, b"Const")), "both must be given"),
        (field(1, field(1, b"\xff\xfe") + field(2, b"Relu")), "not UTF-8"),
        (field(1, 7), "a number where a message belongs"),
        (field(1, field(1, b"a") + field(2, b"Relu")) * 2, "two nodes"),
        (constant(field(1, 1) + field(2, shape_message((2,))) + field(4, b"abc")), "3 bytes of numbers"),
        (constant(field(1, 1) + field(2, shape_message((2**40, 2**40)))), r"0 values|constant of shape"),
        (constant(field(1, 1) + field(2, shape_message((-1,)))), "unknown size"),
        (constant(field(1, 1) + field(2, shape_message([1] * 99))), "99 dimensions"),
        (constant(field(1, 1) + field(2, shape_message((1,))) + field(5, b"abc")), "not a whole"),
    ],
)
def test_one_line_for_what_is_no_graph(content, reason):
    with pytest.raises(InputError, match=reason) as error:
        parse_graph(content, "x.pb")
    assert "x.pb" in str(error.value) and "\n" not in str(error.value)


def test_every_truncation_is_refused_or_shorter():
    whole = small()
    for size in range(len(whole)):
        try:
            found = parse_graph(whole[:size])
        except InputError:
            continue
        assert len(found.nodes) < 4  # cut between two nodes


def test_random_damage_gives_one_line():
    random = np.random.default_rng(0)
    whole = np.frombuffer(small(), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[random.integers(len(whole), size=3)] = random.integers(256, size=3)
        with contextlib.suppress(InputError):  # any other exception is a failure
            parse_graph(damaged.tobytes())


def test_many_small_requests_for_memory_add_up():
    big = constant(field(1, 1) + field(2, shape_message((2**23,))))
    many = b"".join(big.replace(b"\x0a\x01c", b"\x0a\x01" + bytes([97 + i])) for i in range(3))
    with pytest.raises(InputError, match="constant of shape"):
        parse_graph(many)


def test_too_many_nodes():
    node = b"".join(field(1, field(1, str(i).encode()) + field(2, b"Relu")) for i in range(MAX_NODES + 1))
    with pytest.raises(InputError, match=f"more than {MAX_NODES} nodes"):
        parse_graph(node)


def test_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_graph(tmp_path / "none.pb")
    with pytest.raises(InputError, match="cannot be read"):
        read_graph(tmp_path)
    (tmp_path / "x.pb").write_bytes(small())
    assert len(read_graph(tmp_path / "x.pb").nodes) == 4
    with open(tmp_path / "huge.pb", "wb") as file:
        file.truncate(2**31)
    with pytest.raises(InputError, match=r"huge.pb': 2147483648 bytes are more than a protocol buffer"):
        read_graph(tmp_path / "huge.pb")


def test_types():
    assert type_value("bool") == b"\x30\x0a"
