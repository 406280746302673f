"""The wire format against messages written by hand, as protocol buffers' own documentation gives them."""

from __future__ import annotations

import pytest

from captum_concepts.storage import protobuf_wire
from captum_concepts.storage.protobuf_wire import MalformedMessage


def read(message: bytes) -> list[tuple[int, int | bytes]]:
    return [
        (number, value if isinstance(value, int) else bytes(value)) for number, value in protobuf_wire.fields(message)
    ]


def test_the_examples_of_the_documentation() -> None:
    assert read(bytes.fromhex("089601")) == [(1, 150)]
    assert read(bytes.fromhex("120774657374696e67")) == [(2, b"testing")]
    assert read(bytes.fromhex("1a03089601")) == [(3, bytes.fromhex("089601"))]


def test_fields_of_fixed_size_and_repeated_fields_keep_their_order() -> None:
    message = b"\x0d\x00\x00\x80\x3f" + b"\x11" + bytes(8) + b"\x08\x01" + b"\x08\x02"
    assert read(message) == [(1, b"\x00\x00\x80\x3f"), (2, bytes(8)), (1, 1), (1, 2)]


def test_an_empty_message_has_no_fields() -> None:
    assert read(b"") == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x08", "ends within a number"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x12\x05abc", "ends 2 bytes early"),
        (b"\x0d\x00", "ends 3 bytes early"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes early"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "field number 0"),
    ],
)
def test_damaged_messages_are_refused(message: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        read(message)


def test_a_value_of_the_other_kind_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="a number where a message belongs"):
        protobuf_wire.as_message(1)
    with pytest.raises(MalformedMessage, match="a message where a number belongs"):
        protobuf_wire.as_number(memoryview(b""))
    assert protobuf_wire.as_number(3) == 3
    assert protobuf_wire.as_message(memoryview(b"a")) == b"a"


def test_packed_and_single_numbers() -> None:
    assert list(protobuf_wire.numbers(memoryview(b"\x03\x8e\x02\x9e\xa7\x05"))) == [3, 270, 86942]
    assert list(protobuf_wire.numbers(7)) == [7]


@pytest.mark.parametrize(
    ("stored", "value"), [(0, 0), (5, 5), (2**64 - 5, -5), (2**63, -(2**63)), (2**63 - 1, 2**63 - 1)]
)
def test_negative_numbers_are_twos_complement(stored: int, value: int) -> None:
    assert protobuf_wire.signed(stored) == value
