"""Bytes in and out of one bidirectional call; every failure is a StreamBrokenError with the reason.

Owner: the event loop's thread.
"""

import asyncio
from typing import TypeAlias

import grpc

from forebay_server.loadtest.client.words import status
from forebay_server.loadtest.errors import StreamBrokenError

BidiCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

_BROKEN = (grpc.aio.AioRpcError, asyncio.InvalidStateError)


async def write(call: BidiCall, message: bytes) -> None:
    """Write one message; waits while HTTP/2 pushes back."""
    try:
        await call.write(message)
    except _BROKEN as error:
        raise StreamBrokenError(await why(call)) from error


async def read(call: BidiCall) -> bytes | None:
    """Return the next message, or None once the server has ended the call with OK."""
    try:
        message = await call.read()
    except _BROKEN as error:
        raise StreamBrokenError(await why(call)) from error
    if isinstance(message, bytes):
        return message
    if await call.code() is not grpc.StatusCode.OK:  # grpc.aio.EOF
        raise StreamBrokenError(await why(call))
    return None


async def half_close(call: BidiCall) -> None:
    """Half-close: no message follows."""
    try:
        await call.done_writing()
    except _BROKEN as error:
        raise StreamBrokenError(await why(call)) from error


async def why(call: BidiCall) -> str:
    """Return the reason why a call ended."""
    return status(await call.code(), await call.details()) if call.done() else "the stream is broken"
