"""The former's knowledge of its lanes: slots reserved, batches in flight, and when compute will be free.

A lane takes a batch when fewer than `depth` of its batches are between forming and the end of d2h and a slot is free.
The slot is reserved before anything is decided, so a decision to form can always be carried out.

Owner: the former's thread. Not thread-safe.
"""

from collections import deque
from collections.abc import Sequence

from forebay_server.service.batching.constants import (
    LATENESS_REFRESH,
    LATENESS_WINDOW,
    MAX_DEPTH,
    RETRY_BATCHES,
    RETRY_NS,
)
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.lane import Lane
from forebay_server.service.request import Batch, Request


class LaneState:
    """One lane as the policy sees it.

    Attributes:
        computing: batches that are bound and have not left compute, in order; replaced whole, for readers on other
            threads.
    """

    __slots__ = (
        "_by_slot", "computing", "in_flight", "lane", "last_compute_end_ns", "reserved_slot",
    )  # fmt: skip

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.in_flight = 0
        self.computing: tuple[Batch, ...] = ()
        self.last_compute_end_ns = 0
        self.reserved_slot: int | None = None
        self._by_slot: dict[int, Batch] = {}

    def reserve(self) -> bool:
        """Hold a slot for the next batch, if one is free."""
        if self.reserved_slot is None:
            self.reserved_slot = self.lane.try_reserve()
        return self.reserved_slot is not None

    def unreserve(self) -> None:
        """Give the held slot back."""
        if self.reserved_slot is not None:
            self.lane.unreserve(self.reserved_slot)
            self.reserved_slot = None

    def predicted_free_ns(self, now_ns: int, cost: CostModel) -> float:
        """Return when compute will have done what is in flight; in the past if nothing is."""
        return self.predicted_ends(now_ns, cost)[-1] if self.computing else self.last_compute_end_ns

    def predicted_ends(self, now_ns: int, cost: CostModel) -> list[float]:
        """Return when each batch in `computing` will have left compute; not before now."""
        ends: list[float] = []
        end_ns: float = self.last_compute_end_ns
        for batch in self.computing:
            size = batch.executed_rows
            end_ns = max(end_ns, batch.formed_ns + cost.h2d_ns(size)) + cost.mean_ns(size)
            ends.append(max(end_ns, now_ns))
        return ends

    def submit(self, batch: Batch) -> bool:
        """Send a batch in the reserved slot on its way; return whether it has come to its end already."""
        self._by_slot[batch.slot_index] = batch
        self.computing = (*self.computing, batch)
        self.in_flight += 1
        self.reserved_slot = None
        return self.lane.submit(batch)

    def compute_ended(self, batch: Batch, ended_ns: int) -> None:
        """Note that `batch` has left compute."""
        self.last_compute_end_ns = max(self.last_compute_end_ns, ended_ns)
        self._forget(batch)

    def withdraw(self, batch: Batch) -> bool:
        """Take a batch back unless it has started, and return whether that worked. Its slot is freed by the lane."""
        if not batch.claim.withdraw():
            return False
        self._forget(batch)
        return True

    def slot_freed(self, slot_index: int) -> Batch | None:
        """Note that a slot is free; return its batch. A batch that failed leaves compute here."""
        batch = self._by_slot.pop(slot_index, None)
        if batch is not None:
            self.in_flight -= 1
            self._forget(batch)
        return batch

    def _forget(self, batch: Batch) -> None:
        if batch in self.computing:
            others = list(self.computing)
            others.remove(batch)
            self.computing = tuple(others)

    def waiting_batches(self) -> list[Batch]:
        """Return the batches that are bound and have not started, in order."""
        return [batch for batch in self.computing if not batch.claim.is_started]

    def waiting(self) -> list[Request]:
        """Return the requests that are bound and not executed yet. Thread: any; a moment old for another thread.

        A batch behind another one waits, even if its upload has begun; the first batch waits until it starts.
        """
        return [
            request
            for position, batch in enumerate(self.computing)
            if position or not batch.claim.is_started
            for request in batch.requests
        ]


