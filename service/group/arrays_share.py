"""The memory of one front-end process in the file of a version whose shapes vary, as the engine process has it.

Nothing is pinned: the engine copies what it needs, from and to memory of any kind.

Thread: any, except where a method says otherwise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs
from forebay_server.service.errors import OverloadedError
from forebay_server.service.group.memory_layout import PAGE_BYTES, MemoryLayout
from forebay_server.service.group.outputs_area import OutputsArea
from forebay_server.service.group.packed_arrays import pack, shapes_in, unpack
from forebay_server.service.group.place_error import PlaceError
from forebay_server.service.pipeline.unbound import Inputs

NO_ROOM = "the outputs are larger than the memory that is left for them: send fewer rows, or send it again"
RETRY_AFTER_MS = 100


class ArraysShare:
    """See the module.

    Args:
        memory: of the version's file.
        layout: of the file.
        specs: of the model.
        front_end: whose it is.
        outputs: area for outputs that do not fit in the place of their inputs; shared by all.
    """

    def __init__(
        self, memory: memoryview, layout: MemoryLayout, specs: EngineSpecs, front_end: int, outputs: OutputsArea
    ) -> None:
        self._memory = memory
        self._start = layout.rows_offset(front_end)
        self._end = self._start + layout.rows_area_bytes
        self._input_dtypes = tuple(spec.dtype for spec in specs.inputs)
        self._output_dtypes = tuple(spec.dtype for spec in specs.outputs)
        self._has_batch = specs.has_batch_dimension
        self._front_end = front_end
        self._outputs = outputs

    def place(self, start: int, end: int) -> memoryview:
        """Return the memory of one request. Raises PlaceError if it is not in this share. Thread: the links'."""
        if not self._start <= start < end <= self._end or (start | end) % PAGE_BYTES:
            raise PlaceError(f"bytes {start} to {end} are no pages of the share from {self._start} to {self._end}")
        return self._memory[start:end]

    def batch_key(self, place: memoryview) -> tuple[tuple[int, ...] | None, ...]:
        """Return what requests of one batch have in common: the inner shapes, and the inputs that are left out.

        Raises ValueError if the inputs are torn.
        """
        first = 1 if self._has_batch else 0
        return tuple(None if shape is None else shape[first:] for shape in shapes_in(place))

    def inputs(self, place: memoryview) -> Inputs:
        """Return the inputs, read-only: numbers are views of the place. Raises ValueError if they are torn."""
        return unpack(place, self._input_dtypes)

    def write(self, place: memoryview, outputs: Sequence[NDArray[Any]]) -> int:
        """Write outputs in the place of the inputs or, if there is no room, into the outputs area.

        Returns:
            Their offset in the file; 0: they are in the place.

        Raises:
            OverloadedError: there is no room for them now.
        """
        packed = pack(outputs, self._output_dtypes)
        if packed.nbytes <= len(place):
            whole = np.frombuffer(place, np.uint8)
            if any(np.may_share_memory(array, whole) for array in outputs):  # the engine gave an input back
                packed = pack([array.copy() for array in outputs], self._output_dtypes)
            packed.write(place)
            return 0
        offset = self._outputs.take(self._front_end, packed.nbytes)
        if offset is None:
            raise OverloadedError(NO_ROOM, retry_after_ms=RETRY_AFTER_MS)
        packed.write(self._memory[offset : offset + packed.nbytes])
        return offset

    def give_back(self, offset: int) -> None:
        """Accept a part of the outputs area. Raises KeyError if the front-end process has no such part."""
        self._outputs.give_back(self._front_end, offset)

    def give_all_back(self) -> None:
        """Accept every part of the outputs area that the front-end process has."""
        self._outputs.give_all_back(self._front_end)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory = memoryview(b"")
