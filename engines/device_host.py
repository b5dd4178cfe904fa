"""The CPU as a device: one memory and synchronous device streams.

h2d and d2h buffers alias (`alloc_device(mirror=...)` is a view of the host buffer), an enqueued copy is done when the
call returns, `record` completes at once, and events are stamps of the injected clock. The pipeline takes the same path
as on CUDA. It checks no ordering: `device_simulated` does.

Thread: any; one thread at a time on a device stream. Memory is touched on first use only.
"""

import os
import sys
import threading
from contextlib import suppress

import numpy as np

from forebay_server.engines.clock import Clock
from forebay_server.engines.device import (
    Device,
    DeviceDescription,
    DeviceKind,
    DeviceMemory,
    DeviceStream,
    HostBuffer,
    StreamPriority,
)
from forebay_server.engines.errors import MisuseError
from forebay_server.engines.host_handles import HostEvent, HostMemoryBuffer, HostStream, own_host
from forebay_server.engines.host_memory import allocate, check_range
from forebay_server.engines.pictures import NO_SUPPORT, PictureForm, PictureLimits, PictureSupport, PictureWriter

LOW_NICENESS = 10
"""Added to the niceness of threads of LOW priority: the kernel gives them a tenth of a core where others want all of
it. Beside two saturated instances of LOW priority the p99 of a model is 27 to 43 % shorter (docs/adr/0140)."""


class HostDevice:
    """The CPU and its memory."""

    def __init__(self, *, clock: Clock, index: int = 0) -> None:
        if index != 0:
            raise MisuseError(f"there is one cpu device, index 0, not {index}")
        self.clock = clock

    @property
    def name(self) -> str:
        """`cpu`."""
        return "cpu"

    @property
    def kind(self) -> DeviceKind:
        """CPU."""
        return DeviceKind.CPU

    @property
    def index(self) -> int:
        """0."""
        return 0

    @property
    def kind_count(self) -> int:
        """1."""
        return 1

    def describe(self) -> DeviceDescription:
        """Return its own name: no plan is built for a particular CPU."""
        return DeviceDescription(self.name)

    def raise_if_lost(self) -> None:
        """Do nothing: the process ends with its CPU."""

    @property
    def gather_below_bytes(self) -> int:
        """0: a gather would be the same copy."""
        return 0

    @property
    def is_synchronous(self) -> bool:
        """True."""
        return True

    def attach_thread(self) -> None:
        """Nothing to select."""

    def rank_thread(self, priority: StreamPriority) -> None:
        """Make a thread of LOW priority nicer than the process: on Linux, where threads have a niceness of their own.

        Where the system refuses it, the thread keeps its priority. HIGH is NORMAL here: it would need a privilege.
        """
        if priority is not StreamPriority.LOW or sys.platform != "linux":
            return
        with suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + LOW_NICENESS)

    def memory(self) -> DeviceMemory | None:
        """None: its memory is the machine's."""
        return None

    def alloc_host(self, nbytes: int) -> HostMemoryBuffer:
        """Allocate memory, touched on first use."""
        return HostMemoryBuffer(self, allocate(nbytes))

    def borrow_host(self, memory: memoryview) -> HostMemoryBuffer:
        """Return a buffer over `memory`: one host memory is as good as another."""
        return HostMemoryBuffer(self, np.frombuffer(memory, np.uint8))

    def register_host(self, memory: memoryview) -> HostMemoryBuffer:
        """Return a buffer over `memory`."""
        return HostMemoryBuffer(self, np.frombuffer(memory, np.uint8))

    def alloc_device(self, nbytes: int, mirror: HostBuffer | None = None) -> HostMemoryBuffer:
        """Allocate memory, or return a view of the first `nbytes` bytes of `mirror`."""
        if mirror is None:
            return HostMemoryBuffer(self, allocate(nbytes))
        own = own_host(self, mirror)
        check_range("mirror", own.nbytes, 0, nbytes)
        return HostMemoryBuffer(self, own.memory[:nbytes], mirrored=own)

    def create_stream(
        self,
        name: str,
        *,
        priority: StreamPriority = StreamPriority.NORMAL,  # noqa: ARG002 - no priorities here
    ) -> HostStream:
        """Create a synchronous device stream."""
        return HostStream(self, name)

    def create_event(self) -> HostEvent:
        """Create an event."""
        return HostEvent(self)

    def picture_support(self) -> PictureSupport:
        """Nothing: pictures are decoded before they come here."""
        return NO_SUPPORT

    def open_pictures(self, form: PictureForm, limits: PictureLimits, device_stream: DeviceStream) -> PictureWriter:  # noqa: ARG002
        """Raise MisuseError."""
        raise MisuseError(f"{self.name} writes no pictures")

    def close(self) -> None:
        """The device has no resources of its own."""


def _conforms(device: HostDevice, stream: HostStream) -> tuple[Device, DeviceStream]:
    return device, stream
