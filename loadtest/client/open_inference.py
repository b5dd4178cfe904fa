"""The Open Inference Protocol v2 as a load target: ModelStreamInfer or ModelInfer of any server that speaks it.

One tool can measure other servers under the same load with it. The protocol echoes no capture time and reports no
stages, and its streams send errors as text, which is mapped to outcomes here. As in forebay_v1, the constant part of a
request is serialised once and the payload appended unchanged. Owner: the event loop's thread.
"""

import asyncio
import math
from collections.abc import Sequence

import grpc
from google.protobuf.message import DecodeError

from forebay.wire import inference_pb2 as wire
from forebay_server.loadtest.client.calls import BidiCall, half_close, read, write
from forebay_server.loadtest.client.places import Place, Places
from forebay_server.loadtest.client.varint import field_head
from forebay_server.loadtest.client.words import cannot_connect
from forebay_server.loadtest.datatypes import ITEM_BYTES
from forebay_server.loadtest.errors import CannotConnectError, GarbageError, StreamBrokenError, UsageError
from forebay_server.loadtest.target import Answer, Moved, Outcome, Protocols, TargetInfo, TargetSpec, TargetStream

_SERVICE = "/inference.GRPCInferenceService"
_ID = wire.ModelInferRequest.ID_FIELD_NUMBER
_RAW = wire.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
# Messages of servers that did not execute a request, in lower case.
_WORDS = (
    ("timeout expired", Outcome.EXPIRED),
    ("deadline", Outcome.EXPIRED),
    ("maximum queue size", Outcome.OVERLOADED),
    ("overloaded", Outcome.OVERLOADED),
    ("superseded", Outcome.SUPERSEDED),
    ("cancelled", Outcome.CANCELLED),
)
_CODES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.EXPIRED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Outcome.OVERLOADED,
    grpc.StatusCode.ABORTED: Outcome.SUPERSEDED,
    grpc.StatusCode.CANCELLED: Outcome.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT: Outcome.INVALID,
}


class OpenInferenceTarget:
    """A server that speaks the Open Inference Protocol. See loadtest.target.Target."""

    def __init__(self, spec: TargetSpec, streams: int) -> None:
        self._spec = spec
        self._places = Places(spec, streams)
        self._templates: dict[str, RequestTemplate] = {}  # by address: a server that is not there gives none

    async def open(self, stream_id: str, resume_from: int | None = None) -> TargetStream:
        """Open a stream on one of the servers; frame numbers need no resuming."""
        del stream_id, resume_from
        return await self._places.open(self._open_at)

    async def _open_at(self, place: Place) -> TargetStream:
        template = self._templates.get(place.address)
        if template is None:
            template = self._templates[place.address] = await self._read_metadata(place)
        if self._spec.protocol is Protocols.OPEN_INFERENCE_UNARY:
            return _UnaryStream(place, template)
        call = place.channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")()  # type: ignore[call-arg]  # bytes both ways
        call.add_done_callback(lambda _: place.leave())
        return _BidiStream(call, template, place)

    async def close(self) -> None:
        """Close all connections."""
        await self._places.close()

    async def _read_metadata(self, place: Place) -> "RequestTemplate":
        spec = self._spec
        request = wire.ModelMetadataRequest(name=spec.model, version=spec.version).SerializeToString()
        call = place.channel.unary_unary(f"{_SERVICE}/ModelMetadata")  # type: ignore[call-arg]  # bytes both ways
        try:
            data = await call(request, timeout=spec.connect_timeout_s)
            return RequestTemplate(spec, wire.ModelMetadataResponse.FromString(data))
        except grpc.aio.AioRpcError as error:
            raise CannotConnectError(cannot_connect(place.address, error.code(), error.details())) from error
        except DecodeError as error:
            raise CannotConnectError(f"{place.address} does not speak the Open Inference Protocol") from error


class RequestTemplate:
    """The constant part of every request, and how a payload is split over the model's inputs."""

    def __init__(self, spec: TargetSpec, metadata: wire.ModelMetadataResponse) -> None:
        request = wire.ModelInferRequest(model_name=spec.model, model_version=spec.version)
        self._sizes = []
        for place, tensor in enumerate(metadata.inputs):
            shape = _shape(tensor.shape, spec.shape if place == 0 else ())
            if tensor.datatype not in ITEM_BYTES:
                raise UsageError(f"the input {tensor.name} of {spec.model} is {tensor.datatype}: only numbers are sent")
            self._sizes.append(math.prod(shape) * ITEM_BYTES[tensor.datatype])
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        if spec.budget_ms is not None:
            request.parameters["timeout"].int64_param = round(spec.budget_ms * 1e3)
        self._constant = request.SerializeToString()
        self.info = TargetInfo(
            model=metadata.name,
            model_version=",".join(metadata.versions),
            delivery="DELIVERY_EVERY",
            window=0,
            budget_ms=spec.budget_ms or 0.0,
            input_bytes=sum(self._sizes),
        )

    def encode(self, seq: int, payload: bytes) -> bytes:
        """Return a serialised ModelInferRequest with the id `seq`."""
        name = str(seq).encode()
        parts = [self._constant, field_head(_ID, len(name)), name]
        start = 0
        for size in self._sizes:
            part = payload[start : start + size] if len(self._sizes) > 1 else payload
            parts += [field_head(_RAW, len(part)), part]
            start += size
        return b"".join(parts)


