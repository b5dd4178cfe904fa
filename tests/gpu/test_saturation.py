"""The pipeline at saturation: the compute stream hardly idles, and serving costs little over the engine alone.

Budgets: compute stream idle at most 5 %, at least 0.95 of the throughput of the engine alone.
"""

import sys
import threading

import pytest

from forebay_server.engines.clock import MonotonicClock
from tests.gpu.workload import PICTURE, open_workload, pictures
from tests.support.rig import BoundSlot, rig_of

pytest.importorskip("structlog", reason="structlog, which forebay_server.service.pipeline needs, is not installed")

from forebay_server.engines import open_device
from forebay_server.service.pipeline.builder import LaneContext, build_lane
from forebay_server.service.request import Batch, Delivery, Request, StreamKey

CLOCK = MonotonicClock()
BATCHES = 600
WARM = 100
LEAST_BATCH_MS = 0.8
"""Shorter batches are bound by the host: one process forms, copies and delivers about 2000 batches of 8 a second, which
is three times the frames that one process reads from its streams."""


class Frame:
    """A frame buffer that is never given back."""

    offsets = (0,)

    def __init__(self, host):
        self.host = host

    def release(self):
        pass


class Listener:
    """Counts the lane's notices and wakes the feeder."""

    def __init__(self):
        self.ended = []
        self.free = threading.Semaphore(0)

    def compute_ended(self, batch, ended_ns, h2d_ns, execute_ns):
        self.ended.append((ended_ns, h2d_ns, execute_ns))

    def slot_freed(self, lane_index, slot_index, d2h_ns):
        self.free.release()


def alone_rows_per_s(rig, folder, width, rows):
    engine = open_workload(rig, folder, max_batch_size=rows, width=width)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((rows,), slot.compute)
    for _ in range(WARM):
        engine.enqueue(0, rows, slot.compute)
    slot.compute.sync()
    started_ns = CLOCK.now_ns()
    for _ in range(BATCHES):
        engine.enqueue(0, rows, slot.compute)
    slot.compute.sync()
    return BATCHES * rows * 1e9 / (CLOCK.now_ns() - started_ns)


def feed(pipeline, listener, hosts, count):
    rows = len(hosts)
    stream = StreamKey("camera", Delivery.EVERY)
    requests = [
        Request(index, stream, 1, "key", None, 0, 1, Frame(host), lambda _: None) for index, host in enumerate(hosts)
    ]
    for number in range(count):
        while (slot_index := pipeline.try_reserve()) is None:
            listener.free.acquire(timeout=10)
        pipeline.submit(Batch(number, 0, slot_index, requests, rows, rows, CLOCK.now_ns()))


def served(rig, folder, width, rows):
    """Return rows per second, idle share of the compute stream, errors, and milliseconds of a batch."""
    engine = open_workload(rig, folder, max_batch_size=rows, width=width)
    errors, listener = [], Listener()

    def finish(completions):
        errors.extend(c.error for c in completions if c.error is not None)

    pipeline = build_lane(0, "lane", rig.device, engine, LaneContext(CLOCK, "1", finish, errors.append))
    try:
        pipeline.warm_up((rows,))
        hosts = [rig.host(PICTURE[0] * PICTURE[1] * PICTURE[2]) for _ in range(rows)]
        for host, picture in zip(hosts, pictures(rows), strict=True):
            host.write_view()[:] = picture.reshape(-1)
        pipeline.start(listener)
        feed(pipeline, listener, hosts, BATCHES + WARM)
    finally:
        assert pipeline.close(timeout_s=30)
    steady = listener.ended[WARM:]
    span_ns = steady[-1][0] - listener.ended[WARM - 1][0]
    busy_ns = sum(execute_ns for _, _, execute_ns in steady)
    return len(steady) * rows * 1e9 / span_ns, 1 - busy_ns / span_ns, errors, busy_ns / len(steady) / 1e6


@pytest.fixture(autouse=True)
def switch_interval():
    """As `forebay serve` sets it: at Python's 5 ms, a stage that comes back from a call waits for the others."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("width", "rows"), [(64, 8), (128, 8), (64, 16), (64, 32)])
def test_the_compute_stream_is_kept_busy_and_serving_costs_little(tmp_path, measured, width, rows):
    def of(measure):
        with rig_of(open_device("cuda", clock=CLOCK)) as rig:
            return measure(rig, tmp_path, width, rows)

    alone = of(alone_rows_per_s)
    rows_per_s, idle, errors, execute_ms = of(served)
    measured(
        f"alone {alone:.0f}/s, served {rows_per_s:.0f}/s ({rows_per_s / alone:.3f}), idle {idle:.1%}, "
        f"{execute_ms:.2f} ms a batch of {rows}"
    )
    assert errors == []
    if execute_ms >= LEAST_BATCH_MS:
        assert idle <= 0.05
        assert rows_per_s >= 0.95 * alone
