"""A front-end process's share of a version's memory: it leases places, writes inputs, and copies outputs out of them.

A place is a slot, for a request of one row, or a block of the rows area. From its lease to its release it belongs to
one request; between the request's sending and its answer the engine process reads and writes it. So a place is
released when the answer has come, or if the request was never sent. Slots are leased last-in first-out, so that under
light load few are ever touched.

Thread: any, except where a method says otherwise.
"""

import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError, OverloadedError
from forebay_server.service.frontend.plain_copy import HELD_BYTES
from forebay_server.service.group.blocks import Blocks
from forebay_server.service.group.memory_layout import ALIGNMENT_BYTES, MemoryLayout
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import FrameBuffer, OutputArrays

UNIT_BYTES = 4096  # of the rows area: a page
RETRY_AFTER_MS = 100


class SharedBytes:
    """Memory of a place, as service.request.FrameBuffer has it: an engines.device.HostBuffer that no device knows."""

    __slots__ = ("_array", "_memory", "nbytes")

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._array: NDArray[np.uint8] = np.frombuffer(memory, np.uint8)
        self.nbytes = memory.nbytes

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory, shape (nbytes,)."""
        return self._array

    def read_view(self) -> NDArray[np.uint8]:
        """Return the memory, shape (nbytes,)."""
        return self._array

    def part(self, offset: int, nbytes: int) -> "SharedBytes":
        """Return a part of it."""
        return SharedBytes(self._memory[offset : offset + nbytes])

    def close(self) -> None:
        """Do nothing: the file's owner closes it."""


class Place:
    """Where one request lies in the memory file.

    Attributes:
        host: memory of its inputs.
        offsets: of each input in `host`.
        input_offset: of its inputs in the file.
        output_offset: of its outputs in the file.
        outputs: memory of each output.
        units: size in the rows area; 0 for a slot.
        is_heavy: whether copies of its outputs would hold up the event loop.
    """

    __slots__ = ("host", "input_offset", "is_heavy", "offsets", "output_offset", "outputs", "units")

    def __init__(self, memory: memoryview, layout: MemoryLayout, offset: int, rows: int, units: int = 0) -> None:
        inputs_end = offset + layout.inputs_bytes(rows)
        self.host = SharedBytes(memory[offset:inputs_end])
        self.offsets = layout.input_places(rows)
        self.input_offset, self.output_offset = offset, inputs_end
        self.outputs = tuple(
            memory[inputs_end + start : inputs_end + start + row_bytes * rows]
            for start, row_bytes in zip(layout.output_places(rows), layout.output_row_bytes, strict=True)
        )
        self.units = units
        self.is_heavy = sum(each.nbytes for each in self.outputs) > HELD_BYTES


