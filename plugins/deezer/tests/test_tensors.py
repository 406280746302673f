from __future__ import annotations

import numpy as np
import pytest
from captum_concepts_deezer.tensors import EMBEDDING_SHAPE, read_tensor

from captum_concepts.audio import AudioError


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(size=EMBEDDING_SHAPE).astype(np.float32)


@pytest.fixture
def refused(tmp_path):
    def check(content: bytes, status: str, word: str = ""):
        path = tmp_path / "1.tensor"
        path.write_bytes(content)
        with pytest.raises(AudioError) as caught:
            read_tensor(path)
        assert caught.value.status == status
        assert word in str(caught.value)
        assert "\n" not in str(caught.value)

    return check


def test_bytes_written_by_tensorflow(tmp_path):
    # tf.io.serialize_tensor(tf.constant([[1., 2.]])): dtype 1; shape {dim {size: 1} dim {size: 2}}; tensor_content
    content = bytes.fromhex("0801120812020801120208022208" + "0000803f" + "00000040")
    (tmp_path / "1.tensor").write_bytes(content)
    np.testing.assert_array_equal(read_tensor(tmp_path / "1.tensor", (1, 2)), [[1.0, 2.0]])


def test_every_way_to_store_the_numbers(tmp_path, values, proto):
    path = tmp_path / "1.tensor"
    for store in ("content", "packed", "single"):
        content = proto(values, store=store)
        path.write_bytes(content[:2] + b"\x18\x01" + content[2:])  # with a version number, a field that is passed over
        found = read_tensor(path)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values)
        found[0, 0] = 1  # its own memory


def test_other_tensors(refused, values, proto):
    refused(proto(values[:28]), "mislabelled", "(28, 128)")
    refused(proto(values.T), "mislabelled", "(128, 29)")
    refused(proto(values[None]), "mislabelled")
    refused(proto(values, dtype=2), "mislabelled", "dtype 2")
    refused(proto(np.zeros((29, 1280))), "mislabelled", "more than")
    refused(b"RIFF\x24\x00\x00\x00WAVEfmt ", "truncated")
    refused(b"", "empty")


def test_damaged_tensors(refused, values, proto):
    whole = proto(values)
    for length in (1, 3, 8, 14, 20, 1000, len(whole) - 1):
        refused(whole[:length], "truncated")
    head = whole[: whole.index(b"\x22")]
    refused(head, "truncated", "0 bytes of numbers")
    refused(head + b"\x22\x04\x00\x00\x80\x3f", "truncated", "4 bytes of numbers")
    refused(b"\x08" + b"\xff" * 11, "truncated", "10 bytes")
    refused(b"\x22\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated", "early")
    refused(b"\x0b", "truncated", "wire type")


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite(refused, values, proto, value):
    broken = values.copy()
    broken[3, 4] = value
    refused(proto(broken), "nan")


def test_no_file(tmp_path):
    with pytest.raises(AudioError, match="unreadable"):
        read_tensor(tmp_path / "none.tensor")


def test_random_changes_raise_nothing_else(tmp_path, values, proto):
    whole, random, path = proto(values), np.random.default_rng(0), tmp_path / "1.tensor"
    statuses = set()
    for _ in range(300):
        content = bytearray(whole)
        content[random.integers(20)] = random.integers(256)
        path.write_bytes(content)
        try:
            assert read_tensor(path).shape == EMBEDDING_SHAPE
        except AudioError as error:
            statuses.add(error.status)
    assert statuses <= {"truncated", "mislabelled"}
