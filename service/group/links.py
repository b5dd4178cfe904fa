"""The thread that reads the data sockets of all front-end processes.

It reads each socket until it is empty, and hands all requests that came for one version to its former at once: read one
message at a time, and batches would be small. It writes what waits in a link once the link's socket takes more.

A closed socket means that the front-end process has gone. A link that breaks is dropped, and its process with it.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.front_end_link import BrokenLinkError, FrontEndLink, LinkedVersion, hand_over
from forebay_server.service.request import Request

log = structlog.get_logger(__name__)

MOST_DATAGRAMS: Final = 64
"""Of one socket before the next one has its turn: more than all that a front-end process sends in a millisecond."""


class Links:
    """The links' thread; see the module.

    Args:
        on_fatal: called with a bug in the thread.

    Lifecycle: start, stop. Links are added at any time between.
    """

    def __init__(self, on_fatal: Callable[[BaseException], None]) -> None:
        self._on_fatal = on_fatal
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)  # noqa: FBT003
        self._waker.setblocking(False)  # noqa: FBT003
        self._added: deque[FrontEndLink] = deque()
        self._to_write: deque[FrontEndLink] = deque()
        self._is_stopped = False
        self._buffer = bytearray(wire.MAX_DATAGRAM_BYTES)
        self._view = memoryview(self._buffer)
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, link: FrontEndLink) -> None:
        """Read a link from now on. Thread: any. Blocks: no."""
        link.wants_to_write = self._write_soon
        self._added.append(link)
        self._wake()

    def stop(self) -> None:
        """End the thread, and with it every link. Idempotent. Blocks: until the thread has ended."""
        self._is_stopped = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()

    def _write_soon(self, link: FrontEndLink) -> None:
        self._to_write.append(link)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: it has ended
            self._waker.send(b"\0")

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, None)
            while not self._is_stopped:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - reported, never swallowed
            self._on_fatal(error)
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, FrontEndLink):
                    self._drop(key.data)
            self._selector.close()
            self._waker.close()
            self._woken.close()

    def _turn(self) -> None:
        arrived: dict[LinkedVersion, list[Request]] = {}
        for key, events in self._selector.select():
            link: FrontEndLink | None = key.data
            if link is None:
                self._take_notices()
                continue
            if events & selectors.EVENT_WRITE and link.send_waiting():
                self._selector.modify(link.socket, selectors.EVENT_READ, link)
            if events & selectors.EVENT_READ:
                self._read(link, arrived)
        hand_over(arrived)

    def _take_notices(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._added:
            link = self._added.popleft()
            self._selector.register(link.socket, selectors.EVENT_READ, link)
        while self._to_write:
            link = self._to_write.popleft()
            if not link.is_dead:
                self._selector.modify(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)

    def _read(self, link: FrontEndLink, arrived: dict[LinkedVersion, list[Request]]) -> None:
        for _ in range(MOST_DATAGRAMS):
            try:
                nbytes = link.socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError:
                nbytes = 0
            if not (nbytes and self._take(link, nbytes, arrived)):
                hand_over(arrived)
                self._drop(link)
                return

    def _take(self, link: FrontEndLink, nbytes: int, arrived: dict[LinkedVersion, list[Request]]) -> bool:
        """Have the link take a datagram in; return whether the link is whole."""
        try:
            if nbytes > len(self._view):
                raise BrokenLinkError(f"a datagram of {nbytes} bytes")  # noqa: TRY301
            link.take(self._view[:nbytes], arrived)
        except BrokenLinkError:
            log.exception("a front-end process said what cannot be, and is dropped", front_end=link.front_end)
            return False
        return True

    def _drop(self, link: FrontEndLink) -> None:
        self._selector.unregister(link.socket)
        link.die()
