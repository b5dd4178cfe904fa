"""Forecasts what egress will take for the batch that is formed next: the time at rest, and the results in front of it.

Theory of operation
    Egress is a queue whose server is the front end. The results that were handed to it and have not left are known
    exactly; batches in flight join it when they are done; it works off one result per interval. From these follows the
    wait of a batch that is done at a given time, before any late result shows it: a forecast from late results alone
    swings between too much and too little.

Owner: the former's thread. Not thread-safe.
"""

from bisect import insort
from collections import deque

from forebay_server.service.batching.constants import FORGOTTEN_NS
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.egress import NO_EGRESS, Egress
from forebay_server.service.batching.egress_time import EgressNumbers
from forebay_server.service.batching.lanes import LaneSet
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.request import Batch


class EgressForecast:
    """See the module's theory of operation.

    Args:
        time: the front end's measurements of egress.
    """

    def __init__(self, time: EgressNumbers) -> None:
        self._time = time
        self._handed: deque[tuple[int, int]] = deque()  # (readable_ns, results) of batches, oldest first

    def handed(self, batch: Batch) -> None:
        """Note that the results of a batch are on their way out."""
        if self._time.reached_ns and batch.requests:  # else no results are measured
            insort(self._handed, (batch.requests[0].timeline.readable_ns, len(batch.requests)))  # lanes overtake

    def waiting(self, now_ns: int) -> int:
        """Return how many results have been handed over and have not left."""
        handed = self._handed
        if not handed:
            return 0
        reached_ns, count = self._time.reached_ns, self._time.reached_count
        while handed and (handed[0][0] < reached_ns or handed[0][0] < now_ns - FORGOTTEN_NS):
            handed.popleft()
        if handed and handed[0][0] == reached_ns and handed[0][1] <= count:
            handed.popleft()
        results = 0
        for _, results_of_batch in handed:
            results += results_of_batch
        return results - count if handed and handed[0][0] == reached_ns else results

    def next_batch(self, now_ns: int, cost: CostModel, lanes: LaneSet, pending: PendingQueue) -> Egress:
        """Return the forecast for the batch that is formed next of the pending requests."""
        time = self._time
        if not time.reached_ns:
            return NO_EGRESS
        interval_ns, rows = time.interval_ns, pending.rows
        results_per_row = (len(pending.entries) - pending.blocked_entries) / rows if rows else 1.0
        waiting = self.waiting(now_ns)
        free_ns: float = now_ns + waiting * interval_ns
        done_ns: float = now_ns
        if interval_ns and (waiting or lanes.in_flight):
            for end_ns, results in lanes.ends(now_ns, cost):
                free_ns = max(free_ns, end_ns) + results * interval_ns
                done_ns = end_ns
            done_ns += cost.mean_ns(max(1, min(rows, cost.efficient_size)))
        alone_ns, margin_ns = time.mean_ns, time.upper_ns - time.mean_ns
        behind_ns = int(free_ns - done_ns)
        return Egress(  # by position: half of the time, twice for every frame that is alone in its batch
            alone_ns + behind_ns if behind_ns > 0 else alone_ns,
            int(free_ns),
            alone_ns,
            int(interval_ns * results_per_row),
            max(0, margin_ns),
            waiting == 0,
        )
