"""Memory that was needed for a moment goes back to the system: after a burst, never on a frame's way.

glibc keeps what is freed (`tuning`): memory that is faulted in anew for every message costs more than it is worth. What
nobody has used for some seconds is given back, on the upkeep's thread. Everybody who allocates waits meanwhile, 5 ms
for every 100 MB, so it is done once after a burst, and not at all while it goes on.
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
    """Return what this process holds of the machine's memory; 0 where nobody says."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class FreeMemory:
    """Gives memory back after a burst. Thread: the upkeep's.

    Args:
        resident: bytes that the process holds of the machine's memory.
        allocated: bytes that are in use of what its allocator has; None where it does not say.
        give_back: returns what can be returned.
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
        self._lasting: int | None = None  # resident and not allocated, after the last time, or the least since
        self._idle: list[int] = []  # beyond that, at the last looks

    def look(self) -> float:
        """Look once; give memory back if much of it has not been used at any of the last looks.

        Returns in how many seconds to look again.
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
