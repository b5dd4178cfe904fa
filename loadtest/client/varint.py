"""The two bytes of protobuf's wire format that the load generator writes itself."""

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """Return an unsigned number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_head(number: int, size: int) -> bytes:
    """Return what precedes the bytes of a length-delimited field."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(size)
