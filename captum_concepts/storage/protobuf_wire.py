"""Read the protocol-buffer wire format without a schema compiler: the fields of one message, in order.

The reader trusts no size that the message states and does not descend into nested messages by itself. A value is an
int for a varint and a memoryview for everything else; the caller knows from the ``.proto`` file what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["MalformedMessage", "as_message", "as_number", "fields", "numbers", "signed", "varint"]

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_SIZES = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


class MalformedMessage(ValueError):
    """The bytes are not a whole message; the text says why, without a file's name."""


def fields(message: memoryview | bytes) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message, in the order in which they are stored.

    Args:
        message: the bytes of one message.

    Yields:
        (field number, value): an int for a varint, a memoryview of bytes for all other wire types.

    Raises:
        MalformedMessage: the message ends within a field, or has a field or wire type that does not exist.

    Example:
        >>> message = b"\\x08\\x05\\x12\\x02hi"
        >>> [(number, value if number == 1 else bytes(value)) for number, value in fields(message)]
        [(1, 5), (2, b'hi')]
    """
    message = memoryview(message)
    position = 0
    while position < len(message):
        key, position = varint(message, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise MalformedMessage("field number 0")
        if wire_type == _VARINT:
            value, position = varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = varint(message, position)
        elif wire_type in _SIZES:
            length = _SIZES[wire_type]
        else:
            raise MalformedMessage(f"wire type {wire_type}")
        if position + length > len(message):
            raise MalformedMessage(f"ends {position + length - len(message)} bytes early")
        yield number, message[position : position + length]
        position += length


def varint(message: memoryview | bytes, position: int) -> tuple[int, int]:
    """The number that begins at ``position``, seven bits to a byte, and the position behind it.

    Raises:
        MalformedMessage: the message ends within the number, or the number has more than 10 bytes.

    Example:
        >>> varint(b"\\xac\\x02", 0)
        (300, 2)
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise MalformedMessage("ends within a number")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise MalformedMessage("a number of more than 10 bytes")


def as_message(value: memoryview | int) -> memoryview:
    """A field's value as bytes; raises MalformedMessage for a varint."""
    if isinstance(value, int):
        raise MalformedMessage("a number where a message belongs")
    return value


def as_number(value: memoryview | int) -> int:
    """A field's value as an unsigned number; raises MalformedMessage for anything but a varint."""
    if not isinstance(value, int):
        raise MalformedMessage("a message where a number belongs")
    return value


def numbers(value: memoryview | int) -> Iterator[int]:
    """The numbers of a repeated field: one varint, or several packed into bytes.

    Example:
        >>> list(numbers(memoryview(b"\\x01\\xac\\x02")))
        [1, 300]
    """
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = varint(value, position)
        yield number


def signed(value: int) -> int:
    """A varint as the two's complement of 64 bits, as ``int32``, ``int64`` and enumerations are stored.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value
