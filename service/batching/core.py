"""The former without its thread: events go in, batches and endings come out. Used by the thread and in virtual time.

One `step` does what the events so far allow: queue timeouts, decisions carried out one after the other while a lane is
open, and the instant at which it wants to be called again. Requests that end without execution collect in `ended` until
its owner posts it.

Owner: one thread at a time. Never blocks, never reads a clock: the instant is given.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from forebay_server.service.batching import policy, policy_window
from forebay_server.service.batching.constants import EGRESS_STEP_NS, EXECUTED_STEP_NS, FEASIBILITY_STEP, NEVER_NS
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import Decision, Form, Shed, WaitUntil
from forebay_server.service.batching.doubt import Doubt
from forebay_server.service.batching.egress import NO_EGRESS, Egress
from forebay_server.service.batching.egress_forecast import EgressForecast
from forebay_server.service.batching.egress_time import EgressNumbers, EgressTime
from forebay_server.service.batching.endings import Reason, error_of
from forebay_server.service.batching.lanes import LaneSet
from forebay_server.service.batching.notices import Cancelled, ComputeEnded, Drain, Event, SlotFreed
from forebay_server.service.batching.pending import PendingQueue
from forebay_server.service.batching.quick_batches import QuickBatches
from forebay_server.service.batching.settings import BatchingSettings, PolicyName
from forebay_server.service.batching.taking_back import next_loss_ns, take_back
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.lane import Lane
from forebay_server.service.request import Batch, Completion, Feasibility, Request

_BATCH_IDS = itertools.count(1)


class Decide(Protocol):
    """A policy: pure, see `service.batching.policy`."""

    def __call__(
        self,
        now_ns: int,
        pending: PendingQueue,
        lanes: LaneSet,
        cost: CostModel,
        settings: BatchingSettings,
        *,
        is_draining: bool = False,
        egress: Egress = NO_EGRESS,
        wants_probe: bool = False,
    ) -> Decision:
        """Return what to do now."""
        ...


def policy_of(settings: BatchingSettings) -> Decide:
    """Return the policy that the settings name."""
    return policy.decide if settings.policy is PolicyName.JIT_EDF else policy_window.decide_by_arrival


@dataclass(slots=True)
class FormerCounters:
    """Rising counts, for measurements of the former's own cost."""

    decisions: int = 0
    steps: int = 0


