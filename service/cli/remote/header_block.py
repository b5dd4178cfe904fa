"""Header blocks of HTTP/2 as far as a health check needs them: writes fields, and reads the two statuses (RFC 7541).

`NO_TABLE` forbids the server to refer to earlier fields, so each block is read by itself. Of Huffman's code this module
knows the digits and the two names: the code of a text is unique, so a name is compared and need not be decoded.
"""

import os
from typing import NamedTuple

from forebay_server.service.cli.remote.health import UnclearError

NO_TABLE = b"\x00\x01\x00\x00\x00\x00"  # SETTINGS_HEADER_TABLE_SIZE = 0
# Whole fields of the static table, and names of it.
POST, HTTP, HTTPS = b"\x83", b"\x86", b"\x87"
AUTHORITY, PATH, CONTENT_TYPE, _NEW_NAME = b"\x01", b"\x04", b"\x0f\x10", b"\x00"
_STATIC_FIELDS = 61
_STATUS_NAMES = range(8, 15)  # fields of the static table with the name :status
_STATUS_FIELDS = dict(zip(_STATUS_NAMES, (200, 204, 206, 304, 400, 404, 500), strict=True))
_STATUS = (b":status", bytes.fromhex("b8848d36a3"))  # plain, and in Huffman's code
_GRPC_STATUS = (b"grpc-status", bytes.fromhex("9acac8b21234da8f"))
_MOST_SHIFT = 21  # of an integer: 28 bits, more than any block is long


class Statuses(NamedTuple):
    """The statuses in one header block; None for one that is not in it.

    Attributes:
        http: of HTTP, such as 200.
        grpc: of gRPC, such as 0.
    """

    http: int | None
    grpc: int | None


def text(value: str) -> bytes:
    """Return a string as HPACK has it: its length, an integer with a prefix of 7 bits, and its bytes."""
    data = os.fsencode(value)
    size = len(data)
    return (bytes((size,)) if size < 0x7F else b"\x7f" + varint(size - 0x7F)) + data


def new_field(name: str, value: str) -> bytes:
    """Return a field whose name is not in the static table."""
    return _NEW_NAME + text(name) + text(value)


def varint(value: int) -> bytes:
    """Return an integer in groups of seven bits, the lowest first: as in protobuf, and after the prefix in HPACK."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(written) + bytes((value,))


def read_statuses(block: bytes) -> Statuses:
    """Return the statuses in a whole header block.

    Raises:
        UnclearError: the block is broken, refers to earlier blocks, or has a status that cannot be read.
    """
    found: dict[str, int] = {}
    reader = _Reader(block)
    while not reader.is_at_end:
        first = reader.peek()
        if first & 0x80:  # a whole field of a table
            index = reader.integer(0x7F)
            if not 0 < index <= _STATIC_FIELDS:
                raise UnclearError
            if index in _STATUS_NAMES:
                _keep(found, "http", _STATUS_FIELDS[index])
        elif first & 0xE0 == 0x20:  # a new size of the table, which stays empty
            reader.integer(0x1F)
        else:  # a field in full, to be kept in the table (0x40) or not
            index = reader.integer(0x3F if first & 0x40 else 0x0F)
            if index > _STATIC_FIELDS:
                raise UnclearError
            kind = _kind_of(reader.string()) if index == 0 else "http" if index in _STATUS_NAMES else None
            value, is_huffman = reader.string()
            if kind is not None:
                _keep(found, kind, _number(value, is_huffman=is_huffman))
    return Statuses(found.get("http"), found.get("grpc"))


def _keep(found: dict[str, int], kind: str, value: int) -> None:
    if kind in found:
        raise UnclearError  # two statuses of one kind
    found[kind] = value


def _kind_of(name: tuple[bytes, bool]) -> str | None:
    data, is_huffman = name
    return "http" if data == _STATUS[is_huffman] else "grpc" if data == _GRPC_STATUS[is_huffman] else None


def _number(value: bytes, *, is_huffman: bool) -> int:
    """Return a number of one to three digits. Raises UnclearError."""
    digits = _huffman_digits(value) if is_huffman else value.decode("latin-1")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 3):
        raise UnclearError
    return int(digits)


def _huffman_digits(data: bytes) -> str:
    """Decode digits: 0 to 2 have the codes 0 to 2 in five bits, 3 to 9 the codes 25 to 31 in six; then ones."""
    bits = "".join(f"{byte:08b}" for byte in data)
    digits = ""
    while len(bits) >= 8 or "0" in bits:
        if bits[:5] in ("00000", "00001", "00010"):
            digits, bits = digits + str(int(bits[:5], 2)), bits[5:]
        elif len(bits) >= 6 and 25 <= int(bits[:6], 2) <= 31:
            digits, bits = digits + str(int(bits[:6], 2) - 22), bits[6:]
        else:
            raise UnclearError
    return digits


class _Reader:
    """Reads a block from its beginning. All methods raise UnclearError at its end."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._block)

    def peek(self) -> int:
        if self._at >= len(self._block):
            raise UnclearError
        return self._block[self._at]

    def integer(self, prefix: int) -> int:
        value = self.peek() & prefix
        self._at += 1
        if value < prefix:
            return value
        for shift in range(0, _MOST_SHIFT + 1, 7):
            byte = self.peek()
            self._at += 1
            value += (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise UnclearError

    def string(self) -> tuple[bytes, bool]:
        """Return the bytes of a string, and whether they are in Huffman's code."""
        is_huffman = bool(self.peek() & 0x80)
        size = self.integer(0x7F)
        data = self._block[self._at : self._at + size]
        if len(data) < size:
            raise UnclearError
        self._at += size
        return data, is_huffman
