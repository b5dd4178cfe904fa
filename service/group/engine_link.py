"""The way of requests from a front-end process to the engine process, and of their answers back.

Theory of operation
    A request is a record of 64 bytes on a socket; its inputs lie in shared memory (`remote_arena`). Records of one turn
    of the event loop are sent together, at the end of the turn: the engine process is woken once for them. A worker
    that has decoded a frame sends its record at once, and those that wait with it, since the order of records counts.
    Sending never blocks: records wait until the socket takes them, and there are never more records than places for
    requests.

    A readable socket is read until it is empty. An answer stamps the times of its request, its outputs are copied out
    of its place, and the place is given back. A worker copies large outputs. The completions then go the same way as in
    a server of one process: to the results workers, or to the event loop, which is here already.

    The token of a request is the low half of its id, which no other request in flight has. When the engine process has
    gone, requests in flight are never answered: the process ends. A datagram that is cut, or an answer to no request in
    flight, is a bug in the engine process, and some request waits for the answer that this should have been. All other
    answers are completed; then the link counts as lost, and the process that starts anew owes no answer.

Thread: the event loop's, except `send` (any).
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.datagrams import Datagrams
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.group.remote_arena import RemoteFrame
from forebay_server.service.group.remote_arrays import RemoteArraysFrame
from forebay_server.service.group.stream_numbers import StreamNumbers
from forebay_server.service.pictures.device_picture import FilePicture
from forebay_server.service.request import Completion, OutputArrays, Request

log = structlog.get_logger(__name__)

TOKEN_MASK = wire.MAX_NUMBER


class LinkedVersion(Protocol):
    """A version as its link sees it."""

    @property
    def number(self) -> int:
        """In descriptors."""
        ...

    @property
    def version(self) -> str:
        """Decimal number of the model's version."""
        ...

    @property
    def finish(self) -> Callable[[Sequence[Completion]], None]:
        """Takes the completions of one post."""
        ...


