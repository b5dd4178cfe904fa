"""Builders and strict fakes around the batch former."""

import itertools
import threading

from forebay_server.bench.affine_table import affine_table
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.batching.former import BatchFormer
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Batch, Completion, Delivery, Request, StreamKey
from tests.support.guard import HANG_GUARD_S

MS = 1_000_000
_IDS = itertools.count(1)


class Frame:
    """A frame lease that must be released once."""

    def __init__(self):
        self.releases = 0

    @property
    def host(self):
        raise AssertionError("the former never touches frames")

    @property
    def offsets(self):
        raise AssertionError("the former never touches frames")

    def release(self):
        self.releases += 1


def stream(name="camera", delivery=Delivery.EVERY):
    return StreamKey(name, delivery)


def client(name="client"):
    """A client whose calls are independent of each other."""
    return StreamKey(name, Delivery.EVERY, is_ordered=False)


def request(arrival_ns=0, budget_ms=33, *, on=None, rows=1, key="k", priority=1, timeout_ms=None, request_id=None):
    return Request(
        id=next(_IDS) if request_id is None else request_id,
        stream=stream() if on is None else on,
        size=rows,
        batch_key=key,
        deadline_ns=None if budget_ms is None else arrival_ns + int(budget_ms * MS),
        arrival_ns=arrival_ns,
        priority=priority,
        frame=Frame(),
        on_completion=lambda completion: None,
        queue_timeout_ns=None if timeout_ms is None else int(timeout_ms * MS),
    )


def cost_model(largest=32, alpha_ms=3.0, beta_ms=0.2, sizes=None):
    """t(b) = alpha + beta*b, uploads 0.1 + 0.05*b ms, downloads 0.05 + 0.005*b ms."""
    sizes = range(1, largest + 1) if sizes is None else sizes
    table = affine_table(
        tuple(sizes), int(alpha_ms * MS), int(beta_ms * MS), h2d_ns=(100_000, 50_000), d2h_ns=(50_000, 5_000)
    )
    return CostModel(sizes, table)


class StrictLane:
    """Implements service.lane.Lane and fails on any use that the protocol does not allow.

    Starts each batch when it gets it; with `is_late` when a test calls `start`.
    """

    def __init__(self, index=0, slot_count=4, is_late=False):
        self.is_late = is_late
        self.index = index
        self.slot_count = slot_count
        self.slots = ["FREE"] * slot_count
        self.batches = []
        self._changed = threading.Condition()

    def try_reserve(self):
        if "FREE" not in self.slots:
            return None
        slot = self.slots.index("FREE")
        self.slots[slot] = "RESERVED"
        return slot

    def unreserve(self, slot_index):
        assert self.slots[slot_index] == "RESERVED"
        self.slots[slot_index] = "FREE"

    def submit(self, batch: Batch):
        assert batch.lane_index == self.index
        assert self.slots[batch.slot_index] == "RESERVED"
        assert batch.requests
        assert sum(r.size for r in batch.requests) == batch.rows <= batch.executed_rows
        assert len({r.batch_key for r in batch.requests}) == 1
        if not self.is_late:
            self.start(batch)
        with self._changed:
            self.slots[batch.slot_index] = "BUSY"
            self.batches.append(batch)
            self._changed.notify_all()

    def start(self, batch):
        """Let the execution of `batch` start; whether the former still lets it."""
        return batch.claim.start()

    def wait_for_batches(self, count, timeout_s=HANG_GUARD_S):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, timeout_s), "no batch came"
            return list(self.batches)

    def free(self, batch):
        """Free the slot of `batch`, as d2h does before it notifies the former."""
        assert self.slots[batch.slot_index] == "BUSY"
        self.slots[batch.slot_index] = "FREE"


class Sink:
    """Implements service.request.CompletionSink and waits for completions."""

    def __init__(self):
        self.posts = []
        self._changed = threading.Condition()

    def post(self, completions):
        assert completions, "an empty post wakes the loop for nothing"
        with self._changed:
            self.posts.append(list(completions))
            self._changed.notify_all()

    @property
    def completions(self) -> list[Completion]:
        return [completion for post in self.posts for completion in post]

    def wait_for(self, count, timeout_s=HANG_GUARD_S):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.completions) >= count, timeout_s), "no completion came"
            return self.completions


