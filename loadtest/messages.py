"""Encoding of a message and its binary part as bytes, on a pipe and in a gRPC message alike.

A block is two lengths (unsigned 32 and 64 bits, network order), then JSON, then the binary part. Nothing is ever
unpickled.
"""

import asyncio
import json
import struct
from typing import Any

from forebay_server.loadtest.errors import InvalidRunError

Message = dict[str, Any]
_HEAD = struct.Struct("!IQ")
_MAX_JSON_BYTES = 64 << 20
_MAX_BLOB_BYTES = 4 << 30


def encode(message: Message, blob: bytes = b"") -> bytes:
    """Return one block."""
    text = json.dumps(message, allow_nan=False).encode()
    return b"".join((_HEAD.pack(len(text), len(blob)), text, blob))


def decode(block: bytes) -> tuple[Message, bytes]:
    """Read one whole block. Raises InvalidRunError."""
    if len(block) < _HEAD.size:
        raise InvalidRunError("a generator process sent an incomplete message")
    text_bytes, blob_bytes = _sizes(block)
    if len(block) != _HEAD.size + text_bytes + blob_bytes:
        raise InvalidRunError("a generator process sent an incomplete message")
    return _message(block[_HEAD.size : _HEAD.size + text_bytes]), block[_HEAD.size + text_bytes :]


async def read(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next block of a pipe; None at its end, or if it ends within a block."""
    try:
        head = await reader.readexactly(_HEAD.size)
        return head + await reader.readexactly(sum(_sizes(head)))
    except asyncio.IncompleteReadError:
        return None


def _sizes(block: bytes) -> tuple[int, int]:
    text_bytes, blob_bytes = _HEAD.unpack_from(block)
    if text_bytes > _MAX_JSON_BYTES or blob_bytes > _MAX_BLOB_BYTES:
        raise InvalidRunError("a generator process sent something that is no message")
    return text_bytes, blob_bytes


def _message(text: bytes) -> Message:
    try:
        message = json.loads(text)
    except ValueError as error:
        raise InvalidRunError("a generator process sent something that is no message") from error
    if not isinstance(message, dict):
        raise InvalidRunError("a generator process sent something that is no message")
    return message
