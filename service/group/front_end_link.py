"""One front-end process as the engine process sees it: its requests come in here, and their answers go out.

A record that says what cannot be (a version that was not published, a place outside its share) is a bug in the
front-end process, and breaks the link.

Answers are sent by the thread that has them. Those that the socket does not take wait here until it is writable. There
is one answer for each request, and no more requests than may be there: a front-end process that reads no more holds up
no other one and no lane.

When the front-end process has gone, its pending requests are cancelled; those in a lane run to their end and are
dropped. Only then has the link ended, and its memory may be another process's.

Thread: as each method says. Requests are added by the links' thread and removed by the one that answers them.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Protocol

from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.arrays_share import ArraysShare
from forebay_server.service.group.shared_frames import SharedArrays, SharedFrame
from forebay_server.service.group.version_memory import AnyShare, Share
from forebay_server.service.pictures.device_picture import FilePicture
from forebay_server.service.request import Completion, Delivery, FrameBuffer, Request, StreamKey, next_request_id


class LinkedVersion(Protocol):
    """The methods of a model version that a link calls. Thread: any."""

    def arrive_all(self, requests: Sequence[Request]) -> None:
        """Hand requests to the former."""
        ...

    def cancel(self, requests: Sequence[Request]) -> None:
        """Give up what is pending of these."""
        ...

    def refuse(self, requests: Sequence[Request], error: ServiceError) -> None:
        """End requests that cannot be handed to the former."""
        ...


class BrokenLinkError(Exception):
    """A front-end process said what cannot be."""


class FrontEndLink:
    """See the module.

    Args:
        front_end: its number.
        connection: its data socket; owned from now on.
        most_requests: that it can have in the engine process.
        on_ended: called once, when it has gone and its last request has ended. Thread: any.

    Attributes:
        front_end: its number.
        is_dead: whether it has gone.
    """

    def __init__(
        self, front_end: int, connection: socket.socket, most_requests: int, on_ended: Callable[["FrontEndLink"], None]
    ) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.front_end = front_end
        self.is_dead = False
        self.socket = connection
        self.wants_to_write: Callable[[FrontEndLink], None] = lambda _: (
            None
        )  # has the links' thread call `send_waiting`
        self._most_requests = most_requests
        self._on_ended = on_ended
        self._versions: dict[int, tuple[LinkedVersion, AnyShare]] = {}
        self._streams: dict[int, StreamKey] = {}
        self._requests: dict[int, tuple[LinkedVersion, Request]] = {}
        self._lock = threading.Lock()  # to send, and to find out what was the last request
        self._waiting: deque[bytes] = deque()

    @property
    def request_count(self) -> int:
        """Number of requests that are not answered. Thread: any."""
        return len(self._requests)

    def add_version(self, number: int, version: LinkedVersion, share: AnyShare) -> None:
        """Take requests for a version from now on. Thread: any."""
        self._versions[number] = (version, share)

    def remove_version(self, number: int) -> None:
        """Take no more requests for a version: the front-end process uses it no more. Thread: any."""
        _, share = self._versions.pop(number, (None, None))
        if isinstance(share, ArraysShare):
            share.give_all_back()

    # --- links' thread ------------------------------------------------------------------------------------------------

    def take(self, datagram: memoryview, arrived: dict[LinkedVersion, list[Request]]) -> None:
        """Take the records of one datagram in; requests are added to `arrived`, by version.

        Args:
            datagram: records.
            arrived: requests that no former has yet.

        Raises:
            BrokenLinkError: a record says what cannot be.
        """
        try:
            for record in wire.unpack(datagram):
                kind = record[0]
                if kind in {wire.REQUEST, wire.FILE}:
                    self._request(record, arrived)
                elif kind == wire.CANCEL:
                    self._cancel(record[3], arrived)
                elif kind == wire.OPEN_STREAM:
                    self._open(record)
                elif kind == wire.RETURN:
                    self._return(record)
                elif kind == wire.CLOSE_STREAM:
                    del self._streams[record[5]]
                else:
                    raise BrokenLinkError(f"a record of kind {kind}")
        except (ValueError, KeyError, IndexError, OSError) as error:  # among them PlaceError
            raise BrokenLinkError(f"{type(error).__name__}: {error}") from error

    def _request(self, record: wire.Record, arrived: dict[LinkedVersion, list[Request]]) -> None:
        (
            kind, _, priority, token, number, stream, rows, _, input_offset, output_offset, deadline_ns,
            arrival_ns, timeout_ns,
        ) = record  # fmt: skip
        version, share = self._versions[number]
        source = self._streams[stream]
        if token in self._requests or len(self._requests) >= self._most_requests:
            raise BrokenLinkError(f"token {token} is in use, or more than {self._most_requests} requests are")
        key: Hashable = None
        picture: FilePicture | None = None
        frame: FrameBuffer
        if isinstance(share, ArraysShare):
            place = share.place(input_offset, output_offset)
            frame, key = SharedArrays(self, token, share, place), share.batch_key(place)
        else:
            host, offsets = share.place(rows, input_offset, output_offset)
            frame = SharedFrame(self, token, host, offsets, output_offset)
            if kind == wire.FILE:
                picture, timeout_ns = share.file(*wire.file_of(record)), wire.NONE
        request = Request(
            next_request_id(), source, rows, key, None if deadline_ns == wire.NONE else deadline_ns,
            arrival_ns, priority, frame, _not_on_a_loop, None, None if timeout_ns == wire.NONE else timeout_ns,
            picture=picture, counts_late=True,
        )  # fmt: skip
        self._requests[token] = (version, request)
        if isinstance(share, Share):
            area = share.rows
            if (rows != 1 or area.has_waiting) and area.holds_back(version, request):
                return
        arrived.setdefault(version, []).append(request)

    def _return(self, record: wire.Record) -> None:
        found = self._versions.get(record[4])
        if found is not None and isinstance(found[1], ArraysShare):  # else the version was let go of, and all with it
            found[1].give_back(record[8])

    def _open(self, record: wire.Record) -> None:
        flags, stream, weight = record[1], record[5], record[7]
        delivery = Delivery.LATEST if flags & wire.IS_LATEST else Delivery.EVERY
        name = f"{self.front_end}/{stream}"
        self._streams[stream] = StreamKey(name, delivery, is_ordered=bool(flags & wire.IS_ORDERED), weight=weight)

    def _cancel(self, token: int, arrived: dict[LinkedVersion, list[Request]]) -> None:
        found = self._requests.get(token)
        if found is None:
            return  # its answer is on the way
        version, request = found
        hand_over(arrived)  # or the cancel would come before its request
        request.is_cancelled = True
        version.cancel([request])

    def send_waiting(self) -> bool:
        """Send what waits; return whether nothing does any more."""
        with self._lock:
            while self._waiting:
                if not self._send(self._waiting[0]):
                    return False
                self._waiting.popleft()
            return True

    def die(self) -> None:
        """Cancel everything: the front-end process has gone."""
        with self._lock:
            self.is_dead = True
            self._waiting.clear()
            self.socket.close()
            requests = list(self._requests.values())
        by_version: dict[LinkedVersion, list[Request]] = {}
        for version, request in requests:
            request.is_cancelled = True
            request.counts_late = False  # the process that would have counted it has gone
            by_version.setdefault(version, []).append(request)
        for version, cancelled in by_version.items():
            version.cancel(cancelled)
        if not requests:
            self._on_ended(self)

    def hang_up(self) -> None:
        """End the conversation: the links' thread finds the end, as if the process had gone. Thread: any."""
        with self._lock, suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    # --- any thread ---------------------------------------------------------------------------------------------------

    def answer(self, tokens: Sequence[int], datagrams: Sequence[bytes]) -> None:
        """Send the answers of these requests, which have ended. Blocks: no."""
        with self._lock:
            for token in tokens:
                del self._requests[token]  # before it is sent: the token comes again at once
            has_ended = self.is_dead and not self._requests
            if not self.is_dead:
                for datagram in datagrams:
                    if self._waiting or not self._send(datagram):
                        self._wait_with(datagram)
            is_waiting = bool(self._waiting)
        if is_waiting:
            self.wants_to_write(self)
        if has_ended:
            self._on_ended(self)

    def _wait_with(self, datagram: bytes) -> None:
        """Add a datagram to those that wait, joined with the last one if it can be: a socket takes few of any size."""
        if self._waiting and wire.can_join(self._waiting[-1], datagram):
            self._waiting[-1] += datagram
        else:
            self._waiting.append(datagram)

    def _send(self, datagram: bytes) -> bool:
        try:
            self.socket.send(datagram, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:  # the process has gone, or the link ends here: it would wait for this answer for ever
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # the links' thread finds the end
        return True


def hand_over(arrived: dict[LinkedVersion, list[Request]]) -> None:
    """Give requests to the formers of their versions, and forget them."""
    for version, requests in arrived.items():
        version.arrive_all(requests)
    arrived.clear()


def _not_on_a_loop(_: Completion) -> None:
    raise InvariantError("a request of another process is answered by its link")
