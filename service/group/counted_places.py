"""Places of a version that several engine processes run: each knows its version, and all see how many hold a request.

The count is written by the thread that takes or returns a place, without a lock: two that do so at the same moment may
leave a number that is one too old, until the next place is taken or returned.

Thread: any.
"""

from collections.abc import Callable
from typing import Protocol

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.group.memory_layout import MemoryLayout
from forebay_server.service.group.remote_arena import Place, RemoteArena, RemoteFrame
from forebay_server.service.group.remote_arrays import RemoteArrays, RemoteArraysFrame
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.pipeline.unbound import Inputs
from forebay_server.service.request import FrameBuffer


class Noting(Protocol):
    """A version that publishes how many of its places hold a request."""

    def note_held(self, count: int) -> None:
        """Publish it. Thread: any. Blocks: no."""
        ...


class _Closed:
    """In the place of a version that is closed: nothing publishes its places any more."""

    def note_held(self, count: int) -> None:
        """Do nothing."""


class CountedArena(RemoteArena):
    """See the module.

    Args:
        memory: as of `RemoteArena`, like the next three.
        layout: of the file.
        front_end: index of this process.
        permits: of this process.
        version: whose places they are.
    """

    def __init__(
        self, memory: memoryview, layout: MemoryLayout, front_end: int, permits: Permits, version: Noting
    ) -> None:
        super().__init__(memory, layout, front_end, permits)
        self.version = version

    def close(self) -> None:
        """Let go of the version: none of its places is out. No cycle then keeps the memory mapped."""
        self.version = _Closed()

    def lease(self, share: Share | None = None) -> RemoteFrame:
        """See `RemoteArena.lease`."""
        frame = super().lease(share)
        self.version.note_held(self.leased_count)
        return frame

    def lease_rows(self, rows: int, share: Share | None = None) -> FrameBuffer:
        """See `RemoteArena.lease_rows`."""
        frame = super().lease_rows(rows, share)
        self.version.note_held(self.leased_count)
        return frame

    def take_back(self, place: Place, share: Share) -> None:
        """See `RemoteArena.take_back`."""
        super().take_back(place, share)
        self.version.note_held(self.leased_count)


class CountedArrays(RemoteArrays):
    """See the module.

    Args:
        memory: as of `RemoteArrays`, like the next six.
        layout: of the file.
        specs: of the model.
        front_end: index of this process.
        permits: of this process.
        limit_bytes: most that the inputs of its requests may hold together.
        give_back: sends a part of the outputs area back.
        version: whose places they are.
    """

    def __init__(
        self,
        memory: memoryview,
        layout: MemoryLayout,
        specs: EngineSpecs,
        front_end: int,
        permits: Permits,
        limit_bytes: int,
        give_back: Callable[[int], None],
        version: Noting,
    ) -> None:
        super().__init__(memory, layout, specs, front_end, permits, limit_bytes, give_back)
        self.version = version

    def close(self) -> None:
        """Let go of the version: none of its places is out. No cycle then keeps the memory mapped."""
        self.version = _Closed()

    def lease(self, arrays: Inputs, share: Share | None = None) -> RemoteArraysFrame:
        """See `RemoteArrays.lease`."""
        frame = super().lease(arrays, share)
        self.version.note_held(self.leased_count)
        return frame

    def free(self, frame: RemoteArraysFrame) -> None:
        """See `RemoteArrays.free`."""
        super().free(frame)
        self.version.note_held(self.leased_count)
