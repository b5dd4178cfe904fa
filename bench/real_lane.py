"""The simulated executor on a real clock: a thread that lets each batch's events happen when they are due.

`VirtualLane` computes the events; this only waits for them. So the former's thread, its inbox and its timers are
real, and the executor is exact but for the lag of one thread.
"""

import heapq
import threading
from collections.abc import Callable

from forebay_server.bench.batching_workloads import Executor
from forebay_server.bench.virtual_lane import LaneEvent, VirtualLane
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.clock import Clock
from forebay_server.service.lane import LaneListener
from forebay_server.service.request import Batch


class RealLane:
    """Implements service.lane.Lane. Thread: `submit` and the slots by the former; events by the lane's own thread.

    Args:
        executor: durations of the stages.
        clock: the real clock.
        seed: of the scatter.
        slowdown: factor on execution by instant.
        finished: called with each batch whose outputs are readable, and the time. Thread: the lane's.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        finished: Callable[[Batch, int], None],
        *,
        seed: int = 1,
        slowdown: Callable[[int], float] | None = None,
    ) -> None:
        self.listener: LaneListener | None = None
        self.egress_time: EgressTime | None = None  # receives results: they leave as soon as they are seen
        self.index = 0
        self._clock = clock
        self._finished = finished
        self._virtual = VirtualLane(0, executor.costs, clock.now_ns, seed=seed, slowdown=slowdown)
        self.slot_count = self._virtual.slot_count
        self._changed = threading.Condition()
        self._events: list[LaneEvent] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="real-lane", daemon=True)

    def start(self) -> None:
        """Start the lane's thread; `listener` is set by then."""
        self._thread.start()

    def try_reserve(self) -> int | None:
        """Take a free slot."""
        with self._changed:
            return self._virtual.try_reserve()

    def unreserve(self, slot_index: int) -> None:
        """Give a slot back."""
        with self._changed:
            self._virtual.unreserve(slot_index)

    def submit(self, batch: Batch) -> bool:
        """Let the batch run."""
        with self._changed:
            self._virtual.submit(batch)
            for event in self._virtual.events:
                heapq.heappush(self._events, event)
            self._virtual.events.clear()
            self._changed.notify_all()
        return False

    def close(self) -> None:
        """End the thread once every batch is done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            self._apply(event)

    def _next(self) -> LaneEvent | None:
        with self._changed:
            while True:
                if self._events:
                    if self._events[0].at_ns <= self._clock.now_ns():
                        return heapq.heappop(self._events)
                    self._clock.wait(self._changed, self._events[0].at_ns)
                elif self._is_closed:
                    return None
                else:
                    self._clock.wait(self._changed, None)

    def _apply(self, event: LaneEvent) -> None:
        batch, listener = event.batch, self.listener
        if listener is None:
            raise RuntimeError("the lane was started without a listener")
        now_ns = self._clock.now_ns()
        if not event.is_slot_freed:
            listener.compute_ended(batch, now_ns, event.h2d_ns, event.execute_ns)
            return
        self._finished(batch, now_ns)
        batch.requests[0].timeline.readable_ns = event.at_ns
        if self.egress_time is not None:
            for _ in batch.requests:
                self.egress_time.observe(event.at_ns, now_ns)
        self.unreserve(batch.slot_index)
        listener.slot_freed(batch.lane_index, batch.slot_index, event.d2h_ns)
