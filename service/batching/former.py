"""The batch former: one thread per model version, which owns the pending queue and feeds the version's lanes.

Theory of operation
    Everything that concerns the former comes through one inbox, large enough by construction that sending never
    blocks: an arrival per permit, a cancellation per permit, two notices per slot and a drain. The thread sleeps on the
    inbox, until the instant that the last `FormerCore.step` asked for, takes everything that has come, and steps.
    Requests that ended without execution go to the sink in one post per wake-up.

    Where a batch takes less time than waking a thread (`QuickBatches`), the event loop takes the step itself:
    `service.pipeline.inline_runner` tells which thread does what, and why.

    An error in a step is our bug: everything pending ends with it, `on_fatal` is called, and the thread is gone.

Lifecycle: start, [drain], stop, join. `drain` refuses newcomers and returns when nothing is pending; `stop` ends what
is still pending as cancelled.
"""

import threading
from collections.abc import Callable, Sequence

from forebay_server.service.batching.constants import LONG_STEP_NS, SPARE_MESSAGES
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.egress_time import EgressNumbers, EgressTime
from forebay_server.service.batching.former_statistics import FormerStatistics, statistics_of
from forebay_server.service.batching.notices import Cancelled, ComputeEnded, Drain, Event, SlotFreed
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.batching.short_runs import ShortRuns
from forebay_server.service.channel import Channel, ChannelClosedError
from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError, RequestCancelledError, ServiceError
from forebay_server.service.lane import Lane
from forebay_server.service.request import Batch, Completion, CompletionSink, Feasibility, Request
from forebay_server.service.thread_name import name_this_thread

UNLOADING = "the model is being unloaded; send again"

StepWhenIdle = Callable[[Callable[[], None]], None]
"""Has the event loop call something, once, when it has read what there is to read. Thread: the event loop's."""


