"""The inputs of varying shapes in a front-end process: they lie in its share of the version's memory, as packed arrays.

A place is a block of the share, with room for the inputs. The engine process reads them there, and puts the outputs in
the place of the inputs if there is room; otherwise into the outputs area, of which the answer names the place. Once the
outputs are copied, the place is this process's again, and a part of the outputs area goes back with a record.

Thread: any, except where a method says otherwise.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.errors import InvalidRequestError, OverloadedError
from forebay_server.service.frontend.plain_copy import HELD_BYTES
from forebay_server.service.group.blocks import Blocks
from forebay_server.service.group.memory_layout import PAGE_BYTES, MemoryLayout
from forebay_server.service.group.packed_arrays import bytes_in, pack, unpack
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.pipeline.unbound import ArraysFrame, Inputs, UnboundFrames
from forebay_server.service.request import OutputArrays

RETRY_AFTER_MS = 100
LIGHT_STRINGS_BYTES = 16 << 10  # with their lengths: 4,000 short ones, each 0.2 µs


class RemoteArrays(UnboundFrames):
    """Implements service.models.served.ServedArrays. See the module.

    Args:
        memory: of the version's file.
        layout: of the file.
        specs: of the model.
        front_end: index of this process.
        permits: of this process.
        limit_bytes: most that the inputs of its requests may hold together.
        give_back: sends a part of the outputs area back, by its offset in the file.
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
    ) -> None:
        super().__init__(permits, limit_bytes)
        self._memory = memory
        self._start = layout.rows_offset(front_end)
        self._input_dtypes = tuple(spec.dtype for spec in specs.inputs)
        self._output_dtypes = tuple(spec.dtype for spec in specs.outputs)
        has_strings = any(dtype == np.dtype(object) for dtype in self._output_dtypes)
        self._light_bytes = LIGHT_STRINGS_BYTES if has_strings else HELD_BYTES
        self._give_back = give_back
        self._places = Blocks(layout.rows_area_bytes // PAGE_BYTES)
        self._places_lock = threading.Lock()  # to touch the places
        self._leased_count = 0

    @property
    def leased_count(self) -> int:
        """How many places are out."""
        return self._leased_count

    def lease(self, arrays: Inputs, share: Share | None = None) -> "RemoteArraysFrame":
        """Take a permit of `share`, count the arrays, and copy them into a place.

        Raises:
            OverloadedError: the others leave no permit or no room for them now.
            InvalidRequestError: there will never be room for them.
        """
        nbytes, share = self.reserve(arrays, share)
        try:
            return self._put(arrays, nbytes, share)
        except BaseException:
            self.take_back(nbytes, share)
            raise

    def _put(self, arrays: Inputs, nbytes: int, share: Share) -> "RemoteArraysFrame":
        packed = pack(arrays, self._input_dtypes)
        units = -(-packed.nbytes // PAGE_BYTES)
        if units > self._places.largest:
            raise InvalidRequestError(
                f"the inputs take {packed.nbytes} bytes of memory: send fewer rows, or smaller ones"
            )
        with self._places_lock:
            place = self._places.take(units)
            if place is None:
                raise OverloadedError(
                    "requests with inputs of varying shapes hold all the memory that they may; send fewer at once",
                    retry_after_ms=RETRY_AFTER_MS,
                )
            self._leased_count += 1
        start = self._start + place * PAGE_BYTES
        frame = RemoteArraysFrame(self, start, units, nbytes, share)
        try:
            packed.write(self._memory[start : frame.end])
        except BaseException:
            self.free(frame)
            raise
        return frame

    def free(self, frame: "RemoteArraysFrame") -> None:
        """Accept the place of a frame."""
        with self._places_lock:
            self._places.give_back((frame.start - self._start) // PAGE_BYTES, frame.units)
            self._leased_count -= 1

    def outputs_at(self, offset: int) -> OutputArrays:
        """Return copies of the outputs that begin there, read-only. Raises ValueError if they are torn."""
        arrays = unpack(self._memory[offset:], self._output_dtypes)
        return tuple([_copied(array) for array in arrays if array is not None])

    def are_heavy_at(self, offset: int) -> bool:
        """Whether copies of the outputs that begin there would hold up the event loop."""
        try:
            return bytes_in(self._memory[offset:]) > self._light_bytes
        except ValueError:
            return False  # they are torn, which their reader finds out

    def give_outputs_back(self, offset: int) -> None:
        """Let the engine process use a part of the outputs area again."""
        self._give_back(offset)


class RemoteArraysFrame(ArraysFrame):
    """Inputs in one place; see service.request.FrameBuffer. Held by one thread at a time.

    Attributes:
        start: of the place, in the file.
        units: its size in pages.
        outputs_offset: where its outputs are, once it was answered; 0: in its place.
        is_released: whether it was given back.
    """

    __slots__ = ("_arrays", "_nbytes", "_share", "is_released", "outputs_offset", "start", "units")

    def __init__(self, arrays: RemoteArrays, start: int, units: int, nbytes: int, share: Share) -> None:
        self._arrays = arrays
        self._nbytes = nbytes
        self._share = share
        self.start = start
        self.units = units
        self.outputs_offset = 0
        self.is_released: bool = False

    @property
    def owner(self) -> RemoteArrays:
        """Whose place it is."""
        return self._arrays

    @property
    def end(self) -> int:
        """End of the place, in the file: at least as far as the block of its size goes."""
        return self.start + self.units * PAGE_BYTES

    @property
    def arrays(self) -> Inputs | None:
        """None: they are the engine process's."""
        return None

    def outputs(self) -> OutputArrays:
        """Return copies of the outputs, once the request was answered. Raises ValueError if they are torn."""
        return self._arrays.outputs_at(self.outputs_offset or self.start)

    @property
    def is_heavy(self) -> bool:
        """Whether `outputs` would hold up the event loop."""
        return self._arrays.are_heavy_at(self.outputs_offset or self.start)

    def release(self) -> None:
        """Give it back: it was answered, or never sent. Idempotent."""
        if not self.is_released:
            self.is_released = True
            if self.outputs_offset:
                self._arrays.give_outputs_back(self.outputs_offset)
            self._arrays.free(self)
            self._arrays.take_back(self._nbytes, self._share)


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.dtype(object):
        return array  # strings are copies already
    return array.copy()
