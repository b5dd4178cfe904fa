"""Returns the memory of a burst to the system: after the burst, never on the data path.

glibc keeps freed memory (`tuning`), because faulting it in again for every message costs too much. Memory that was
unused for some seconds is returned, on the upkeep's thread. All allocating threads wait meanwhile, 5 ms for every 100
MB, so it is returned once after a burst, and not during one.
"""

import os
from collections.abc import Callable
from pathlib import Path

from forebay_server.service.tuning import allocated_bytes, give_free_memory_back

LOOK_INTERVAL_S = 1.0
NEVER_S = 86_400.0
LEAST_BYTES = 64 << 20  # less is not worth the pause
QUIET_LOOKS = 5
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the machine's memory that the process holds; 0 where it is unknown."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class FreeMemory:
    """Returns memory to the system after a burst. Thread: the upkeep's.

    Args:
        resident: bytes of the machine's memory that the process holds.
        allocated: bytes of these that its allocator has given out; None where it does not report them.
        give_back: returns free memory to the system.
    """

    def __init__(
        self,
        resident: Callable[[], int] = resident_bytes,
        allocated: Callable[[], int | None] = allocated_bytes,
        give_back: Callable[[], None] = give_free_memory_back,
    ) -> None:
        self._resident = resident
        self._allocated = allocated
        self._give_back = give_back
        self._lasting: int | None = None  # resident and not allocated: after the last return, or the least since
        self._idle: list[int] = []  # excess over that, at the last checks

    def look(self) -> float:
        """Check once; return memory if much of it was unused at all of the last checks.

        Returns the number of seconds until the next check.
        """
        unallocated = self._unallocated()
        if unallocated is None:
            return NEVER_S
        self._lasting = unallocated if self._lasting is None else min(self._lasting, unallocated)
        self._idle = [*self._idle[1 - QUIET_LOOKS :], unallocated - self._lasting]
        if len(self._idle) == QUIET_LOOKS and min(self._idle) >= LEAST_BYTES:
            self._give_back()
            self._idle.clear()
            self._lasting = self._unallocated()  # code, models, and pages that are free in part
        return LOOK_INTERVAL_S

    def _unallocated(self) -> int | None:
        allocated = self._allocated()
        return None if allocated is None else self._resident() - allocated
