"""grpc.reflection.v1 and v1alpha: tools such as grpcurl ask for the services and messages on the port.

Only with the setting `reflection`. Where the category of the same name is not restricted, only clients on this machine
may call. A call holds two answers at most, one that is written and one that waits; HTTP/2 holds back a client that asks
faster than it reads, and housekeeping cuts a client that reads nothing.

Thread: the event loop's.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc

from forebay.wire import (
    frames_pb2,
    health_pb2,
    inference_pb2,
    orca_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
    streams_pb2,
)
from forebay_server.service.errors import SlowReaderError
from forebay_server.service.frontend.calls import CallTasks, cut
from forebay_server.service.frontend.connections import is_of_this_machine
from forebay_server.service.frontend.control.descriptors import Descriptors
from forebay_server.service.frontend.control.reflection_answers import ReflectionAnswers
from forebay_server.service.frontend.handlers import Context, GenericHandler
from forebay_server.service.frontend.messages import MessageError
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.servicer import draining, guarded
from forebay_server.service.frontend.stream_call import StreamCall, StreamCalls
from forebay_server.service.pipeline.shares import Share

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
MOST_STREAMS: Final = 64  # of a process: a tool holds one, and two answers of at most 84 KB may wait on each
NOT_FROM_HERE: Final = (
    "reflection is for this server's machine; for others the operator has to restrict the category reflection "
    "(restricted_protocol reflection:KEY=VALUE), and the caller to bring the header"
)
_FILES = (
    *(frames_pb2, streams_pb2, inference_pb2, health_pb2, orca_pb2),
    *(reflection_pb2, reflection_v1alpha_pb2),
)


class Reflection:
    """See the module.

    Args:
        calls: ends calls whose client takes nothing.
        stream_calls: has the open streaming calls of all protocols.
        is_restricted: whether calls that come here have brought the secret in a header.
    """

    def __init__(self, calls: CallTasks, stream_calls: StreamCalls, *, is_restricted: bool) -> None:
        self.streams: set[StreamCall] = set()
        self._answers = ReflectionAnswers(Descriptors(each.DESCRIPTOR for each in _FILES))
        self._calls = calls
        self._stream_calls = stream_calls
        self._is_restricted = is_restricted
        self._is_draining = False

    def handlers(self) -> list[GenericHandler]:
        """Return the handlers for grpc.aio. Both versions have the same messages."""
        method = grpc.stream_stream_rpc_method_handler(self.info)
        return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in SERVICES]

    def refuse(self) -> None:
        """Refuse new calls. Open ones end once every question that was read has its answer: the server drains."""
        self._is_draining = True
        for call in self.streams:
            call.stop_reading()

    async def info(self, _: Any, context: Context) -> None:  # noqa: ANN401 - the request iterator, unused
        """Serve one call: grpc.aio's handler."""
        try:
            await guarded(self._serve(context), context)
        except SlowReaderError as error:
            await cut(context, self._calls, error.message)

    async def _serve(self, context: Context) -> None:
        if self._is_draining:
            raise draining()
        if not (self._is_restricted or is_of_this_machine(context.peer())):
            raise InferenceError(grpc.StatusCode.PERMISSION_DENIED, NOT_FROM_HERE)
        if len(self.streams) >= MOST_STREAMS:
            words = f"the server has {MOST_STREAMS} calls of reflection open, the most"
            raise InferenceError(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        call = self._stream_calls.begin(context)
        self.streams.add(call)
        try:
            await call.converse(ReflectionStream(self._answers, call.output.set, call.room.set), context)
        finally:
            self.streams.discard(call)
            self._stream_calls.end(call)


class ReflectionStream:
    """The contents of one call, without any I/O: implements `stream_call.Conversation`.

    Args:
        answers: to its questions.
        on_output: called when there is something to write, or the call finished.
        on_room: called when the next question may be read.

    Attributes:
        error: that ends the call, or None.
        share: of the permits; it takes none.
    """

    def __init__(self, answers: ReflectionAnswers, on_output: Callable[[], None], on_room: Callable[[], None]) -> None:
        self.error: InferenceError | None = None
        self.share = Share()
        self._answers = answers
        self._on_output = on_output
        self._on_room = on_room
        self._answer: bytes | None = None
        self._is_reading = True

    @property
    def has_room(self) -> bool:
        """Whether no answer waits."""
        return self._answer is None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be written."""
        return self._answer is None and not self._is_reading

    def on_message(self, data: bytes, received_ns: int) -> None:  # noqa: ARG002 - a Conversation's
        """Answer a question. Bytes that are none end the call."""
        try:
            self._answer = self._answers.answer(data)
        except MessageError as error:
            self.error = InferenceError(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._on_output()

    def next_message(self) -> bytes | None:
        """Take the answer that waits, or None."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._on_room()
        return answer

    def stop_reading(self) -> None:
        """The client half-closed, or the server drains."""
        self._is_reading = False
        self._on_output()

    def abandon(self) -> None:
        """The call has ended."""
        self._is_reading = False
        self._answer = None
