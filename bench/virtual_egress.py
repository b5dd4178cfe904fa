"""Delivery in virtual time: results leave one after the other, each takes a while, and the front end tells of each."""

from collections import deque
from collections.abc import Callable

from forebay_server.bench.disturbance import DELIVERY, NONE, Disturbances
from forebay_server.service.batching.egress_time import EgressTime


class VirtualEgress:
    """A front end that does nothing but deliver.

    Args:
        result_ns: duration of one result, or a function that returns it; 0: results take no time and are not recorded.
        time: receives each result.
        disturbances: during the run.
    """

    def __init__(self, result_ns: int | Callable[[], int], time: EgressTime, disturbances: Disturbances = NONE) -> None:
        self._result_ns = result_ns
        self._time = time
        self._disturbances = disturbances
        self._free_ns = 0
        self._under_way: deque[tuple[int, int]] = deque()  # (readable_ns, left_ns), not yet recorded

    def deliver(self, readable_ns: int) -> int:
        """Return when a result leaves that is readable now."""
        result_ns = self._result_ns
        if result_ns == 0:
            return readable_ns
        took_ns = result_ns if isinstance(result_ns, int) else result_ns()
        begun_ns = max(self._free_ns, readable_ns)
        left_ns = self._free_ns = begun_ns + int(took_ns * self._disturbances.factor(DELIVERY, begun_ns))
        self._under_way.append((readable_ns, left_ns))
        return left_ns

    def tell(self, now_ns: int) -> None:
        """Tell of the results that have left by now."""
        while self._under_way and self._under_way[0][1] <= now_ns:
            self._time.observe(*self._under_way.popleft())