class RemoteArena:
    """Implements service.models.served.ServedFrames. See the module.

    Args:
        memory: of the version's file.
        layout: of the file.
        front_end: index of this process.
        permits: of this process; no more than there are slots.
    """

    def __init__(self, memory: memoryview, layout: MemoryLayout, front_end: int, permits: Permits) -> None:
        self.row_bytes = layout.input_row_bytes
        self._memory = memory
        self._layout = layout
        self._permits = permits
        self._slots = tuple(
            Place(memory, layout, layout.slot_offset(front_end, slot), 1) for slot in range(layout.slots)
        )
        self._free: deque[Place] = deque(reversed(self._slots))
        self._rows_offset = layout.rows_offset(front_end)
        self._lock = threading.Lock()  # to touch the blocks
        self._blocks = Blocks(layout.rows_area_bytes // UNIT_BYTES)
        self._blocks_leased = 0

    @property
    def leased_count(self) -> int:
        """How many places are out."""
        return len(self._slots) - len(self._free) + self._blocks_leased

    def lease(self, share: Share | None = None) -> "RemoteFrame":
        """Take a permit of `share` and a slot. Raises OverloadedError when there is none for it."""
        return RemoteFrame(self, self._permits.take(share), self._free.pop(), 1)

    def files_of(self, frame: FrameBuffer) -> FilePlace | None:  # noqa: ARG002 - all slots are alike
        """Return where a slot has room for a JPEG file; None if the device decodes none."""
        return self._layout.files

    def borrows(self, payload: memoryview) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: the engine process reads only what lies in the file."""
        return False

    def borrow(self, payload: memoryview, share: Share | None = None) -> FrameBuffer | None:  # noqa: ARG002
        """Return None: inputs are copied into the file."""
        return None

    def lease_rows(self, rows: int, share: Share | None = None) -> FrameBuffer:
        """Take a permit of `share` and a place for a request of `rows` rows.

        Raises:
            OverloadedError: there is none for it now.
            InvalidRequestError: it is larger than all requests of several rows may be together.
        """
        if rows == 1:
            return self.lease(share)
        share = self._permits.take(share)
        try:
            return RemoteFrame(self, share, self._take_block(rows), rows)
        except BaseException:
            self._permits.give_back(share)
            raise

    def take_back(self, place: Place, share: Share) -> None:
        """Accept a place from its lease, and the permit of `share`."""
        if place.units:
            with self._lock:
                self._blocks.give_back((place.input_offset - self._rows_offset) // UNIT_BYTES, place.units)
                self._blocks_leased -= 1
        else:
            self._free.append(place)  # before the permit: its next owner finds a slot
        self._permits.give_back(share)

    def outputs_of(self, place: Place, rows: int) -> OutputArrays:
        """Return copies of the outputs of a request that was answered, read-only, each of shape (rows, *shape)."""
        layout = self._layout
        return tuple(
            [
                _copied(output, dtype, (rows, *shape))
                for output, dtype, shape in zip(place.outputs, layout.output_dtypes, layout.output_shapes, strict=True)
            ]
        )

    def _take_block(self, rows: int) -> Place:
        layout = self._layout
        nbytes = layout.inputs_bytes(rows) + layout.outputs_bytes(rows)
        units = -(-nbytes // UNIT_BYTES)
        if units > self._blocks.largest:
            raise InvalidRequestError(
                f"a request of so many rows takes {nbytes} bytes, and all such requests together may hold "
                f"{layout.rows_area_bytes}: split it"
            )
        with self._lock:
            place = self._blocks.take(units)
            if place is None:
                raise OverloadedError(
                    f"requests of several rows hold all of the {layout.rows_area_bytes} bytes that they may; send "
                    "fewer at once",
                    retry_after_ms=RETRY_AFTER_MS,
                )
            self._blocks_leased += 1
        return Place(self._memory, layout, self._rows_offset + place * UNIT_BYTES, rows, units)


class RemoteFrame:
    """One leased place; see service.request.FrameBuffer. Held by one thread at a time."""

    __slots__ = ("_arena", "_is_released", "_share", "place", "rows")

    def __init__(self, arena: RemoteArena, share: Share, place: Place, rows: int) -> None:
        self._arena = arena
        self._share = share
        self._is_released = False
        self.place = place
        self.rows = rows

    @property
    def arena(self) -> RemoteArena:
        """Whose place it is."""
        return self._arena

    @property
    def host(self) -> SharedBytes:
        """The memory of the inputs."""
        return self.place.host

    @property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each input."""
        return self.place.offsets

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self._is_released

    @property
    def is_heavy(self) -> bool:
        """Whether `outputs` would hold up the event loop."""
        return self.place.is_heavy

    def outputs(self) -> OutputArrays:
        """Return copies of the outputs, once the request was answered; see `RemoteArena.outputs_of`."""
        return self._arena.outputs_of(self.place, self.rows)

    def release(self) -> None:
        """Give it back: it was answered, or never sent. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._arena.take_back(self.place, self._share)


def _copied(memory: memoryview, dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> NDArray[Any]:
    if memory.nbytes <= HELD_BYTES:  # as bytes: the interpreter's lock is kept, as in `plain_copy`
        return np.ndarray(shape, dtype, bytes(memory))
    return np.array(np.frombuffer(memory, np.uint8)).view(dtype).reshape(shape)


assert UNIT_BYTES % ALIGNMENT_BYTES == 0  # noqa: S101 - of constants
