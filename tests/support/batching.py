"""Builders and strict fakes around the batch former."""

import itertools
import threading

from service.batching.cost_model import CostModel, CostTable
from service.batching.former import BatchFormer
from service.batching.settings import BatchingSettings
from service.request import Batch, Completion, Delivery, Request, StreamKey

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


def stream(name="camera", delivery=Delivery.EVERY, max_waiting=1):
    return StreamKey(name, delivery, max_waiting)


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


def cost_model(largest=32, alpha_ms=3.0, beta_ms=0.2, sizes=None, **options):
    """t(b) = alpha + beta*b, uploads 0.1 + 0.05*b ms, downloads 0.05 + 0.005*b ms."""
    sizes = range(1, largest + 1) if sizes is None else sizes
    table = CostTable.affine(
        tuple(sizes), int(alpha_ms * MS), int(beta_ms * MS), h2d_ns=(100_000, 50_000), d2h_ns=(50_000, 5_000)
    )
    return CostModel(sizes, table, **options)


class StrictLane:
    """Implements service.request.Lane and fails on any use that the protocol does not allow."""

    def __init__(self, index=0, slot_count=4):
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
        with self._changed:
            self.slots[batch.slot_index] = "BUSY"
            self.batches.append(batch)
            self._changed.notify_all()

    def wait_for_batches(self, count, timeout_s=10.0):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, timeout_s), "no batch came"
            return list(self.batches)

    def free(self, batch):
        """Let the slot of `batch` go, as d2h does before it tells the former."""
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

    def wait_for(self, count, timeout_s=10.0):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.completions) >= count, timeout_s), "no completion came"
            return self.completions


class FormerRig:
    """A real former thread on fake lanes, a manual clock and a fake sink; a context manager."""

    def __init__(self, clock, settings=None, cost=None, lanes=None, permits=64):
        self.clock = clock
        self.lanes = lanes or [StrictLane()]
        self.sink = Sink()
        self.errors = []
        self.cost = cost or cost_model()
        self.settings = settings or BatchingSettings(max_batch_size=self.cost.max_size)
        self.former = BatchFormer(
            "test", self.lanes, self.cost, self.settings, clock, self.sink, permits, self.errors.append
        )

    def __enter__(self):
        self.former.start()
        return self

    def __exit__(self, *exc):
        self.former.stop()
        assert self.former.join(10.0)
        if exc[0] is None:
            assert not self.errors

    def finish(self, batch, execute_ns=None, h2d_ns=0, d2h_ns=0):
        """Report a batch as executed and its slot as free."""
        execute_ns = self.cost.table.execute_ns[batch.executed_rows - 1] if execute_ns is None else execute_ns
        self.former.compute_ended(batch, self.clock.now_ns(), h2d_ns, execute_ns)
        self.lanes[batch.lane_index].free(batch)
        self.former.slot_freed(batch.lane_index, batch.slot_index, d2h_ns)