class EngineLink:
    """See the module's theory of operation. Made on the event loop.

    Args:
        connection: the data socket; owned from now on.
        sink: brings completions to the event loop.
        clock: source of monotonic nanoseconds.
        on_lost: called once, when the engine process has gone.
        work: has a worker do a job.
    """

    def __init__(
        self,
        connection: socket.socket,
        sink: LoopSink,
        clock: Clock,
        on_lost: Callable[[], None],
        work: Callable[[Callable[[], None]], None],
    ) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket = connection
        self._sink = sink
        self._clock = clock
        self._on_lost = on_lost
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # to touch what is to be sent, and the numbers of streams
        self._records: list[bytes] = []
        self._datagrams = Datagrams(connection, self._lock, self._loop)
        self._is_flush_due = False
        self._streams = StreamNumbers()
        self._in_flight: dict[int, tuple[LinkedVersion, Request]] = {}
        self._buffer = memoryview(bytearray(wire.MAX_DATAGRAM_BYTES))
        self._is_open = True
        self._loop.add_reader(connection, self._read)

    @property
    def in_flight_count(self) -> int:
        """How many requests were sent and not answered."""
        return len(self._in_flight)

    def is_in_flight(self, version: LinkedVersion) -> bool:
        """Whether requests for a version were sent and not answered."""
        return any(each is version for each, _ in tuple(self._in_flight.values()))

    def send_soon(self, version: LinkedVersion, request: Request) -> None:
        """Send a request with all others of this turn of the loop."""
        with self._lock:
            self._add(version, request)
            if self._is_flush_due:
                return
            self._is_flush_due = True
        self._loop.call_soon(self._flush)

    def send(self, version: LinkedVersion, request: Request) -> None:
        """Send a request now, and the waiting records before it. Thread: any."""
        with self._lock:
            self._add(version, request)
            self._send_records()

    def cancel(self, requests: Sequence[Request]) -> None:
        """Tell that clients have given requests up; those that were sent are answered all the same."""
        with self._lock:
            for request in requests:
                token = request.id & TOKEN_MASK
                if token in self._in_flight:
                    self._records.append(wire.pack_cancel(token))
            self._send_records()

    def give_back(self, version: int, offset: int) -> None:
        """Let the engine process have a part of a version's outputs area back. Thread: any."""
        with self._lock:
            self._records.append(wire.pack_return(version, offset))
            self._send_records()

    def take_in_flight(self, version: LinkedVersion) -> list[Request]:
        """Return the requests for a version that will not be answered: the link is closed. Thread: any.

        Each is returned once, to the thread that comes first.
        """
        found = [token for token, (each, _) in tuple(self._in_flight.items()) if each is version]
        taken = (self._in_flight.pop(token, None) for token in found)
        return [each[1] for each in taken if each is not None]

    def close(self) -> None:
        """Send and read no more. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket)
        with self._lock:
            self._datagrams.close()
            self._socket.close()

    # --- out ----------------------------------------------------------------------------------------------------------

    def _add(self, version: LinkedVersion, request: Request) -> None:
        """Make the record of a request; the lock is held."""
        now_ns = request.timeline.admitted_ns
        if self._streams.is_due(now_ns):
            in_flight = [request.stream for _, request in tuple(self._in_flight.values())]
            self._records += map(wire.pack_close_stream, self._streams.turn_over(now_ns, in_flight))
        key = request.stream
        stream = self._streams.recent.get(key) or self._open_stream(request)
        token = request.id & TOKEN_MASK
        frame = request.frame
        deadline_ns, timeout_ns = request.deadline_ns, request.queue_timeout_ns
        if isinstance(frame, RemoteFrame):
            place = frame.place
            input_offset, output_offset = place.input_offset, place.output_offset
        elif isinstance(frame, RemoteArraysFrame):
            input_offset, output_offset = frame.start, frame.end
        else:
            raise InvariantError("a request that lies in no shared memory")
        deadline_ns = wire.NONE if deadline_ns is None else deadline_ns
        places = input_offset, output_offset, deadline_ns, request.arrival_ns
        picture = request.picture
        if isinstance(picture, FilePicture):
            record = wire.pack_file(
                token, version.number, stream, request.priority, *places, picture.nbytes, picture.size
            )
        else:
            timeout_ns = wire.NONE if timeout_ns is None else timeout_ns
            record = wire.pack_request(
                token, version.number, stream, request.size, request.priority, *places, timeout_ns
            )
        self._in_flight[token] = (version, request)
        self._records.append(record)

    def _open_stream(self, request: Request) -> int:
        key = request.stream
        number, is_new = self._streams.add(key)
        if is_new:
            self._records.append(
                wire.pack_open_stream(number, key.delivery, is_ordered=key.is_ordered, weight=key.weight)
            )
        return number

    def _flush(self) -> None:
        with self._lock:
            self._is_flush_due = False
            self._send_records()

    def _send_records(self) -> None:
        """Send what was collected, or let it wait; the lock is held."""
        if self._records:
            records, self._records = self._records, []
            self._datagrams.send(records)

    # --- back ---------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read what there is, and complete what was answered."""
        ended: dict[LinkedVersion, list[Completion]] = {}
        is_lost = False
        buffer, receive = self._buffer, self._socket.recv_into
        while True:
            try:
                nbytes = receive(buffer)
            except BlockingIOError:
                break
            except OSError:
                nbytes = 0
            if not nbytes:
                is_lost = True
                break
            try:
                error, answers = wire.unpack_answers(buffer[:nbytes])
            except ValueError:
                log.exception("the engine process said what cannot be; this process ends, to start anew")
                is_lost = True
                break
            is_lost = not self._complete(error, answers, ended) or is_lost
        if ended:
            self._sink.gather(partial(_finish, ended))
        if is_lost:
            self.close()
            self._on_lost()

    def _complete(
        self,
        error: ServiceError | None,
        answers: Iterator[wire.Answer],
        ended: dict[LinkedVersion, list[Completion]],
    ) -> bool:
        """Complete what was answered; return whether each answer has its request."""
        in_flight, is_whole = self._in_flight, True
        for answer in answers:
            found = in_flight.pop(answer[2], None)
            if found is None:
                log.error("an answer to no request in flight; this process ends, to start anew", token=answer[2])
                is_whole = False
                continue
            version, request = found
            wire.stamp(request.timeline, answer)
            frame = request.frame
            if isinstance(frame, RemoteArraysFrame):
                frame.outputs_offset = answer[3] * PAGE_BYTES
            if error is None and _is_heavy(request):
                self._work(partial(_finish_heavy, version, request, answer[1]))
                continue
            completion = Completion(request, error) if error is not None else _executed(version, request, answer[1])
            frame.release()
            completions = ended.get(version)
            if completions is None:
                ended[version] = [completion]
            else:
                completions.append(completion)
        return is_whole


def _is_heavy(request: Request) -> bool:
    """Whether a worker copies the outputs of an executed request: they would hold up the event loop."""
    frame = request.frame
    return isinstance(frame, RemoteFrame | RemoteArraysFrame) and frame.is_heavy and not request.is_cancelled


def _executed(version: LinkedVersion, request: Request, batch_size: int) -> Completion:
    """Return the completion of an executed request, with copies of its outputs; none for a client that has gone."""
    frame = request.frame
    try:
        outputs: OutputArrays = ()
        if isinstance(frame, RemoteFrame | RemoteArraysFrame) and not request.is_cancelled:
            outputs = frame.outputs()
    except Exception:  # no memory, say: it ends this request, and no other one of the datagram
        log.exception("the outputs of a request cannot be read")
        return Completion(request, InvariantError("its outputs cannot be read; the log says why"))
    return Completion(request, None, outputs, None, batch_size, version.version)


def _finish_heavy(version: LinkedVersion, request: Request, batch_size: int) -> None:
    """Complete an executed request. Thread: a worker's."""
    completion = _executed(version, request, batch_size)
    request.frame.release()
    version.finish([completion])


def _finish(ended: dict[LinkedVersion, list[Completion]]) -> None:
    for version, completions in ended.items():
        version.finish(completions)