class BatchFormer:
    """Implements service.lane.LaneListener. See the module's theory of operation.

    Args:
        name: of the model version; names the thread.
        lanes: where batches go.
        cost: owned by the former from now on.
        settings: knobs.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        sink: where requests go that end without execution.
        permits: most requests that can be with the former at once.
        on_fatal: called once, with an error in a step.
        step_when_idle: has the event loop take a step; None leaves all steps to the thread.
        inline_ns: work below this runs inline: `InlineRunner.limit_ns`.
        on_feasibility: receives each new snapshot. Thread: the one that steps.
        egress: how long results take to leave, where `egress_time` does not learn it.

    Attributes:
        feasibility: snapshot for admission, swapped whole. Thread: any reads it.
        egress_time: the front end tells it how long results take to leave. Thread: the event loop's.
    """

    def __init__(
        self,
        name: str,
        lanes: Sequence[Lane],
        cost: CostModel,
        settings: BatchingSettings,
        clock: Clock,
        sink: CompletionSink,
        permits: int,
        on_fatal: Callable[[BaseException], None],
        step_when_idle: StepWhenIdle | None = None,
        inline_ns: int = 0,
        on_feasibility: Callable[[Feasibility], None] = lambda _: None,
        egress: EgressNumbers | None = None,
    ) -> None:
        self.name = name
        self._on_feasibility = on_feasibility
        self.feasibility = Feasibility()
        self.egress_time = EgressTime()
        egress_numbers = egress or self.egress_time
        self._core = FormerCore(lanes, cost, settings, self._publish, egress_time=egress_numbers, inline_ns=inline_ns)
        self._clock = clock
        self._sink = sink
        self._on_fatal = on_fatal
        slots = sum(lane.slot_count for lane in lanes)
        self._step_when_idle = step_when_idle
        self._loop_steps = ShortRuns(LONG_STEP_NS)
        self._step_lock = threading.Lock()  # to touch all below, and the core
        self._stepping_thread = 0  # that holds the lock, while it steps
        self._notices: list[Event] = []  # that a step gave itself: a batch that ran inline
        self._wake_ns: int | None = None
        self._is_over = False
        self._inbox: Channel[Event] = Channel(f"{name}.former", 2 * permits + 2 * slots + SPARE_MESSAGES, clock)
        self._drained = threading.Condition()
        self._is_drained = False
        self._thread = threading.Thread(target=self._run, name=f"{name}.former", daemon=True)

    # --- any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def arrive(self, request: Request) -> None:
        """Hand a request over. Once stopped, it ends as cancelled. Thread: any. Blocks: no."""
        try:
            self._inbox.send_now(request)
        except ChannelClosedError:
            self.refuse([request], RequestCancelledError(UNLOADING))

    def arrive_all(self, requests: Sequence[Request]) -> None:
        """Hand requests over, in order, with one wake-up for all. Thread: any. Blocks: no."""
        try:
            self._inbox.send_all_now(requests)
        except ChannelClosedError:
            self.refuse(requests, RequestCancelledError(UNLOADING))

    def refuse(self, requests: Sequence[Request], error: ServiceError) -> None:
        """End requests that do not arrive. Thread: any. Blocks: no."""
        for request in requests:
            request.frame.release()
            request.timeline.built_ns = self._clock.now_ns()
        self._sink.post([Completion(request, error) for request in requests])

    def arrive_on_loop(self, request: Request) -> None:
        """Hand a request over as `arrive` does. Thread: the event loop's. Blocks: no."""
        if self._step_when_idle is None or not self._may_step_on_loop(self._clock.now_ns()):
            self.arrive(request)
            return
        try:
            self._inbox.send_now(request, is_seen=False)
        except ChannelClosedError:
            self.arrive(request)
        else:
            self._step_when_idle(self._step_on_loop)

    def _may_step_on_loop(self, now_ns: int) -> bool:
        return self._core.quick_batches.is_quick(1, now_ns) and self._loop_steps.may_run(now_ns)

    def cancel(self, requests: Sequence[Request]) -> None:
        """Give up what is still pending of `requests`; each is named once. Thread: any. Blocks: no."""
        self._tell(Cancelled(requests))

    def compute_ended(self, batch: Batch, ended_ns: int, h2d_ns: int, execute_ns: int) -> None:
        """See LaneListener. Thread: d2h, or the former's. Blocks: no."""
        self._tell(ComputeEnded(batch, ended_ns, h2d_ns, execute_ns))

    def slot_freed(self, lane_index: int, slot_index: int, d2h_ns: int) -> None:
        """See LaneListener. Thread: d2h, or the former's. Blocks: no."""
        self._tell(SlotFreed(lane_index, slot_index, d2h_ns))

    def _tell(self, event: Event) -> None:
        if self._stepping_thread == threading.get_ident():
            self._notices.append(event)  # no other thread needs to know
            return
        try:
            self._inbox.send_now(event)
        except ChannelClosedError:
            return  # stopped: there is nothing left that this could change

    def drain(self, until_ns: int | None = None) -> bool:
        """Refuse newcomers and wait until nothing is pending. Thread: any but the former's.

        Blocks: until every pending request is in a batch or has ended, or until the instant `until_ns`.

        Returns:
            Whether nothing is pending any more.
        """
        self._tell(Drain())
        with self._drained:
            while not self._is_drained:
                if until_ns is not None and self._clock.now_ns() >= until_ns:
                    return False
                self._clock.wait(self._drained, until_ns)
            return True

    def stop(self) -> None:
        """End the thread; requests that are still pending end as cancelled. Idempotent. Blocks: no."""
        self._inbox.close()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end after `stop`; return whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def statistics(self) -> FormerStatistics:
        """Return a snapshot. Thread: any; numbers may be of neighbouring moments."""
        return statistics_of(self._core)

    # --- the thread that holds the step lock --------------------------------------------------------------------------

    def _publish(self, feasibility: Feasibility) -> None:
        self.feasibility = feasibility
        self._on_feasibility(feasibility)

    def _run(self) -> None:
        name_this_thread()
        try:
            self._serve()
        finally:
            self._set_drained()

    def _serve(self) -> None:
        while True:
            try:
                self._inbox.wait(self._wake_ns)
            except ChannelClosedError:
                break
            with self._step_lock:
                is_due = self._wake_ns is not None and self._clock.now_ns() >= self._wake_ns
                if self._is_over:  # a step failed, on the loop perhaps
                    return
                if is_due or not self._inbox.is_empty:
                    self._step_all()  # else the loop has taken what came, and wants another instant perhaps
        with self._step_lock:
            if not self._is_over:
                self._is_over = True
                self._core.abort(None, self._clock.now_ns())
                self._post()

    def _step_on_loop(self) -> None:
        """Take a step, or wake the thread for the remaining work. Thread: the event loop's. Blocks: for a step."""
        if not self._step_lock.acquire(blocking=False):
            self._inbox.wake()  # the thread is at it; it may be past the inbox
            return
        wake_ns, started_ns = self._wake_ns, self._clock.now_ns()
        try:
            if self._is_over:
                return
            self._step_all()
        finally:
            self._step_lock.release()
        ended_ns = self._clock.now_ns()
        self._loop_steps.observe(ended_ns - started_ns, ended_ns)
        if self._wake_ns is not None and (wake_ns is None or self._wake_ns < wake_ns):
            self._inbox.wake()

    def _step_all(self) -> None:
        """Work off what has come, with the step lock held. Blocks: while batches run inline."""
        self._stepping_thread = threading.get_ident()
        try:
            now_ns = self._clock.now_ns()
            while (wake_ns := self._step(now_ns)) is not None and wake_ns <= now_ns:
                now_ns = self._clock.now_ns()
            self._wake_ns = wake_ns
        except BaseException as error:  # noqa: BLE001 - the last line of defence: reported, never swallowed
            self._fail(error)
        finally:
            self._stepping_thread = 0

    def _step(self, now_ns: int) -> int | None:
        core = self._core
        notices, self._notices = self._notices, []
        events = self._inbox.take_all()
        for event in (*notices, *events):
            core.handle(event, now_ns)
        if notices and not events and core.is_at_rest:
            return None  # the last batch ran inline: the step that formed it left nothing to decide
        wake_ns = core.step(now_ns)
        if core.ended:
            self._sink.post(core.take_ended())
        if core.is_draining and not core.pending.entries:
            self._set_drained()
        return wake_ns

    def _post(self) -> None:
        if self._core.ended:
            self._sink.post(self._core.take_ended())

    def _fail(self, error: BaseException) -> None:
        self._is_over = True
        try:
            self._core.abort(InvariantError(f"the former of {self.name} failed: {error!r}"), self._clock.now_ns())
            self._post()
        finally:
            self._inbox.close()
            self._on_fatal(error)

    def _set_drained(self) -> None:
        with self._drained:
            self._is_drained = True
            self._drained.notify_all()
