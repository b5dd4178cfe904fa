"""A three-stream pipeline on the simulated device: accepted unchanged, rejected with any one ordering edge removed.

Written out by hand and in one thread, so that every edge is one line below. The service's own pipeline has the same
tests in tests/pipeline.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from forebay_server.engines.device_simulated import CopyCosts, SimulatedDevice
from forebay_server.engines.errors import RaceError
from forebay_server.service.channel import Channel, ChannelClosedError
from forebay_server.service.clock import MonotonicClock
from tests.support.virtual_clock import VirtualClock

ROW_BYTES = 64
ROWS = 2
BATCHES = 10
COSTS = {
    "free": CopyCosts(),
    "slow": CopyCosts(copy_latency_ns=50_000, h2d_bytes_per_s=1e6, d2h_bytes_per_s=1e6),
}
EDGES = (
    "uploaded -> execute",
    "executed -> d2h",
    "downloaded -> host read",
    "downloaded -> slot re-use",
    "uploaded -> frame buffer re-use",
)


@dataclass
class Slot:
    device_in: object
    device_out: object
    host_out: object
    uploaded: object
    executed: object
    downloaded: object
    batch: int = -1


class HandPipeline:
    """Copies ROWS frames a batch, inverts them, copies them back. `frames` host buffers are filled in turn."""

    def __init__(self, slots, *, removed=None, cost=None, frames=1, instances=1, execute_ns=1000, clock=None):
        self.clock = clock or VirtualClock()
        self.device = SimulatedDevice(clock=self.clock, cost=cost)
        self.removed = removed
        self.execute_ns = execute_ns
        self.slots = [self._slot() for _ in range(slots)]
        self.frames = deque((self.device.alloc_host(ROW_BYTES), None) for _ in range(frames))
        self.h2d, self.d2h = self.device.create_stream("h2d"), self.device.create_stream("d2h")
        self.compute = [self.device.create_stream(f"compute {number}") for number in range(instances)]
        self.results = []

    def _slot(self):
        nbytes, device = ROWS * ROW_BYTES, self.device
        buffers = (device.alloc_device(nbytes), device.alloc_device(nbytes), device.alloc_host(nbytes))
        return Slot(*buffers, *(device.create_event() for _ in range(3)))

    def keeps(self, edge):
        return edge != self.removed

    def upload(self, slot, batch):
        slot.batch = batch
        for row in range(ROWS):
            frame, uploaded = self.frames.popleft()
            if uploaded is not None and self.keeps("uploaded -> frame buffer re-use"):
                uploaded.sync()
            frame.write_view()[:] = batch * ROWS + row
            self.h2d.copy_h2d(slot.device_in, frame, ROW_BYTES, dst_offset=row * ROW_BYTES)
            uploaded = uploaded or self.device.create_event()
            self.h2d.record(uploaded)
            self.frames.append((frame, uploaded))
        self.h2d.record(slot.uploaded)

    def execute(self, slot):
        compute = self.compute[slot.batch % len(self.compute)]
        if self.keeps("uploaded -> execute"):
            compute.wait(slot.uploaded)
        compute.execute(
            reads=[slot.device_in],
            writes=[slot.device_out],
            cost_ns=self.execute_ns,
            run=lambda: np.invert(slot.device_in.memory, out=slot.device_out.memory),
            exclusive="activations",
        )
        compute.record(slot.executed)

    def download(self, slot):
        if self.keeps("executed -> d2h"):
            self.d2h.wait(slot.executed)
        self.d2h.copy_d2h(slot.host_out, slot.device_out, ROWS * ROW_BYTES)
        self.d2h.record(slot.downloaded)

    def deliver(self, slot):
        if self.keeps("downloaded -> host read"):
            slot.downloaded.sync()
        self.results.append(slot.host_out.read_view().reshape(ROWS, ROW_BYTES)[:, 0].copy())

    def run(self, batches=BATCHES):
        """All stages in one thread; a slot is delivered just before it is needed again."""
        for batch in range(batches):
            slot = self.slots[batch % len(self.slots)]
            if slot.batch >= 0 and self.keeps("downloaded -> slot re-use"):
                self.deliver(slot)
            self.upload(slot, batch)
            self.execute(slot)
            self.download(slot)
        for batch in range(max(0, batches - len(self.slots)), batches):
            self.deliver(self.slots[batch % len(self.slots)])

    def check_results(self, batches=BATCHES):
        rows = np.arange(batches * ROWS, dtype=np.uint8).reshape(batches, ROWS)
        np.testing.assert_array_equal(np.array(self.results), ~rows)
        assert self.device.races == ()


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_pipeline_with_all_its_edges_is_accepted(slots, cost):
    pipeline = HandPipeline(slots, cost=cost)
    pipeline.run()
    pipeline.check_results()


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("edge", EDGES)
def test_the_pipeline_without_an_edge_is_rejected(edge, slots, cost):
    pipeline = HandPipeline(slots, removed=edge, cost=cost)
    with pytest.raises(RaceError):
        pipeline.run()


@pytest.mark.parametrize("slots", [2, 3])
def test_two_compute_streams_sharing_activation_memory_are_rejected(slots):
    pipeline = HandPipeline(slots, instances=2)
    with pytest.raises(RaceError, match="activations"):
        pipeline.run()


def test_two_compute_streams_in_turn_are_accepted():
    pipeline = HandPipeline(1, instances=2)
    pipeline.run()
    pipeline.check_results()


def test_three_slots_hide_the_copies_behind_compute_and_one_slot_does_not():
    cost = CopyCosts(copy_latency_ns=300)
    finished_ns = {}
    for slots in (1, 3):
        pipeline = HandPipeline(slots, cost=cost, frames=2 * ROWS * BATCHES, execute_ns=1000)
        started_ns = pipeline.clock.now_ns()
        pipeline.run()
        finished_ns[slots] = pipeline.clock.now_ns() - started_ns
    upload_ns, download_ns = ROWS * 300, 300
    assert finished_ns[1] == BATCHES * (upload_ns + 1000 + download_ns)
    assert finished_ns[3] == upload_ns + BATCHES * 1000 + download_ns


class Stages:
    """The same pipeline with a thread for each stage, handing slots over through channels."""

    def __init__(self, pipeline, batches):
        self.pipeline = pipeline
        self.batches = batches
        clock = MonotonicClock()
        self.free, self.to_execute, self.to_d2h = (Channel(name, 4, clock) for name in ("free", "execute", "d2h"))
        for slot in pipeline.slots:
            self.free.send_now(slot)

    def h2d(self):
        for batch, slot in zip(range(self.batches), received(self.free), strict=False):
            self.pipeline.upload(slot, batch)
            self.to_execute.send_now(slot)
        self.to_execute.close()

    def execute(self):
        for slot in received(self.to_execute):
            self.pipeline.execute(slot)
            self.to_d2h.send_now(slot)
        self.to_d2h.close()

    def d2h(self):
        try:
            for slot in received(self.to_d2h):
                self.pipeline.download(slot)
                self.pipeline.deliver(slot)
                self.free.send_now(slot)
        finally:
            self.free.close()

    def run(self):
        """Run all stages to their end; return the exception of each."""
        with ThreadPoolExecutor(3, initializer=self.pipeline.device.attach_thread) as pool:
            outcomes = [pool.submit(stage) for stage in (self.h2d, self.execute, self.d2h)]
        return [outcome.exception() for outcome in outcomes]


def received(channel):
    try:
        while True:
            yield channel.receive()
    except ChannelClosedError:
        return


def test_stages_in_threads_of_their_own_are_accepted():
    pipeline = HandPipeline(3, clock=MonotonicClock(), execute_ns=0)
    assert Stages(pipeline, batches=50).run() == [None, None, None]
    pipeline.check_results(50)


def test_stages_in_threads_of_their_own_are_rejected_without_an_edge():
    pipeline = HandPipeline(3, clock=MonotonicClock(), execute_ns=0, removed="executed -> d2h")
    *others, last = Stages(pipeline, batches=50).run()
    assert others == [None, None]
    assert isinstance(last, RaceError)
    assert len(pipeline.device.races) == 1
