"""The frame arena: fixed host buffers, one per permit, that decoded frames lie in until they are uploaded.

Every model version has an arena laid out for its inputs; the server-wide number of permits bounds how many leases exist
at once. Leases are handed out last-in first-out, so that under light load few buffers are ever touched (memory is
committed on first use) and those stay warm in the cache.
"""

import itertools
from collections import deque
from contextlib import ExitStack

from forebay_server.engines.device import Device, HostBuffer
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.multi_row_frames import DEFAULT_LIMIT_BYTES, MultiRowBuffer, MultiRowFrames
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import FrameBuffer

INPUT_ALIGNMENT_BYTES = 64  # a cache line, and enough for every vector load


class FrameArena:
    """Buffers for the inputs of one model version, as many as there are permits. Thread: any.

    Requests of more than one row lie in buffers of their own (`service.pipeline.multi_row_frames`), of at most
    `multi_row_limit_bytes` together.

    Args:
        device: allocates.
        inputs: of the model, all of fixed size.
        permits: one buffer each.
        multi_row_limit_bytes: most bytes of all buffers of several rows.
        files: room for files; None: frames hold rows only.
    """

    def __init__(
        self,
        device: Device,
        inputs: tuple[TensorSpec, ...],
        permits: Permits,
        multi_row_limit_bytes: int = DEFAULT_LIMIT_BYTES,
        files: FilePlace | None = None,
    ) -> None:
        self.row_bytes = tuple(spec.row_bytes for spec in inputs)
        self._files = files
        self.offsets, end = input_offsets(self.row_bytes)
        end = end if files is None else max(end, files.end)
        self.dense_offsets = tuple(itertools.accumulate(self.row_bytes[:-1], initial=0))
        self._device = device
        self._permits = permits
        self._buffers: list[HostBuffer] = []
        with ExitStack() as undo:  # an allocation that does not fit leaves nothing behind
            for _ in range(permits.count):
                self._buffers.append(device.alloc_host(end))
                undo.callback(self._buffers[-1].close)
            self._memory = undo.pop_all()
        self._free: deque[HostBuffer] = deque(self._buffers)
        self._multi_row = MultiRowFrames(device, inputs, INPUT_ALIGNMENT_BYTES, multi_row_limit_bytes)

    @property
    def leased_count(self) -> int:
        """How many buffers are out."""
        return len(self._buffers) - len(self._free) + self._multi_row.leased_count

    def lease(self, share: Share | None = None) -> "FrameLease":
        """Take a permit of `share` and a buffer. Raises OverloadedError when there is none for it."""
        return FrameLease(self, self._permits.take(share), self._free.pop())

    def files_of(self, frame: FrameBuffer) -> FilePlace | None:  # noqa: ARG002 - all buffers are alike
        """Return where a leased buffer of one row has room for a JPEG file; None if the device decodes none."""
        return self._files

    def borrows(self, payload: memoryview) -> bool:
        """Whether dense inputs of one row stay where they are, so that `borrow` costs nothing."""
        return self._device.borrow_host(payload) is not None

    def borrow(self, payload: memoryview, share: Share | None = None) -> "BorrowedFrame | None":
        """Take a permit for dense inputs of one row that stay where they are; None where the device needs a copy.

        Raises OverloadedError when there is none for `share`.
        """
        host = self._device.borrow_host(payload)
        if host is None:
            return None
        return BorrowedFrame(self._permits, self._permits.take(share), host, self.dense_offsets)

    def lease_rows(self, rows: int, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a buffer for a request of `rows` rows.

        Raises:
            OverloadedError: there is none for it now.
            InvalidRequestError: it is larger than all requests of several rows may be together.
        """
        if rows == 1:
            return self.lease(share)
        share = self._permits.take(share)
        try:
            return MultiRowLease(self, share, self._multi_row.take(rows))
        except BaseException:
            self._permits.give_back(share)
            raise

    def take_back(self, buffer: HostBuffer, share: Share) -> None:
        """Accept a buffer from its lease, and the permit of `share`."""
        self._free.append(buffer)  # before the permit: the next holder finds a buffer
        self._permits.give_back(share)

    def take_back_multi_row(self, buffer: MultiRowBuffer, share: Share) -> None:
        """Accept a buffer of several rows from its lease, and the permit of `share`."""
        self._multi_row.give_back(buffer)
        self._permits.give_back(share)

    def close(self) -> None:
        """Free the memory. Nothing is leased any more."""
        self._multi_row.close()
        self._memory.close()


def input_offsets(row_bytes: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return where each input of one row lies in a frame buffer, and the end of the last."""
    offsets: list[int] = []
    end = 0
    for nbytes in row_bytes:
        offsets.append(end)
        end += -(-nbytes // INPUT_ALIGNMENT_BYTES) * INPUT_ALIGNMENT_BYTES
    return tuple(offsets), end


class FrameLease:
    """One leased buffer; see service.request.FrameBuffer. Held by one thread at a time."""

    __slots__ = ("_arena", "_is_released", "_share", "host")

    def __init__(self, arena: FrameArena, share: Share, host: HostBuffer) -> None:
        self._arena = arena
        self._share = share
        self._is_released = False
        self.host = host

    @property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each input of the model."""
        return self._arena.offsets

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self._is_released

    def release(self) -> None:
        """Give it back. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._arena.take_back(self.host, self._share)


class MultiRowLease:
    """One leased buffer of several rows; see service.request.FrameBuffer. Held by one thread at a time."""

    __slots__ = ("_arena", "_buffer", "_is_released", "_share")

    def __init__(self, arena: FrameArena, share: Share, buffer: MultiRowBuffer) -> None:
        self._arena = arena
        self._share = share
        self._buffer = buffer
        self._is_released = False

    @property
    def host(self) -> HostBuffer:
        """The memory."""
        return self._buffer.host

    @property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each input of the model."""
        return self._buffer.offsets

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self._is_released

    def release(self) -> None:
        """Give it back. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._arena.take_back_multi_row(self._buffer, self._share)


class BorrowedFrame:
    """Inputs that lie in the memory they were received in; holds a permit. See service.request.FrameBuffer."""

    __slots__ = ("_is_released", "_permits", "_share", "host", "offsets")

    def __init__(self, permits: Permits, share: Share, host: HostBuffer, offsets: tuple[int, ...]) -> None:
        self._permits = permits
        self._share = share
        self._is_released = False
        self.host = host
        self.offsets = offsets

    @property
    def is_released(self) -> bool:
        """Whether the permit was given back."""
        return self._is_released

    def release(self) -> None:
        """Give the permit back, and let go of the memory. Idempotent."""
        if not self._is_released:
            self._is_released = True
            del self.host  # the request may wait long for its turn to be answered
            self._permits.give_back(self._share)
