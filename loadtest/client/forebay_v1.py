"""The forebay.v1 protocol as a load target.

Lean on purpose, because every microsecond here reduces the load that the generator can offer: messages cross gRPC as
bytes, and the head of a Frame is serialised by protobuf while its payload is appended unchanged (it is the last field,
so the wire format allows it). Owner: the event loop's thread.
"""

import asyncio
import math

import grpc
from google.protobuf.message import DecodeError

from forebay.encodings import VALUES
from forebay.wire import frames_pb2 as wire
from forebay_server.loadtest.client.calls import BidiCall, half_close, read, why, write
from forebay_server.loadtest.client.places import Place, Places
from forebay_server.loadtest.client.varint import field_head
from forebay_server.loadtest.client.words import cannot_connect
from forebay_server.loadtest.datatypes import ITEM_BYTES
from forebay_server.loadtest.errors import CannotConnectError, GarbageError, StreamBrokenError
from forebay_server.loadtest.target import (
    Answer,
    Delivery,
    Moved,
    Outcome,
    TargetInfo,
    TargetSpec,
    TargetStream,
)

METHOD = "/forebay.v1.FrameInference/Stream"

_OUTCOMES = {
    wire.STATUS_OK: Outcome.OK,
    wire.STATUS_SUPERSEDED: Outcome.SUPERSEDED,
    wire.STATUS_EXPIRED: Outcome.EXPIRED,
    wire.STATUS_OVERLOADED: Outcome.OVERLOADED,
    wire.STATUS_INVALID: Outcome.INVALID,
    wire.STATUS_FAILED: Outcome.FAILED,
    wire.STATUS_CANCELLED: Outcome.CANCELLED,
    wire.STATUS_NEEDS_KEYFRAME: Outcome.NEEDS_KEYFRAME,
}


def encode_frame(seq: int, capture_time_us: int, payload: bytes) -> bytes:
    """Return a serialised ClientMessage with one Frame; copies the payload once."""
    head = wire.Frame(seq=seq, capture_time_us=capture_time_us).SerializeToString()
    payload_head = field_head(wire.Frame.PAYLOAD_FIELD_NUMBER, len(payload))
    frame_bytes = len(head) + len(payload_head) + len(payload)
    frame_head = field_head(wire.ClientMessage.FRAME_FIELD_NUMBER, frame_bytes)
    return b"".join((frame_head, head, payload_head, payload))


class ForebayTarget:
    """A Forebay server, or any other that speaks forebay.v1. See loadtest.target.Target."""

    def __init__(self, spec: TargetSpec, streams: int) -> None:
        self._spec = spec
        self._places = Places(spec, streams)

    async def open(self, stream_id: str, resume_from: int | None = None) -> TargetStream:
        """Open a stream on one of the servers."""
        return await self._places.open(lambda place: self._open_at(place, stream_id, resume_from))

    async def _open_at(self, place: Place, stream_id: str, resume_from: int | None) -> TargetStream:
        call = place.channel.stream_stream(METHOD)()  # type: ignore[call-arg]  # the stubs lack the defaults: bytes both ways
        try:
            async with asyncio.timeout(self._spec.connect_timeout_s):
                await call.write(self._open_message(stream_id, resume_from))
                opened = await _read_opened(call)
        except TimeoutError as error:
            call.cancel()
            raise CannotConnectError(
                f"{place.address} did not open a stream within {self._spec.connect_timeout_s:g} s"
            ) from error
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            if not call.done():
                raise CannotConnectError(f"{place.address}: the stream is broken") from error
            words = cannot_connect(place.address, await call.code(), await call.details())
            raise CannotConnectError(words) from error
        except (DecodeError, GarbageError) as error:
            call.cancel()
            raise CannotConnectError(f"{place.address} does not speak forebay.v1: {error}") from error
        call.add_done_callback(lambda _: place.leave())
        return ForebayStream(call, _info(opened), place)

    async def close(self) -> None:
        """Close all connections; streams that are still open are cancelled."""
        await self._places.close()

    def _open_message(self, stream_id: str, resume_from: int | None) -> bytes:
        spec = self._spec
        message = wire.Open(
            model=spec.model,
            version=spec.version,
            stream_id=stream_id,
            encoding=VALUES[spec.encoding],
            width=spec.width,
            height=spec.height,
            shape=spec.shape,
            delivery=wire.DELIVERY_LATEST if spec.delivery is Delivery.LATEST else wire.DELIVERY_EVERY,
            max_in_flight=spec.window,
            priority=spec.priority,
            latency_budget_ms=spec.budget_ms,
            resume_from=resume_from,
        )
        return wire.ClientMessage(open=message).SerializeToString()


class ForebayStream:
    """One FrameInference.Stream call. See loadtest.target.TargetStream."""

    def __init__(self, call: BidiCall, info: TargetInfo, place: Place) -> None:
        self._call = call
        self._place = place
        self.info = info

    async def send(self, seq: int, capture_time_us: int, payload: bytes) -> None:
        """Write one Frame."""
        await write(self._call, encode_frame(seq, capture_time_us, payload))

    async def receive(self) -> Answer | Moved | None:
        """Read until the next Result or Reconnect; heartbeats and requests for keyframes are skipped."""
        while True:
            try:
                data = await read(self._call)
            except StreamBrokenError:
                self._place.failed()
                raise
            if data is None:
                return None
            message = _parse(data)
            kind = message.WhichOneof("message")
            if kind == "result":
                return _answer(message.result)
            if kind == "reconnect":
                if message.reconnect.reason != wire.Reconnect.REASON_REBALANCE:  # DRAIN or ELSEWHERE
                    self._place.going()
                return Moved(wire.Reconnect.Reason.Name(message.reconnect.reason))
            if kind not in {"heartbeat", "need_keyframe"}:
                raise GarbageError(f"unexpected message: {kind or 'empty'}")

    async def finish(self) -> None:
        """Half-close."""
        await half_close(self._call)

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()


async def _read_opened(call: BidiCall) -> wire.Opened:
    data = await call.read()
    if not isinstance(data, bytes):
        raise GarbageError(f"the stream ended without an answer to Open ({await why(call)})")
    message = _parse(data)
    if message.WhichOneof("message") != "opened":
        raise GarbageError(f"Open was answered by {message.WhichOneof('message') or 'an empty message'}")
    return message.opened


def _parse(data: bytes) -> wire.ServerMessage:
    try:
        return wire.ServerMessage.FromString(data)
    except DecodeError as error:
        raise GarbageError(f"{len(data)} bytes are no ServerMessage") from error


def _answer(result: wire.Result) -> Answer:
    outcome = _OUTCOMES.get(result.status.code)
    if outcome is None:
        raise GarbageError(f"the result of frame {result.seq} has status {result.status.code}")
    timings = result.timings
    stages_us = (
        timings.receive_us,
        timings.decode_us,
        timings.queue_us,
        timings.h2d_us,
        timings.execute_us,
        timings.d2h_us,
        timings.deliver_us,
        timings.server_total_us,
    )
    return Answer(result.seq, outcome, result.capture_time_us, stages_us, result.late_by_us, result.batch_size)


def _info(opened: wire.Opened) -> TargetInfo:
    sizes = [ITEM_BYTES.get(spec.datatype, 0) * math.prod(max(dim, 0) for dim in spec.shape) for spec in opened.inputs]
    return TargetInfo(
        model=opened.model,
        model_version=opened.model_version,
        delivery=wire.Delivery.Name(opened.delivery),
        window=opened.window,
        budget_ms=opened.latency_budget_ms,
        input_bytes=sum(sizes) if all(sizes) else 0,
    )
