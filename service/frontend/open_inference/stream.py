"""One ModelStreamInfer RPC: many requests and their responses, without any I/O.

Theory of operation
    Responses follow the order of requests within a *line*: the requests for one model, or of one `sequence_id` or
    `stream` of it. Lines do not wait for each other, so that a slow model never holds up a fast one. Every request gets
    an `_Entry` at the end of its line when it is read; its end (a refusal here, the former, delivery) answers the
    entry, and answered entries leave the head of the line for the outbox, as bytes.

    Inputs that would hold up the event loop are put in place by a worker; the reader waits for it, so that requests
    keep their order. Responses that would are made by a worker too, while other lines go on.

    The reader may go on while fewer than `window` requests are read and not yet written, so that HTTP/2 pushes back on
    a client that sends too fast.

    An error is a response with `error_message`, and the stream goes on. If the client asked for `triton_grpc_error`,
    the first error ends the RPC with its status instead.

Owner: the event loop's thread.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from forebay.wire import inference_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.errors import ServiceError, SupersededError
from forebay_server.service.frontend.admission import Admission, cancel
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.open_inference.arrivals import StreamKeys, admit, note_delivery, refuse
from forebay_server.service.frontend.open_inference.codec import Call
from forebay_server.service.frontend.open_inference.encode import encode, is_light_answer
from forebay_server.service.frontend.open_inference.errors import InferenceError, answer_to, in_stream
from forebay_server.service.frontend.open_inference.inputs import frame_of, is_light
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.template import FINAL_RESPONSE
from forebay_server.service.frontend.open_inference.wire import InferMessage, parse
from forebay_server.service.journal.events import TraceContext
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, FrameBuffer, Request

LineName = tuple[str, str]


@dataclass(slots=True, eq=False)
class _Entry:
    """One request's place in its line."""

    request_id: str
    call: Call | None = None
    version: ServedVersion | None = None
    request: Request | None = None
    answer: Completion | bytes | InferenceError | None = None

    def let_go(self) -> None:
        """End the use of the version."""
        if self.version is not None:
            self.version.end_use()
            self.version = None

    def let_go_of_memory(self) -> None:
        """End the use of shared memory: the outputs are written, or never will be."""
        if self.call is not None:
            self.call.release()


