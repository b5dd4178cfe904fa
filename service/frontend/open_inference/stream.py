"""One ModelStreamInfer RPC: many requests and their responses, without any I/O.

Theory of operation
    Every request gets a place in the order of responses when it is read (`response_order`). Its end (a refusal here,
    the former, delivery) gives the place its response: bytes, made at once.

    A request that has come to the former is known by its id until it has ended. It holds one callback, and no place; a
    place holds no request. So both are freed by reference counting alone.

    Inputs that would hold up the event loop are put in place by a worker; the reader waits for it, so that requests
    keep their order. Responses that would are made by a worker too, while other requests go on.

    The reader may go on while fewer than `window` requests are read and not yet written, so that HTTP/2 pushes back on
    a client that sends too fast.

    An error is a response with `error_message`, and the stream goes on. If the client asked for `triton_grpc_error`,
    the first error ends the RPC with its status instead, in its turn.

Owner: the event loop's thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

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
from forebay_server.service.frontend.open_inference.response_order import Place, ResponseOrder
from forebay_server.service.frontend.open_inference.template import FINAL_RESPONSE
from forebay_server.service.frontend.open_inference.wire import InferMessage, parse
from forebay_server.service.journal.events import TraceContext
from forebay_server.service.models.served import ServedVersion
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, FrameBuffer, Request

Response = bytes | InferenceError
"""The bytes to write, or the error that ends the RPC."""


class _Admitted(NamedTuple):
    """A request that has not ended, with the call and the version that it gives back at its end."""

    place: Place[Response]
    call: Call
    version: ServedVersion
    request: Request


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
        self._order: ResponseOrder[Response] = ResponseOrder()
        self._admitted: dict[int, _Admitted] = {}  # by the request's id
        self._is_reading = True

    @property
    def has_room(self) -> bool:
        """Whether another request may be read."""
        return len(self._order) < self._window and self.error is None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be written."""
        return self.error is not None or not (self._is_reading or len(self._order))

    def on_message(self, data: bytes, received_ns: int) -> Awaitable[None] | None:
        """Take in a request; return an awaitable for the reader, or None. Never raises for a client's mistake."""
        message: InferMessage | None = None
        try:
            message = parse(data)
            version, call = self._lookup.check(message, self._name, received_ns, self._trace)
        except Exception as error:  # noqa: BLE001 - any error ends this request, not the stream
            place = self._order.add((_model_name(message), ""))
            self._respond(place, self._refusal(error, "" if message is None else message.request_id))
            return None
        template = call.template
        place = self._order.add((template.schema.name, template.options.stream))
        if template.is_light or is_light(call, version):
            self._admit(place, call, version, received_ns)
            return None
        return self._admit_heavy(place, call, version, received_ns)

    async def _admit_heavy(self, place: Place[Response], call: Call, version: ServedVersion, received_ns: int) -> None:
        try:
            frame = await self._work.done(
                self, partial(frame_of, call, version, self.share), lambda frame: frame.release()
            )
        except (Exception, asyncio.CancelledError) as error:
            refuse(self._admission, version, received_ns, error, self._trace)
            _let_go(call, version)
            if not isinstance(error, Exception):
                raise
            self._respond(place, self._refusal_of(call, error))
            return
        self._admit(place, call, version, received_ns, frame)

    def _admit(
        self,
        place: Place[Response],
        call: Call,
        version: ServedVersion,
        received_ns: int,
        frame: FrameBuffer | None = None,
    ) -> None:
        try:
            request = admit(
                self._admission,
                call,
                version,
                self._keys.get(self._name, call),
                self.share,
                received_ns,
                self._deadline_ns,
                partial(self._complete, version),
                self._trace,
                frame,
            )
        except Exception as error:  # noqa: BLE001 - the same
            _let_go(call, version)
            self._respond(place, self._refusal_of(call, error))
            return
        self._admitted[request.id] = _Admitted(place, call, version, request)  # it ends in a later turn of the loop

    def stop_reading(self) -> None:
        """The client half-closed, or the server stops listening: answer what was read, then finish."""
        self._is_reading = False
        self._on_output()

    def abandon(self) -> None:
        """The client is gone: cancel what waits, forget what executes."""
        self._admission.settle()
        self._is_reading = False
        self._order.clear()
        admitted, self._admitted = self._admitted, {}
        by_version: dict[ServedVersion, list[Request]] = {}
        for each in admitted.values():
            by_version.setdefault(each.version, []).append(each.request)
        for version, requests in by_version.items():
            cancel(version, requests)
        for each in admitted.values():
            _let_go(each.call, each.version)

    def next_message(self) -> bytes | None:
        """Take the next response, or None."""
        had_room = self.has_room
        response = self._order.take()
        if isinstance(response, InferenceError):
            self.error = response
            return None
        if response is not None and not had_room and self.has_room:
            self._on_room()
        return response

    def _complete(self, version: ServedVersion, completion: Completion) -> None:
        note_delivery(version, completion, self._clock)
        admitted = self._admitted.pop(completion.request.id, None)
        if admitted is None:  # the client has gone
            return
        place, call = admitted.place, admitted.call
        if completion.error is None and not is_light_answer(call, completion):
            making = self._work.start(self, partial(encode, call, completion, in_stream=True))
            making.add_done_callback(partial(self._made, place, call))
            version.end_use()
            return
        response = self._response(call, completion)
        _let_go(call, version)
        self._respond(place, response)

    def _made(self, place: Place[Response], call: Call, making: "asyncio.Future[bytes]") -> None:
        """A worker has made a response, or failed."""
        call.release()
        error = making.exception()
        failed = error if isinstance(error, Exception) else None
        self._respond(place, making.result() if failed is None else self._refusal_of(call, failed))

    def _response(self, call: Call, completion: Completion) -> Response:
        error: Exception | None = completion.error
        if error is None:
            try:
                return encode(call, completion, in_stream=True)
            except Exception as failed:  # noqa: BLE001 - the same
                error = failed
        elif isinstance(error, SupersededError):
            schema = call.template.schema
            response = pb.ModelInferResponse(model_name=schema.name, model_version=schema.version, id=call.request_id)
            response.parameters["dropped"].string_param = error.outcome.value
            response.parameters[FINAL_RESPONSE].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()
        return self._refusal_of(call, error)

    def _refusal_of(self, call: Call, error: Exception) -> Response:
        return self._refusal(error, call.request_id, is_timed=call.template.options.timeout_ns > 0)

    def _refusal(self, error: Exception, request_id: str, *, is_timed: bool = False) -> Response:
        status = answer_to(error, request_id, is_timed=is_timed)
        if self._ends_on_error:
            # The frames of a traceback would hold the message until the turn of the error comes.
            status.__traceback__ = status.__context__ = status.__cause__ = None
            return status
        response = pb.ModelInferResponse(id=request_id)
        return pb.ModelStreamInferResponse(
            error_message=in_stream(status, request_id), infer_response=response
        ).SerializeToString()

    def _respond(self, place: Place[Response], response: Response) -> None:
        if self._order.respond(place, response):
            self._on_output()


def _let_go(call: Call, version: ServedVersion) -> None:
    """End a request's use of its version, and of shared memory: the outputs are written, or never will be."""
    version.end_use()
    call.release()


def _model_name(message: InferMessage | None) -> str:
    """Return the model that a refused request names, or nothing if its bytes say none."""
    try:
        return "" if message is None else message.request.model_name
    except ServiceError:
        return ""