class FormerCore:
    """See the module's docstring.

    Args:
        lanes: where batches go.
        cost: predicts and learns; owned by this core from now on.
        settings: knobs.
        publish: called with each new feasibility snapshot.
        decide: the policy; None takes the one that the settings name.
        egress_time: the front end's measurements of egress; None for a core without a front end.
        inline_ns: work below this runs inline: `InlineRunner.limit_ns`.

    Attributes:
        quick_batches: which batches run inline.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        cost: CostModel,
        settings: BatchingSettings,
        publish: Callable[[Feasibility], None] = lambda _: None,
        decide: Decide | None = None,
        egress_time: EgressNumbers | None = None,
        inline_ns: int = 0,
    ) -> None:
        if cost.max_size < settings.max_batch_size:
            raise ValueError(
                f"max_batch_size is {settings.max_batch_size}, but the engine runs at most {cost.max_size} rows; "
                f"set max_batch_size to {cost.max_size} or less"
            )
        self.cost = cost
        self.settings = settings
        self.quick_batches = QuickBatches(cost, inline_ns)
        self.lanes = LaneSet(lanes, settings.guard_min_us * 1000)
        self.pending = PendingQueue(settings, cost.mean_ns(settings.max_batch_size), self.lanes.waiting)
        self.counters = FormerCounters()
        self.ended: list[Completion] = []
        self.is_draining = False
        self._decide = decide or policy_of(settings)
        self.egress = NO_EGRESS
        self._forecast = EgressForecast(egress_time or EgressTime())
        self._doubt = Doubt()
        self._due_ns: int | None = None
        self._publish = publish
        self._published = Feasibility(executed_ns=0)
        self._refresh_feasibility()

    # --- events -------------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now_ns: int) -> None:
        """Take in an event."""
        match event:
            case Request():
                self.arrive(event, now_ns)
            case ComputeEnded():
                self.compute_ended(event.batch, event.ended_ns, event.h2d_ns, event.execute_ns)
            case SlotFreed():
                self.slot_freed(event.lane_index, event.slot_index, event.d2h_ns)
            case Cancelled():
                self.cancel(event.requests, now_ns)
            case Drain():
                self.is_draining = True

    def arrive(self, request: Request, now_ns: int) -> None:
        """Take a request in. Draining, it is refused."""
        if self.is_draining:
            self._end(request, Reason.CANCELLED, now_ns)
            return
        self.cost.expect(is_file=request.picture is not None)
        for ended, reason in self.pending.push(request, now_ns):
            self._end(ended, reason, now_ns)

    def cancel(self, requests: Iterable[Request], now_ns: int) -> None:
        """End those of `requests` that are still pending. Batches in flight run on; their replies are dropped later."""
        for request in requests:
            if self.pending.discard(request.id) is not None:
                self._end(request, Reason.CANCELLED, now_ns)

    def compute_ended(self, batch: Batch, ended_ns: int, h2d_ns: int, execute_ns: int) -> None:
        """Note that a batch has left compute, and learn from how long it took."""
        self.lanes.states[batch.lane_index].compute_ended(batch, ended_ns)
        files = sum(request.picture is not None for request in batch.requests) / len(batch.requests)
        self.cost.observe(batch.executed_rows, h2d_ns, execute_ns, files)
        if batch.is_quick:
            self.quick_batches.observe(h2d_ns + execute_ns, ended_ns)
        if batch.bind_by_ns:
            self.lanes.guard.observe(max(batch.formed_ns, batch.upload_started_ns) - batch.bind_by_ns)
        elif not batch.is_alone:
            self.lanes.guard.pass_over(ended_ns)
        self._doubt.executed()
        self._refresh_feasibility(0 if self._doubt.is_probing else ended_ns)

    def slot_freed(self, lane_index: int, slot_index: int, d2h_ns: int) -> None:
        """Note that a slot is free again, and learn from how long the download took."""
        state = self.lanes.states[lane_index]
        batch = state.slot_freed(slot_index)
        if batch is not None and d2h_ns > 0:
            self.cost.observe_download(batch.executed_rows, d2h_ns)
            self._forecast.handed(batch)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is pending or in a lane, and admission counts no egress that is over now."""
        return not (self.pending.entries or self.lanes.in_flight or self._published.egress_ns or self.is_draining)

    # --- time ---------------------------------------------------------------------------------------------------------

    def step(self, now_ns: int) -> int | None:
        """Do what can be done at `now_ns`; return the instant of the next call if no event comes first."""
        self.counters.steps += 1
        self.egress = self._forecast.next_batch(now_ns, self.cost, self.lanes, self.pending)
        due_ns, self._due_ns = self._due_ns, None
        if not self.is_draining and self.lanes.has_waiting_batch:  # a drain counts a bound batch as gone
            for request, reason in take_back(now_ns, self.lanes, self.pending, self.cost.least_service_ns()):
                self._end(request, reason, now_ns)
        timeout_ns = self.pending.timeouts.next_ns
        if timeout_ns is not None and timeout_ns <= now_ns:
            for request, reason in self.pending.time_out(now_ns):
                self._end(request, reason, now_ns)
        wake_ns = self._decide_all(now_ns, due_ns)
        if self.egress.first_result_ns >= EGRESS_STEP_NS or self._published.egress_ns:
            self._refresh_feasibility()
        if not self.pending.entries:
            for state in self.lanes.states:
                state.unreserve()
        return self._next_wake_ns(now_ns, NEVER_NS if wake_ns is None else wake_ns)

    def _next_wake_ns(self, now_ns: int, wake_ns: int) -> int | None:
        """Return the earliest of `wake_ns`, the next queue timeout and the next loss in a lane."""
        timeout_ns = self.pending.timeouts.next_ns
        if timeout_ns is not None and timeout_ns < wake_ns:
            wake_ns = timeout_ns
        if not self.is_draining and self.lanes.has_waiting_batch:
            wake_ns = min(wake_ns, next_loss_ns(now_ns, self.lanes, self.pending, self.cost.least_service_ns()))
        return wake_ns if wake_ns < NEVER_NS else None

    def _decide_all(self, now_ns: int, due_ns: int | None) -> int | None:
        while self.pending.entries:
            self.lanes.reserve()
            self.counters.decisions += 1
            decision = self._decide(
                now_ns,
                self.pending,
                self.lanes,
                self.cost,
                self.settings,
                is_draining=self.is_draining,
                egress=self.egress,
                wants_probe=self._doubt.wants_probe(now_ns),
            )
            if isinstance(decision, Form):
                if self._carry_out(decision, now_ns, due_ns):
                    return now_ns  # its notices have come, and perhaps company for the next one
                due_ns = None
            elif isinstance(decision, Shed):
                self._doubt.gave_up(now_ns)
                self._shed(decision.ids, Reason.EXPIRED, now_ns)
            elif isinstance(decision, WaitUntil):
                if decision.is_binding:
                    self._due_ns = decision.instant_ns
                return decision.instant_ns
            else:
                return None
        return None

    def _carry_out(self, decision: Form, now_ns: int, due_ns: int | None) -> bool:
        """Form the batch and send it off; return whether it has come to its end already."""
        cancelled = [r for i in decision.ids if (r := self.pending.entries[i].request).is_cancelled]
        if cancelled:  # their places go to others: decide again
            self.cancel(cancelled, now_ns)
            return False
        self._shed(decision.shed_ids, Reason.EXPIRED, now_ns)
        state = self.lanes.states[decision.lane_index]
        slot_index = state.reserved_slot
        if slot_index is None:
            raise InvariantError(f"lane {decision.lane_index} was chosen without a reserved slot")
        requests = self.pending.take(decision.ids, now_ns)
        for request in requests:
            request.timeline.formed_ns = now_ns
        is_alone = not state.in_flight
        batch = Batch(
            id=next(_BATCH_IDS),
            lane_index=decision.lane_index,
            slot_index=slot_index,
            requests=requests,
            rows=decision.rows,
            executed_rows=decision.executed_rows,
            formed_ns=now_ns,
            bind_by_ns=due_ns if due_ns is not None and due_ns <= now_ns else 0,
            is_alone=is_alone,
            is_quick=is_alone and self.quick_batches.is_quick(decision.executed_rows, now_ns),
        )
        return state.submit(batch)

    # --- endings ------------------------------------------------------------------------------------------------------

    def abort(self, error: ServiceError | None, now_ns: int) -> None:
        """End everything pending, as cancelled or with `error`, and give reserved slots back."""
        for request in self.pending.clear():
            self._end(request, Reason.CANCELLED, now_ns, error)
        for state in self.lanes.states:
            state.unreserve()

    def take_ended(self) -> list[Completion]:
        """Return what ended without execution since the last call."""
        ended, self.ended = self.ended, []
        return ended

    def _shed(self, ids: Iterable[int], reason: Reason, now_ns: int) -> None:
        for request_id in ids:
            request = self.pending.discard(request_id)
            if request is not None:
                self._end(request, Reason.CANCELLED if request.is_cancelled else reason, now_ns)

    def _end(self, request: Request, reason: Reason, now_ns: int, error: ServiceError | None = None) -> None:
        request.frame.release()
        request.timeline.built_ns = now_ns
        if error is None:
            error = error_of(reason, request, self.settings, self.cost.least_service_ns(), self.egress.first_result_ns)
        self.ended.append(Completion(request, error))

    def _refresh_feasibility(self, executed_ns: int = 0) -> None:
        old, least_ns = self._published, int(self.cost.least_service_ns())
        if abs(least_ns - old.least_service_ns) <= FEASIBILITY_STEP * old.least_service_ns:
            least_ns = old.least_service_ns
        egress_ns = self.egress.first_result_ns // EGRESS_STEP_NS * EGRESS_STEP_NS if self.lanes.in_flight else 0
        if executed_ns < old.executed_ns + EXECUTED_STEP_NS:
            executed_ns = old.executed_ns
        if (least_ns, egress_ns, executed_ns) != (old.least_service_ns, old.egress_ns, old.executed_ns):
            self._published = Feasibility(least_ns, egress_ns, executed_ns)
            self._publish(self._published)