class InferStream:
    """See the module's theory of operation.

    Args:
        lookup: finds versions and checks requests.
        work: workers for steps that are too long for the event loop.
        admission: the way in.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        name: of the client, for fairness and logs.
        window: most requests read and not yet answered.
        ends_on_error: whether the first error ends the RPC.
        deadline_ns: of the RPC: one for the whole stream; None for no deadline.
        trace: that its client sent with the stream.
        on_output: called when there is something to write, or the stream finished.
        on_room: called when the reader may go on.

    Attributes:
        error: that ends the RPC, or None.
        share: its share of the permits.
    """

    def __init__(
        self,
        lookup: ModelLookup,
        work: HeavyWork,
        admission: Admission,
        clock: Clock,
        name: str,
        window: int,
        *,
        ends_on_error: bool,
        deadline_ns: int | None = None,
        trace: TraceContext | None = None,
        on_output: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        self.error: InferenceError | None = None
        self.share = Share()
        self._lookup = lookup
        self._work = work
        self._admission = admission
        self._clock = clock
        self._name = name
        self._window = window
        self._ends_on_error = ends_on_error
        self._deadline_ns = deadline_ns
        self._trace = trace
        self._on_output = on_output
        self._on_room = on_room
        self._keys = StreamKeys(are_ordered=True)
        self._lines: dict[LineName, deque[_Entry]] = {}
        self._outbox: deque[bytes] = deque()
        self._in_flight = 0
        self._is_reading = True
        self._is_abandoned = False

    @property
    def has_room(self) -> bool:
        """Whether another request may be read."""
        return self._in_flight < self._window and self.error is None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be written."""
        return not self._outbox if self.error is not None else not self._is_reading and self._in_flight == 0

    def on_message(self, data: bytes, received_ns: int) -> Awaitable[None] | None:
        """Take in a request; return an awaitable for the reader, or None. Never raises for a client's mistake."""
        self._in_flight += 1
        entry = _Entry("")
        message: InferMessage | None = None
        try:
            message = parse(data)
            entry.request_id = message.request_id
            entry.version, entry.call = self._lookup.check(message, self._name, received_ns, self._trace)
        except Exception as error:  # noqa: BLE001 - any error ends this request, not the stream
            line = (_model_name(message), "")
            self._lines.setdefault(line, deque()).append(entry)
            self._answer(line, entry, self._status(entry, error))
            return None
        template = entry.call.template
        line = (template.schema.name, template.options.stream)
        self._lines.setdefault(line, deque()).append(entry)
        if template.is_light or is_light(entry.call, entry.version):
            self._admit(line, entry, received_ns)
            return None
        return self._admit_heavy(line, entry, received_ns)

    async def _admit_heavy(self, line: LineName, entry: _Entry, received_ns: int) -> None:
        call, version = entry.call, entry.version
        assert call is not None and version is not None  # noqa: S101, PT018 - for mypy: it was checked
        try:
            frame = await self._work.done(
                self, partial(frame_of, call, version, self.share), lambda frame: frame.release()
            )
        except asyncio.CancelledError as error:
            refuse(self._admission, version, received_ns, error, self._trace)
            raise
        except Exception as error:  # noqa: BLE001 - the same
            refuse(self._admission, version, received_ns, error, self._trace)
            self._answer(line, entry, self._status(entry, error))
            return
        self._admit(line, entry, received_ns, frame)

    def _admit(
        self,
        line: LineName,
        entry: _Entry,
        received_ns: int,
        frame: FrameBuffer | None = None,
    ) -> None:
        call, version = entry.call, entry.version
        assert call is not None and version is not None  # noqa: S101, PT018 - for mypy: it was checked
        try:
            entry.request = admit(
                self._admission,
                call,
                version,
                self._keys.get(self._name, call),
                self.share,
                received_ns,
                self._deadline_ns,
                lambda completion: self._complete(line, entry, version, completion),
                self._trace,
                frame,
            )
        except Exception as error:  # noqa: BLE001 - the same
            self._answer(line, entry, self._status(entry, error))

    def stop_reading(self) -> None:
        """The client half-closed, or the server stops listening: answer what was read, then finish."""
        self._is_reading = False
        self._on_output()

    def abandon(self) -> None:
        """The client is gone: cancel what waits, forget what executes."""
        self._is_reading = False
        self._is_abandoned = True
        by_version: dict[ServedVersion, list[Request]] = {}
        for line in self._lines.values():
            for entry in line:
                if entry.answer is None and entry.version is not None and entry.request is not None:
                    by_version.setdefault(entry.version, []).append(entry.request)
        for version, requests in by_version.items():
            cancel(version, requests)
        for line in self._lines.values():
            for entry in line:
                entry.let_go()
                entry.let_go_of_memory()
                entry.answer = entry.request = entry.call = None  # an entry and its request hold each other
        self._lines.clear()
        self._outbox.clear()

    def next_message(self) -> bytes | None:
        """Take the next response, or None."""
        if not self._outbox:
            return None
        had_room = self.has_room
        message = self._outbox.popleft()
        self._in_flight -= 1
        if not had_room and self.has_room:
            self._on_room()
        return message

    def _complete(self, line: LineName, entry: _Entry, version: ServedVersion, completion: Completion) -> None:
        note_delivery(version, completion, self._clock)
        if self._is_abandoned:
            return
        answer: Completion | InferenceError = completion
        if completion.error is None:
            assert entry.call is not None  # noqa: S101 - for mypy: what completes was a call
            if not is_light_answer(entry.call, completion):
                making = self._work.start(self, partial(encode, entry.call, completion, in_stream=True))
                making.add_done_callback(partial(self._made, line, entry))
                return
        elif not isinstance(completion.error, SupersededError):
            answer = self._status(entry, completion.error)
        self._answer(line, entry, answer)

    def _made(self, line: LineName, entry: _Entry, making: "asyncio.Future[bytes]") -> None:
        """A worker has made a response, or failed."""
        error = making.exception()
        if not self._is_abandoned:
            failed = error if isinstance(error, Exception) else None
            self._answer(line, entry, making.result() if failed is None else self._status(entry, failed))

    def _status(self, entry: _Entry, error: Exception) -> InferenceError:
        is_timed = entry.call is not None and entry.call.template.options.timeout_ns > 0
        status = answer_to(error, entry.request_id, is_timed=is_timed)
        # The frames of a traceback would hold the message while the entry waits for its turn.
        status.__traceback__ = status.__context__ = status.__cause__ = None
        return status

    def _answer(self, line: LineName, entry: _Entry, answer: Completion | bytes | InferenceError) -> None:
        entry.answer = answer
        entry.let_go()
        entries = self._lines[line]
        while entries and entries[0].answer is not None:
            head = entries.popleft()
            message = self._encode(head)
            head.let_go_of_memory()
            if message is not None:
                self._outbox.append(message)
        if not entries:
            del self._lines[line]
        if self._outbox or self.error is not None:
            self._on_output()

    def _encode(self, entry: _Entry) -> bytes | None:
        answer, entry.answer = entry.answer, None
        entry.request = None  # an entry and its request hold each other: free the outputs now
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer, Completion):
            try:
                return self._response(entry, answer)
            except Exception as error:  # noqa: BLE001 - the same
                answer = answer_to(error, entry.request_id)
        assert answer is not None  # noqa: S101 - for mypy: only answered entries come here
        if self._ends_on_error:
            self.error = self.error or answer
            return None
        response = pb.ModelInferResponse(id=entry.request_id)
        return pb.ModelStreamInferResponse(
            error_message=in_stream(answer, entry.request_id), infer_response=response
        ).SerializeToString()

    def _response(self, entry: _Entry, completion: Completion) -> bytes:
        assert entry.call is not None  # noqa: S101 - for mypy: what completes was a call
        if completion.error is None:
            return encode(entry.call, completion, in_stream=True)
        schema = entry.call.template.schema
        response = pb.ModelInferResponse(model_name=schema.name, model_version=schema.version, id=entry.request_id)
        response.parameters["dropped"].string_param = completion.error.outcome.value
        response.parameters[FINAL_RESPONSE].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


def _model_name(message: InferMessage | None) -> str:
    """Return the model that a refused request names, or nothing if its bytes say none."""
    try:
        return "" if message is None else message.request.model_name
    except ServiceError:
        return ""
