"""The rows area of one share, pinned when the first request of several rows comes, on a thread of its own.

Pinning some 100 MB takes tens of milliseconds, and many models never get a request of several rows. So the area is not
pinned when the model is loaded, and never on the links' thread, which brings the requests of all streams. Requests that
need the area wait here until it is pinned, and so do those that come behind them in the same stream: a stream keeps its
order. All others pass.

If the area cannot be pinned, the requests that wait are refused, and the next one tries again.

Thread: the links' thread, except where a method says otherwise.
"""

import threading
from collections.abc import Sequence
from typing import Protocol

import structlog

from forebay_server.engines.device import Device, HostBuffer
from forebay_server.service.errors import OverloadedError, ServiceError
from forebay_server.service.group.shared_frames import SharedFrame
from forebay_server.service.request import Request

log = structlog.get_logger(__name__)

NO_MEMORY = "the machine has no memory for requests of several rows now; send single rows, or send it again"
RETRY_AFTER_MS = 100


class RowsVersion(Protocol):
    """The methods of a model version that end the wait of a request. Thread: any."""

    def arrive_all(self, requests: Sequence[Request]) -> None:
        """Hand requests to the former."""
        ...

    def refuse(self, requests: Sequence[Request], error: ServiceError) -> None:
        """End requests that cannot be handed to the former."""
        ...


class RowsArea:
    """See the module.

    Args:
        device: pins the memory.
        memory: the area.

    Attributes:
        has_waiting: whether requests wait for the area.
    """

    def __init__(self, device: Device, memory: memoryview) -> None:
        self.has_waiting = False
        self._device = device
        self._memory = memory
        self._buffer: HostBuffer | None = None
        self._lock = threading.Lock()  # to let requests wait, and to let them go
        self._waiting: list[tuple[RowsVersion, Request]] = []
        self._pinning: threading.Thread | None = None

    def holds_back(self, version: RowsVersion, request: Request) -> bool:
        """Place a request of several rows in the area, or keep it until it can be; return whether it is kept.

        A request of one row is kept if it comes behind one that is. Blocks: no.
        """
        if self._buffer is None or self.has_waiting:
            with self._lock:
                if self._has_to_wait(request):
                    self._waiting.append((version, request))
                    self.has_waiting = True
                    self._pin_soon()
                    return True
        self._place(request)
        return False

    def close(self) -> None:
        """Free the buffer. No request is left. Blocks: while the area is being pinned. Thread: any."""
        if self._pinning is not None:
            self._pinning.join()
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None
        self._memory.release()

    def _has_to_wait(self, request: Request) -> bool:
        if request.size == 1:
            return any(each.stream is request.stream for _, each in self._waiting)
        return self._buffer is None

    def _place(self, request: Request) -> None:
        frame, buffer = request.frame, self._buffer
        if request.size != 1 and isinstance(frame, SharedFrame) and buffer is not None:
            frame.host = buffer

    def _pin_soon(self) -> None:
        if self._pinning is None:
            self._pinning = threading.Thread(target=self._pin, name="rows area", daemon=True)
            self._pinning.start()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _pin(self) -> None:
        buffer: HostBuffer | None = None
        try:
            self._device.attach_thread()
            buffer = self._device.register_host(self._memory)
        except Exception as error:  # noqa: BLE001 - a device that is lost is found by its lanes
            log.warning("memory for requests of several rows cannot be pinned", reason=str(error))
        with self._lock:
            self._buffer = buffer
            waiting, self._waiting = self._waiting, []
            self.has_waiting = False
            if buffer is None:
                self._pinning = None  # the next request tries again
            for version, request in waiting:
                if request.size != 1 and buffer is None:
                    version.refuse([request], OverloadedError(NO_MEMORY, retry_after_ms=RETRY_AFTER_MS))
                else:
                    self._place(request)
                    version.arrive_all([request])
