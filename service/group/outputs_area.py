"""The outputs area of a version whose shapes vary: outputs that do not fit in the place of their inputs.

The engine process leases a part for the outputs of one request; the front-end process copies them, and gives the part
back. A process that reads slowly, or not at all, holds no more than its share of the area; one that holds nothing may
have as much as there is, so that the outputs of a single request are as large as they may be.

Thread: any; the lock guards everything.
"""

import threading

from forebay_server.service.group.blocks import Blocks
from forebay_server.service.group.memory_layout import PAGE_BYTES, MemoryLayout


class OutputsArea:
    """See the module.

    Args:
        layout: of the version's memory file.
    """

    def __init__(self, layout: MemoryLayout) -> None:
        self._start = layout.outputs_offset
        self._blocks = Blocks(layout.outputs_area_bytes // PAGE_BYTES)
        self._part = self._blocks.units // layout.front_ends
        self._held: list[dict[int, int]] = [{} for _ in range(layout.front_ends)]  # units by offset in the file
        self._lock = threading.Lock()

    def take(self, front_end: int, nbytes: int) -> int | None:
        """Lease room for `nbytes` bytes, at least 1, and return its offset in the file; None if there is none now."""
        units = -(-nbytes // PAGE_BYTES)
        with self._lock:
            held = self._held[front_end]
            if held and sum(held.values()) + units > self._part:
                return None
            place = self._blocks.take(units)
            if place is None:
                return None
            offset = self._start + place * PAGE_BYTES
            held[offset] = units
            return offset

    def give_back(self, front_end: int, offset: int) -> None:
        """Accept what a front-end process has read. Raises KeyError if it has no such part."""
        with self._lock:
            self._free(offset, self._held[front_end].pop(offset))

    def give_all_back(self, front_end: int) -> None:
        """Accept all that a front-end process has: it has died, or uses the version no more."""
        with self._lock:
            held = self._held[front_end]
            while held:
                self._free(*held.popitem())

    def _free(self, offset: int, units: int) -> None:
        self._blocks.give_back((offset - self._start) // PAGE_BYTES, units)
