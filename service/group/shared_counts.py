"""Numbers of each front-end process that the others see, in a memory file that all share."""

from typing import Final

from forebay_server.service.group.memory_layout import PAGE_BYTES

_STRIDE: Final = 8  # numbers: a cache line for each front-end process


class _Counts:
    """A number of each front-end process, for the others to see: one of the columns of a file that all share.

    Args:
        memory: of a file of `PermitCounts.BYTES` bytes.
        front_ends: how many there are.
    """

    BYTES: Final = PAGE_BYTES
    COLUMN = 0

    def __init__(self, memory: memoryview, front_ends: int) -> None:
        self._numbers = memory[: self.BYTES].cast("q")
        self._places = [_STRIDE * front_end + self.COLUMN for front_end in range(front_ends)]

    def write(self, front_end: int, count: int) -> None:
        """Write a number. Thread: any one of the front-end process, and the engine process once it has died."""
        self._numbers[self._places[front_end]] = count

    def read(self, front_end: int) -> int:
        """Return the number of one front-end process."""
        return self._numbers[self._places[front_end]]

    def total(self) -> int:
        """Return the sum of all."""
        return sum([self._numbers[place] for place in self._places])

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._numbers.release()


class PermitCounts(_Counts):
    """How many permits each front-end process has given out."""


class StreamCounts(_Counts):
    """How many streams are open in each front-end process."""

    COLUMN = 1
