"""The numbers at the start of a version's memory file.

Each has 64 bits and one writer: the feasibility that admission reads, and how long a row takes, from the engine
process; how long delivery takes, and how many places hold a request, from each front-end process. A number is read and
written whole; two numbers that are read one after the other may be of neighbouring moments.

Thread: any.
"""

from typing import Final, NamedTuple

from forebay_server.service.group.memory_layout import HEADER_BYTES, PAGE_BYTES
from forebay_server.service.request import Feasibility

_LEAST_SERVICE, _EGRESS, _EXECUTED, _ROW = range(4)
_FIRST_FRONT_END, _STRIDE = 16, 8  # numbers: the engine process's two cache lines, then a line for each front end
_HELD = PAGE_BYTES // 8  # on a page of its own, since it changes with every frame: a line for each front end


class Delivery(NamedTuple):
    """How long delivery takes in one front-end process; the first five are those of `EgressTime`.

    Attributes:
        mean_ns: of a result that finds delivery free.
        upper_ns: halfway from there to the longest.
        interval_ns: between results that wait for each other.
        reached_ns: when the outputs were readable of the newest batch of which a result has left.
        reached_count: results of that batch that have left.
        results_per_s: how many results leave; at least 1 once one has.
    """

    mean_ns: int = 0
    upper_ns: int = 0
    interval_ns: int = 0
    reached_ns: int = 0
    reached_count: int = 0
    results_per_s: int = 0


_NUMBERS: Final = len(Delivery._fields)


class VersionHeader:
    """The numbers at the start of a version's memory file.

    Args:
        memory: of the file.
        front_ends: how many there are.
    """

    def __init__(self, memory: memoryview, front_ends: int) -> None:
        self._numbers = memory[:HEADER_BYTES].cast("q")
        self._egress = self._numbers[_FIRST_FRONT_END : _FIRST_FRONT_END + _STRIDE * front_ends]
        self._held = self._numbers[_HELD : _HELD + _STRIDE * front_ends : _STRIDE]
        self._admission = self._numbers[_LEAST_SERVICE : _EXECUTED + 1]
        self._seen: tuple[list[int], Feasibility] = ([], Feasibility())  # numbers, and the value made of them

    def publish(self, feasibility: Feasibility) -> None:
        """Write what admission has to know. The engine process's."""
        numbers = self._numbers
        numbers[_LEAST_SERVICE] = feasibility.least_service_ns
        numbers[_EGRESS] = feasibility.egress_ns
        numbers[_EXECUTED] = feasibility.executed_ns

    def feasibility(self) -> Feasibility:
        """Return what the engine process has published. Read for every frame: the same object while nothing changes."""
        values = self._admission.tolist()
        seen, feasibility = self._seen
        if values != seen:
            feasibility = Feasibility(*values)
            self._seen = (values, feasibility)
        return feasibility

    def write_egress(
        self,
        front_end: int,
        mean_ns: int,
        upper_ns: int,
        interval_ns: int,
        reached_ns: int,
        reached_count: int,
        results_per_s: int,
    ) -> None:
        """Write how long delivery takes in one front-end process, whose numbers these are; see `Delivery`."""
        numbers, first = self._numbers, _FIRST_FRONT_END + _STRIDE * front_end
        numbers[first] = mean_ns
        numbers[first + 1] = upper_ns
        numbers[first + 2] = interval_ns
        numbers[first + 4] = reached_count
        numbers[first + 5] = results_per_s
        numbers[first + 3] = reached_ns

    def forget_egress(self, front_end: int) -> None:
        """Clear the numbers of a front-end process that has gone. The engine process's: no other writes them now."""
        self.write_egress(front_end, *Delivery())
        self.write_held(front_end, 0)

    def write_row(self, row_ns: int) -> None:
        """Write how long the lanes together take for a row in large batches. The engine process's."""
        self._numbers[_ROW] = row_ns

    def row_ns(self) -> int:
        """Return how long the lanes together take for a row."""
        return self._numbers[_ROW]

    def write_held(self, front_end: int, count: int) -> None:
        """Write how many places of one front-end process hold a request for this version in this engine process."""
        self._held[front_end] = count

    def held(self) -> int:
        """Return how many places of all front-end processes hold a request."""
        return sum(self._held.tolist())

    def egress_bytes(self) -> bytes:
        """Return all of `egress` as it stands there, to see whether it has changed."""
        return self._egress.tobytes()

    def egress(self) -> list[Delivery]:
        """Return what each front-end process has written."""
        numbers = self._egress.tolist()
        return [Delivery(*numbers[first : first + _NUMBERS]) for first in range(0, len(numbers), _STRIDE)]

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._admission.release()
        self._egress.release()
        self._held.release()
        self._numbers.release()