class BindingGuard:
    """How long before the last moment a batch is bound: the running p99 of how late its upload was taken up.

    Late timers, waits for the interpreter's lock, and the hand-over to the upload stage add up to it. Only batches that
    are bound late show it. When the guard has grown so large that no batch is bound late any more, late binding is
    tried anew for a few batches every RETRY_NS: the cause, perhaps the load of a model, may be over.

    Attributes:
        guard_ns: the p99, never below the least that was asked for.
        usual_ns: how late it usually is, never below that least either.
    """

    def __init__(self, least_ns: int) -> None:
        self._least_ns = least_ns
        self._lateness: deque[int] = deque(maxlen=LATENESS_WINDOW)
        self._until_refresh = LATENESS_REFRESH
        self._unobserved_since_ns: int | None = None
        self.guard_ns = least_ns
        self.usual_ns = least_ns

    def observe(self, late_ns: int) -> None:
        """Learn from one batch that was bound late: how long after the instant meant for it its upload started."""
        self._lateness.append(max(0, late_ns))
        self._unobserved_since_ns = None
        self._until_refresh -= 1
        if self._until_refresh == 0:
            self._until_refresh = LATENESS_REFRESH
            ranked = sorted(self._lateness)
            self.guard_ns = max(self._least_ns, ranked[int(0.99 * (len(ranked) - 1))])
            self.usual_ns = max(self._least_ns, ranked[len(ranked) // 2])

    def pass_over(self, now_ns: int) -> None:
        """Note that a batch behind another one was not bound late: it shows nothing."""
        if self._unobserved_since_ns is None:
            self._unobserved_since_ns = now_ns
        elif now_ns - self._unobserved_since_ns >= RETRY_NS:
            self._unobserved_since_ns = None
            self._lateness.clear()
            self._until_refresh = RETRY_BATCHES
            self.usual_ns = self._least_ns

    def within(self, largest_ns: float) -> int:
        """Return the guard, held to `largest_ns` but never below the least that was asked for."""
        return max(self._least_ns, int(min(self.guard_ns, largest_ns)))


class LaneSet:
    """All lanes of one former, and the guard."""

    def __init__(self, lanes: Sequence[Lane], guard_min_ns: int) -> None:
        self.states = [LaneState(lane) for lane in lanes]
        self.guard = BindingGuard(guard_min_ns)

    def reserve(self) -> None:
        """Hold a slot in every lane that may take another batch."""
        for state in self.states:
            if state.in_flight < MAX_DEPTH:
                state.reserve()

    @property
    def in_flight(self) -> int:
        """Batches between forming and the end of d2h, on all lanes."""
        count = 0
        for state in self.states:
            count += state.in_flight
        return count

    @property
    def has_waiting_batch(self) -> bool:
        """Whether a batch is bound that has not started."""
        for state in self.states:
            for batch in state.computing:
                if not batch.claim.is_started:
                    return True
        return False

    def waiting(self) -> list[Request]:
        """Return the requests that are bound and not executed yet, on all lanes. Thread: as `LaneState.waiting`."""
        return [request for state in self.states for request in state.waiting()]

    def ends(self, now_ns: int, cost: CostModel) -> list[tuple[float, int]]:
        """Return when each batch in compute is predicted to end and how many results it has, the earliest first."""
        return sorted(
            (end_ns, len(batch.requests))
            for state in self.states
            for batch, end_ns in zip(state.computing, state.predicted_ends(now_ns, cost), strict=True)
        )

    def earliest_free(self, depth: int, now_ns: int, cost: CostModel) -> tuple[LaneState | None, float]:
        """Return the open lane whose compute is predicted to be free first, and when; None if no lane is open."""
        best: LaneState | None = None
        best_ns = 0.0
        for state in self.states:
            if state.reserved_slot is None or state.in_flight >= depth:
                continue
            free_ns = state.predicted_free_ns(now_ns, cost)
            if best is None or free_ns < best_ns:
                best, best_ns = state, free_ns
        return best, best_ns