class FormerRig:
    """A real former thread on fake lanes, a manual clock and a fake sink; a context manager."""

    def __init__(self, clock, settings=None, cost=None, lanes=None, permits=64, **options):
        self.clock = clock
        self.lanes = lanes or [StrictLane()]
        self.sink = Sink()
        self.errors = []
        self.cost = cost or cost_model()
        self.settings = settings or BatchingSettings(max_batch_size=self.cost.max_size)
        self.former = BatchFormer(
            "test", self.lanes, self.cost, self.settings, clock, self.sink, permits, self.errors.append, **options
        )

    def __enter__(self):
        self.former.start()
        return self

    def __exit__(self, *exc):
        self.former.stop()
        assert self.former.join(HANG_GUARD_S)
        if exc[0] is None:
            assert not self.errors

    def finish(self, batch, execute_ns=None, h2d_ns=0, d2h_ns=0):
        """Report a batch as executed and its slot as free."""
        execute_ns = self.cost.table.execute_ns[batch.executed_rows - 1] if execute_ns is None else execute_ns
        self.former.compute_ended(batch, self.clock.now_ns(), h2d_ns, execute_ns)
        self.lanes[batch.lane_index].free(batch)
        self.former.slot_freed(batch.lane_index, batch.slot_index, d2h_ns)


class CoreRig:
    """The former's core on strict fake lanes, stepped by hand: deterministic, no thread, no clock."""

    def __init__(self, settings=None, cost=None, lanes=None, now_ns=1_000_000_000, *, egress=None, **options):
        self.egress_time = EgressTime()
        self.now_ns = now_ns
        self.cost = cost or cost_model()
        self.settings = settings or BatchingSettings(self.cost.max_size)
        self.lanes = lanes or [StrictLane()]
        self.published = []
        self.core = FormerCore(
            self.lanes,
            self.cost,
            self.settings,
            self.published.append,
            egress_time=egress or self.egress_time,
            **options,
        )
        self.completions = []
        self.arrived = []
        self.wake_ns = None
        self.running = []
        self._seen = 0

    @property
    def batches(self):
        return sorted((batch for lane in self.lanes for batch in lane.batches), key=lambda batch: batch.id)

    def arrive(self, budget_ms=33, *, step=True, **options):
        one = request(self.now_ns, budget_ms, **options)
        self.arrived.append(one)
        self.core.arrive(one, self.now_ns)
        if step:
            self.step()
        return one

    def step(self):
        """Step at this time; return the batches formed."""
        before = len(self.batches)
        self.wake_ns = self.core.step(self.now_ns)
        self.completions += self.core.take_ended()
        assert self.wake_ns is None or self.wake_ns > self.now_ns, "a timer in the past is a busy loop"
        formed = self.batches[before:]
        self.running += formed
        return formed

    def advance_to(self, now_ns):
        """Move on to `now_ns`, serving every timer on the way; return the batches formed."""
        formed = []
        while self.wake_ns is not None and self.wake_ns <= now_ns:
            self.now_ns = self.wake_ns
            formed += self.step()
        self.now_ns = now_ns
        return formed + self.step()

    def advance(self, ms):
        return self.advance_to(self.now_ns + int(ms * MS))

    def deliver(self, mean_ms, upper_ms=None, interval_ms=0.0):
        """Let the front end have measured this from now on."""
        if not self.egress_time.reached_ns:
            self.egress_time.observe(1, 1)
        self.egress_time.mean_ns = int(mean_ms * MS)
        self.egress_time.interval_ns = int(interval_ms * MS)
        self.egress_time.upper_ns = int((mean_ms if upper_ms is None else upper_ms) * MS)

    def finish(self, batch=None, execute_ns=None):
        """Let the oldest running batch (or `batch`) end now; return the batches formed by it."""
        batch = batch or self.running[0]
        self.running.remove(batch)
        if not self.lanes[batch.lane_index].start(batch):  # it was taken back: its slot alone comes back
            self.lanes[batch.lane_index].free(batch)
            self.core.slot_freed(batch.lane_index, batch.slot_index, 0)
            return self.step()
        measured_ns = int(self.cost.execute_base[batch.executed_rows]) if execute_ns is None else execute_ns
        self.core.compute_ended(batch, self.now_ns, 0, measured_ns)
        self.lanes[batch.lane_index].free(batch)
        for one in batch.requests:
            one.timeline.readable_ns = self.now_ns
        self.core.slot_freed(batch.lane_index, batch.slot_index, self.cost._d2h_base[batch.executed_rows])
        return self.step()

    def ended(self):
        """Return the outcome of every request that ended without execution, by request."""
        return {completion.request: completion.error.outcome for completion in self.completions}

    def assert_quiet_after_all(self):
        """Let everything run to its end. Then all that arrived has ended once, and every slot is free."""
        for _ in range(100_000):
            if not self.running and not len(self.core.pending):
                break
            self.advance_to(max(self.now_ns + MS, self.wake_ns or 0))
            if self.running:
                self.finish()
        self.assert_quiet()

    def assert_quiet(self):
        """Every arrival has ended once; every slot is free; every frame of an ended request is released once."""
        executed = [r for batch in self.batches for r in batch.requests]
        shed = [completion.request for completion in self.completions]
        assert len({r.id for r in executed + shed}) == len(executed) + len(shed) == len(self.arrived)
        assert all(slot == "FREE" for lane in self.lanes for slot in lane.slots)
        assert all(r.frame.releases == 1 for r in shed)
        assert len(self.core.pending) == 0