class _BidiStream:
    """One ModelStreamInfer call. See loadtest.target.TargetStream."""

    def __init__(self, call: BidiCall, template: RequestTemplate, place: Place) -> None:
        self._call = call
        self._place = place
        self._template = template
        self._captures_us: dict[int, int] = {}  # by seq, oldest first; the protocol does not echo them

    @property
    def info(self) -> TargetInfo:
        return self._template.info

    async def send(self, seq: int, capture_time_us: int, payload: bytes) -> None:
        self._captures_us[seq] = capture_time_us
        await write(self._call, self._template.encode(seq, payload))

    async def receive(self) -> Answer | Moved | None:
        try:
            data = await read(self._call)
        except StreamBrokenError:
            self._place.failed()
            raise
        if data is None:
            return None
        try:
            message = wire.ModelStreamInferResponse.FromString(data)
        except DecodeError as error:
            raise GarbageError(f"{len(data)} bytes are no ModelStreamInferResponse") from error
        seq = self._seq(message.infer_response.id)
        outcome = outcome_of(message.error_message) if message.error_message else Outcome.OK
        return Answer(seq, outcome, self._captures_us.pop(seq, 0), (), 0, 0)

    async def finish(self) -> None:
        await half_close(self._call)

    def cancel(self) -> None:
        self._call.cancel()

    def _seq(self, name: str) -> int:
        """Return the frame of a response; an error without an id belongs to the oldest frame without an answer."""
        if name.isdecimal():
            return int(name)
        if name or not self._captures_us:
            raise GarbageError(f"a response has the id {name[:40]!r}")
        return next(iter(self._captures_us))


class _UnaryStream:
    """ModelInfer calls that behave like a stream: one call per frame, answers as they come."""

    def __init__(self, place: Place, template: RequestTemplate) -> None:
        self._place = place
        self._infer = place.channel.unary_unary(f"{_SERVICE}/ModelInfer")  # type: ignore[call-arg]  # bytes both ways
        self._template = template
        self._answers: asyncio.Queue[Answer | GarbageError | StreamBrokenError | None] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        self._is_finished = False

    @property
    def info(self) -> TargetInfo:
        return self._template.info

    async def send(self, seq: int, capture_time_us: int, payload: bytes) -> None:
        task = asyncio.create_task(self._call(seq, capture_time_us, self._template.encode(seq, payload)))
        self._calls.add(task)
        task.add_done_callback(self._ended)

    async def receive(self) -> Answer | Moved | None:
        answer = await self._answers.get()
        if isinstance(answer, StreamBrokenError):
            self._place.failed()
        if answer is None:
            self._place.leave()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def finish(self) -> None:
        self._is_finished = True
        if not self._calls:
            self._answers.put_nowait(None)

    def cancel(self) -> None:
        self._place.leave()
        for task in self._calls:
            task.cancel()

    async def _call(self, seq: int, capture_time_us: int, request: bytes) -> None:
        try:
            data = await self._infer(request)
            wire.ModelInferResponse.FromString(data)
            outcome = Outcome.OK
        except DecodeError:
            self._answers.put_nowait(GarbageError("no ModelInferResponse"))
            return
        except grpc.aio.AioRpcError as error:
            text = error.details() or ""
            outcome = outcome_of(text)
            if outcome is Outcome.FAILED and error.code() is grpc.StatusCode.UNAVAILABLE:
                self._answers.put_nowait(StreamBrokenError(f"UNAVAILABLE: {text}"))
                return
            outcome = outcome if outcome is not Outcome.FAILED else _CODES.get(error.code(), Outcome.FAILED)
        self._answers.put_nowait(Answer(seq, outcome, capture_time_us, (), 0, 0))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        if self._is_finished and not self._calls:
            self._answers.put_nowait(None)


def outcome_of(error_message: str) -> Outcome:
    """Return the outcome of an error message."""
    lowered = error_message.lower()
    return next((outcome for words, outcome in _WORDS if words in lowered), Outcome.FAILED)


def _shape(declared: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return a full shape of one row: the user's, otherwise the model's. Raises UsageError."""
    shape = [*declared]
    if shape and shape[0] < 0:
        shape[0] = 1  # the batch dimension
    if wanted:
        shape = [*([1] if len(wanted) == len(declared) - 1 else []), *wanted]
    if any(dim < 0 for dim in shape):
        raise UsageError(f"the model's input has the shape {list(declared)}: give --shape")
    return shape
