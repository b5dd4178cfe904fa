"""inference.GRPCInferenceService: ModelInfer and ModelStreamInfer. Reads, writes, waits.

The other RPCs are in `service.frontend.control`.

Raw bytes on both sides of the two inference RPCs.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

import grpc

from forebay_server.service.clock import Clock
from forebay_server.service.errors import OverloadedError, SlowReaderError
from forebay_server.service.frontend.admission import Admission, cancel
from forebay_server.service.frontend.calls import CallTasks, cut, trace_context
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.load_reports import LoadReports
from forebay_server.service.frontend.open_inference.arrivals import (
    ConnectionShares,
    StreamKeys,
    admit,
    note_delivery,
    refuse,
)
from forebay_server.service.frontend.open_inference.codec import Call
from forebay_server.service.frontend.open_inference.encode import encode, is_light_answer
from forebay_server.service.frontend.open_inference.errors import InferenceError, answer_to
from forebay_server.service.frontend.open_inference.inputs import frame_of, is_light
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.stream import InferStream
from forebay_server.service.frontend.open_inference.wire import parse
from forebay_server.service.frontend.received import received_ns
from forebay_server.service.frontend.reception.refusals import RefusedError
from forebay_server.service.frontend.statuses import StatusError
from forebay_server.service.frontend.stream_call import StreamCall, StreamCalls
from forebay_server.service.journal.events import TraceContext
from forebay_server.service.journal.streams import DRAIN, LIMIT, NEW
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, FrameBuffer
from forebay_server.service.settings import ServeSettings

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICE = "inference.GRPCInferenceService"
DRAINING = "GRPC server is shutting down and has stopped accepting new requests."
ANSWERED_TO_THE_END = frozenset({"ServerLive", "ServerReady", "ModelReady"})


class InferenceServicer:
    """Serves the Open Inference Protocol.

    Args:
        lookup: finds versions and checks requests.
        work: runs jobs that are too long for the event loop.
        others: handlers of the other RPCs, by name.
        load_reports: the answer to a single request brings one.
        clock: source of monotonic nanoseconds.
        settings: limits.
        calls: ends those whose client takes nothing.
        stream_calls: has those that are open.
        admission: the way in.
    """

    def __init__(
        self,
        lookup: ModelLookup,
        work: HeavyWork,
        others: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]",
        load_reports: LoadReports,
        clock: Clock,
        settings: ServeSettings,
        calls: CallTasks,
        stream_calls: StreamCalls,
        admission: Admission,
    ) -> None:
        self.streams: set[StreamCall] = set()
        self._lookup = lookup
        self._work = work
        self._others = others
        self._load_reports = load_reports
        self._clock = clock
        self._settings = settings
        self._calls = calls
        self._stream_calls = stream_calls
        self._admission = admission
        self._keys = StreamKeys(are_ordered=False, weight=settings.connection_weight)
        self._shares = ConnectionShares(settings.connection_weight)
        self._is_draining = False

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the handler for grpc.aio."""
        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.model_infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.model_stream_infer),
            **{name: self._while_open(name, handler) for name, handler in self._others.items()},
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _while_open(self, name: str, handler: Any) -> Any:  # noqa: ANN401 - handlers, named tuples
        """Return a handler that refuses calls during a drain, unless they ask whether the server is ready."""
        if name in ANSWERED_TO_THE_END:
            return handler

        async def call(data: bytes, context: Context) -> Any:  # noqa: ANN401 - a message
            if self._is_draining:
                raise draining()
            return await handler.unary_unary(data, context)

        return handler._replace(unary_unary=call)

    def refuse(self) -> None:
        """Refuse new requests and streams; open streams go on until the client half-closes."""
        self._is_draining = True

    def stop_reading(self) -> None:
        """End reading on every stream; requests that were read are still answered."""
        for stream in self.streams:
            stream.stop_reading()

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        """Return the response to one request. One coroutine: each of a chain runs anew at every step.

        Raises:
            StatusError: there is none. Every error ends so, never as UNKNOWN.
        """
        arrived_ns = received_ns(self._clock)
        if self._is_draining:
            raise draining()
        call: Call | None = None
        request_id, peer = "", context.peer()
        try:
            message = parse(data)
            request_id = message.request_id
            trace = trace_context(context) if self._settings.trace_every_frames else None
            version, call = self._lookup.check(message, peer, arrived_ns, trace)
            done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
            answered = _Answered(version, self._clock, done)
            try:
                share, key, frame = self._shares.get(peer), self._keys.get(peer, call), None
                if not (call.template.is_light or is_light(call, version)):
                    frame = await self._frame_of(call, version, peer, share, arrived_ns, trace)
                deadline_ns = deadline_of(context, self._clock)
                request = admit(
                    self._admission, call, version, key, share, arrived_ns, deadline_ns, answered, trace, frame
                )
                try:
                    completion = await done
                except asyncio.CancelledError:
                    self._admission.settle()
                    cancel(version, [request])
                    raise
            finally:
                version.end_use()
            if completion.error is None:
                context.set_trailing_metadata(self._load_reports.trailer)
            if completion.error is None and not is_light_answer(call, completion):
                return await self._work.done(peer, partial(encode, call, completion))
            return _response(call, completion)
        except Exception as error:  # noqa: BLE001 - every request has an answer
            is_timed = call is not None and call.template.options.timeout_ns > 0
            raise _status_of(error, request_id, is_timed=is_timed) from None
        finally:
            if call is not None:
                call.release()

    async def model_stream_infer(self, _: Any, context: Context) -> None:  # noqa: ANN401 - the request iterator, unused
        """Serve one stream of requests: grpc.aio's handler."""
        try:
            await guarded(self._stream(context), context)
        except SlowReaderError as error:
            await cut(context, self._calls, error.message)

    async def _frame_of(
        self,
        call: Call,
        version: ServedVersion,
        peer: str,
        share: Share,
        received_ns: int,
        trace: TraceContext | None,
    ) -> FrameBuffer:
        """Let a worker put the inputs where the pipeline finds them. Raises as `frame_of` does."""
        try:
            return await self._work.done(peer, partial(frame_of, call, version, share), lambda frame: frame.release())
        except (Exception, asyncio.CancelledError) as error:
            refuse(self._admission, version, received_ns, error, trace)
            raise

    async def _stream(self, context: Context) -> None:
        if self._is_draining:
            self._stream_calls.refused[DRAIN] += 1
            raise draining()
        if not self._stream_calls.has_room(self._settings.max_streams):
            self._stream_calls.refused[LIMIT] += 1
            words = f"the server has {self._settings.max_streams} streams open"
            raise InferenceError(grpc.StatusCode.RESOURCE_EXHAUSTED, words, is_for_elsewhere=True)
        call = self._stream_calls.begin(context)
        self.streams.add(call)
        self._stream_calls.opened[NEW] += 1
        try:
            stream = InferStream(
                self._lookup,
                self._work,
                self._admission,
                self._clock,
                context.peer(),
                max(1, min(self._settings.max_window, self._settings.permits // 2)),  # one stream leaves others some
                ends_on_error=_asks_for_status(context),
                deadline_ns=deadline_of(context, self._clock),
                trace=trace_context(context) if self._settings.trace_every_frames else None,
                on_output=call.output.set,
                on_room=call.room.set,
            )
            await call.converse(stream, context)
        finally:
            self.streams.discard(call)
            self._stream_calls.end(call)


def _status_of(error: Exception, request_id: str, *, is_timed: bool) -> StatusError:
    """Return what ends a request that met an error. The caller keeps it in no variable: its traceback has the frame."""
    status = answer_to(error, request_id, is_timed=is_timed)
    error.__traceback__ = None  # which holds the message, and the completion that the error came with
    return RefusedError(status.code, status.message) if isinstance(error, OverloadedError) else status


def _response(call: Call, completion: Completion) -> bytes:
    if completion.error is not None:
        raise completion.error
    return encode(call, completion)


class _Answered:
    """Takes the completion of one request. Called once, on the event loop.

    The completion has the request, and that has this object: it lets go of the future, or a cycle would keep the
    outputs and the version until the garbage collector finds it.
    """

    __slots__ = ("_clock", "_done", "_version")

    def __init__(self, version: ServedVersion, clock: Clock, done: "asyncio.Future[Completion]") -> None:
        self._done: asyncio.Future[Completion] | None = done
        self._version = version
        self._clock = clock

    def __call__(self, completion: Completion) -> None:
        note_delivery(self._version, completion, self._clock)
        done, self._done = self._done, None
        if done is not None and not done.done():  # else the client has gone
            done.set_result(completion)


def draining() -> InferenceError:
    """Return the refusal of a server that drains."""
    return InferenceError(grpc.StatusCode.UNAVAILABLE, DRAINING, is_for_elsewhere=True)


async def guarded(answer: Awaitable[None], context: Context) -> None:
    """Await a handler; any exception becomes a status, but for a SlowReaderError."""
    try:
        await answer
    except SlowReaderError:
        raise
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except grpc.aio.InternalError:  # a write failed: the client has left
        raise asyncio.CancelledError from None
    except Exception as error:  # noqa: BLE001 - no call may end UNKNOWN
        status = answer_to(error)
    else:
        return
    code, message, metadata = status.code, status.message, status.metadata
    del status  # `abort` keeps this frame: see StatusError
    await context.abort(code, message, metadata)


def deadline_of(context: Context, clock: Clock) -> int | None:
    """Return the instant of the RPC's own deadline, or None."""
    remaining_s = cast("float | None", context.time_remaining())  # the stubs forget None
    return None if remaining_s is None else clock.now_ns() + int(remaining_s * 1e9)


def _asks_for_status(context: Context) -> bool:
    return any(key == "triton_grpc_error" and value == "true" for key, value in context.invocation_metadata() or ())
