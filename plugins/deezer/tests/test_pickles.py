from __future__ import annotations

import functools
import io
import os
import pickle
import struct
import time

import numpy as np
import pytest
from captum_concepts_deezer.pickles import read_object_npy

from captum_concepts.errors import InputError

VALUES = {
    "list": [1, -5, 2**40, 2**100, 3.5, True, None, "é", "☃" * 300, b"\x00\xff", b"x" * 300],
    "nested": {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {"b": [[]]}], 7: {2.5: "c", b"k": None}},
}
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(4, dtype=">i2"),
    np.array([True, False]),
    np.array(["rock", "jazz é"]),
    np.array([b"a", b"bc"]),
    np.zeros((0, 3), np.int64),
    np.array(2.5),
    np.array([1, "two", [3], None], dtype=object),
]


def as_npy(path, array: np.ndarray, protocol: int | None = None, rename=None):
    """``np.save`` of an object array, pickled as the protocol and numpy version of the time would."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    content = pickle.dumps(array, protocol=3 if protocol is None else protocol)
    if rename:
        assert rename[0] in content
        content = content.replace(*rename)
    path.write_bytes(header.getvalue() + content)
    return path


def cell(value) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array


@pytest.fixture
def npy(tmp_path):
    return functools.partial(as_npy, tmp_path / "objects.npy")


@pytest.fixture
def raw(tmp_path):
    """A file with the given pickle, whatever it does."""

    def write(content: bytes):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
        path = tmp_path / "raw.npy"
        path.write_bytes(header.getvalue() + content)
        return path

    return write


@pytest.mark.parametrize("protocol", [3, 4])
def test_plain_values_come_back(npy, protocol):
    found = read_object_npy(npy(cell(VALUES), protocol)).item()
    assert found == VALUES
    assert [type(value) for value in found["list"]] == [type(value) for value in VALUES["list"]]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back(npy, array):
    found = read_object_npy(npy(cell({"array": array, "again": array}))).item()
    assert found["array"] is found["again"]
    np.testing.assert_array_equal(found["array"], array)
    assert found["array"].dtype == array.dtype


def test_numpy_scalars_come_back(npy):
    scalars = [np.float32(2.5), np.int64(-3), np.str_("rock"), np.bool_(True)]
    found = read_object_npy(npy(cell(scalars))).item()
    assert found == scalars
    assert [type(value) for value in found] == [type(value) for value in scalars]


def test_shared_and_nested_objects_stay_shared(npy):
    inner = ["x"]
    found = read_object_npy(npy(cell([inner, inner]))).item()
    assert found[0] is found[1]


def test_numpy_saves_what_is_read(tmp_path):
    np.save(tmp_path / "saved.npy", {"a": np.arange(3)}, allow_pickle=True)
    np.testing.assert_array_equal(read_object_npy(tmp_path / "saved.npy").item()["a"], [0, 1, 2])


def test_both_names_of_numpys_module(npy):
    array = np.array([np.arange(3.0), "a", np.float64(2)], dtype=object)
    here = pickle.dumps(array, protocol=3)
    new = b"numpy._core.multiarray" in here
    renamed = (b"numpy._core.", b"numpy.core.") if new else (b"numpy.core.", b"numpy._core.")
    for rename in (None, renamed):
        found = read_object_npy(npy(array, 3, rename))
        np.testing.assert_array_equal(found[0], array[0])
        assert found[1:].tolist() == ["a", 2.0]


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class SubArray(np.ndarray):
    pass


class Plain:
    pass


def danger(marker) -> dict[str, object]:
    touch = f"open({str(marker)!r}, 'w')"
    return {
        "system": (Calls(os.system, f"touch {marker}"), "posix.system"),
        "eval": (Calls(eval, touch), "builtins.eval"),
        "exec": (Calls(exec, touch), "builtins.exec"),
        "open": (Calls(open, str(marker), "w"), "open"),
        "getattr": (Calls(getattr, "", "upper"), "builtins.getattr"),
        "partial": (functools.partial(os.system, f"touch {marker}"), "functools.partial"),
        "loads": (Calls(pickle.loads, pickle.dumps(Calls(eval, touch))), "loads"),
        "load": (Calls(np.load, "x.npy", None, True), "load"),
        "object": (Plain(), "Plain"),
        "set": ({1, 2}, "set"),
        "subclass": (np.zeros(3).view(SubArray), "SubArray"),
        "fields": (np.zeros(3, dtype=[("a", "f4")]), "V4"),
        "dates": (np.zeros(3, dtype="datetime64[s]"), "M8"),
    }


@pytest.mark.parametrize("name", danger("x"))
@pytest.mark.parametrize("wrap", ["alone", "list", "object array", "nested array", "key's value"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_whatever_could_run_code_is_refused_and_not_run(npy, tmp_path, monkeypatch, name, wrap, protocol):
    monkeypatch.chdir(tmp_path)
    value, word = danger(tmp_path / "executed")[name]
    inner = np.empty(2, object)
    inner[0] = value
    wrapped = {
        "alone": value,
        "list": [1, [value]],
        "object array": inner,
        "nested array": [{"a": inner}],
        "key's value": {"k": (value,)},
    }[wrap]
    with pytest.raises(InputError) as caught:
        read_object_npy(npy(cell(wrapped), protocol))
    assert not (tmp_path / "executed").exists()
    assert "\n" not in str(caught.value)
    # Protocol 2 has no opcode for bytes and writes a call of _codecs.encode, which comes first in numpy's arrays.
    expected = {word} if protocol == 4 else {word, "_codecs.encode"}
    assert any(part.lower() in str(caught.value).lower() for part in expected), str(caught.value)


G = b"cnumpy._core.multiarray\n_reconstruct\n"
ND = b"cnumpy\nndarray\n"
DT = b"cnumpy\ndtype\n"
NEW_ARRAY = G + b"(" + ND + b"(I0\ntC\x01btR"
OBJECT = DT + b"(\x8c\x02O8I00\nI01\ntR(I3\n\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffI63\ntb"
FLOAT = DT + b"(\x8c\x02f4I00\nI01\ntR(I3\n\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffI0\ntb"


def array_state(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    return NEW_ARRAY + b"(I1\n" + shape + dtype + b"I00\n" + data + b"tb"


def test_the_hand_written_pieces_are_right(raw):
    path = raw(array_state(b"(I2\nt", OBJECT, b"(I7\n\x8c\x01alp0\n") + b".")
    assert read_object_npy(path).tolist() == [7, "a"]
    nested = array_state(b"(I1\nt", FLOAT, b"C\x04\x00\x00\x80?")
    found = read_object_npy(raw(array_state(b"(I1\nt", OBJECT, b"(" + nested + b"l") + b"."))
    assert found[0].tolist() == [1.0]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"(S'true'\nios\nsystem\n.", "STRING"),
        (b"(\x8c\x04trueios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\n\x8c\x04trueo.", "os.system"),
        (b"\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x8c\x02os\x940\x8c\x06systemh\x00.", "POP"),
        (b"\x8c\x05numpy\x8c\x0fndarray.__new__\x93.", "ndarray.__new__"),
        (b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x05numpy\x93.", "damaged"),
        (b"Pos.system\n.", "PERSID"),
        (b"\x8c\x03pidQ.", "BINPERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (ND + b")\x81.", "NEWOBJ"),
        (ND + b")}\x92.", "NEWOBJ_EX"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x8f.", "EMPTY_SET"),
        (b"]\x94h\x002.", "DUP"),
        (G + b"}b.", "sets the state"),
        (b"]}b.", "sets the state"),
        (b"}\x8c\x01a)R.", "calls something"),
        (ND + b")R.", "numpy.ndarray"),
        (G + b"(" + DT + b"(I0\ntC\x01btR.", "another class"),
        (G + b"(" + ND + b"(I1000000000000\ntC\x01btR.", "incomplete"),
        (NEW_ARRAY + b".", "incomplete"),
        (ND + b".", "used as data"),
        (b"(" + ND + b"l.", "used as data"),
        (b"]" + G + b"a.", "used as data"),
        (array_state(b"(I1000000000000\nt", FLOAT, b"C\x04\x00\x00\x80?") + b".", "damaged"),
        (array_state(b"(I-1\nt", FLOAT, b"C\x04\x00\x00\x80?") + b".", "shape"),
        (array_state(b"(I0\nI1000000000000\nt", FLOAT, b"C\x00") + b".", None),
        (array_state(b"(I1\nt", OBJECT, b"C\x08\x00\x00\x00\x00\x00\x00\x00\x00") + b".", "as many items"),
        (array_state(b"(I1\nt", OBJECT, b"(l") + b".", "as many items"),
        (array_state(b"(I1\nt", FLOAT, b"(I1\nl") + b".", "no bytes"),
        (G + b"(" + ND + b"(I0\ntC\x01btR\x94(I1\n(I1\nt" + OBJECT + b"I00\n(h\x00ltb.", "contains itself"),
        (b"cnumpy.core.multiarray\nscalar\n(" + OBJECT + b"C\x08\x00\x00\x00\x00\x00\x00\x00\x00tR.", "scalar"),
        (b"}(I1\nt(I1\nts.", "used as a key"),
        (b"}]Ns.", "used as a key"),
        (b"(((.", "incomplete"),
        (b".", "incomplete"),
        (b"I1\nI2\n.", "incomplete"),
        (b"h\x07.", "damaged"),
        (b"t.", "damaged"),
        (b"I1\n", "damaged"),
        (b"", "damaged"),
        (b"\x8e" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
        (b"\xff\xfe.", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n.", "damaged"),
        (b"I1\n.", "holds int"),
    ],
)
def test_hand_written_pickles(raw, content, word):
    path = raw(content)
    if word is None:
        assert read_object_npy(path).size == 0
        return
    with pytest.raises(InputError) as caught:
        read_object_npy(path)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_small_files_cannot_take_much_memory_or_time(raw):
    begin = time.perf_counter()
    huge_memo = b"Nr\xff\xff\xff\xff."
    as_key = b"}" + b")" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(100)) + b"Ns."
    many = b"(" + b"N" * 50000 + b"l\x940"
    for content in (huge_memo, as_key, many + b"."):
        with pytest.raises(InputError):
            read_object_npy(raw(content))
    # One list of 50,000 cells in 2,000 object arrays would be 800 MB.
    cells = b"((" + b"N" * 50000 + b"l\x94"
    arrays = array_state(b"(I50000\nt", OBJECT, b"h\x00") * 2000
    with pytest.raises(InputError, match="as many items"):
        read_object_npy(raw(cells + arrays + b"l."))
    assert time.perf_counter() - begin < 5


def test_truncated_and_changed_files_raise_nothing_else(tmp_path, npy):
    whole = npy(cell([VALUES, *ARRAYS])).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "changed.npy"
    messages = []
    for trial in range(400):
        if trial < 100:
            content = whole[: random.integers(len(whole))]
        else:
            content = bytearray(whole)
            content[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(content)
        try:
            read_object_npy(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_what_is_no_object_array(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(InputError, match="check the path"):
        read_object_npy(path)
    with pytest.raises(InputError, match="check the path"):
        read_object_npy(tmp_path)
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="<f8"):
        read_object_npy(path)
    path.write_text("not numpy")
    with pytest.raises(InputError, match=r"not a \.npy file"):
        read_object_npy(path)
    np.save(path, {"a": 1}, allow_pickle=True)
    with pytest.raises(InputError, match="at most 10"):
        read_object_npy(path, max_bytes=10)
