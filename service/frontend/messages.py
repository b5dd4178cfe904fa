"""Limits the messages that protobuf parses, so that none costs the event loop more than is useful. Pure.

Parsing is C and holds the interpreter's lock, so that no thread helps: valid messages of 16 MiB of empty fields take 20
to 320 ms, one string of that size 20 ms. Up to `MAX_PARSED_BYTES` the worst form found takes 1 ms. A longer message is
long because of its fields of bytes, which are copied; the size of the rest is found without reading those.
"""

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

MAX_PARSED_BYTES = 64 << 10  # of a message of any form
MAX_FIELDS = 1024  # at all levels, of a longer one, which has as many bytes beside those that are `bytes`
_VARINT, _EIGHT_BYTES, LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_MAX_VARINT_BYTES = 10
Bytes = bytes | memoryview
M = TypeVar("M", bound=Message)


class MessageError(ValueError):
    """Bytes that are not parsed. The message has the reason, for a client."""


def parse(kind: type[M], data: bytes, *, may_be_long: bool = False) -> M:
    """Parse a message.

    Args:
        kind: its class.
        data: its bytes.
        may_be_long: whether a valid one may have more than `MAX_PARSED_BYTES`.

    Raises:
        MessageError: the bytes are not of this class, or exceed the limits.
    """
    name = kind.DESCRIPTOR.name
    if len(data) > MAX_PARSED_BYTES:
        if not may_be_long:
            raise MessageError(f"the message has {len(data)} bytes; a {name} may have {MAX_PARSED_BYTES}")
        if not is_mostly_bytes(data, kind):
            raise MessageError(
                f"a {name} may have {MAX_PARSED_BYTES} bytes, not counting what is of type bytes, "
                f"in {MAX_FIELDS} fields"
            )
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MessageError(f"the message is no {name}") from None


def is_mostly_bytes(data: bytes, kind: type[Message]) -> bool:
    """Whether a message has few fields, those of its submessages counted, and little besides fields of type bytes.

    Truncated messages are left for protobuf to judge. Takes one step per field, at most `MAX_FIELDS`.
    """
    fields, rest = 0, len(data)
    waiting: list[tuple[int, int, Any]] = [(0, len(data), kind.DESCRIPTOR)]
    try:
        while waiting and fields <= MAX_FIELDS:
            position, end, descriptor = waiting.pop()
            while position < end and fields <= MAX_FIELDS:
                tag, start, position = next_field(data, position)
                fields += 1
                field = descriptor.fields_by_number.get(tag >> 3) if tag & 7 == LENGTH_DELIMITED else None
                if field is not None and field.message_type is not None:
                    waiting.append((start, position, field.message_type))
                elif field is not None and field.type == FieldDescriptor.TYPE_BYTES:
                    rest -= position - start
    except IndexError:
        return False
    return fields <= MAX_FIELDS and rest <= MAX_PARSED_BYTES


def next_field(data: Bytes, position: int) -> tuple[int, int, int]:
    """Return the tag at a position, the start of its value and the value's end, which may be beyond the data.

    Raises IndexError for a group, and for bytes that no message contains.
    """
    tag, position = _varint(data, position)
    wire_type = tag & 7
    if wire_type == _VARINT:
        return tag, position, _varint(data, position)[1]
    if wire_type == _EIGHT_BYTES:
        return tag, position, position + 8
    if wire_type == _FOUR_BYTES:
        return tag, position, position + 4
    if wire_type == LENGTH_DELIMITED:
        length, position = _varint(data, position)
        return tag, position, position + length
    raise IndexError


def _varint(data: Bytes, position: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        byte = data[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise IndexError


def varint(number: int) -> bytes:
    """Return a number that is not negative as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
